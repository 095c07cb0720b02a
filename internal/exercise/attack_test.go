package exercise

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"trysail/drill"
	"trysail/internal/api"
	"trysail/internal/vcs"
	"trysail/release"
)

// pushed is a stage on whose git host somebody else has committed.
type pushed struct {
	board
	from, scratch string
}

func (p *pushed) Scratch() string { return p.scratch }

func (p *pushed) Clone(ctx context.Context, _, dir string) error {
	return exec.CommandContext(ctx, "git", "clone", "-q", p.from, dir).Run()
}

// TestAttackPushToAGitHostOfADrill: git's daemon on a real host takes pushes from everybody
// in its network. Somebody pushes before the release of the drill begins, which would run it.
func TestAttackPushToAGitHostOfADrill(t *testing.T) {
	stage := &pushed{from: filepath.Join(t.TempDir(), "release"), scratch: t.TempDir()}
	commit := "git -C " + stage.from + " -c user.name=t -c user.email=t@example.org commit -q --allow-empty -m x"
	if out, err := exec.Command("sh", "-euc", "git init -q "+stage.from+"; "+commit).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	w, err := vcs.Find(t.Context(), stage.from)
	if err != nil {
		t.Fatal(err)
	}
	p := &drill.Plan{}
	p.World.Services = []drill.Service{{Name: "vcs", Kind: drill.Git}}
	r := &runner{p: p, stage: stage, o: Options{Header: drill.Header{Source: w.Source.Revision}}}
	if _, err := r.source(t.Context()); err != nil {
		t.Errorf("nobody has pushed: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(stage.scratch, "source")); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sh", "-euc", commit).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if dir, err := r.source(t.Context()); err == nil || !strings.Contains(err.Error(), "pushed") {
		t.Errorf("the release begins with what a stranger pushed, in %s: %v", dir, err)
	}
}

// TestAttackServiceOfARepositoryWithLinks: a repository holds a link to a directory of
// root, which becomes root's when root clones it, where a mirror of the drill has its files.
func TestAttackServiceOfARepositoryWithLinks(t *testing.T) {
	copy := t.TempDir()
	if err := os.Symlink(t.TempDir(), filepath.Join(copy, "files")); err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(filepath.Join(copy, "history"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r := &runner{p: &drill.Plan{}, stage: &board{}, file: file, o: Options{Root: copy, Progress: func(string) {}}}
	if err := r.service(t.Context(), drill.Service{Name: "mirror", Kind: drill.Mirror, From: "files"}); err == nil || !strings.Contains(err.Error(), "link") {
		t.Errorf("the link is followed: %v", err)
	}
}

// TestAttackLogOfAStepElsewhere: root on the host of a drill's control makes it report a failed
// step whose name leads out of the drill's directory, with a log. The drill, which runs as root here,
// would write the log there.
func TestAttackLogOfAStepElsewhere(t *testing.T) {
	control := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "what a stranger wrote\n") }))
	defer control.Close()
	root := t.TempDir()
	p := &drill.Plan{}
	p.Release.Version = "4.2"
	r := &runner{p: p, o: Options{Dir: filepath.Join(root, "drills", "run"), Log: slog.New(slog.DiscardHandler)}, client: api.NewClient([]string{strings.TrimPrefix(control.URL, "https://")}, "", control.Client())}
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, item := range []string{"../../../../etc/x", "/../../../../etc/x", "x/../../../../../etc/x", "build"} {
		r.keepLog(release.Finished{Item: item, Epoch: 7, Exit: 1})
	}
	if list, err := os.ReadDir(filepath.Join(root, "etc")); err != nil || len(list) > 0 {
		t.Errorf("elsewhere there is now %v (%v)", list, err)
	}
	if _, err := os.Stat(filepath.Join(r.o.Dir, "logs", "step-build-7.log")); err != nil {
		t.Errorf("the log of a step is not kept: %v", err)
	}
}

// TestAttackAskForNothing: a control on somebody else's host asks a person of the drill to sign for
// differences, and has no gold. The drill goes on, and ends as it should.
func TestAttackAskForNothing(t *testing.T) {
	r := &runner{p: &drill.Plan{}, status: &api.Status{Version: "4.2"}}
	r.decide(t.Context(), api.Ask{Type: "except", Item: "gold"}, "ann", 0, false, release.Approve, "")
}
