package limit

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

func TestHost(t *testing.T) {
	for from, want := range map[string]string{
		"192.0.2.1:1":            "192.0.2.1",
		"[::ffff:192.0.2.1]:1":   "192.0.2.1",
		"[2001:db8::1]:1":        "2001:db8::/64",
		"[2001:db8::ffff:0:2]:1": "2001:db8::/64",
		"[2001:db8:0:1::1]:1":    "2001:db8:0:1::/64",
		"[fe80::1%eth0]:1":       "fe80::/64",
		"/run/socket":            "/run/socket",
	} {
		if got := Host(address(from)); got != want {
			t.Errorf("%s is %s, not %s", from, got, want)
		}
	}
}

type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }

func TestHosts(t *testing.T) {
	l := Limits{Failures: 3, Refill: 1, Familiar: time.Minute, Hosts: 2}
	at := time.Unix(1000, 0)
	h := newHosts(l)
	for range 3 {
		if !h.admits("a", at) {
			t.Fatal("refused too early")
		}
		h.failed("a", at)
	}
	if h.admits("a", at) {
		t.Error("admitted after three failures")
	}
	if !h.admits("b", at) {
		t.Error("another address is refused")
	}
	if at = at.Add(time.Second); !h.admits("a", at) {
		t.Error("refused after a second")
	}
	h.failed("a", at)
	h.known("a", at)
	if !h.admits("a", at) {
		t.Error("an address of a known peer is refused")
	}
	if at = at.Add(time.Minute); !h.familiar(h.by["a"], at.Add(-time.Nanosecond)) || h.familiar(h.by["a"], at) {
		t.Error("an address is familiar for another time than a minute")
	}
	for _, name := range []string{"c", "d", "e", "f"} {
		h.failed(name, at)
		h.known("f", at)
	}
	if len(h.by) > l.Hosts || h.by["f"] == nil {
		t.Errorf("%d addresses are remembered; the known one: %v", len(h.by), h.by["f"])
	}
}

func TestQuota(t *testing.T) {
	q := Quota{}
	for i, want := range []bool{true, true, false} {
		if got := q.Take("ann", 2); got != want {
			t.Errorf("ann takes place %d of 2: %v", i+1, got)
		}
	}
	if !q.Take("bob", 2) {
		t.Error("bob has no place because ann took hers")
	}
	q.Give("ann")
	if !q.Take("ann", 2) {
		t.Error("what was given back is not had again")
	}
	for range 2 {
		q.Give("ann")
	}
	if q.Give("bob"); len(q) != 0 {
		t.Errorf("everything was given back: %v", q)
	}
}

// queue is a listener in memory.
type queue struct {
	conns chan net.Conn
	over  chan struct{}
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.over:
		return nil, net.ErrClosed
	}
}
func (q *queue) Close() error   { close(q.over); return nil }
func (q *queue) Addr() net.Addr { return address("") }

// from is a connection from an address.
type from struct {
	net.Conn
	host string
}

func (f from) RemoteAddr() net.Addr { return address(f.host + ":1") }

// open connects from an address, and gives both ends of what was accepted.
func (q *queue) open(t *testing.T, l *Listener, host string) (client, server net.Conn) {
	t.Helper()
	near, far := net.Pipe()
	q.conns <- from{far, host}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return near, c
}

func listening(t *testing.T, l Limits, test func(t *testing.T, q *queue, l *Listener)) {
	synctest.Test(t, func(t *testing.T) {
		q := &queue{make(chan net.Conn, 10), make(chan struct{})}
		x := Listen(q, l)
		test(t, q, x)
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
}

func closed(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(time.Millisecond)) // of a pipe
	_, err := c.Read(make([]byte, 1))
	ne, ok := err.(net.Error)
	return err != nil && (!ok || !ne.Timeout())
}

// TestStrangersMakePlace: the oldest that keeps the server waiting, of the address with the
// most, goes when another wants the place; a known peer never does.
func TestStrangersMakePlace(t *testing.T) {
	l := Limits{Strangers: 3, Patience: time.Hour, Grace: time.Second, Failures: 100, Refill: 1, Hosts: 10}
	listening(t, l, func(t *testing.T, q *queue, l *Listener) {
		known, server := q.open(t, l, "192.0.2.9")
		if _, ok := Admit(Context(context.Background(), server), "machine m", Most{1, 1}); !ok {
			t.Fatal("not admitted")
		}
		read := func(c net.Conn) { go func() { _, _ = c.Read(make([]byte, 1)) }() }
		read(server)
		lone, s := q.open(t, l, "192.0.2.1")
		read(s)
		time.Sleep(time.Second / 2)
		first, s := q.open(t, l, "192.0.2.2")
		read(s)
		time.Sleep(time.Second / 10)
		second, s := q.open(t, l, "192.0.2.2")
		read(s)
		begin := time.Now()
		next, s := q.open(t, l, "192.0.2.3")
		if took := time.Since(begin); took < time.Second/4 || took > 10*time.Second {
			t.Errorf("it had to wait for %s", took)
		}
		// Only the lone one had used up its grace then; one of the crowd goes next.
		if !closed(lone) || closed(first) || closed(second) || closed(known) || closed(next) {
			t.Errorf("closed: lone %v first %v second %v known %v next %v", closed(lone), closed(first), closed(second), closed(known), closed(next))
		}
		read(s)
		time.Sleep(2 * time.Second)
		last, _ := q.open(t, l, "192.0.2.4")
		if !closed(first) || closed(second) || closed(next) || closed(last) || closed(known) {
			t.Errorf("closed: first %v second %v next %v last %v known %v", closed(first), closed(second), closed(next), closed(last), closed(known))
		}
		for _, c := range []net.Conn{known, second, next, last} {
			c.Close()
		}
		for c := range l.strangers {
			c.Close()
		}
		server.Close()
	})
}

// TestStrangerIsClosed: whoever shows nothing for long enough is closed, and a known peer
// is not; an address that does nothing else is refused.
func TestStrangerIsClosed(t *testing.T) {
	l := Limits{Strangers: 10, Patience: time.Second, Grace: time.Second, Failures: 2, Refill: 0.001, Hosts: 10}
	listening(t, l, func(t *testing.T, q *queue, l *Listener) {
		known, server := q.open(t, l, "192.0.2.9")
		done, ok := Admit(Context(context.Background(), server), "ann", Most{1, 1})
		if !ok {
			t.Fatal("not admitted")
		}
		if _, ok := Admit(Context(context.Background(), server), "ann", Most{1, 1}); ok {
			t.Error("two requests of one")
		}
		done()
		done() // once is enough
		if done, ok = Admit(Context(context.Background(), server), "ann", Most{1, 1}); !ok {
			t.Error("no request after the first has ended")
		}
		done()
		other, s := q.open(t, l, "192.0.2.9")
		if _, ok := Admit(Context(context.Background(), s), "ann", Most{1, 1}); ok {
			t.Error("two connections of one")
		}
		time.Sleep(2 * time.Second)
		if closed(known) || !closed(other) {
			t.Errorf("closed: the known one %v, the other %v", closed(known), closed(other))
		}
		q.open(t, l, "192.0.2.1")
		q.open(t, l, "192.0.2.1")
		time.Sleep(2 * time.Second)
		near, far := net.Pipe()
		q.conns <- from{far, "192.0.2.1"}
		after, s := q.open(t, l, "192.0.2.2") // the one before was not accepted
		if !closed(near) || closed(after) {
			t.Errorf("closed: the third %v, another address %v", closed(near), closed(after))
		}
		s.Close()
		server.Close()
	})
}
