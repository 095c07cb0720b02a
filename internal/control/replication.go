package control

import (
	"context"
	"slices"
	"time"

	"trysail/fleet"
)

// What control has said to somebody must outlive its disk. Of several controls a
// majority has it; one that is alone waits, before it answers, until a machine has
// it on its disk too. Machines copy with each report, which is once a second, so a
// few of them, the witnesses, are told at once when there is something to copy.

const (
	mostReplicas   = 3
	replicaTimeout = 2 * time.Second // with witnesses that do not copy
)

// chooseReplicas says which machines are witnesses now: the first that are up, and where those
// are few others that are heard of. One that drains or proves itself copies like any.
func (c *Control) chooseReplicas() {
	var up, heard []string
	for _, m := range c.machines() {
		switch m.At(c.mono(time.Now())) {
		case fleet.Up:
			up = append(up, m.Name)
		case fleet.Draining, fleet.Proving:
			heard = append(heard, m.Name)
		}
	}
	list := slices.Concat(up, heard)
	list = list[:min(len(list), mostReplicas)]
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Equal(list, c.witnesses) {
		return
	}
	for _, name := range list {
		if m := c.members[name]; m != nil {
			m.news.ring() // it polls as a witness from now on
		}
	}
	c.witnesses = list
	c.copied.ring()
}

// awaitReplica waits until what is in the ledger now is on another disk, where there is
// one. One that does not copy holds nobody up for long: people are told
// (alone), because what was appended cannot be taken back.
func (c *Control) awaitReplica(ctx context.Context) {
	if !c.isReplicated(ctx) && ctx.Err() == nil {
		c.mu.Lock()
		c.alone = true
		c.mu.Unlock()
		c.o.Log.Error("no machine copies the ledger: the latest events exist only on control's disk")
	}
}

// several tells whether a majority of the controls is more than this one's disk. One that
// has no vote yet counts for nothing: it may die before it has what was appended.
func (c *Control) several() bool {
	if c.o.Cluster == nil {
		return false
	}
	vote := 0
	for _, m := range c.o.Cluster.Controls() {
		if m.Votes {
			vote++
		}
	}
	return vote > 1
}

// isReplicated waits, for no longer than there is patience, and tells whether it is on more
// disks than this control's.
func (c *Control) isReplicated(ctx context.Context) bool {
	if c.several() {
		return true
	}
	c.mu.Lock()
	want := c.heads.moves
	c.mu.Unlock()
	late := time.NewTimer(replicaTimeout)
	defer late.Stop()
	for {
		c.mu.Lock()
		next, enough := c.copied.next(), c.alone || c.copiedTo() >= want || c.lonely()
		c.mu.Unlock()
		if enough {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-next:
		case <-late.C:
			return false
		}
	}
}

// lonely tells whether no machine belongs to the fleet. One that is lost is no reason to
// answer as if there were none: it is waited for, and then people are told. The lock is
// held.
func (c *Control) lonely() bool {
	for _, m := range c.members {
		if m.set != fleet.Retired {
			return false
		}
	}
	return true
}

// copiedTo is how far a machine has copied all streams. The lock is held.
func (c *Control) copiedTo() (moves int64) {
	for _, name := range c.witnesses {
		if m := c.members[name]; m != nil {
			moves = max(moves, m.copiedTo)
		}
	}
	return moves
}

// copies notes how far a machine has copied. The lock is held.
func (c *Control) copies(m *member, mark string) {
	if m.copiedTo = c.marked(mark); c.alone && m.copiedTo >= c.heads.moves {
		c.alone = false
	}
	c.copied.ring()
}

// tells gives a witness that polls for work what wakes it when there is something
// to copy; told is whether there is, since the report whose mark it shows. The lock
// is held.
func (c *Control) tells(machine, seen string) (news <-chan struct{}, told bool) {
	if !slices.Contains(c.witnesses, machine) {
		return nil, false
	}
	return c.heads.news.next(), c.heads.moves > c.marked(seen)
}
