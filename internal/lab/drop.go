package lab

import (
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
	t := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "drill-" + name}
	inject := func() error {
		err := h.nft(func(c *nftables.Conn) {
			t := c.AddTable(t)
			chain := c.AddChain(&nftables.Chain{Name: name, Table: t, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityFilter})
			c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}})
		})
		if err != nil {
			return &UnavailableError{drill.Fault("partition-" + name), "nftables: " + err.Error()}
		}
		return nil
	}
	return &Fault{Inject: inject, Probe: h.unreachable, Undo: func() error {
		return h.nft(func(c *nftables.Conn) { c.DelTable(t) })
	}}, nil
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
