package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"trysail/drill"
	"trysail/internal/machine"
)

// Place is where the machine of a lab stands that has only one, on a real host: in
// the host's own network, and the others of its drill are hosts too.
type Place struct {
	Address string // of this host
	Peers   []Peer // the others
	Answers int    // a port on which control answers, wherever it is
	SSH     int    // the port on which this host is reached meanwhile, whatever breaks
}

// Peer is another host of the drill.
type Peer struct{ Name, Address string }

// names is the hosts file of the machine: the others, and then what this host knows.
func (p *Place) names() ([]byte, error) {
	var text []byte
	for _, peer := range p.Peers {
		text = fmt.Appendln(text, peer.Address, peer.Name)
	}
	known, err := os.ReadFile("/etc/hosts")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return append(append(text, known...), '\n'), nil
}

// Alone makes a lab of one machine in the network of this host. There is no switch: a
// machine that is cut off is cut off by rules of this host, which leave its other
// traffic and SSH alone and are in the journal before they are made.
func Alone(state *machine.State, log *slog.Logger, at Place) (*Lab, error) {
	if net.ParseIP(at.Address).To4() == nil {
		return nil, fmt.Errorf("%q is no IPv4 address", at.Address)
	}
	return open(state, log, &at)
}

// here gives a machine the network of this host.
func (h *Host) here() error {
	var err error
	h.ns, err = netns.Get()
	return err
}

// apart drops what goes between this host and the others of the drill: what is sent,
// what comes, or both.
func (h *Host) apart(kind drill.Fault, out, in bool) (*Fault, error) {
	at := h.lab.alone
	if len(at.Peers) == 0 {
		return nil, errors.New("this host has no connection to another machine of the drill, so nothing can cut it")
	}
	chain := func(c *nftables.Conn, t *nftables.Table, hook *nftables.ChainHook, address uint32) {
		ch := c.AddChain(&nftables.Chain{Name: fmt.Sprint("hook", *hook), Table: t, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityFilter})
		for _, port := range []uint32{0, 2} { // from and to
			c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: []expr.Any{
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: port, Len: 2},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(at.SSH >> 8), byte(at.SSH)}},
				&expr.Verdict{Kind: expr.VerdictAccept},
			}})
		}
		for _, peer := range at.Peers {
			c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: []expr.Any{
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: address, Len: 4},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: net.ParseIP(peer.Address).To4()},
				&expr.Verdict{Kind: expr.VerdictDrop},
			}})
		}
	}
	inject, undo := h.rules(kind, "cut", func(c *nftables.Conn, t *nftables.Table) {
		const source, destination = 12, 16 // where they stand in IPv4's header
		if out {
			chain(c, t, nftables.ChainHookOutput, destination)
		}
		if in {
			chain(c, t, nftables.ChainHookInput, source)
		}
	})
	return &Fault{Inject: inject, Probe: h.hearsNobody, Undo: undo}, nil
}

// hearsNobody is the probe of a machine that is cut off, on a real host: none of the
// others answers or refuses, on a port where control answers or where nothing listens.
func (h *Host) hearsNobody(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answering)
	defer cancel()
	var mu sync.Mutex
	var heard []error
	var wg sync.WaitGroup
	for _, peer := range h.lab.alone.Peers {
		for _, port := range []int{9, h.lab.alone.Answers} {
			wg.Go(func() {
				c, err := (&net.Dialer{}).DialContext(ctx, "tcp4", net.JoinHostPort(peer.Address, fmt.Sprint(port)))
				if err != nil && !errors.Is(err, unix.ECONNREFUSED) {
					return
				}
				if err == nil {
					c.Close()
				}
				mu.Lock()
				defer mu.Unlock()
				heard = append(heard, fmt.Errorf("%s answers", peer.Name))
			})
		}
	}
	wg.Wait()
	return errors.Join(heard...)
}

// resolves gives a machine of a real host the names that the host knows, and those of
// the drill's other hosts: the release uses the services that the team has.
func (h *Host) resolves() []machine.Mount {
	var list []machine.Mount
	for _, f := range []string{"/etc/resolv.conf", "/etc/hosts"} {
		real, err := filepath.EvalSymlinks(f)
		from := real
		if f == "/etc/hosts" {
			from = h.lab.names()
		}
		switch {
		case from == "" || h.spec.Plain && (err != nil || real == from):
			continue // this host does without it; or it is there, with all of /etc
		case h.spec.Plain:
			list = append(list, machine.Mount{Source: from, Target: real, ReadOnly: true}) // where the link leads
		default:
			list = append(list, machine.Mount{Source: from, Target: f, ReadOnly: true})
		}
	}
	return list
}

// Free gives how many bytes are free where the lab has its disks.
func Free(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(s.Bavail) * s.Bsize, nil
}
