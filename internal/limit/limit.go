// Package limit bounds what peers cost that have shown no credentials.
//
// A server learns who a peer is only after it has accepted a connection, done a TLS
// handshake and read the headers of a request. Until then the connection is one of a
// stranger. A [Listener] holds a fixed number of those, each for a fixed time, and takes
// the place of the oldest that keeps the server waiting, of the address that has the most,
// for one that comes. [Admit] moves a connection out of the strangers' number:
// nothing that strangers do takes a place from a peer that is known. So strangers can
// slow down only a peer that connects anew, and no more than [Limits.Grace] allows.
//
// An address whose connections end without credentials again and again is refused before
// anything is allocated, unless a known peer came from it a short time ago: behind one
// address may be an agent and an attacker. Peers that are known have quotas of their own,
// by name: see [Quota].
package limit

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Limits are the bounds of a [Listener].
type Limits struct {
	Strangers int           // connections in all of peers that have shown no credentials
	Patience  time.Duration // after which a stranger's connection is closed
	// Grace is how long a stranger may keep the server waiting (for its bytes, or to take
	// the server's) while another peer wants its place.
	Grace time.Duration
	// Failures is how many connections of one address may end without credentials at
	// once; Refill is how many more may each second.
	Failures int
	Refill   rate.Limit
	// Familiar is for how long an address is not refused after a known peer came from it.
	Familiar time.Duration
	Hosts    int // addresses that are remembered
}

// Defaults are the limits of a server that machines and people use: 256 strangers cost
// it less than 30 MB, and its queue of 4096 connections drains in two seconds when no
// stranger says a word.
func Defaults() Limits {
	return Limits{
		Strangers: 256, Patience: 15 * time.Second, Grace: 100 * time.Millisecond,
		Failures: 200, Refill: 20, Familiar: 10 * time.Minute, Hosts: 4096,
	}
}

// Listener accepts connections within limits. It is safe for concurrent use.
type Listener struct {
	net.Listener
	limits Limits
	closed chan struct{}
	once   sync.Once
	freed  chan struct{} // a stranger's place is free

	mu        sync.Mutex
	strangers map[*conn]bool
	hosts     *hosts
	conns     Quota // of known peers
	requests  Quota
}

// Listen bounds what l accepts.
func Listen(l net.Listener, limits Limits) *Listener {
	return &Listener{
		Listener: l, limits: limits, closed: make(chan struct{}), freed: make(chan struct{}, 1),
		strangers: map[*conn]bool{}, hosts: newHosts(limits), conns: Quota{}, requests: Quota{},
	}
}

// Accept implements net.Listener. While strangers have all places and none of them keeps
// the server waiting, it leaves connections in the kernel's queue.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: nc, l: l, host: Host(nc.RemoteAddr()), came: time.Now()}
		if !l.hosts.admits(c.host, time.Now()) {
			c.abort()
			continue
		}
		for !l.enter(c) {
			wait := time.NewTimer(l.limits.Grace / 4)
			select {
			case <-l.closed:
				nc.Close()
				return nil, net.ErrClosed
			case <-l.freed:
			case <-wait.C:
			}
			wait.Stop()
		}
		return c, nil
	}
}

// Close implements net.Listener.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// enter gives a connection a stranger's place, one that another had if need be.
func (l *Listener) enter(c *conn) bool {
	l.mu.Lock()
	full := len(l.strangers) >= l.limits.Strangers
	var out *conn
	if full {
		out = l.oldest(time.Now())
	}
	if full && out == nil {
		l.mu.Unlock()
		return false
	}
	if out != nil {
		delete(l.strangers, out)
		out.stranger = false
	}
	l.strangers[c] = true
	c.stranger = true
	c.timer = time.AfterFunc(l.limits.Patience, c.abort)
	l.mu.Unlock()
	if out != nil {
		l.hosts.failed(out.host, time.Now())
		out.abort()
	}
	return true
}

// oldest is the stranger that came first of those that keep the server waiting for more
// than the grace, of the address with the most of them. By its age, not by how long it is
// silent: who goes on with a handshake, slowly, outlasts who has done one and stays. The
// lock is held.
func (l *Listener) oldest(now time.Time) *conn {
	count := map[string]int{}
	for c := range l.strangers {
		if c.waits(now) > l.limits.Grace {
			count[c.host]++
		}
	}
	var out *conn
	for c := range l.strangers {
		switch {
		case c.waits(now) <= l.limits.Grace:
		case out == nil, count[c.host] > count[out.host], count[c.host] == count[out.host] && c.came.Before(out.came):
			out = c
		}
	}
	return out
}

// conn is a connection, of a stranger until [Admit].
type conn struct {
	net.Conn
	l     *Listener
	host  string
	came  time.Time
	since atomic.Int64 // when the server began to wait for the peer, in ns of Unix time; 0: it does not
	known atomic.Bool

	timer *time.Timer
	// The listener's lock guards these.
	stranger bool   // it has a stranger's place
	who      string // the known peer in whose quota it counts
	ended    bool
}

func (c *conn) waits(now time.Time) time.Duration {
	since := c.since.Load()
	if since == 0 {
		return 0
	}
	return now.Sub(time.Unix(0, since))
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	if c.known.Load() {
		return c.Conn.Read(p)
	}
	c.since.Store(time.Now().UnixNano())
	defer c.since.Store(0)
	return c.Conn.Read(p)
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	if c.known.Load() {
		return c.Conn.Write(p)
	}
	c.since.Store(time.Now().UnixNano())
	defer c.since.Store(0)
	return c.Conn.Write(p)
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// abort closes at once: nothing is kept of the connection, in the kernel either.
func (c *conn) abort() {
	if t, ok := c.Conn.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // it is closed all the same
	}
	_ = c.Close() // whoever reads from it sees the error
}

// leave gives the connection's place back, once.
func (c *conn) leave() {
	l := c.l
	l.mu.Lock()
	stranger, first := c.stranger, !c.ended
	c.ended, c.stranger = true, false
	delete(l.strangers, c)
	if first && c.who != "" {
		l.conns.Give(c.who)
	}
	l.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
	}
	if !stranger {
		return
	}
	l.hosts.failed(c.host, time.Now())
	select {
	case l.freed <- struct{}{}:
	default:
	}
}

// Most is what one known peer may have open at a time.
type Most struct{ Connections, Requests int }

type key struct{}

// Context gives a request's context its connection: it is [http.Server.ConnContext].
func Context(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if x, ok := c.(*conn); ok {
		return context.WithValue(ctx, key{}, x)
	}
	return ctx
}

// Admit says that a request has shown credentials, those of who. Its connection is no
// stranger's any more. It reports false where who has too much open already; else done
// must be called when the request has been answered. A request whose connection no
// [Listener] accepted is always admitted.
func Admit(ctx context.Context, who string, most Most) (done func(), ok bool) {
	c, ok := ctx.Value(key{}).(*conn)
	if !ok {
		return func() {}, true
	}
	l := c.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.requests.Take(who, most.Requests) {
		return nil, false
	}
	if c.who == "" && !c.ended {
		if !l.conns.Take(who, most.Connections) {
			l.requests.Give(who)
			return nil, false
		}
		c.who, c.stranger = who, false
		delete(l.strangers, c)
		c.timer.Stop()
		c.known.Store(true)
		l.hosts.known(c.host, time.Now())
		select {
		case l.freed <- struct{}{}:
		default:
		}
	}
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.requests.Give(who)
	}), true
}
