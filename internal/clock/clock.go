// Package clock tells a process the time, and lets a drill set the clock of one.
//
// Two things happen to the clock of a machine, and they are not alike. In a drill
// the days in which nothing happens are skipped: for everybody who takes part they
// have passed, on every clock (a jump). And a wall clock can be wrong, while the
// time since the machine started goes on as ever (a skew). A clock that is opened
// on a file adds both, read anew each time, so that a drill can set it while the
// process runs. Durations of work, heartbeats and leases are measured with neither:
// they ask the kernel.
package clock

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"trysail/internal/machine"
)

// Set is what a file says of a clock. Both are nanoseconds.
type Set struct {
	Jump time.Duration `json:"jump"` // idle time that was skipped
	Skew time.Duration `json:"skew"` // how wrong the wall clock is
}

// Clock tells the time. The zero value is the machine's own. It is safe for
// concurrent use.
type Clock struct {
	file string

	mu   sync.Mutex
	last Set
}

// Marker is the file in a state directory without which a clock cannot be set
// there: only a drill's own machines have one.
const Marker = "drill"

// Open gives the clock of a machine of a drill, whose state directory it is given.
func Open(file, state string) (*Clock, error) {
	if _, err := os.Stat(filepath.Join(state, Marker)); err != nil {
		return nil, &RealError{state}
	}
	c := &Clock{file: file}
	var err error
	c.last, err = read(file)
	return c, err
}

// RealError refuses to set the clock of a machine that takes part in no drill.
type RealError struct{ State string }

func (e *RealError) Error() string {
	return fmt.Sprintf("%s belongs to no drill: its clock is not to be set", e.State)
}

// Hint says what to do.
func (e *RealError) Hint() string { return "start it without --drill-clock" }

func read(file string) (s Set, err error) {
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		return Set{}, fmt.Errorf("the drill's clock: %w", err)
	}
	return s, nil
}

// Write sets the clock of whoever opened the file.
func Write(file string, s Set) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return renameio.WriteFile(file, data, 0o600)
}

// set is what holds now. A file that is gone (its disk was destroyed) sets nothing
// anew.
func (c *Clock) set() Set {
	if c == nil || c.file == "" {
		return Set{}
	}
	s, err := read(c.file)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.last = s
	}
	return c.last
}

// Now is the wall clock.
func (c *Clock) Now() time.Time {
	s := c.set()
	return time.Now().Add(s.Jump + s.Skew)
}

// Boot is the time since the machine started, which no skew changes.
func (c *Clock) Boot() time.Duration { return machine.BootTime() + c.set().Jump }
