package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"trysail/release"
)

// Survival 1 and 4 with real build servers: gold is built inside the rebuilt
// server on the primary, which is killed, then on the backup, which is killed; a
// spare that has nothing is made into a build server by itself, and makes gold;
// the primary, repaired, makes it the second time.
func TestFleetRebuildsSpare(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "---\nroles:\n  build: {blueprint: trysail}\npeople:\n  ann: {}\napprovers: [ann]\n---\n## Gold master\n\n"+
		"```sh {\"name\":\"gold\",\"role\":\"build\",\"timeout\":\"5m\",\"out\":\"dist/*\",\"gold\":\"true\"}\nsleep 10\n./release.sh\n```\n\n"+
		"## Due diligence\n\n- [ ] **tried** (@ann, needs gold): tried\n\n## Ship\n\n"+
		"```sh {\"name\":\"publish\",\"role\":\"build\",\"kind\":\"publish\",\"in\":\"dist/hello\",\"timeout\":\"1m\"}\n./dist/hello $TRYSAIL_RELEASE $TRYSAIL_STEP\n```\n")
	w.write("app/hello.c", "#include <stdio.h>\nint main(int n, char **v) { printf(\"shipped %s by %s\\n\", v[1], v[2]); return n != 3; }\n")
	w.write("app/release.sh", "#!/bin/sh\nset -e\nmkdir -p dist\ncc -O2 -o dist/hello hello.c\n")
	if err := os.Chmod(filepath.Join(w.app, "release.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	commit := func(what string) {
		w.sh("cd " + w.app + " && git add -A && git -c user.name=t -c user.email=t@example.org commit -qm " + what)
	}
	commit("program")
	// On the machine itself: a build server has its package mirrors.
	cmd := exec.Command(w.bin, "--state", filepath.Join(w.dir, "control"), "capture", "--yes", "--output", "dist/*", "--", "./release.sh")
	cmd.Dir = w.app
	cmd.Env = append(os.Environ(), "TRYSAIL_DEPOT=", "TRYSAIL_STATE=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	commit("blueprint")
	ranks := map[string]string{"a": "primary", "b": "backup", "c": "spare"}
	for i, name := range []string{"a", "b", "c"} {
		w.agent(name, 11+i, "--rank", ranks[name])
	}
	w.begin()
	// The step says so once it runs: making its server first is not running it.
	inside := func(name string) func() bool {
		return func() bool {
			x := w.item("gold")
			return x.Machine == name && x.Status == release.InProgress && w.sleeps(name)
		}
	}
	for _, name := range []string{"a", "b"} {
		w.within(5*time.Minute, "gold runs inside the server on "+name, inside(name))
		w.hosts[name].kill()
	}
	w.within(5*time.Minute, "a spare has made the server", inside("c"))
	w.hosts["a"].start("agent") // repaired, to make gold the second time
	w.within(5*time.Minute, "gold is confirmed", func() bool { return w.item("gold").Status == release.Complete })
	if g := w.status().Gold; g.Machine != "c" || g.By != "a" || g.Verdict != release.Identical {
		t.Errorf("gold: %+v", g)
	}
	w.trysail("release", "sign", "4.2", "tried", "--as", "ann")
	w.until("it is published", func() bool { return w.item("publish").Status == release.Complete })
	if log := w.trysail("release", "log", "4.2", "publish"); !strings.Contains(log, "shipped 4.2 by publish\n") {
		t.Errorf("the log of publish: %q", log)
	}
	w.trysail("release", "ship", "4.2")
	moves := 0
	for _, e := range w.check() {
		if b, ok := e.Body.(release.Lost); ok {
			moves++
			t.Log(b.Why)
		}
	}
	if moves != 2 {
		t.Errorf("%d leases were lost", moves)
	}
}

// sleeps tells whether a process below a host's agent is the step's sleep.
func (w *world) sleeps(host string) bool {
	list := map[string]bool{strconv.Itoa(w.hosts[host].cmd.Process.Pid): true}
	out, err := exec.Command("ps", "-eo", "pid=,ppid=,args=").Output()
	if err != nil {
		return false
	}
	for grew := true; grew; {
		grew = false
		for line := range strings.Lines(string(out)) {
			f := strings.Fields(line)
			if len(f) < 3 || !list[f[1]] || list[f[0]] {
				continue
			}
			if f[2] == "sleep" {
				return true
			}
			list[f[0]], grew = true, true
		}
	}
	return false
}
