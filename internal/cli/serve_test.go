package cli

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trysail/internal/api"
	"trysail/internal/clock"
	"trysail/internal/control"
	"trysail/internal/ledger"
)

// Flags that do not go together are a matter of the command line, as others are.
func TestFlagsThatDoNotGoTogether(t *testing.T) {
	code, _, why := typed(t, "--state", t.TempDir(), "serve", "--etcd", "http://127.0.0.1:1", "--recover", "x")
	if code != exitUsage || !strings.Contains(why, "[etcd recover]") {
		t.Errorf("exit %d: %s", code, why)
	}
}

// A control of several begins no ledger again on what it holds of theirs: it would
// wait for the others. It says so at once, and leaves what it is as it was.
func TestRecoverAmongSeveral(t *testing.T) {
	state, err := os.MkdirTemp("", "s") // the names of sockets are bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(state) })
	dir := filepath.Join(state, "control")
	etcd := filepath.Join(dir, "etcd")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	id, err := control.OpenIdentity(dir, []string{"127.0.0.1"}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := id.Peer("127.0.0.1:1", "127.0.0.1:0", "")
	if err != nil {
		t.Fatal(err)
	}
	begins := func(p *ledger.Peer) *ledger.Store {
		t.Helper()
		s, err := ledger.Start(t.Context(), ledger.StartOptions{Dir: etcd, Peer: p, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := begins(peer)
	if err := ledger.Alone(etcd); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("while it is in use: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := ledger.Alone(etcd); err != nil {
		t.Errorf("one that is alone: %v", err)
	}
	s = begins(peer)
	if _, err := s.AddControl(t.Context(), "127.0.0.1:2", "127.0.0.1:3"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "cluster")
	if err := os.WriteFile(file, []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	copies := t.TempDir()
	if err := os.WriteFile(filepath.Join(copies, "fleet.jsonl"), []byte(`{"seq":1}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var out, why strings.Builder
	code := Run(ctx, []string{"--state", state, "serve", "--listen", "127.0.0.1:0", "--recover", copies}, 0o022, strings.NewReader(""), &out, &why)
	if code != exitFailed || !strings.Contains(why.String(), "is of 2 controls") || !strings.Contains(why.String(), "move "+etcd+" away") {
		t.Errorf("exit %d: %s", code, why.String())
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("what it is a member of: %v", err)
	}
}

// begun ends what writes to it once it has said that it has begun.
type begun struct {
	strings.Builder
	end func()
}

func (b *begun) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "Control is at") {
		defer b.end()
	}
	return b.Builder.Write(p)
}

// A ledger that begins again says what must not happen to what is left of the old one.
func TestRecoverWarns(t *testing.T) {
	state, err := os.MkdirTemp("", "s") // the names of sockets are bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(state) })
	copies := t.TempDir()
	if err := os.WriteFile(filepath.Join(copies, "fleet.jsonl"), []byte(`{"seq":1}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, why := begun{end: cancel}, strings.Builder{}
	code := Run(ctx, []string{"--state", state, "serve", "--listen", "127.0.0.1:0", "--recover", copies, "--new-authority"}, 0o022, strings.NewReader(""), &out, &why)
	if !strings.Contains(out.String(), "Control is at") || !strings.Contains(why.String(), "must never start again") || !strings.Contains(why.String(), "serve --join") {
		t.Errorf("exit %d: %s%s", code, out.String(), why.String())
	}
}

// A control whose etcd was moved away joins anew, whatever it was a member of; one
// that holds it goes on as that, though its command still says --join.
func TestJoinAnew(t *testing.T) {
	link := api.Link{Address: "127.0.0.1:1", Fingerprint: strings.Repeat("0", 64), Secret: "s"}.String()
	for _, holds := range []bool{false, true} {
		dir := t.TempDir()
		a := &app{state: dir, clock: &clock.Clock{}}
		if err := os.MkdirAll(a.controlDir(), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(a.controlDir(), "cluster"), []byte("x=https://x:1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if holds {
			if err := os.Mkdir(filepath.Join(a.controlDir(), "etcd"), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		cluster, err := a.cluster(ctx, serveOptions{join: link}, &place{name: "127.0.0.1:3", peer: "127.0.0.1:4"})
		if holds && (err != nil || cluster != "x=https://x:1") {
			t.Errorf("one that holds its etcd: %q %v", cluster, err)
		}
		if !holds && err == nil {
			t.Errorf("one whose etcd was moved away is of %q still", cluster)
		}
	}
}
