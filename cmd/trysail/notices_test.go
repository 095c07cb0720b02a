package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"trysail/release"
)

// listen makes a listener in a host's namespace, which it stays in wherever it is
// accepted from.
func (h *host) listen(address string) net.Listener {
	h.w.t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.Get()
	if err != nil {
		h.w.t.Fatal(err)
	}
	defer here.Close()
	there, err := netns.GetFromName(h.w.tag + "-" + h.name)
	if err != nil {
		h.w.t.Fatal(err)
	}
	defer there.Close()
	if err := netns.Set(there); err != nil {
		h.w.t.Fatal(err)
	}
	l, lerr := net.Listen("tcp", address)
	if err := netns.Set(here); err != nil {
		panic(err) // this thread is of no use any more, to no test
	}
	if lerr != nil {
		h.w.t.Fatal(lerr)
	}
	return l
}

// hook is a webhook on the control machine that keeps what it took.
type hook struct {
	mu  sync.Mutex
	got []string // kind item
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(r.Body)
	var e struct {
		Type    string `json:"type"`
		Subject string `json:"subject"`
	}
	if err == nil {
		err = json.Unmarshal(data, &e)
	}
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.got = append(h.got, strings.TrimSpace(strings.TrimPrefix(e.Type, "trysail.")+" "+e.Subject))
}

func (h *hook) list() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.got)
}

// A machine dies, then control, and the release ships: people are told each thing
// once.
func TestFleetNotices(t *testing.T) {
	w := plainWorld(t)
	c := w.hosts["control"]
	l := c.listen("127.0.0.1:0")
	h := &hook{}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	go func() { _ = srv.Serve(l) }() // ends with Close
	t.Cleanup(func() { _ = srv.Close() })
	w.write("notify.yaml", "slack_under: 24h\nwebhooks:\n- url: http://"+l.Addr().String()+"/\n")
	w.write("bad.yaml", "slack_under: 24h\nwebhook:\n- url: http://"+l.Addr().String()+"/\n")
	if _, err := w.run("serve", "--notify", filepath.Join(w.dir, "bad.yaml")); err == nil || !strings.Contains(err.Error(), "bad.yaml:2: ") || !strings.Contains(err.Error(), "docs/notices.md") {
		t.Errorf("a file with an unknown key: %v", err)
	}
	again := func() {
		t.Helper()
		c.kill()
		c.start("serve", "--listen", w.control, "--notify", filepath.Join(w.dir, "notify.yaml"))
		w.until("control answers", func() bool { _, err := w.run("fleet"); return err == nil })
	}
	again()
	a := w.agent("a", 11, "--plain")
	w.agent("b", 12, "--plain", "--rank", "backup")
	w.agent("c", 13, "--plain", "--rank", "spare")
	w.begin()
	w.until("gold begins on a", func() bool { return w.item("gold").Machine == "a" && len(w.began()) == 1 })
	a.kill()
	w.movesTo("b", 2)
	w.until("people know that a is lost", func() bool { return len(h.list()) == 1 })
	w.letGo()
	w.until("gold is confirmed", func() bool { return w.item("gold").Status == release.Complete })
	w.until("people know what is wanted", func() bool { return slices.Contains(h.list(), "sign-off-wanted tried") })
	again()
	w.until("the machines are back", func() bool { return w.up("b") && w.up("c") })
	w.finish()
	want := []string{"machine-lost gold", "gold-committed gold", "gold-confirmed gold", "sign-off-wanted tried", "action-wanted ship", "shipped"}
	w.until("people know that it is shipped", func() bool { return slices.Contains(h.list(), "shipped") })
	if got := h.list(); !slices.Equal(got, want) {
		t.Errorf("people were told %q, not %q", got, want)
	}
	w.until("a machine has a copy of who was told", func() bool {
		return strings.Contains(w.sh("cat "+filepath.Join(w.dir, "b/agent/ledger/notices.jsonl")+" || true"), `"id":"4.2/`)
	})
}

// up tells whether control hears of a machine.
func (w *world) up(name string) bool {
	for _, m := range w.fleet() {
		if m.Name == name && m.Condition == "up" {
			return true
		}
	}
	return false
}
