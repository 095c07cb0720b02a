package agent

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"trysail/internal/api"
)

// A step connects to a name of which its own server says another address each time. The agent
// keeps each in memory, and all of them in the step's log.
func TestAttackAddressesWithoutEnd(t *testing.T) {
	a := &Agent{o: Options{Client: api.NewClient([]string{"127.0.0.1:1"}, "", nil)}}
	file := filepath.Join(t.TempDir(), "log")
	l, err := a.newLog(api.Holding{}, file, maskOf(nil))
	if err != nil {
		t.Fatal(err)
	}
	defer l.file.Close()
	wall := (&step{a: a, log: l}).wall()
	ip := netip.MustParseAddr("ff02::1:0")
	for range 20_000 {
		if ip = ip.Next(); wall(t.Context(), ip) == nil {
			t.Fatalf("a step reaches %s", ip)
		}
	}
	if err := wall(t.Context(), netip.MustParseAddr("127.0.0.1")); err == nil {
		t.Error("a step reaches the loopback of its machine")
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(data, []byte("no way to")); n > 1000 {
		t.Errorf("%d addresses are kept", n)
	}
}
