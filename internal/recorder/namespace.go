package recorder

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespace is a network that ends in this process.
type namespace struct {
	ns netns.NsHandle
	// tables is a connection that was opened in the namespace: a user namespace's root
	// could enter it again, and not come back.
	tables   *nftables.Conn
	listener net.Listener // every TCP connection of the namespace
	udp      net.PacketConn
	tcp      net.Listener // of the resolver
	live     []net.PacketConn
}

func (n *namespace) path() string {
	return "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(int(n.ns))
}

// newNamespace makes the namespace on a thread of its own, which ends with it:
// a thread that was in another namespace must not be used again.
// Packets to the live addresses are not dropped: somebody listens there.
func newNamespace(live []*net.UDPAddr, loopback []uint16) (*namespace, error) {
	n := &namespace{}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is thrown away
		done <- n.make(live, loopback)
	}()
	if err := <-done; err != nil {
		n.release()
		return nil, fmt.Errorf("recorder: make a network namespace: %w", err)
	}
	return n, nil
}

func (n *namespace) make(live []*net.UDPAddr, loopback []uint16) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	var err error
	if n.ns, err = netns.Get(); err != nil {
		return err
	}
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer nl.Close()
	lo, err := nl.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := nl.LinkSetUp(lo); err != nil {
		return err
	}
	// Everything is routed to the loopback, where the rule below takes it; the
	// loopback's own address may not be the source of what leaves it.
	src := &net.IPNet{IP: net.IPv4(198, 19, 255, 254), Mask: net.CIDRMask(32, 32)}
	if err := nl.AddrAdd(lo, &netlink.Addr{IPNet: src}); err != nil {
		return err
	}
	_, all, err := net.ParseCIDR("0.0.0.0/0")
	if err != nil {
		return err
	}
	if err := nl.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: all, Src: src.IP, Scope: netlink.SCOPE_LINK}); err != nil {
		return fmt.Errorf("default route: %w", err)
	}
	if n.listener, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
		return err
	}
	if n.udp, err = net.ListenPacket("udp4", "127.0.0.1:53"); err != nil {
		return err
	}
	if n.tcp, err = net.Listen("tcp4", "127.0.0.1:53"); err != nil {
		return err
	}
	for _, a := range live {
		err := nl.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: a.IP, Mask: net.CIDRMask(32, 32)}})
		if err != nil && !errors.Is(err, unix.EEXIST) { // two ports of one host
			return fmt.Errorf("address %s: %w", a.IP, err)
		}
		c, err := net.ListenUDP("udp4", a)
		if err != nil {
			return err
		}
		n.live = append(n.live, c)
	}
	return n.redirect(uint16(n.listener.Addr().(*net.TCPAddr).Port), live, loopback)
}

// redirect turns every connection that leaves the loopback to the listener, and
// counts and drops other packets that do.
func (n *namespace) redirect(port uint16, live []*net.UDPAddr, loopback []uint16) error {
	c, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return err
	}
	n.tables = c
	t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "trysail"})
	nat := c.AddChain(&nftables.Chain{Name: "out", Table: t, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest})
	filter := c.AddChain(&nftables.Chain{Name: "drop", Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter})
	// The build's own servers on 127.0.0.0/8 are left alone, but for ports of the machine's.
	own := []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{127}},
	}
	proto := func(op expr.CmpOp, p byte) []expr.Any {
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: []byte{p}}}
	}
	rule := func(ch *nftables.Chain, parts ...[]expr.Any) {
		var e []expr.Any
		for _, p := range parts {
			e = append(e, p...)
		}
		c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: e})
	}
	accept := []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
	toListener := []expr.Any{
		&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.Redir{RegisterProtoMin: 1},
	}
	for _, p := range loopback {
		if p == port || p == 53 { // ours
			continue
		}
		rule(nat, proto(expr.CmpOpEq, unix.IPPROTO_TCP), own, []expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(p)},
		}, toListener)
	}
	rule(nat, own, accept)
	for _, a := range live {
		for _, offset := range []uint32{12, 16} { // from there, to there
			there := []expr.Any{
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: a.IP.To4()},
			}
			for _, chain := range []*nftables.Chain{nat, filter} {
				rule(chain, proto(expr.CmpOpEq, unix.IPPROTO_UDP), there, accept)
			}
		}
	}
	// A program with a resolver of its own asks ours.
	rule(nat, proto(expr.CmpOpEq, unix.IPPROTO_UDP), []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(53)},
		&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(53)},
		&expr.Redir{RegisterProtoMin: 1},
	})
	rule(nat, proto(expr.CmpOpEq, unix.IPPROTO_TCP), toListener)
	rule(filter, own, accept)
	rule(filter, proto(expr.CmpOpNeq, unix.IPPROTO_TCP), []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("redirect connections with nftables (is the kernel module nf_tables there?): %w", err)
	}
	return nil
}

// dropped counts packets that were neither TCP nor a question to the resolver.
func (n *namespace) dropped() (int, error) {
	t := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "trysail"}
	rules, err := n.tables.GetRules(t, &nftables.Chain{Name: "drop", Table: t})
	if err != nil {
		return 0, fmt.Errorf("recorder: count what was dropped: %w", err)
	}
	count := 0
	for _, r := range rules {
		for _, e := range r.Exprs {
			if x, ok := e.(*expr.Counter); ok {
				count += int(x.Packets)
			}
		}
	}
	return count, nil
}

func (n *namespace) release() {
	if n.listener != nil {
		n.listener.Close()
	}
	if n.udp != nil {
		n.udp.Close()
	}
	if n.tcp != nil {
		n.tcp.Close()
	}
	for _, c := range n.live {
		c.Close()
	}
	if n.tables != nil {
		_ = n.tables.CloseLasting() // the namespace takes its tables with it
	}
	if n.ns > 0 {
		n.ns.Close()
	}
}

// close gives up the namespace and says how many packets nobody answered.
func (n *namespace) close() (blocked int, err error) {
	defer n.release()
	return n.dropped()
}

// originalDestination is where a redirected connection was meant to go.
func originalDestination(c net.Conn) (ip net.IP, port int, err error) {
	tc, ok := c.(*net.TCPConn)
	if !ok {
		return nil, 0, errors.New("not a TCP connection")
	}
	rc, err := tc.SyscallConn()
	if err != nil {
		return nil, 0, err
	}
	// The kernel answers with a sockaddr_in, in 16 bytes: family, port, address. The
	// structure of another option of this size carries them.
	const soOriginalDst = 80 // linux/netfilter_ipv4.h
	var addr *unix.IPv6Mreq
	var gerr error
	if err := rc.Control(func(fd uintptr) { addr, gerr = unix.GetsockoptIPv6Mreq(int(fd), unix.IPPROTO_IP, soOriginalDst) }); err != nil {
		return nil, 0, err
	}
	if gerr != nil {
		return nil, 0, fmt.Errorf("original destination: %w", gerr)
	}
	return net.IP(addr.Multiaddr[4:8]), int(binary.BigEndian.Uint16(addr.Multiaddr[2:4])), nil
}

func (r *Recorder) destination(c net.Conn) (meant, error) {
	ip, port, err := originalDestination(c)
	if err != nil {
		return meant{}, err
	}
	m := meant{host: ip.String(), port: strconv.Itoa(port)}
	m.raw = net.JoinHostPort(m.host, m.port)
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := uint16(port); ip.IsLoopback() && !slices.Contains(r.rec.Loopback, p) {
		r.rec.Loopback = append(r.rec.Loopback, p)
	}
	if name := r.names[m.host]; name != "" {
		m.host = name
	}
	return m, nil
}
