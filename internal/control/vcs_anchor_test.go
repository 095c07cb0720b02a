package control

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"trysail/evidence"
	"trysail/internal/api"
	"trysail/internal/ledger"
	"trysail/internal/witness"
	"trysail/release"
)

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v (this test needs git: apt-get install git): %v\n%s", args, err, out)
	}
	return string(out)
}

// clone is a working copy of control's own, and the repository that it follows.
func clone(t *testing.T) (dir, bare string) {
	t.Helper()
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	t.Setenv("GIT_CONFIG_SYSTEM", "/dev/null")
	base := t.TempDir()
	dir, bare = filepath.Join(base, "copy"), filepath.Join(base, "bare")
	git(t, base, "init", "--quiet", "--bare", "--initial-branch=main", bare)
	git(t, base, "clone", "--quiet", bare, dir)
	git(t, dir, "checkout", "--quiet", "-B", "main")
	for _, kv := range []string{"user.name control", "user.email control@example.com", "branch.main.remote origin", "branch.main.merge refs/heads/main"} {
		name, value, _ := strings.Cut(kv, " ")
		git(t, dir, "config", name, value)
	}
	return dir, bare
}

// twoSign starts a release of which two people decide.
func twoSign(t *testing.T, c *Control, ask func(method, path string, body, out any) *api.Problem, version string) {
	t.Helper()
	started := written(t, c, version, "---\npeople:\n  ann: {}\n  bob: {}\napprovers: [ann]\n---\n## Ship\n\n- [ ] **tried** (@ann, budget 1h): it\n- [ ] **legal** (@bob, budget 1h): it\n- [ ] **go** (@ann, budget 1h): it\n")
	started.Ship = c.o.Now().Add(100 * time.Hour)
	if p := ask(http.MethodPost, "/v1/releases", api.StartOf(started), nil); p != nil {
		t.Fatal(p)
	}
}

// add commits a checkpoint that another fleet signed.
func add(t *testing.T, dir, version string, size int64) {
	t.Helper()
	id, err := OpenIdentity(t.TempDir(), nil, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	signer, _, err := id.checkpointKey()
	if err != nil {
		t.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: evidence.Checkpoint{Stream: evidence.Stream(version), Size: size}.Text()}, signer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := witness.Commit(t.Context(), dir, version, signed); err != nil {
		t.Fatal(err)
	}
}

func decides(t *testing.T, c *Control, version, item, person string) error {
	t.Helper()
	_, err := c.update(t.Context(), version, person, func(s *release.State) (release.Body, error) {
		return release.Signed{Item: item, Person: person, Decision: release.Approve, Subject: s.Subject(s.Item(item))}, nil
	})
	return err
}

// TestCheckpointsElsewhere: whenever somebody decided, version control has it, and
// nothing waits for version control.
func TestCheckpointsElsewhere(t *testing.T) {
	c, ask := working(t, &wall{time.Now()})
	dir, bare := clone(t)
	c.o.Checkpoints = dir
	stamped := 0
	c.o.Stamp = func(_ context.Context, data []byte) ([]byte, error) {
		stamped++
		return nil, errors.New("no authority answers")
	}
	keep := func(want bool) {
		t.Helper()
		if got := c.keepCheckpoints(t.Context()); got != want {
			t.Errorf("all is kept: %v; %q", got, c.notKept())
		}
	}
	held := func(version string) int {
		t.Helper()
		return strings.Count(git(t, bare, "show", "main:trysail/checkpoints/"+version+".note"), "trysail ledger")
	}
	twoSign(t, c, ask, "1")
	keep(false)
	if held := c.notKept(); stamped != 1 || len(held) != 1 || !strings.Contains(held[0], "the checkpoint of 1 is kept in version control, and not time-stamped: no authority answers") {
		t.Errorf("without an authority: %q", held)
	}
	c.o.Stamp = nil
	keep(true)
	if held("1") != 1 || len(c.notKept()) != 0 {
		t.Errorf("%d checkpoints, %q", held("1"), c.notKept())
	}
	if _, err := c.update(t.Context(), "1", "ann", func(*release.State) (release.Body, error) { return release.Held{Reason: "r"}, nil }); err != nil {
		t.Fatal(err)
	}
	keep(true)
	if held("1") != 1 {
		t.Error("nobody decided anything, and it was kept")
	}
	if _, err := c.update(t.Context(), "1", "ann", func(*release.State) (release.Body, error) { return release.Resumed{}, nil }); err != nil {
		t.Fatal(err)
	}
	if err := decides(t, c, "1", "tried", "ann"); err != nil {
		t.Fatal(err)
	}
	twoSign(t, c, ask, "2")
	keep(true)
	if held("1") != 2 || held("2") != 1 {
		t.Error("what ann decided is not kept, or the release after")
	}

	// Version control is away, and the release goes on.
	if err := os.Rename(bare, bare+".away"); err != nil {
		t.Fatal(err)
	}
	if err := decides(t, c, "1", "legal", "bob"); err != nil {
		t.Fatal(err)
	}
	keep(false)
	keep(false)
	var s api.Status
	if p := ask(http.MethodGet, "/v1/releases/1", nil, &s); p != nil || !slices.ContainsFunc(s.Trouble, func(x string) bool { return strings.Contains(x, "not kept in version control") }) {
		t.Errorf("people are not told: %q %v", s.Trouble, p)
	}
	if err := os.Rename(bare+".away", bare); err != nil {
		t.Fatal(err)
	}
	keep(true)
	if held("1") != 3 || len(c.notKept()) != 0 {
		t.Errorf("%d checkpoints, %q", held("1"), c.notKept())
	}

	// A control that begins again commits nothing twice.
	commits := git(t, bare, "log", "--format=%s", "main")
	again := New(c.o)
	if err := again.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !again.keepCheckpoints(t.Context()) || git(t, bare, "log", "--format=%s", "main") != commits {
		t.Errorf("begun again: %q", again.notKept())
	}

	// The ledger was put back to an earlier day, on every disk: version control knows.
	l, err := ledger.Start(t.Context(), ledger.StartOptions{Dir: filepath.Join(t.TempDir(), "e"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	lines, err := c.o.Ledger.Read(t.Context(), releaseStream("1"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Append(t.Context(), releaseStream("1"), 0, lines[:3]...); err != nil {
		t.Fatal(err)
	}
	// What somebody adds who is not this fleet hides nothing.
	add(t, dir, "1", 50)
	back := New(c.o)
	back.o.Ledger = l.Ledger
	if err := back.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	var doubted *DivergedError
	if err := back.compareKept(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := decides(t, back, "1", "tried", "ann"); !errors.As(err, &doubted) || !strings.Contains(err.Error(), "has a checkpoint of 5 events, and control has 3") {
		t.Errorf("appended to a ledger that was put back: %v", err)
	}
	// Nor is what the ledger has lost begun again.
	if err := back.doubted(releaseStream("2")); !errors.As(err, &doubted) {
		t.Errorf("a release that is gone: %v", err)
	}
	if back.keepCheckpoints(t.Context()) {
		t.Error("a ledger that was put back is kept for good")
	}
	if list, err := witness.Committed(dir, "1"); err != nil || len(list) != 4 {
		t.Errorf("%d checkpoints, %v", len(list), err)
	}
}

// TestCheckpointsOfAnotherFleet: they stop nothing: anybody could have written them.
func TestCheckpointsOfAnotherFleet(t *testing.T) {
	dir, _ := clone(t)
	for i := range 2 {
		c, ask := working(t, &wall{time.Now()})
		c.o.Checkpoints = dir
		twoSign(t, c, ask, "1")
		if got := c.keepCheckpoints(t.Context()); got != (i == 0) {
			t.Errorf("fleet %d: %v %q", i, got, c.notKept())
		}
		if err := c.compareKept(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := decides(t, c, "1", "tried", "ann"); err != nil {
			t.Errorf("fleet %d: %v", i, err)
		}
		if why := strings.Join(c.notKept(), ""); i == 1 && !strings.Contains(why, "1.note:1 is not signed by this fleet") {
			t.Errorf("people are told %q", why)
		}
	}
}
