package lab

import (
	"errors"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"trysail/drill"
)

// drop loses what the machine sends, or what it is sent, without a word.
func (h *Host) drop(out bool) (*Fault, error) {
	hook, name := nftables.ChainHookInput, "in"
	if out {
		hook, name = nftables.ChainHookOutput, "out"
	}
	inject, undo := h.rules(drill.Fault("partition-"+name), name, func(c *nftables.Conn, t *nftables.Table) {
		chain := c.AddChain(&nftables.Chain{Name: name, Table: t, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityFilter})
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}})
	})
	return &Fault{Inject: inject, Probe: h.unreachable, Undo: undo}, nil
}

// rules makes a table of packet rules in the machine's network, and takes it away. On a
// real host that is the host's own network, and the table is in the journal before it
// is made; elsewhere it goes with the network.
func (h *Host) rules(kind drill.Fault, name string, fill func(c *nftables.Conn, t *nftables.Table)) (inject, undo func() error) {
	t := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "drill-" + name}
	note := func() error { return nil }
	undo = func() error { return h.nft(func(c *nftables.Conn) { c.DelTable(t) }) }
	if h.lab.alone != nil {
		t.Name = h.lab.n.ID + "-" + name
		locked := func(f func(string) error) func() error {
			return func() error {
				h.lab.mu.Lock()
				defer h.lab.mu.Unlock()
				return f(t.Name)
			}
		}
		note, undo = locked(h.lab.n.Rules), locked(h.lab.n.DropRules)
	}
	return func() error {
		if err := note(); err != nil {
			return err
		}
		if err := h.nft(func(c *nftables.Conn) { fill(c, c.AddTable(t)) }); err != nil {
			err = &UnavailableError{kind, "nftables: " + err.Error()}
			if h.lab.alone != nil {
				err = errors.Join(err, undo()) // nothing is to stay in the journal
			}
			return err
		}
		return nil
	}, undo
}

// nft changes the rules of the machine's network.
func (h *Host) nft(f func(c *nftables.Conn)) error {
	c, err := nftables.New(nftables.WithNetNSFd(int(h.ns)))
	if err != nil {
		return err
	}
	f(c)
	return c.Flush()
}
