package evidence

import (
	"encoding/json"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// Replica is what a machine has on its disk of a stream that control keeps.
//
// Control signs a checkpoint of all that a machine is to have, and the machine syncs that
// before it writes the events. So there is a proof of each event on the disk, and what has
// no proof is not what control gave: somebody or something else wrote it, or took away.
type Replica struct {
	Events int64     // whole lines
	Root   tlog.Hash // over them
	Damage string    // what shows that they are not what control gave; "": nothing does
	// Signed is the last checkpoint that control signed for this disk; nil: there is none,
	// and an older Trysail wrote the lines.
	Signed *Checkpoint
}

// ReadReplica looks at the lines of a disk.
func ReadReplica(lines [][]byte, signed *Checkpoint) (Replica, error) {
	r := Replica{Events: int64(len(lines)), Signed: signed}
	var t Tree
	for i, line := range lines {
		var e struct {
			Seq int64 `json:"seq"`
		}
		if err := json.Unmarshal(line, &e); (err != nil || e.Seq != int64(i)+1) && r.Damage == "" {
			r.Damage = fmt.Sprintf("line %d is not event %d", i+1, i+1)
		}
		if err := t.Add(line); err != nil {
			return r, err
		}
	}
	var err error
	if r.Root, err = t.Root(r.Events); err != nil || signed == nil || r.Damage != "" {
		return r, err
	}
	switch {
	case r.Events > signed.Size:
		r.Damage = fmt.Sprintf("it has %d lines, and control signed %d events", r.Events, signed.Size)
	case r.Events == signed.Size && r.Root != signed.Root:
		r.Damage = fmt.Sprintf("its %d lines are not the events that control signed", r.Events)
	}
	return r, nil
}

// Finding is what a replica and control's ledger are to each other.
type Finding int

// The findings.
const (
	// Agrees: control has all that the replica has, and perhaps more.
	Agrees Finding = iota
	// Damaged: control has all that it signed, and the replica is something else. It is to
	// be made again from control; no release waits for that.
	Damaged
	// ControlLost: control has less than it signed, or something else. Nothing is to be
	// appended before a person has recovered the ledger.
	ControlLost
	// Unproven: each has something else, and nothing that control signed says which is right.
	Unproven
)

// Ledger is a stream as control has it, such as a [Tree].
type Ledger interface {
	Size() int64
	Root(n int64) (tlog.Hash, error) // over the first n events, of which there are as many
}

// Against holds a replica against control's ledger. That control signed its checkpoint is
// to be verified before: only then is it a proof against control.
func (r Replica) Against(control Ledger) (Finding, error) {
	begins := func(n int64, root tlog.Hash) (bool, error) {
		if n > control.Size() {
			return false, nil
		}
		has, err := control.Root(n)
		return has == root, err
	}
	if r.Signed != nil {
		if ok, err := begins(r.Signed.Size, r.Signed.Root); err != nil || !ok {
			return ControlLost, err
		}
	}
	if r.Damage != "" {
		return Damaged, nil
	}
	ok, err := begins(r.Events, r.Root)
	switch {
	case err != nil:
		return Unproven, err
	case ok:
		return Agrees, nil
	case r.Signed != nil:
		return Damaged, nil
	}
	return Unproven, nil
}

// Note is a checkpoint signed with a key of a name, whose signature is in the form in which
// notes have it.
func (c Checkpoint) Note(name, signature string) []byte {
	return []byte(c.Text() + "\n— " + name + " " + signature + "\n")
}

// Signature is that of a note of one signature; "" if it is none.
func Signature(signed []byte) string {
	_, line, _ := strings.Cut(string(signed), "\n\n— ")
	_, signature, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	if strings.ContainsAny(signature, " \n") {
		return ""
	}
	return signature
}
