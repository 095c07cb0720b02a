// Package recorder is a build's network: it records what the build downloads,
// and gives the same answers again when there is no network.
//
// The build runs in a network namespace of its own whose every TCP connection
// is redirected to one local listener, so that a program which ignores proxy
// settings is seen too. Names are answered by a resolver in the namespace with
// addresses of 198.18.0.0/15, each standing for one name: so the name that was
// meant is known even where the protocol does not say it. HTTP and HTTPS are
// recorded: TLS ends here, with certificates from an authority made for this
// run that only this build is told to trust. The recorder's own connections
// are made from the machine's namespace, through the user's proxy where one is
// set, and trust what the machine trusts.
//
// What is kept is stripped of credentials first ([clean]); what a request must
// match on replay is decided by [recordingKey]. Connections that are neither
// HTTP nor TLS cannot be replayed: they are passed through while recording,
// and named.
//
// A release step that has the network gets it through here too, without a recording
// ([Options.Pass]): every connection is carried as it is, to what [Outside] lets it reach.
//
// The namespace is held by a file descriptor of this process and by nothing
// else, so it is gone when the process is, however it ends.
package recorder

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/http/httpproxy"

	"trysail/blueprint"
)

// Store keeps bodies by their digest; a depot is one.
type Store interface {
	Put(ctx context.Context, r io.Reader) (digest string, size int64, err error)
	Get(ctx context.Context, digest string) (io.ReadCloser, error)
}

// Options say what to do with the build's connections.
type Options struct {
	Replay *Recording // nil: record
	Store  Store
	// Live are dependencies that are let through where they are confirmed.
	Live []blueprint.LiveDependency
	// Upstream is the user's own proxy; default: from the environment.
	Upstream func(*url.URL) (*url.URL, error)
	Roots    *x509.CertPool // what the machine trusts; default: the system's and SSL_CERT_FILE
	Dial     func(ctx context.Context, network, address string) (net.Conn, error)
	// Lookup gives the addresses of a name, none if it does not exist; default:
	// the machine's resolver.
	Lookup func(ctx context.Context, name string) []net.IP
	// Wall is held against every address before it is connected by the default Dial, but
	// for live dependencies, which the machine permits; default: [NotLoopback]. UID is the
	// build's user, whose the connections are.
	Wall Wall
	UID  int
	// Loopback are ports of 127.0.0.1 at which a build finds what listens on the machine's
	// loopback, and not its own: a mirror or a proxy of the machine. See [MachineLoopback]. On
	// replay they are those of the recording.
	Loopback []uint16
	// IgnoreQuery names query parameters whose values do not count on replay.
	IgnoreQuery []string
	// Pass carries every connection as it is, and records nothing.
	Pass bool
	Log  *slog.Logger
}

// Stats are the numbers so far.
type Stats struct {
	Exchanges int
	Bytes     int64
	Blocked   int // attempts that nothing recorded answers
}

// Recorder is the far end of a build's connections.
type Recorder struct {
	o      Options
	ns     *namespace
	ca     *authority
	dns    []*dns.Server
	server *http.Server
	sorted *listener
	tr     *http.Transport
	// dialLive connects to a live dependency.
	dialLive func(ctx context.Context, network, address string) (net.Conn, error)
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	active   sync.WaitGroup // requests being answered, whether their client waits or not

	connections, requests, questions places
	spooled                          atomic.Int64 // bytes of requests on the disk

	mu         sync.Mutex
	rec        *Recording
	index      *index
	names      map[string]string // synthetic address -> name
	addrs      map[string]string
	bytes      int64
	text       int // see mostText
	blocked    int
	unanswered map[string]int
	open       map[net.Conn]bool
	err        error
}

// Start makes the namespace and listens in it.
func Start(ctx context.Context, o Options) (*Recorder, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Wall == nil {
		o.Wall = NotLoopback
	}
	if o.Lookup == nil {
		o.Lookup = lookup
	}
	dialLive := o.Dial
	if o.Dial == nil {
		o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			return o.reach(ctx, network, address, o.Wall)
		}
		dialLive = func(ctx context.Context, network, address string) (net.Conn, error) {
			return o.reach(ctx, network, address, func(context.Context, netip.Addr) error { return nil })
		}
	}
	if o.Upstream == nil {
		o.Upstream = httpproxy.FromEnvironment().ProxyFunc()
	}
	if o.Roots == nil {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("recorder: this machine's certificate authorities: %w", err)
		}
		o.Roots = pool
	}
	r := &Recorder{o: o, dialLive: dialLive, rec: &Recording{Version: recordingVersion}, names: map[string]string{}, addrs: map[string]string{}, unanswered: map[string]int{}, sorted: &listener{conns: make(chan net.Conn), done: make(chan struct{})}, open: map[net.Conn]bool{}}
	r.connections, r.requests, r.questions = make(places, mostConnections), make(places, mostRequests), make(places, mostQuestions)
	if o.Replay != nil {
		r.index = newIndex(o.Replay, o.IgnoreQuery...)
	}
	var err error
	if r.ca, err = newAuthority(time.Now()); err != nil {
		return nil, err
	}
	live, err := r.datagrams()
	if err != nil {
		return nil, err
	}
	if o.Replay != nil {
		o.Loopback = o.Replay.Loopback
	}
	if r.ns, err = newNamespace(live, o.Loopback); err != nil {
		return nil, err
	}
	r.ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	r.tr = &http.Transport{
		Proxy:                 func(q *http.Request) (*url.URL, error) { return o.Upstream(q.URL) },
		DialContext:           r.o.dialHTTP,
		TLSClientConfig:       &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12},
		DisableCompression:    true, // what the client asked for is what is kept
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       60 * time.Second,
		TLSHandshakeTimeout:   30 * time.Second,
		ResponseHeaderTimeout: 5 * time.Minute,
		// A build may have a friend outside.
		MaxResponseHeaderBytes: 1 << 20,
	}
	r.server = &http.Server{
		Handler: http.HandlerFunc(r.serve),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, meantKey{}, meantOf(c))
		},
		ReadHeaderTimeout: time.Minute,
		MaxHeaderBytes:    mostHeader,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 100, MaxReceiveBufferPerConnection: 256 << 10, MaxReceiveBufferPerStream: 128 << 10},
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
		TLSConfig:         &tls.Config{NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12},
	}
	r.wg.Go(func() {
		if err := r.server.Serve(r.sorted); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			r.fail(err)
		}
	})
	r.wg.Go(r.accept)
	r.serveDNS()
	for _, c := range r.ns.live {
		r.wg.Go(func() { r.relay(c) })
	}
	return r, nil
}

// NetNS is the path of the network namespace.
func (r *Recorder) NetNS() string { return r.ns.path() }

// CA is the certificate, in PEM, of the authority of this run; nil if connections are
// carried as they are.
func (r *Recorder) CA() []byte {
	if r.o.Pass {
		return nil
	}
	return r.ca.pem
}

// ResolvConf is resolv.conf(5) for the build.
func (r *Recorder) ResolvConf() []byte {
	return []byte("nameserver 127.0.0.1\noptions timeout:5 attempts:2\n")
}

// Stats gives the numbers so far.
func (r *Recorder) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Stats{Exchanges: len(r.rec.Exchanges), Bytes: r.bytes, Blocked: r.blocked}
}

// Unanswered is what was asked for in vain, on replay.
type Unanswered struct {
	What string // "GET https://…", "tcp host:port" …
	// OtherQuery is true where the recording has the address with another query (?…).
	OtherQuery bool
}

// Unanswered lists what was asked for in vain, on replay.
func (r *Recorder) Unanswered() []Unanswered {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []Unanswered
	for _, what := range sortedKeys(r.unanswered) {
		list = append(list, Unanswered{what, r.index != nil && r.index.paths[withoutQuery(what)]})
	}
	return list
}

func (r *Recorder) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
	}
}

// Stop ends every connection and gives the recording. A body that could not be
// kept is an error: the recording would not be whole.
func (r *Recorder) Stop() (*Recording, error) {
	// Downloads that the client gave up are still kept whole, within reason.
	grace, cancel := context.WithTimeout(r.ctx, 20*time.Second)
	_ = r.server.Shutdown(grace) // what is still open after that is cut below
	served := make(chan struct{})
	go func() { r.active.Wait(); close(served) }()
	select {
	case <-served:
	case <-grace.Done():
	}
	cancel()
	r.cancel()
	_ = r.server.Close()
	for _, s := range r.dns {
		_ = s.Shutdown()
	}
	r.ns.listener.Close()
	for _, c := range r.ns.live {
		c.Close()
	}
	r.mu.Lock()
	for c := range r.open {
		c.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
	r.tr.CloseIdleConnections()
	blocked, err := r.ns.close()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blocked += blocked
	r.rec.sort()
	return r.rec, errors.Join(r.err, err)
}

// block counts an attempt that nothing answers.
func (r *Recorder) block(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blocked++
	r.inVain(what)
}

// inVain names what was not answered. The lock is held.
func (r *Recorder) inVain(what string) {
	what = strings.ToValidUTF8(clip(what, mostNote), "")
	if r.unanswered[what] == 0 && len(r.unanswered) >= mostNotes {
		what = others
	}
	r.unanswered[what]++
}

func (r *Recorder) track(c net.Conn, on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if on {
		r.open[c] = true
	} else {
		delete(r.open, c)
	}
}

// accept takes every connection of the build and finds out what it speaks.
func (r *Recorder) accept() {
	for r.connections.take(r.ctx) {
		c, err := r.ns.listener.Accept()
		if err != nil {
			r.connections.give()
			if errors.Is(err, net.ErrClosed) {
				return // by Stop
			}
			r.o.Log.Warn("a connection of the build is not taken", "err", err)
			time.Sleep(100 * time.Millisecond) // too many files are open
			continue
		}
		r.wg.Go(func() {
			defer r.connections.give()
			r.track(c, true)
			defer r.track(c, false)
			if err := r.sort(c); err != nil {
				r.o.Log.Debug("connection", "err", err)
				c.Close()
			}
		})
	}
}

// MachineLoopback lists the ports of this machine's loopback at which a program of it listens,
// but for those that are given to any program that asks: a build's own servers have such.
func MachineLoopback() ([]uint16, error) {
	data, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return nil, fmt.Errorf("recorder: %w", err)
	}
	var from, to uint16
	if _, err := fmt.Sscan(string(data), &from, &to); err != nil {
		return nil, fmt.Errorf("recorder: read net.ipv4.ip_local_port_range: %w", err)
	}
	var ports []uint16
	// Of this thread: the first thread of the process may be in a build's namespace by now.
	for _, file := range []string{"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"} {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a machine without IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("recorder: %w", err)
		}
		for line := range strings.Lines(string(data)) {
			if p, ok := loopbackListener(line); ok && p != 53 && (p < from || p > to) && !slices.Contains(ports, p) {
				ports = append(ports, p)
			}
		}
	}
	slices.Sort(ports)
	return ports, nil
}

// loopbackListener reads a line of proc_net_tcp(5): the port of a socket that takes connections
// to the loopback.
func loopbackListener(line string) (port uint16, ok bool) {
	const listens = "0A"
	f := strings.Fields(line)
	if len(f) < 4 || f[3] != listens {
		return 0, false
	}
	ip, text, _ := strings.Cut(f[1], ":")
	n, err := strconv.ParseUint(text, 16, 16)
	// The kernel writes words of four bytes, in its own order.
	all := strings.Trim(ip, "0") == ""
	v4 := len(ip) == 8 && strings.HasSuffix(ip, "7F") || len(ip) == 32 && strings.HasPrefix(ip, "0000000000000000FFFF0000") && strings.HasSuffix(ip, "7F")
	v6 := ip == "00000000000000000000000001000000"
	return uint16(n), err == nil && (all || v4 || v6)
}

// meant is where a connection was meant to go.
type meant struct {
	host string // name, or address where no name is known
	port string
	tls  bool
	deep int    // in how many tunnels it is
	raw  string // the address as the build saw it
}

func (m meant) address() string { return net.JoinHostPort(m.host, m.port) }

// conn is a connection with what was peeked put back, and what it was meant for.
type conn struct {
	net.Conn
	r      *bufio.Reader
	meant  meant
	closed chan struct{}
	once   sync.Once
}

func (c *conn) Read(p []byte) (int, error) { return c.r.Read(p) }

func (c *conn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

type meantKey struct{}

func meantOf(c net.Conn) meant {
	switch c := c.(type) {
	case *conn:
		return c.meant
	case *tls.Conn:
		m := meantOf(c.NetConn())
		m.tls = true
		return m
	}
	return meant{}
}

// hand gives a connection to the HTTP server and waits for its end.
func (r *Recorder) hand(c *conn, serve net.Conn) error {
	select {
	case r.sorted.conns <- serve:
		<-c.closed
		return nil
	case <-r.sorted.done:
		return net.ErrClosed
	}
}

func (r *Recorder) serveTLS(c *conn) error {
	offered := false
	server := tls.Server(c, &tls.Config{
		NextProtos: []string{"h2", "http/1.1"},
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			offered = true
			name := c.meant.host
			if h.ServerName != "" {
				name = h.ServerName
				c.meant.host = name
			}
			return r.ca.leaf(name)
		},
	})
	ctx, cancel := context.WithTimeout(r.ctx, 30*time.Second)
	defer cancel()
	if err := server.HandshakeContext(ctx); err != nil {
		if offered && ctx.Err() == nil {
			// The client ends the handshake once it has seen our certificate:
			// pinned, or a trust store that was not found.
			r.note(Connection{Network: "tcp", Address: c.meant.address(), Why: TLSRefused, Blocked: true})
			r.o.Log.Warn("a program of the build does not trust the recorder's certificate", "host", c.meant.host)
		}
		return err
	}
	return r.hand(c, server)
}

// note keeps a connection that is not recorded; the same one is counted.
func (r *Recorder) note(c Connection) {
	c.Address = clip(c.Address, mostNote)
	r.mu.Lock()
	defer r.mu.Unlock()
	known := func() int {
		return slices.IndexFunc(r.rec.Connections, func(x Connection) bool {
			return x.Network == c.Network && x.Address == c.Address && x.Why == c.Why
		})
	}
	i := known()
	if i < 0 && len(r.rec.Connections) >= mostNotes {
		c.Address = others
		i = known()
	}
	if i >= 0 {
		r.rec.Connections[i].Count++
		return
	}
	c.Count = 1
	r.rec.Connections = append(r.rec.Connections, c)
}

// live finds the confirmed dependency that an address belongs to.
func (r *Recorder) live(network string, addresses ...string) *blueprint.LiveDependency {
	for i, l := range r.o.Live {
		if l.Kind != network || l.Proposed {
			continue
		}
		for _, a := range addresses {
			if strings.EqualFold(l.Address, a) {
				return &r.o.Live[i]
			}
		}
	}
	return nil
}

// listener hands sorted connections to the HTTP server.
type listener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *listener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
