package release

import (
	"fmt"
	"strings"
)

// BlockCode says in a word what keeps a release from going on by itself.
type BlockCode string

// The codes.
const (
	BlockStopped       BlockCode = "stopped"        // an item failed, was rejected, or cannot be given
	BlockHeld          BlockCode = "held"           // a person holds the release
	BlockAmendment     BlockCode = "amendment"      // a change is open: gold and shipping wait
	BlockNoMachine     BlockCode = "no-machine"     // no machine can run a step of a role
	BlockSecondMachine BlockCode = "second-machine" // only the machine that makes gold could build it again
	BlockNobodyWorks   BlockCode = "nobody-works"   // nobody who may sign works within years
)

// Block is what does not go on by itself, and why.
type Block struct {
	Code  BlockCode `json:"code"`
	Item  string    `json:"item"` // "" if it is the whole release
	Why   string    `json:"why"`
	Final bool      `json:"final,omitempty"` // nothing mends it: the release can only be aborted
	Later bool      `json:"later,omitempty"` // the turn of its item has not come yet
	Role  string    `json:"role,omitempty"`  // that has no machine
	Plain bool      `json:"plain,omitempty"` // whose steps run on a machine's own host
}

// If says what must happen at once for the outlook to hold.
func (b Block) If() string {
	switch b.Code {
	case BlockHeld:
		return "it goes on at once"
	case BlockAmendment:
		return "the open change is decided at once"
	case BlockNoMachine:
		return "a machine for role " + b.Role + " comes at once"
	case BlockSecondMachine:
		return "a second machine for " + b.Item + " comes at once"
	case BlockNobodyWorks:
		return "somebody else may sign " + b.Item
	}
	return b.Item + " is mended at once"
}

// MachineFor is what somebody types to give a role a machine.
func MachineFor(role string, plain bool) string {
	command := "trysail agent --join LINK --role " + role
	if plain {
		command += " --plain"
	}
	return command
}

// Mend is what somebody types to mend it; "" where that hangs on the item.
func (b Block) Mend(version string) string {
	switch b.Code {
	case BlockHeld:
		return "trysail release resume " + version
	case BlockAmendment:
		return "trysail release agree " + version
	case BlockNoMachine, BlockSecondMachine:
		return MachineFor(b.Role, b.Plain)
	}
	return ""
}

// blocks are what people must mend, whatever machines there are.
func (a *statuses) blocks() []Block {
	var list []Block
	if a.Phase == Holding {
		why := "it is held"
		if a.HeldBy != "" {
			why += " by " + a.HeldBy
		}
		list = append(list, Block{Code: BlockHeld, Why: why + because(a.Why)})
	}
	if m := a.Amendment; m != nil {
		list = append(list, Block{
			Code: BlockAmendment, Item: amendmentItem, Later: !a.waitsForGold(),
			Why: fmt.Sprintf("the change of %s that %s proposed is open: gold and shipping wait for it", strings.Join(m.What, ", "), m.By),
		})
	}
	for i := range a.Items {
		x := &a.Items[i]
		if why, ask, stopped := a.stop(x); stopped {
			list = append(list, Block{Code: BlockStopped, Item: x.Name, Why: why, Final: ask.Type == "abort", Later: a.of(x) == Pending})
		}
	}
	return list
}

// waitsForGold tells whether nothing but the open amendment keeps gold, or shipping, from
// going on.
func (a *statuses) waitsForGold() bool {
	open := false
	for i := range a.Items {
		x := &a.Items[i]
		if a.Waits(x) != "" {
			return true
		}
		open = open || !a.done(x)
	}
	return !open
}
