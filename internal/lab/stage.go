package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"trysail/drill"
)

// Stage is where a drill is played: a lab on this host ([Lab.Stage]), or real hosts
// (package site). The drill itself does not know which.
type Stage interface {
	// Machine makes one, which is off.
	Machine(spec HostSpec) (Machine, error)
	// Service makes one that the release needs besides, and starts it.
	Service(ctx context.Context, of drill.Service, from string) (Machine, error)
	// Get gives a machine by name; nil if there is none.
	Get(name string) Machine
	// Now is the time on clocks that are right; Jump lets time pass on all of them.
	Now() time.Time
	Jump(d time.Duration) error
	// Dial connects from where a person sits, and Command is trysail there.
	Dial(ctx context.Context, d *net.Dialer, address string) (net.Conn, error)
	Command(ctx context.Context, args ...string) (*exec.Cmd, error)
	// Clone gives the repository of a git host.
	Clone(ctx context.Context, host, dir string) error
	// Recover lays the ledger that one machine has a copy of before another, which is
	// off afterwards, and says where it is there.
	Recover(control, from string) (file string, err error)
	// Scratch is a directory for the drill's own, which goes with the stage.
	Scratch() string
	// Close turns everything off and takes it away. What is left on this host of what
	// [Look] gives is listed by Own, and what is left elsewhere by Left.
	Close() error
	Own(list []string) []string
	Left() []string
}

// Machine is one of a stage.
type Machine interface {
	// Start turns it on: its main process is trysail with these arguments. Again says
	// how it is started the next time.
	Start(args ...string) error
	Again(args ...string) error
	// Address is the machine's, with a port.
	Address(port int) string
	// Give lays a file that only root reads before it, and says where it is there;
	// Read gives one of its state directory.
	Give(name string, data []byte) (string, error)
	Read(name string) ([]byte, error)
	// Prepare makes a fault ready. Skew sets its clock wrong.
	Prepare(kind drill.Fault, of string) (*Fault, error)
	Skew(by time.Duration) error
	// Keep keeps a copy of a directory of its state, for the fault that puts it back.
	Keep(dir string) error
	// Verify reads its whole depot; Answers asks a service for something.
	Verify(ctx context.Context) error
	Answers(ctx context.Context) error
	// Tail is the end of its log.
	Tail(bytes int64) string
}

// local is a lab as a stage.
type local struct {
	*Lab
	desk *Host
}

// Stage gives the lab as the place of a drill: people sit at a desk in its network.
func (l *Lab) Stage() (Stage, error) {
	desk, err := l.Host(HostSpec{Name: "desk"})
	if err != nil {
		return nil, err
	}
	return &local{l, desk}, nil
}

func (s *local) Machine(spec HostSpec) (Machine, error) { return machineOr(s.Host(spec)) }

func (s *local) Service(ctx context.Context, of drill.Service, from string) (Machine, error) {
	return machineOr(s.Lab.Service(ctx, of, from))
}

// machineOr keeps a host that is nil from being a machine that is not.
func machineOr(h *Host, err error) (Machine, error) {
	if h == nil {
		return nil, err
	}
	return h, err
}

func (s *local) Get(name string) Machine {
	if h := s.Lab.Get(name); h != nil {
		return h
	}
	return nil
}

func (s *local) Dial(ctx context.Context, d *net.Dialer, address string) (net.Conn, error) {
	return s.Lab.Dial(ctx, d, s.desk, address)
}

func (s *local) Command(ctx context.Context, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + s.desk.Network(), self, "--state", s.desk.State(), "--drill-clock", s.desk.ClockFile()}, args...)...), nil
}

func (s *local) Clone(ctx context.Context, host, dir string) error {
	h := s.Lab.Get(host)
	if h == nil {
		return fmt.Errorf("there is no machine %s", host)
	}
	return h.Clone(ctx, dir)
}

func (s *local) Recover(control, from string) (string, error) {
	c, f := s.Lab.Get(control), s.Lab.Get(from)
	if c == nil || f == nil {
		return "", fmt.Errorf("there is no machine %s, or no %s", control, from)
	}
	ledger, err := f.Ledger()
	if err != nil {
		return "", err
	}
	return c.Begins(ledger)
}

func (s *local) Scratch() string { return s.Dir }

func (s *local) Left() []string { return nil }

// Read gives a file of the machine's state directory.
func (h *Host) Read(name string) ([]byte, error) {
	if !filepath.IsLocal(name) {
		return nil, fmt.Errorf("%q is no file of the state directory", name)
	}
	return os.ReadFile(filepath.Join(h.State(), name))
}

// Ledger is the copy of it that an agent has on the machine's disk.
func (h *Host) Ledger() ([]File, error) {
	return ReadFiles(filepath.Join(h.State(), "agent", "ledger"))
}

// Begins turns a machine off that is control, and lays a ledger before it instead of
// its own; it says where that is there.
func (h *Host) Begins(ledger []File) (string, error) {
	if err := h.PowerOff(); err != nil {
		return "", err
	}
	const name = "recovered"
	dir := filepath.Join(h.State(), name)
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if err := WriteFiles(dir, ledger); err != nil {
		return "", err
	}
	return "/var/lib/trysail/" + name, os.RemoveAll(filepath.Join(h.State(), "control", "etcd"))
}

// Verify reads every original in the machine's depot again. One that is gone has no
// damage, and is not whole.
func (h *Host) Verify(ctx context.Context) error {
	if err := h.mounted(); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(h.State(), "depot", "oci-layout")); err != nil {
		return fmt.Errorf("%s has no depot: %w", h.Name, err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "--state", h.State(), "--depot", filepath.Join(h.State(), "depot"), "depot", "verify")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// ours gives those of a list that Look made that bear one of these names.
func ours(list, ids []string) []string {
	var own []string
	for _, s := range list {
		if slices.ContainsFunc(ids, func(id string) bool { return strings.Contains(s, id) }) {
			own = append(own, s)
		}
	}
	return own
}
