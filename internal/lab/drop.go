package lab

import (
	"errors"
	"os"
	"unsafe"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// drop loses what the machine sends, or what it is sent, without a word.
func (h *Host) drop(out bool) (*Fault, error) {
	c, err := nftables.New(nftables.WithNetNSFd(int(h.ns)))
	if err != nil {
		return nil, err
	}
	hook, name := nftables.ChainHookInput, "in"
	if out {
		hook, name = nftables.ChainHookOutput, "out"
	}
	t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "drill-" + name})
	chain := c.AddChain(&nftables.Chain{Name: name, Table: t, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityFilter})
	c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}})
	if err := c.Flush(); err != nil {
		return nil, &UnavailableError{"partition-" + "out", "nftables: " + err.Error()}
	}
	return &Fault{Probe: h.unreachable, Undo: func() error {
		c, err := nftables.New(nftables.WithNetNSFd(int(h.ns)))
		if err != nil {
			return err
		}
		c.DelTable(t)
		return c.Flush()
	}}, nil
}

// ioctl is one with a pointer to a number.
func ioctl(f *os.File, request uintptr, arg *uint32) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(arg)))
	if errno != 0 {
		return errors.Join(errno)
	}
	return nil
}
