package recorder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What a build reaches through this process is what it could reach without it. A
// connection is made from the machine's own network, so it would lend three things: the
// machine's loopback, which is another than the build's; the user of this process, by which
// a service or a rule of a firewall may tell root from others; and a name that means one
// address when it is looked up and another when it is connected. So addresses are looked
// up here, each is held against a [Wall], and the same is connected, as the build's user.

// Nobody is the user without rights of its own. Connections of a rebuilt server are its: the
// users of a rebuilt server are others' on this machine.
const Nobody = 65534

// Wall refuses an address that a build must not reach, and says why.
type Wall func(ctx context.Context, ip netip.Addr) error

// NotLoopback refuses the machine's loopback: in its own network a build has another.
func NotLoopback(_ context.Context, ip netip.Addr) error {
	if ip = ip.Unmap(); ip.IsLoopback() || ip.IsUnspecified() || ip.Is4() && ip.As4()[0] == 0 {
		return errors.New("it is the loopback of this machine, and a build has its own")
	}
	return nil
}

// Outside refuses what a release step must not reach: everything that this machine itself
// answers for, what only its link reaches (the metadata of a cloud), and some hosts, which
// are looked up for each connection.
func Outside(hosts func() []string) Wall {
	return func(ctx context.Context, ip netip.Addr) error {
		ip = ip.Unmap()
		if err := NotLoopback(ctx, ip); err != nil {
			return err
		}
		if ip.IsLinkLocalUnicast() || ip.IsMulticast() {
			return errors.New("only the link of this machine reaches it")
		}
		routes, err := netlink.RouteGet(ip.WithZone("").AsSlice())
		if err != nil {
			return fmt.Errorf("no way leads to it: %w", err)
		}
		if slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Type != unix.RTN_UNICAST && r.Type != 0 }) {
			return errors.New("it is an address of this machine")
		}
		for _, h := range hosts() {
			for _, a := range lookup(ctx, h) {
				if x, ok := netip.AddrFromSlice(a); ok && x.Unmap() == ip {
					return errors.New("control is there")
				}
			}
		}
		return nil
	}
}

// lookup gives the addresses of a name, none if it does not exist.
func lookup(ctx context.Context, name string) []net.IP {
	addrs, err := net.DefaultResolver.LookupIP(ctx, "ip", name)
	if err != nil {
		return nil
	}
	return addrs
}

// RefusedError says that a build may not reach an address.
type RefusedError struct {
	Address string
	Why     error
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("a build may not reach %s: %v", e.Address, e.Why)
}

func (e *RefusedError) Unwrap() error { return e.Why }

// connectTime is how long one connection may take to be made.
const connectTime = 30 * time.Second

// reach connects to an address for the build, if the wall lets it.
func (o *Options) reach(ctx context.Context, network, address string, wall Wall) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addrs := []net.IP{net.ParseIP(host)}
	if addrs[0] == nil {
		if addrs = o.Lookup(ctx, host); len(addrs) == 0 {
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
	}
	slices.SortStableFunc(addrs, func(a, b net.IP) int { return cmp.Compare(len(a.To4()), len(b.To4())) * -1 })
	var last error
	for _, a := range addrs {
		ip, _ := netip.AddrFromSlice(a)
		if err := wall(ctx, ip); err != nil && !o.machineLoopback(ip, port) {
			last = cmp.Or(last, error(&RefusedError{address, err}))
			continue
		}
		c, err := o.as(ctx, network, net.JoinHostPort(ip.Unmap().String(), port))
		if err == nil {
			return c, nil
		}
		last = err
	}
	return nil, last
}

// machineLoopback tells whether the build may reach a port of this machine's loopback.
func (o *Options) machineLoopback(ip netip.Addr, port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && ip.Unmap().IsLoopback() && o.Replay == nil && slices.Contains(o.Loopback, uint16(n))
}

// as connects to an address as the build's user: the socket is theirs.
func (o *Options) as(ctx context.Context, network, address string) (net.Conn, error) {
	d := &net.Dialer{Timeout: connectTime}
	if o.UID == 0 {
		return d.DialContext(ctx, network, address)
	}
	// The dialer makes the socket of an address that is no name in the goroutine that asks.
	runtime.LockOSThread()
	was, err := unix.SetfsuidRetUid(o.UID)
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer func() {
		if _, err := unix.SetfsuidRetUid(was); err == nil {
			runtime.UnlockOSThread() // else the thread ends with the goroutine
		}
	}()
	return d.DialContext(ctx, network, address)
}

type proxiedKey struct{}

// dialHTTP connects for a request. The user's own proxy may be anywhere: it is this
// machine's user who named it.
func (o *Options) dialHTTP(ctx context.Context, network, address string) (net.Conn, error) {
	if ctx.Value(proxiedKey{}) != nil {
		return o.as(ctx, network, address)
	}
	return o.Dial(ctx, network, address)
}
