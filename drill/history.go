package drill

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"trysail/internal/strict"
	"trysail/release"
)

// Record is one line of a drill's history: something that was seen or done. At is
// real time since the drill began, on a clock that only goes forward; Clock is the
// drill's own.
type Record struct {
	Seq   int64         `json:"seq"`
	At    time.Duration `json:"at"` // nanoseconds
	Clock time.Time     `json:"clock"`
	Kind  Kind          `json:"kind"`
	// Name is the action, question, invariant or person; Host where.
	Name string `json:"name,omitempty"`
	Host string `json:"host,omitempty"`
	// OK is the answer, where there is one: yes, no, or none that could be had (nil).
	OK     *bool          `json:"ok,omitempty"`
	Why    string         `json:"why,omitempty"`
	Took   time.Duration  `json:"took,omitempty"`  // nanoseconds
	Slack  *time.Duration `json:"slack,omitempty"` // of the release, then; nanoseconds
	Spent  time.Duration  `json:"spent,omitempty"` // of a person, modelled unless Live; nanoseconds
	Live   bool           `json:"live,omitempty"`
	Event  *release.Event `json:"event,omitempty"`
	Ack    *release.Ack   `json:"ack,omitempty"`
	Header *Header        `json:"header,omitempty"`
	Left   []string       `json:"left,omitempty"` // what a clean-up did not remove
	// Before: the probe was asked before the fault was injected, and must say no: one
	// that always says yes shows nothing.
	Before bool            `json:"before,omitempty"`
	Ledger []release.Event `json:"ledger,omitempty"` // of the release, read again in the end
	Extra  json.RawMessage `json:"extra,omitempty"`
}

// Header begins a history: what was run, by what, on what.
type Header struct {
	Run      string    `json:"run"` // the run's name
	Tool     string    `json:"tool"`
	Scenario string    `json:"scenario"` // digest of the file
	Seed     uint64    `json:"seed"`
	Began    time.Time `json:"began"` // by the host's clock
	Machine  string    `json:"machine"`
	Hosts    int       `json:"hosts,omitempty"`  // real ones, over SSH; 0: a lab on one
	Source   string    `json:"source"`           // revision that is released
	Broken   []string  `json:"broken,omitempty"` // defects planted on purpose
}

// where says on what a drill ran.
func (h Header) where() string {
	if h.Hosts > 0 {
		return fmt.Sprintf("%d hosts", h.Hosts)
	}
	return "one host"
}

// Kind of a record.
type Kind string

// The kinds, in the order in which a drill has them.
const (
	Began    Kind = "began"    // header
	Made     Kind = "made"     // a host stands
	Asked    Kind = "asked"    // a steady question: before
	Jumped   Kind = "jumped"   // idle time was skipped: Took
	Intended Kind = "intended" // a fault is about to be injected; its undo is on disk
	Injected Kind = "injected" // or not: OK, Why
	Probed   Kind = "probed"   // whether it took effect, by other means than those of the injector
	Done     Kind = "done"     // an action that is no fault
	Happened Kind = "happened" // an event of the release's ledger
	Told     Kind = "told"     // an event was acknowledged to somebody
	Decided  Kind = "person"   // a person was asked, or answered
	Sighted  Kind = "sighted"  // a machine's condition changed, as control sees it: Why
	Warmed   Kind = "warmed"   // a machine has the rebuilt server: Took
	Undone   Kind = "undone"   // a fault
	Stuck    Kind = "stuck"    // nothing moves the release on any more: Why
	Reread   Kind = "ledger"   // the whole ledger, read again from its beginning
	Guarded  Kind = "guarded"  // a guard stopped the drill
	Asked2   Kind = "asked-after"
	Cleaned  Kind = "cleaned" // and what is left
	Stopped  Kind = "stopped" // the drill was stopped before its end: Why
	Ended    Kind = "ended"
)

// TornError says where a history cannot be read.
type TornError struct {
	Line int64
	What string
}

func (e *TornError) Error() string { return fmt.Sprintf("history, line %d: %s", e.Line, e.What) }

// Hint says what to do.
func (e *TornError) Hint() string {
	return "a drill that was killed ends in a torn line at most; anything else was changed: run the drill again"
}

// ReadHistory reads the lines of a history. A last line without an end is what a
// kill leaves behind, and is left out.
func ReadHistory(data []byte) ([]Record, error) {
	var list []Record
	for {
		line, rest, whole := bytes.Cut(data, []byte("\n"))
		if !whole {
			break
		}
		var r Record
		n := int64(len(list)) + 1
		if err := strict.PartOfJSON(line, len(line), &r); err != nil {
			return nil, &TornError{n, err.Error()}
		}
		if r.Seq != n {
			return nil, &TornError{n, fmt.Sprintf("it bears the number %d", r.Seq)}
		}
		list, data = append(list, r), rest
	}
	if len(list) == 0 || list[0].Header == nil {
		return nil, &TornError{1, "it does not say which drill it is of"}
	}
	return list, nil
}
