package recorder

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"time"
)

// What a connection is: HTTP, TLS or something else. The first bytes tell;
// where nobody speaks, time does not.

const (
	// patience is how long a client may be silent before its server is asked
	// whether it speaks first, as those of ssh and mail do.
	patience = 400 * time.Millisecond
	// silence is how long a connection may say nothing where there is no
	// server to ask. A slow program takes its time before it speaks.
	silence = 15 * time.Second
)

// sort finds out what a connection of the build speaks.
func (r *Recorder) sort(raw net.Conn) error {
	m, err := r.destination(raw)
	if err != nil {
		return err
	}
	return r.sortFor(raw, bufio.NewReaderSize(raw, 8<<10), m)
}

// sortFor is sort for a connection whose destination is known. A silent client
// is not taken for anything: a virtual machine that still loads its TLS classes
// is silent too. Its server is connected, and the side that speaks first tells.
func (r *Recorder) sortFor(raw net.Conn, br *bufio.Reader, m meant) error {
	if l := r.live("tcp", m.address(), m.raw); l != nil {
		return r.pass(raw, br, m, l.Name)
	}
	if r.o.Pass {
		return r.pass(raw, br, m, "")
	}
	head, err := peek(raw, br, patience)
	if len(head) == 0 && !errors.Is(err, io.EOF) {
		if r.o.Replay == nil {
			up, derr := r.serverFirst(raw, br, m)
			if derr != nil {
				return derr
			}
			if up != nil {
				return r.passed(raw, br, m, "", up)
			}
			head, err = peek(raw, br, patience)
		} else if !r.index.raw[m.address()] {
			head, err = peek(raw, br, silence)
		}
	}
	c := &conn{Conn: raw, r: br, meant: m, closed: make(chan struct{})}
	switch sniff(head) {
	case speaksTLS:
		return r.serveTLS(c)
	case speaksHTTP:
		return r.hand(c, c)
	}
	if errors.Is(err, io.EOF) && len(head) == 0 {
		return err // opened and closed: a probe
	}
	return r.pass(raw, br, m, "")
}

// peek waits for the first bytes, as many as tell a protocol; fewer after a while.
func peek(c net.Conn, br *bufio.Reader, wait time.Duration) ([]byte, error) {
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return nil, err
	}
	head, err := br.Peek(8)
	if rerr := c.SetReadDeadline(time.Time{}); rerr != nil {
		return nil, rerr
	}
	return head, err
}

// spoke waits for the first byte, or the end, of a side. Stop wakes it.
type spoke struct {
	c    net.Conn
	said chan struct{}
}

func listen(c net.Conn, br *bufio.Reader) *spoke {
	s := &spoke{c, make(chan struct{})}
	go func() {
		defer close(s.said)
		_, _ = br.Peek(1) // an end or error comes again with the next read
	}()
	return s
}

func (s *spoke) stop() {
	_ = s.c.SetReadDeadline(time.Unix(1, 0)) // a closed connection needs no waking
	<-s.said
	_ = s.c.SetReadDeadline(time.Time{})
}

// serverFirst connects a silent client's server and waits until one of them
// speaks. It gives the server's connection if that was the one.
func (r *Recorder) serverFirst(raw net.Conn, br *bufio.Reader, m meant) (net.Conn, error) {
	client := listen(raw, br)
	defer client.stop()
	type dialed struct {
		c   net.Conn
		err error
	}
	ctx, cancel := context.WithCancel(r.ctx)
	reached := make(chan dialed, 1)
	go func() {
		c, err := r.o.Dial(ctx, "tcp", m.address())
		reached <- dialed{c, err}
	}()
	var up dialed
	select {
	case <-client.said:
		cancel()
		if up = <-reached; up.c != nil {
			up.c.Close()
		}
		return nil, nil
	case up = <-reached:
		cancel()
	}
	if up.err != nil {
		// The way may lead through a proxy only: it is the client that counts.
		select {
		case <-client.said:
			return nil, nil
		case <-time.After(silence):
			r.note(Connection{Network: "tcp", Address: m.address(), Why: "tcp, not reached"})
			return nil, up.err
		}
	}
	r.track(up.c, true)
	c := &conn{Conn: up.c, r: bufio.NewReader(up.c), closed: make(chan struct{})}
	server := listen(c, c.r)
	defer server.stop()
	select {
	case <-server.said:
		return c, nil
	case <-client.said:
		r.track(up.c, false)
		up.c.Close()
		return nil, nil
	}
}

// pass connects a build to what cannot be recorded, and names it. On replay
// only live dependencies pass.
func (r *Recorder) pass(c net.Conn, head io.Reader, m meant, live string) error {
	defer c.Close()
	if r.o.Replay != nil && live == "" {
		r.block("tcp " + m.address())
		r.note(Connection{Network: "tcp", Address: m.address(), Why: "tcp", Blocked: true})
		return nil
	}
	dial := r.o.Dial
	if live != "" {
		dial = r.dialLive
	}
	up, err := dial(r.ctx, "tcp", m.address())
	if err == nil {
		return r.passed(c, head, m, live, up)
	}
	if live == "" {
		r.note(Connection{Network: "tcp", Address: m.address(), Why: "tcp, not reached"})
		return err
	}
	r.note(Connection{Network: "tcp", Address: m.address(), Why: "live dependency " + live + ", not reached", Allowed: true})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inVain("live dependency " + live + " (" + m.address() + ")")
	return err
}

// passed carries what both sides say until both have ended.
func (r *Recorder) passed(c net.Conn, head io.Reader, m meant, live string, up net.Conn) error {
	defer c.Close()
	defer up.Close()
	r.track(up, true)
	defer r.track(up, false)
	upr := bufio.NewReader(up)
	why := "tcp"
	if live != "" {
		why = "live dependency " + live
	}
	// Each direction ends on its own.
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(up, head) // a side that is gone ends it
		closeWrite(up)
	}()
	if first, err := upr.Peek(4); err == nil && string(first) == "SSH-" && live == "" {
		why = "ssh"
	}
	_, _ = io.Copy(c, upr) // likewise
	closeWrite(c)
	<-done
	r.note(Connection{Network: "tcp", Address: m.address(), Why: why, Allowed: live != ""})
	return nil
}

func closeWrite(c net.Conn) {
	if x, ok := c.(*conn); ok {
		c = x.Conn
	}
	if t, ok := c.(interface{ CloseWrite() error }); ok {
		_ = t.CloseWrite() // the other side may be gone already
	}
}

type speech int

const (
	speaksOther speech = iota
	speaksTLS
	speaksHTTP
)

// sniff tells a protocol by its first bytes.
func sniff(head []byte) speech {
	if len(head) >= 3 && head[0] == 0x16 && head[1] == 3 && head[2] <= 4 {
		return speaksTLS
	}
	for _, m := range []string{"GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "OPTIONS ", "PATCH ", "CONNECT ", "PROPFIND", "REPORT ", "MKACTIVI", "CHECKOUT", "MERGE ", "TRACE "} {
		n := min(len(m), 8)
		if len(head) >= n && string(head[:n]) == m[:n] {
			return speaksHTTP
		}
	}
	return speaksOther
}
