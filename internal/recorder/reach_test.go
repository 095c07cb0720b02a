package recorder

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// hidden is a service on the loopback of this machine, which a build must not reach.
type hidden struct {
	port  string
	asked atomic.Int64
}

func newHidden(t *testing.T) *hidden {
	t.Helper()
	needRoot(t)
	h := &hidden{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, h.port, _ = net.SplitHostPort(l.Addr().String())
	list := []net.Listener{l}
	if six, err := net.Listen("tcp", "[::1]:"+h.port); err == nil { // this machine has IPv6
		list = append(list, six)
	}
	for _, l := range list {
		s := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			h.asked.Add(1)
			fmt.Fprint(w, "what only this machine may see")
		}), ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				h.asked.Add(1)
			}
		}}}
		s.Start()
		t.Cleanup(s.Close)
	}
	return h
}

// TestAttackHostLoopback is a build that asks its recorder for services of this machine's
// loopback, by every name that it has.
func TestAttackHostLoopback(t *testing.T) {
	h := newHidden(t)
	var looked atomic.Int64
	o := Options{
		Store:    &memory{blobs: map[string][]byte{}},
		Upstream: func(*url.URL) (*url.URL, error) { return nil, nil },
		Lookup: func(_ context.Context, name string) []net.IP {
			switch {
			case name == "mixed.example.com":
				return []net.IP{net.IPv6loopback, net.IPv4(127, 0, 0, 1), net.IPv4(127, 8, 8, 8)}
			case name == "rebinds.example.com" && looked.Add(1) > 1:
				return []net.IP{net.IPv4(127, 0, 0, 1)}
			case strings.HasSuffix(name, "localhost"), name == "0.0.0.0":
				return []net.IP{net.IPv4(127, 0, 0, 1)}
			}
			return []net.IP{net.IPv4(192, 0, 2, 1)}
		},
	}
	r, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	p := h.port
	for _, attack := range []string{
		"-H 'Host: 127.0.0.1:" + p + "' http://a.example.com:" + p + "/",
		"-H 'Host: localhost:" + p + "' http://a.example.com:" + p + "/",
		"-H 'Host: a.localhost:" + p + "' http://a.example.com:" + p + "/",
		"-H 'Host: 0.0.0.0:" + p + "' http://a.example.com:" + p + "/",
		"-H 'Host: 0:" + p + "' http://a.example.com:" + p + "/",
		"-H 'Host: 127.1:" + p + "' http://a.example.com:" + p + "/",
		"-H 'Host: 127.8.8.8:" + p + "' http://a.example.com:" + p + "/",
		"-H 'Host: [::1]:" + p + "' http://a.example.com:" + p + "/",
		"-H 'Host: [::ffff:127.0.0.1]:" + p + "' http://a.example.com:" + p + "/",
		"-H 'Host: [::]:" + p + "' http://a.example.com:" + p + "/",
		"-x http://a.example.com:80 http://127.0.0.1:" + p + "/",                 // the whole address in the request
		"-x http://a.example.com:80 http://[::1]:" + p + "/",                     // likewise
		"-p -x http://a.example.com:80 http://127.0.0.1:" + p + "/",              // through a tunnel
		"-p -x http://a.example.com:80 http://[::ffff:127.0.0.1]:" + p + "/",     // likewise
		"-p -x http://a.example.com:80 telnet://127.0.0.1:" + p,                  // what is no HTTP
		"http://mixed.example.com:" + p + "/",                                    // a name
		"http://rebinds.example.com:" + p + "/",                                  // that changes
		"http://0.0.0.0:" + p + "/",                                              // addresses
		"http://[::ffff:127.0.0.1]:" + p + "/",                                   //
		"-H 'Host: mixed.example.com:" + p + "' http://a.example.com:" + p + "/", // a name in a header
	} {
		got := in(t, r, "echo | timeout 5 curl -gsS -m 4 "+attack+" || true")
		if n := h.asked.Swap(0); n > 0 || strings.Contains(got, "only this machine") {
			t.Errorf("curl %s reaches the loopback of this machine: %s", attack, got)
		}
	}
	if _, err := r.Stop(); err != nil {
		t.Fatal(err)
	}
}

// TestMachineLoopback: a mirror on the machine's own loopback is recorded and replayed like any
// other, by each of its names, and so is what comes through a proxy there. Other ports stay closed.
func TestMachineLoopback(t *testing.T) {
	h := newHidden(t) // at a port that the kernel gave
	var l net.Listener
	port := 0
	for port = 4873; port < 4973 && l == nil; port++ {
		l, _ = net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	}
	if l == nil {
		t.Fatal("no port is free")
	}
	at := strconv.Itoa(port - 1)
	mirror := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { fmt.Fprint(w, "package ", q.URL, "\n") })}
	go mirror.Serve(l) //nolint:errcheck // it ends with the test
	ports, err := MachineLoopback()
	if err != nil || !slices.Contains(ports, uint16(port-1)) {
		t.Fatalf("the ports of the machine's loopback are %v: %v", ports, err)
	}
	o := Options{
		Store: &memory{blobs: map[string][]byte{}}, Loopback: ports,
		Upstream: func(*url.URL) (*url.URL, error) { return nil, nil },
		Lookup: func(_ context.Context, name string) []net.IP {
			if name == "gone.example.com" {
				return nil
			}
			return []net.IP{net.IPv4(127, 0, 0, 1)}
		},
	}
	script := "for u in http://localhost:" + at + "/a http://127.0.0.1:" + at + "/b http://machine.example.com:" + at + "/c; do curl -sS -m 9 $u; done" +
		"; curl -sS -m 9 -x http://127.0.0.1:" + at + " http://other.example.com:" + at + "/d" +
		"; timeout 5 curl -sS -m 4 http://127.0.0.1:" + h.port + "/ || true"
	r, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	was := in(t, r, script)
	recording, err := r.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(was, "package /") != 4 || len(recording.Exchanges) != 4 || h.asked.Load() > 0 {
		t.Errorf("recorded %d exchanges, the hidden service was asked %d times: %s", len(recording.Exchanges), h.asked.Load(), was)
	}
	mirror.Close()
	o.Replay, o.Loopback = recording, nil
	if r, err = Start(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if is := in(t, r, script); strings.Count(is, "package /") != 4 {
		t.Errorf("replayed: %s", is)
	}
	if _, err := r.Stop(); err != nil {
		t.Fatal(err)
	}
}

func TestLoopbackListener(t *testing.T) {
	for line, want := range map[string]uint16{
		"   0: 0100007F:1309 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1":                         4873,
		"   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1":                         22,
		"   0: 0101007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1":                         80,
		"   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 0": 8080,
		"   0: 00000000000000000000000001000000:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 0": 8081,
		"   0: 0000000000000000FFFF00000100007F:1F92 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 0": 8082,
		"   0: 0A00A8C0:1309 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1":                         0, // another address
		"   0: 0100007F:1309 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 1":                         0, // a connection
		"  sl  local_address rem_address   st tx_queue rx_queue":                                                               0,
		"": 0,
	} {
		if port, ok := loopbackListener(line); ok != (want != 0) || ok && port != want {
			t.Errorf("%q: %d, %v", line, port, ok)
		}
	}
}

// TestAttackReplayConnects is a step without a network that asks its recorder for
// everything: nothing is connected, and no name is looked up.
func TestAttackReplayConnects(t *testing.T) {
	h := newHidden(t)
	never := func(what string) { t.Errorf("on replay the recorder %s", what) }
	o := Options{
		Replay: &Recording{Version: recordingVersion}, Store: &memory{blobs: map[string][]byte{}},
		Upstream: func(*url.URL) (*url.URL, error) { return nil, nil },
		Lookup:   func(_ context.Context, name string) []net.IP { never("looks up " + name); return nil },
		Dial: func(_ context.Context, _, address string) (net.Conn, error) {
			never("connects to " + address)
			return nil, net.ErrClosed
		},
	}
	r, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	p := h.port
	for _, attack := range []string{
		"-H 'Host: 127.0.0.1:" + p + "' http://192.0.2.1/", "http://192.0.2.1:" + p + "/", "https://192.0.2.1/", "http://127.0.0.1:" + p + "/",
		"-x http://192.0.2.1:80 http://127.0.0.1:" + p + "/", "-p -x http://192.0.2.1:80 http://127.0.0.1:" + p + "/",
		"http://a.example.com/", "http://169.254.169.254/latest/meta-data/", "-m 1 telnet://192.0.2.1:22",
	} {
		in(t, r, "echo | timeout 5 curl -gsS -m 4 "+attack+" || true")
	}
	if n := h.asked.Load(); n > 0 {
		t.Errorf("a service of this machine was asked %d times", n)
	}
	if _, err := r.Stop(); err != nil {
		t.Fatal(err)
	}
}

// TestPass: every connection is carried as it is, as the user that it is made for, to what
// the wall lets it reach; nothing is recorded.
func TestPass(t *testing.T) {
	h := newHidden(t)
	uid := make(chan string, 1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			uid <- owner(c.RemoteAddr().(*net.TCPAddr).Port)
			fmt.Fprint(c, "welcome\n")
			c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	r, err := Start(t.Context(), Options{
		Pass: true, UID: 4242,
		Lookup: func(context.Context, string) []net.IP {
			return []net.IP{net.IPv4(192, 0, 2, 1), net.IPv4(127, 0, 0, 1)}
		},
		Wall: func(_ context.Context, ip netip.Addr) error {
			if ip.Unmap().String() == "192.0.2.1" {
				return errors.New("it is behind the wall")
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.CA() != nil {
		t.Error("it has an authority")
	}
	// The client stays until the server has looked whose socket it is: a closed one is root's.
	if got := in(t, r, "sleep 1 | curl -sS telnet://somewhere.example.com:"+port); got != "welcome" {
		t.Errorf("what a server says first is %q", got)
	}
	if got := <-uid; got != "4242" {
		t.Errorf("the connection is of user %s", got)
	}
	if got := in(t, r, "curl -sS http://a.example.com:"+h.port); !strings.Contains(got, "only this machine") {
		t.Errorf("a server says %q", got)
	}
	if got := in(t, r, "curl -sS -m 5 http://192.0.2.1:"+h.port+" 2>&1 || true"); strings.Contains(got, "only this machine") || !strings.Contains(got, "mpty reply") && !strings.Contains(got, "reset") {
		t.Errorf("an address behind the wall says %q", got)
	}
	rec, err := r.Stop()
	if err != nil || len(rec.Exchanges) > 0 {
		t.Errorf("%d exchanges are recorded: %v", len(rec.Exchanges), err)
	}
}

// owner is the user whose socket has a port.
func owner(port int) string {
	data, err := os.ReadFile("/proc/thread-self/net/tcp") // the first thread may be in a namespace of its own by now
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 7 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
			return f[7]
		}
	}
	return "nobody"
}

func TestOutside(t *testing.T) {
	needRoot(t)
	own, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	wall := Outside(func() []string { return []string{"192.0.2.7"} })
	refused := []string{"127.0.0.1", "127.8.8.8", "0.0.0.0", "0.1.2.3", "::1", "::", "::ffff:127.0.0.1", "::ffff:0.0.0.0", "169.254.169.254", "fe80::1", "224.0.0.1", "255.255.255.255", "192.0.2.7", "::ffff:192.0.2.7"}
	for _, a := range own {
		refused = append(refused, a.(*net.IPNet).IP.String())
	}
	for _, ip := range refused {
		if err := wall(t.Context(), netip.MustParseAddr(ip)); err == nil {
			t.Errorf("%s is let through", ip)
		}
	}
	if routed(t) {
		for _, ip := range []string{"192.0.2.8", "10.254.254.253", "198.51.100.1"} {
			if err := wall(t.Context(), netip.MustParseAddr(ip)); err != nil {
				t.Errorf("%s: %v", ip, err)
			}
		}
	}
}

// routed tells whether this machine has a way out.
func routed(t *testing.T) bool {
	t.Helper()
	data, err := os.ReadFile("/proc/thread-self/net/route")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 7 && f[1] == "00000000" && f[7] == "00000000" {
			return true
		}
	}
	return false
}
