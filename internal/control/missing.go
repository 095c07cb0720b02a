package control

import (
	"context"
	"maps"
	"slices"
	"time"

	"trysail/blueprint"
	"trysail/internal/depot"
	"trysail/release"
)

// A control that lost its disk gets its ledger back from an agent's copy, and
// what the ledger names from the agents' depots: each has the originals of the
// server that it made, what it took in and what it made. Nothing listens on an
// agent, so the answer to a report says what is wanted, and agents send it.

const (
	looking  = 3 * time.Second // between looks for what is missing
	mostWant = 500             // digests asked for in one answer
)

// fill ends when ctx does. It keeps the list of what is missing.
func (c *Control) fill(ctx context.Context) error {
	t := time.NewTicker(looking)
	defer t.Stop()
	for said := 0; ; {
		c.nameLists(ctx)
		missing := c.fetch(ctx, c.missing(ctx, false))
		c.mu.Lock()
		c.wanted = missing
		c.mu.Unlock()
		switch n := len(missing); {
		case n > 0 && n != said:
			c.o.Log.Warn("the depot lacks what releases need; agents that have it send it", "blobs", n)
		case n == 0 && said > 0:
			c.o.Log.Warn("the depot has all that releases need again")
			for _, v := range c.versions() {
				if err := c.keep(ctx, v, ""); err != nil {
					c.o.Log.Error("keep", "release", v, "err", err)
				}
			}
		}
		said = len(missing)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}

// missing lists what releases need and the depot has not; of those that are over
// only if all is asked for.
func (c *Control) missing(ctx context.Context, all bool) []string {
	var list []string
	wanted := map[string]bool{}
	want := func(dg string) bool {
		if dg == "" || c.o.Depot.Has(dg) {
			return false
		}
		if !wanted[dg] {
			list = append(list, dg)
		}
		wanted[dg] = true
		return true
	}
	for _, v := range c.versions() {
		st := c.state(v)
		if st == nil || (!all && st.Over()) {
			continue
		}
		want(st.Runbook)
		want(st.Signers)
		want(st.Revoked)
		want(st.Source.Original)
		for name := range st.Progress {
			for _, log := range logs(st, name) {
				want(log.Digest)
			}
			c.lists.complete(st.Made(name), want, func(m release.Made, visit func(release.Artifact) error) error { return c.files(ctx, m, visit) })
		}
		for _, m := range st.Machines {
			want(m.Blueprint)
			want(m.Sum)
			for _, it := range c.originals(ctx, m) {
				if release.NeedsOriginal(it.Name) {
					want(it.Digest)
				}
			}
		}
	}
	return list
}

// lacks tells whether the depot has not all of some digests, and of the files that are in
// those that are lists.
func (c *Control) lacks(digests ...string) bool {
	return slices.ContainsFunc(digests, func(dg string) bool { return dg != "" && (!c.o.Depot.Has(dg) || c.lists.torn(dg)) })
}

// originals are what a machine is made from, sorted by name, if the depot can tell.
func (c *Control) originals(ctx context.Context, m release.Machine) []depot.Item {
	if m.Sum == "" || !c.o.Depot.Has(m.Sum) {
		return nil
	}
	c.mu.Lock()
	list, known := c.sums[m.Sum]
	c.mu.Unlock()
	if known {
		return list
	}
	data, err := c.o.Depot.ReadAll(ctx, m.Sum, 4<<20)
	var sum blueprint.Sum
	if err == nil {
		sum, err = blueprint.ParseSum("blueprint.sum", data)
	}
	if err != nil {
		c.o.Log.Error("what the machine of a role is made from cannot be read", "role", m.Role, "sum", m.Sum, "err", err)
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(sum)) {
		if release.NeedsOriginal(name) || c.o.Depot.Has(sum[name]) { // what a proof needs too, where it was sent
			list = append(list, depot.Item{Name: name, Digest: sum[name]})
		}
	}
	c.mu.Lock()
	c.sums[m.Sum] = list
	c.mu.Unlock()
	return list
}
