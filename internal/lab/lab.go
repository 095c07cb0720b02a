// Package lab makes disposable machines on one host, and breaks them.
//
// A machine of the lab is a container that runc starts, as all of Trysail's are:
// a root with nothing in it but this program and runc, network, process, mount and
// cgroup namespaces of its own, and a disk of its own, a file system in a file.
// Its main process is trysail agent or trysail serve, and what those start runs
// inside of it. Machines meet on a switch, which is a network namespace with a
// bridge in it.
//
// Nothing of a lab is to outlive it. Network namespaces have no names: they are
// held open by the process that made them and by the machines in them, and are gone
// with those, links and rules included. A machine's first process holds a pipe to
// the lab and ends with it. What the kernel does not take back by itself (mounts,
// images of disks, frozen containers) is in the journal of a [machine.Session]
// before it is made; a disk's loop device is given back by its last unmount.
//
// A fault ([Host.Inject]) is one thing, the probe that sees whether it took effect another,
// which looks from elsewhere: a packet sent, a file written, a process asked.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"trysail/drill"
	"trysail/internal/clock"
	"trysail/internal/machine"
)

// Lab is one set of machines. Its methods are safe for concurrent use.
type Lab struct {
	Dir   string // of images, logs and clocks; on the state's file system
	Nonce string // which its machines carry, and no other machine does

	state *machine.State
	n     *machine.Session
	sw    netns.NsHandle // where people look from; -1: none
	alone *Place         // nil: its machines are all here, and meet on the switch
	log   *slog.Logger

	mu    sync.Mutex
	hosts map[string]*Host
	last  int // of addresses given
	jump  time.Duration

	owned sync.Mutex
	own   []string // names of its sessions
}

// The network of a lab: RFC 2544's addresses for tests, which no route leads to.
const (
	network = "198.18.0."
	prefix  = 24
	hub     = network + "254" // the switch's own, to look from
)

// New makes an empty lab.
func New(state *machine.State, log *slog.Logger) (*Lab, error) { return open(state, log, nil) }

func open(state *machine.State, log *slog.Logger, alone *Place) (*Lab, error) {
	n, err := state.Begin()
	if err != nil {
		return nil, err
	}
	l := &Lab{Dir: n.Dir, Nonce: n.ID, state: state, n: n, sw: -1, alone: alone, log: log, hosts: map[string]*Host{}, own: []string{n.ID}}
	err = l.make()
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) make() (err error) {
	if l.alone != nil { // who looks, looks from the host itself
		if l.sw, err = netns.Get(); err != nil {
			return err
		}
		return l.root()
	}
	if l.sw, err = namespace(); err != nil {
		return err
	}
	nl, err := netlink.NewHandleAt(l.sw)
	if err != nil {
		return err
	}
	defer nl.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "switch"
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if err := nl.LinkAdd(bridge); err != nil {
		return fmt.Errorf("make a bridge (is the kernel module bridge there?): %w", err)
	}
	lo, err := nl.LinkByName("lo")
	if err == nil {
		err = errors.Join(nl.LinkSetUp(lo), nl.LinkSetUp(bridge),
			nl.AddrAdd(bridge, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(hub), Mask: net.CIDRMask(prefix, 32)}}))
	}
	if err != nil {
		return err
	}
	return l.root()
}

// root lays out what every machine is made of: this program, and runc with the
// libraries that it needs.
func (l *Lab) root() error {
	root := filepath.Join(l.Dir, "root")
	for _, d := range []string{"bin", "etc", "proc", "sys", "dev", "run", "tmp", "drill", "var/lib/trysail"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	runc, err := exec.LookPath("runc")
	if err != nil {
		return &machine.RuncError{What: "not found", Err: exec.ErrNotFound}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	files := map[string]string{"bin/runc": runc, "bin/trysail": self}
	// A runc that is linked statically has none, and ldd says so with an error.
	if out, err := exec.Command("ldd", runc).Output(); err == nil {
		for f := range strings.FieldsSeq(string(out)) {
			if strings.HasPrefix(f, "/") {
				files[f] = f
			}
		}
	}
	for to, from := range files {
		if err := copyFile(filepath.Join(root, to), from); err != nil {
			return err
		}
	}
	names := []byte("127.0.0.1 localhost\n")
	if l.alone != nil {
		if names, err = l.alone.names(); err != nil {
			return err
		}
	}
	if err := os.WriteFile(l.names(), names, 0o644); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\n", "etc/hosts": "", "etc/resolv.conf": "",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(to, from string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// namespace makes a network namespace that has no name.
func namespace() (netns.NsHandle, error) {
	var ns netns.NsHandle
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: a thread that was elsewhere is thrown away
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			ns, err = netns.Get()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		return -1, fmt.Errorf("make a network namespace: %w", err)
	}
	return ns, nil
}

// HostSpec says what a machine is like.
type HostSpec struct {
	Name string
	Disk int64 // bytes; 0: it has none, and is never on: a place in the network
	// Plain machines see the programs of this host, read-only: for releases whose
	// steps run plainly. Others are blank.
	Plain bool
	// Without names a program that is not on it: runc.
	Without string
	// Service is what it does instead of building, if it does.
	Service drill.OfHosts
}

// Host makes a machine, which is off.
func (l *Lab) Host(spec HostSpec) (*Host, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hosts[spec.Name] != nil {
		return nil, fmt.Errorf("the lab has a machine %s", spec.Name)
	}
	if l.last >= 250 {
		return nil, errors.New("a lab has at most 250 machines")
	}
	if l.alone != nil && l.last > 0 {
		return nil, errors.New("on a real host a lab has one machine")
	}
	l.last++
	h := &Host{Name: spec.Name, IP: l.address(), lab: l, spec: spec, dir: filepath.Join(l.Dir, "host-"+spec.Name), ns: -1}
	if err := h.make(); err != nil {
		return nil, fmt.Errorf("make machine %s: %w", spec.Name, errors.Join(err, h.close()))
	}
	f, err := os.OpenFile(l.names(), os.O_APPEND|os.O_WRONLY, 0) // the machines that are on see it
	if err != nil {
		return nil, errors.Join(err, h.close())
	}
	_, err = fmt.Fprintln(f, h.IP, h.Name)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, errors.Join(err, h.close())
	}
	l.hosts[spec.Name] = h
	return h, nil
}

// address is that of the machine made last.
func (l *Lab) address() string {
	if l.alone != nil {
		return l.alone.Address
	}
	return network + strconv.Itoa(l.last)
}

// names is the hosts file of all machines.
func (l *Lab) names() string { return filepath.Join(l.Dir, "hosts") }

// plug joins the machine's network to the switch.
func (h *Host) plug() error {
	if h.lab.alone != nil {
		return h.here()
	}
	var err error
	if h.ns, err = namespace(); err != nil {
		return err
	}
	sw, err := netlink.NewHandleAt(h.lab.sw)
	if err != nil {
		return err
	}
	defer sw.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "p" + h.IP[len(network):]
	if err := sw.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(h.ns)}); err != nil {
		return fmt.Errorf("join it to the switch: %w", err)
	}
	port, err := sw.LinkByName(attrs.Name)
	if err != nil {
		return err
	}
	bridge, err := sw.LinkByName("switch")
	if err != nil {
		return err
	}
	if err := errors.Join(sw.LinkSetMaster(port, bridge), sw.LinkSetUp(port)); err != nil {
		return err
	}
	own, err := netlink.NewHandleAt(h.ns)
	if err != nil {
		return err
	}
	defer own.Close()
	for _, name := range []string{"lo", "eth0"} {
		link, err := own.LinkByName(name)
		if err == nil && name == "eth0" {
			err = own.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(h.IP), Mask: net.CIDRMask(prefix, 32)}})
		}
		if err == nil {
			err = own.LinkSetUp(link)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// began remembers a session of this lab: all that is made in it bears its name.
func (l *Lab) began(id string) {
	l.owned.Lock()
	defer l.owned.Unlock()
	l.own = append(l.own, id)
}

// Own gives those of a list that [Look] made that are of this lab. What others do on
// this host meanwhile is theirs.
func (l *Lab) Own(list []string) []string {
	l.owned.Lock()
	defer l.owned.Unlock()
	return ours(list, l.own)
}

// Get gives a machine by name; nil if there is none.
func (l *Lab) Get(name string) *Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hosts[name]
}

// Jump lets time pass on the clocks of all machines.
func (l *Lab) Jump(d time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.jump += d
	var errs []error
	for _, h := range l.hosts {
		errs = append(errs, h.setClock())
	}
	return errors.Join(errs...)
}

// Now is the time on clocks that are right.
func (l *Lab) Now() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Add(l.jump)
}

// setClock writes the machine's clock; the lab's lock is held.
func (h *Host) setClock() error {
	return clock.Write(filepath.Join(h.dir, "drill", "clock"), clock.Set{Jump: h.lab.jump, Skew: h.skew})
}

// Dial connects from the network of a machine, or, with nil, from the switch.
func (l *Lab) Dial(ctx context.Context, d *net.Dialer, from *Host, address string) (net.Conn, error) {
	ns := l.sw
	if from != nil {
		ns = from.ns
	}
	type result struct {
		c   net.Conn
		err error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		var r result
		if r.err = netns.Set(ns); r.err == nil {
			r.c, r.err = d.DialContext(ctx, "tcp4", address)
		}
		done <- r
	}()
	r := <-done
	return r.c, r.err
}

// Close turns every machine off and takes everything away. What it could not take
// away stays in the journal, and is returned.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, h := range l.hosts {
		wg.Go(func() {
			if err := h.close(); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("%s: %w", h.Name, err))
			}
		})
	}
	wg.Wait()
	l.hosts = map[string]*Host{}
	if l.sw >= 0 {
		errs = append(errs, l.sw.Close())
		l.sw = -1
	}
	return errors.Join(append(errs, l.n.Close())...)
}
