package recorder

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
)

// within runs as a program of the build: on a thread in its network.
func within(t *testing.T, r *Recorder, build func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is thrown away
		done <- func() error {
			ns, err := netns.GetFromPath(r.NetNS())
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := netns.Set(ns); err != nil {
				return err
			}
			build()
			return nil
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestAttackManyConnections: a build opens connections without end and says nothing. The
// process that it runs under, an agent with the leases of other steps, keeps descriptors
// and memory for itself.
func TestAttackManyConnections(t *testing.T) {
	w := newWorld(t)
	for _, pass := range []bool{false, true} {
		o := w.options(nil)
		o.Pass = pass
		r, err := Start(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		before := descriptors(t)
		var mine []net.Conn
		within(t, r, func() {
			for i := range 3000 {
				d := net.Dialer{Timeout: 500 * time.Millisecond}
				c, err := d.Dial("tcp4", fmt.Sprintf("203.0.113.%d:443", 1+i%250))
				if err != nil {
					break
				}
				mine = append(mine, c)
			}
		})
		time.Sleep(2 * time.Second)
		if n := descriptors(t) - before - len(mine); n > 5*mostConnections+100 {
			t.Errorf("pass %t: %d connections of a build cost its recorder %d descriptors", pass, len(mine), n)
		}
		for _, c := range mine {
			c.Close()
		}
		// A program that comes when those are gone is served.
		time.Sleep(time.Second)
		if !pass {
			if got := in(t, r, "curl -sS -m 20 http://plain.example.com/echo -d hello || true"); !strings.Contains(got, "hello") {
				t.Errorf("after that a program of the build gets %q", got)
			}
		}
		if _, err := r.Stop(); err != nil {
			t.Error(err)
		}
	}
}

// TestAttackTunnelInTunnel: a build asks for a tunnel, in it for another, and so on. Each
// costs the recorder memory and depth of its stack, and the build forty bytes.
func TestAttackTunnelInTunnel(t *testing.T) {
	w := newWorld(t)
	r, err := Start(t.Context(), w.options(nil))
	if err != nil {
		t.Fatal(err)
	}
	depth := 0
	before := runtime.NumGoroutine()
	within(t, r, func() {
		c, err := net.Dial("tcp4", "203.0.113.1:80")
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		buf := make([]byte, 200)
		for depth < 100 {
			fmt.Fprint(c, "CONNECT a.example.com:80 HTTP/1.1\r\nHost: a.example.com:80\r\n\r\n")
			_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
			n, err := c.Read(buf)
			if err != nil || !strings.Contains(string(buf[:n]), " 200 ") {
				break
			}
			depth++
		}
		if n := runtime.NumGoroutine() - before; n > 60 {
			t.Errorf("one connection of the build costs %d goroutines", n)
		}
	})
	if depth > 4 || depth < 1 {
		t.Errorf("a tunnel is made in a tunnel, %d deep", depth)
	}
	if _, err := r.Stop(); err != nil {
		t.Error(err)
	}
}

// An address that is new each time is told from one that nobody recorded.
func TestUnansweredWithAnotherQuery(t *testing.T) {
	was := &Recording{Exchanges: []Exchange{{Method: "GET", URL: "http://example.com/pkg.tgz?_=1"}, {Method: "GET", URL: "http://example.com/plain"}}}
	r := &Recorder{unanswered: map[string]int{}, rec: &Recording{}, index: newIndex(was)}
	want := map[string]bool{"GET http://example.com/pkg.tgz?_=2": true, "GET http://example.com/pkg.tgz": true, "POST http://example.com/pkg.tgz?_=2": false, "GET http://example.com/other?_=1": false, "tcp example.com:22": false}
	for what := range want {
		r.block(what)
	}
	for _, u := range r.Unanswered() {
		if u.OtherQuery != want[u.What] {
			t.Errorf("%s: %v", u.What, u.OtherQuery)
		}
	}
	if n := len(r.Unanswered()); n != len(want) {
		t.Errorf("%d are listed", n)
	}
}

// TestAttackNamesWithoutEnd: a build asks for names and addresses without end that nobody
// has. What the recorder remembers of them is bounded, and two names never share an address.
func TestAttackNamesWithoutEnd(t *testing.T) {
	r := &Recorder{names: map[string]string{}, addrs: map[string]string{}, unanswered: map[string]int{}, rec: &Recording{}}
	r.o.Lookup = func(context.Context, string) []net.IP { return nil }
	r.ctx = t.Context()
	for i := range 140_000 {
		r.address(fmt.Sprintf("n%d.example.com", i))
	}
	if len(r.names) != len(r.addrs) {
		t.Errorf("%d names have %d addresses", len(r.addrs), len(r.names))
	}
	for i := range 20_000 {
		what := fmt.Sprintf("GET http://example.com/%d%s", i, strings.Repeat("x", 10_000))
		r.block(what)
		r.note(Connection{Network: "tcp", Address: fmt.Sprintf("h%d.example.com:1", i), Why: "tcp"})
	}
	size := 0
	for what := range r.unanswered {
		size += len(what)
	}
	if size > 8<<20 || len(r.rec.Connections) > mostNotes+1 {
		t.Errorf("the recorder remembers %d MB of what was asked in vain, and %d connections", size>>20, len(r.rec.Connections))
	}
	if r.blocked != 20_000 {
		t.Errorf("%d are counted", r.blocked)
	}
}

// TestAttackQuestionsWithoutEnd: a build asks the resolver as fast as it can. The machine's
// own resolver is asked a few questions at a time.
func TestAttackQuestionsWithoutEnd(t *testing.T) {
	w := newWorld(t)
	o := w.options(nil)
	asked := make(chan struct{}, 100_000)
	stop := make(chan struct{})
	o.Lookup = func(context.Context, string) []net.IP {
		asked <- struct{}{}
		<-stop // a resolver that takes its time
		return nil
	}
	r, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	within(t, r, func() {
		c, err := net.Dial("udp4", "127.0.0.1:53")
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		for i := range 20_000 {
			name := fmt.Sprintf("%06d", i)
			q := "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06" + name + "\x07example\x03com\x00\x00\x01\x00\x01"
			_, _ = c.Write([]byte(q))
			if i%200 == 0 {
				time.Sleep(5 * time.Millisecond)
			}
		}
	})
	time.Sleep(500 * time.Millisecond)
	if n := len(asked); n > 200 {
		t.Errorf("%d questions are asked at a time", n)
	}
	if n := runtime.NumGoroutine() - before; n > 300 {
		t.Errorf("%d goroutines wait for answers", n)
	}
	close(stop)
	if _, err := r.Stop(); err != nil {
		t.Error(err)
	}
}

// TestAttackBodyWithoutEnd: a build sends a request that does not end. On replay nothing of
// it is written to the disk of the machine.
func TestAttackBodyWithoutEnd(t *testing.T) {
	w := newWorld(t)
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	o := w.options(&Recording{Version: recordingVersion})
	r, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	most := int64(0)
	within(t, r, func() {
		c, err := net.Dial("tcp4", "203.0.113.1:80")
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: a.example.com\r\nContent-Length: 100000000000\r\n\r\n")
		for range 32 {
			if _, err := c.Write(make([]byte, 1<<20)); err != nil {
				break
			}
			fds, _ := os.ReadDir("/proc/self/fd")
			for _, fd := range fds {
				if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.Contains(to, "trysail-request-") {
					if info, err := os.Stat("/proc/self/fd/" + fd.Name()); err == nil {
						most = max(most, info.Size())
					}
				}
			}
		}
	})
	if most > 0 {
		t.Errorf("%d MB of a request are on the disk", most>>20)
	}
	if _, err := r.Stop(); err != nil {
		t.Error(err)
	}
}

// TestAttackLongHeaders: a build fetches from its author's server, which answers with long
// headers and no body. A recording holds them in memory.
func TestAttackLongHeaders(t *testing.T) {
	w := newWorld(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["X-Long"] = []string{strings.Repeat("x", 50<<10), strings.Repeat("y", 50<<10)}
	}))
	t.Cleanup(server.Close)
	w.raw["long.example.com:80"] = server.Listener.Addr().String()
	r, err := Start(t.Context(), w.options(nil))
	if err != nil {
		t.Fatal(err)
	}
	in(t, r, "curl -sS -m 60 -o /dev/null 'http://long.example.com/[1-1500]'")
	rec, err := r.Stop()
	size := 0
	for _, x := range rec.Exchanges {
		size += len(strings.Join(x.Header["X-Long"], ""))
	}
	if size > 128<<20 || err == nil {
		t.Errorf("%d MB of headers are in memory: %v", size>>20, err)
	}
}
