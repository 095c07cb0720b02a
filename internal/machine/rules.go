package machine

import (
	"errors"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Rules notes that a table of packet rules is about to be made in the network of this
// process: it outlives it.
func (n *Session) Rules(table string) error { return n.record("rules", table) }

// DropRules takes such a table away.
func (n *Session) DropRules(table string) error {
	if err := dropRules(table); err != nil {
		return err
	}
	return n.forget("rules", table)
}

func dropRules(table string) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyIPv4)
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // a kernel that has no tables has not this one
	}
	if err != nil {
		return err
	}
	for _, t := range tables {
		if t.Name == table {
			c.DelTable(t)
		}
	}
	return c.Flush()
}
