package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"trysail/drill"
	"trysail/internal/lab"
	"trysail/internal/machine"
)

// Drills with the real program on real machines. They need root.

// rehearsal is a working copy in which drills are run, with a state of its own.
type rehearsal struct {
	t        *testing.T
	bin      string
	dir, app string
	notify   string // a file that says who is told the verdicts; "": nobody
}

// newRehearsal makes one of a directory of the project.
func newRehearsal(t *testing.T, from string) *rehearsal {
	t.Helper()
	if ok, err := condition("root"); err != nil {
		t.Fatal(err)
	} else if !ok {
		t.Skip("needs root")
	}
	r := &rehearsal{t: t, bin: filepath.Join(buildBinary(t), "trysail"), dir: t.TempDir()}
	r.app = filepath.Join(r.dir, "app")
	if err := os.CopyFS(r.app, os.DirFS(filepath.Join("../..", from))); err != nil {
		t.Fatal(err)
	}
	r.sh("git init -q")
	r.commit()
	t.Cleanup(func() { unmountBelow(t, r.dir) })
	return r
}

func (r *rehearsal) sh(script string) {
	r.t.Helper()
	cmd := exec.Command("sh", "-euc", script)
	cmd.Dir = r.app
	if out, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

func (r *rehearsal) commit() {
	r.t.Helper()
	r.sh("git add -A; git -c user.name=t -c user.email=t@example.org commit -qm change")
}

func (r *rehearsal) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, r.bin, append([]string{"--state", filepath.Join(r.dir, "state")}, args...)...)
	cmd.Dir = r.app
	cmd.Env = append(os.Environ(), "TRYSAIL_DEPOT=", "TRYSAIL_STATE=", "TRYSAIL_CONTROL=", "NO_COLOR=1")
	return cmd
}

// run runs a scenario and gives its verdict.
func (r *rehearsal) run(scenario string) *drill.Verdict {
	r.t.Helper()
	args := []string{"--json", "drill", "run", scenario}
	if r.notify != "" {
		args = append(args, "--notify", r.notify)
	}
	cmd := r.command(r.t.Context(), args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	v := &drill.Verdict{}
	if jerr := json.Unmarshal(out.Bytes(), v); jerr != nil || v.Value == "" {
		r.t.Fatalf("%s: %v\n%s%s", scenario, errors.Join(err, jerr), out.Bytes(), errOut.Bytes())
	}
	if (err == nil) != (v.Value == drill.Pass) {
		r.t.Errorf("%s: the verdict is %s, and the exit status says %v", scenario, v.Value, err)
	}
	if v.Value != drill.Pass {
		r.t.Logf("%s:\n%s", scenario, errOut.Bytes())
	}
	return v
}

func (r *rehearsal) passes(scenario string) *drill.Verdict {
	r.t.Helper()
	v := r.run(scenario)
	if v.Value != drill.Pass {
		r.t.Errorf("%s: %s\nsystem: %v\nharness: %v\nclean-up: %v", scenario, v.Sentence, v.System, v.Harness, v.Cleanup)
	}
	return v
}

// look is what is on this host.
func (r *rehearsal) look() []string {
	r.t.Helper()
	st, err := machine.OpenState(r.t.Context(), filepath.Join(r.dir, "looking"), "/run/trysail", slog.New(slog.DiscardHandler))
	if err != nil {
		r.t.Fatal(err)
	}
	list, err := lab.Look(st)
	if err != nil {
		r.t.Fatal(err)
	}
	return list
}

// TestDrillLibrary runs a scenario of each part of the library, another one each day;
// all of them with TRYSAIL_DRILLS=all. The host is as before.
func TestDrillLibrary(t *testing.T) {
	for _, part := range []struct {
		name  string
		least int
	}{{"plain", 18}, {"services", 7}} {
		t.Run(part.name, func(t *testing.T) {
			r := newRehearsal(t, "drills/"+part.name)
			told := r.tells()
			before := r.look()
			names, err := filepath.Glob(filepath.Join(r.app, "*.yaml"))
			if err != nil || len(names) < part.least {
				t.Fatalf("the library has %d scenarios: %v", len(names), err)
			}
			if os.Getenv("TRYSAIL_DRILLS") != "all" {
				day := time.Now().YearDay()
				names = []string{names[day%len(names)]}
			}
			for _, name := range names {
				name = filepath.Base(name)
				t.Run(name, func(t *testing.T) {
					r := *r
					r.t = t
					r.passes(name)
				})
			}
			if after := r.look(); !slices.Equal(before, after) {
				t.Errorf("the host was\n%q\nand is\n%q", before, after)
			}
			// Somebody reads of each in the morning.
			if got := told(); len(got) != len(names) || slices.ContainsFunc(got, func(s string) bool { return s != "trysail.drill-judged pass" }) {
				t.Errorf("of %d drills was told: %q", len(names), got)
			}
		})
	}
}

// tells lets the verdicts be told to a webhook, and gives what came there.
func (r *rehearsal) tells() func() []string {
	r.t.Helper()
	var mu sync.Mutex
	var got []string
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		var e struct {
			Type string `json:"type"`
			Data struct {
				Verdict string `json:"verdict"`
			} `json:"data"`
		}
		err := json.NewDecoder(q.Body).Decode(&e)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			got = append(got, err.Error())
			return
		}
		got = append(got, e.Type+" "+e.Data.Verdict)
	}))
	r.t.Cleanup(hook.Close)
	r.notify = filepath.Join(r.dir, "notify.yaml")
	if err := os.WriteFile(r.notify, []byte("webhooks: [{url: \""+hook.URL+"\", kinds: [drill-judged]}]\n"), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return got
	}
}

// TestDrillKilled: a drill that is killed, wherever it is, leaves nothing that the
// next command does not take away; and its history says how far it came.
func TestDrillKilled(t *testing.T) {
	r := newRehearsal(t, "drills/plain")
	before := r.look()
	for _, lines := range []int{1, 9, 19} {
		runs, err := filepath.Glob(filepath.Join(r.dir, "state/drills/*"))
		if err != nil {
			t.Fatal(err)
		}
		cmd := r.command(t.Context(), "drill", "run", "machine-hangs.yaml")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		history := ""
		for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
			now, err := filepath.Glob(filepath.Join(r.dir, "state/drills/*"))
			if err != nil {
				t.Fatal(err)
			}
			if len(now) > len(runs) {
				history = filepath.Join(now[len(now)-1], "history.jsonl")
				if data, err := os.ReadFile(history); err == nil && bytes.Count(data, []byte("\n")) >= lines {
					break
				}
			}
			if time.Now().After(end) {
				t.Fatalf("its history does not grow to %d lines", lines)
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
		if out, err := r.command(t.Context(), "drill", "clean").CombinedOutput(); err != nil {
			t.Errorf("after %d lines: clean: %v\n%s", lines, err, out)
		}
		if after := r.look(); !slices.Equal(before, after) {
			t.Errorf("killed after %d lines: the host was\n%s\nand is\n%s", lines, strings.Join(before, "\n"), strings.Join(after, "\n"))
		}
		out, err := r.command(t.Context(), "drill", "report", filepath.Base(filepath.Dir(history)), "--json").Output()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(string(out), "did not run to its end") {
			t.Errorf("after %d lines: the report: %v\n%s", lines, err, out)
		}
		time.Sleep(time.Second) // runs are named by the second
	}
}

// TestDrillKillSweep kills a drill after each write of its undo journal, before what
// the write is about is made: drill clean takes all away that was made before. It is
// of machines, a service, disks that are full and destroyed, rules and machines that
// begin again. Every other place, the others the next day; all with TRYSAIL_DRILLS=all.
func TestDrillKillSweep(t *testing.T) {
	r := newRehearsal(t, "cmd/trysail/testdata/sweep")
	if v := r.passes("drill.yaml"); t.Failed() {
		t.Fatal(v.Sentence)
	}
	before := r.look()
	mortal := *r
	mortal.bin = filepath.Join(t.TempDir(), "trysail")
	build := exec.Command("go", "build", "-tags", "killpoint", "-o", mortal.bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	at, step := 1, 1
	if os.Getenv("TRYSAIL_DRILLS") != "all" {
		step = 2
		at += time.Now().YearDay() % step
	}
	for ; ; at += step {
		cmd := mortal.command(t.Context(), "drill", "run", "drill.yaml")
		cmd.Env = append(cmd.Env, fmt.Sprint("TRYSAIL_KILLPOINT=", at))
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.Exited() { // there are no more writes
			if err != nil {
				t.Errorf("when nobody killed it: %v\n%s", err, out)
			}
			break
		}
		if out, err := r.command(t.Context(), "drill", "clean").CombinedOutput(); err != nil {
			t.Errorf("killed at write %d: clean: %v\n%s", at, err, out)
		}
		if after := r.look(); !slices.Equal(before, after) {
			t.Errorf("killed at write %d: the host was\n%s\nand is\n%s", at, strings.Join(before, "\n"), strings.Join(after, "\n"))
		}
		if left, err := os.ReadDir(filepath.Join(r.dir, "state/scratch")); err != nil || len(left) > 0 {
			t.Errorf("killed at write %d: scratch holds %v (%v)", at, left, err)
		}
	}
	t.Logf("killed at places up to %d, each %d", at-step, step)
	if at < 15 {
		t.Error("a drill writes more often than that")
	}
}

// TestDrillBlank: the primary dies in the middle of gold, inside of the rebuilt
// server, then the backup with its disk; a machine that has nothing but a kernel and
// runc is made into a build server by itself, loses its power in the middle of that,
// and another one is made and makes gold; the first makes it the second time. Without a
// machine that can be rebuilt it does not ship. Without one of the originals there is
// no release to begin with, and the reason names it. With TRYSAIL_DRILLS=all, a byte of
// an original changes on control's disk.
func TestDrillBlank(t *testing.T) {
	t.Parallel() // most of it is waiting
	r := newRehearsal(t, "cmd/trysail/testdata/blank")
	capture := r.command(t.Context(), "capture", "--yes", "--output", "dist/*", "--", "./release.sh")
	if out, err := capture.CombinedOutput(); err != nil {
		t.Fatalf("capture: %v\n%s", err, out)
	}
	// Who may sign is the team's affair: nobody's key is here, and the drill passes.
	r.sh("ssh-keygen -q -t ed25519 -N '' -f ../ann; echo \"ann $(cat ../ann.pub)\" > trysail/allowed_signers; rm ../ann")
	r.commit()
	v := r.passes("drill.yaml")
	if len(v.Faults) != 3 || v.Faults[1].To != "blank" || v.Faults[2].To != "second" || v.Gold != "identical" || v.Machine < 10 {
		t.Errorf("what followed: %+v", v)
	}
	// A machine that cannot be made into a build server is no help, and says why.
	v = r.run("no-rebuild.yaml")
	if why := fmt.Sprint(v.System.Why); v.Value != drill.Fail || !strings.Contains(why, "did not ship") || !strings.Contains(why, "runc") {
		t.Errorf("with nothing to rebuild on: %s: %s; harness %v", v.Value, why, v.Harness)
	}
	sum, err := os.ReadFile(filepath.Join(r.app, "trysail/blueprint.sum"))
	if err != nil {
		t.Fatal(err)
	}
	digest := ""
	for l := range strings.Lines(string(sum)) {
		if f := strings.Fields(l); len(f) == 2 && strings.HasPrefix(f[1], "deb/gcc-12_") {
			digest = f[0]
		}
	}
	if digest == "" {
		t.Fatalf("no package of gcc in blueprint.sum:\n%s", sum)
	}
	if os.Getenv("TRYSAIL_DRILLS") == "all" {
		r.sh("sed -i s/ORIGINAL/" + digest + "/ original-rots.yaml")
		r.passes("original-rots.yaml")
	}
	if err := os.Remove(filepath.Join(r.dir, "state/depot/blobs/sha256", digest)); err != nil {
		t.Fatal(err)
	}
	v = r.run("drill.yaml")
	if why := fmt.Sprint(v.Harness.Why); v.Value != drill.Fail && v.Value != drill.Unknown || !strings.Contains(why, "gcc") {
		t.Errorf("without an original of gcc: %s: %s", v.Value, why)
	}
}
