package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"trysail/internal/api"
	"trysail/release"
)

// three makes two more controls join the first.
func (w *world) three() map[string]*host {
	w.t.Helper()
	all := map[string]*host{"control": w.hosts["control"]}
	for i, name := range []string{"control2", "control3"} {
		link := strings.TrimSpace(w.trysail("fleet", "token", "--for-control"))
		h := w.host(name, 2+i)
		h.start("serve", "--listen", h.ip+":7440", "--join", link)
		all[name] = h
		w.until(name+" votes", func() bool {
			return w.answering("control") == i+2
		})
	}
	return all
}

func (w *world) controls(at string) []api.ControlStatus {
	var list []api.ControlStatus
	out, err := w.runAt(at, "fleet", "controls", "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &list)
	}
	if err != nil {
		w.t.Log(err)
	}
	return list
}

// answering counts the controls that vote and answer.
func (w *world) answering(ask string) int {
	n := 0
	for _, c := range w.controls(ask) {
		if c.Votes && c.Answers {
			n++
		}
	}
	return n
}

// goldOnA begins a release at three controls; gold is being made on a.
func goldOnA(t *testing.T) (w *world, controls map[string]*host) {
	w = plainWorld(t)
	controls = w.three()
	w.agent("a", 11, "--plain")
	w.agent("b", 12, "--plain", "--rank", "backup")
	w.begin()
	w.movesTo("a", 1)
	return w, controls
}

// decides names the host of the control that decides.
func (w *world) decides(ask string) string {
	for _, c := range w.controls(ask) {
		for name, h := range w.hosts {
			if c.Leads && c.Name == h.ip+":7440" {
				return name
			}
		}
	}
	return ""
}

func exit(err error) int {
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		return ee.ExitCode()
	}
	return -1
}

// Survival 7: of three controls the one that decides is killed, and the build that
// runs goes on; then another: the last refuses everything, gold too, rather than
// risk two; then one is back, and the release ends, with one gold.
func TestFleetThreeControls(t *testing.T) {
	w, all := goldOnA(t)
	epoch := w.item("gold").Epoch
	before := w.trysail("release", "events", "4.2")

	first := w.decides("control")
	all[first].kill()
	rest := others([]string{"control", "control2", "control3"}, first)
	w.ask = rest[0] // any of them answers for all
	w.until("another decides", func() bool { d := w.decides(w.ask); return d != "" && d != first })
	if after := w.trysail("release", "events", "4.2"); !strings.HasPrefix(after, before) {
		t.Errorf("events were lost:\n%s\n%s", before, after)
	}
	if x := w.item("gold"); x.Machine != "a" || x.Epoch != epoch || len(w.began()) != 1 {
		t.Errorf("the build that ran is %+v after another control decides, and began %d times", x, len(w.began()))
	}

	second := w.decides(w.ask)
	all[second].kill()
	last := others(rest, second)[0]
	w.ask = last
	w.letGo() // gold is made, and nobody can commit it
	w.until("the last refuses", func() bool { _, err := w.run("release", "list"); return exit(err) == 10 })
	for _, args := range [][]string{{"release", "hold", "4.2", "--reason", "r"}, {"fleet", "token"}, {"release", "status", "4.2"}} {
		if out, err := w.run(args...); exit(err) != 10 || !strings.Contains(err.Error(), "majority") {
			t.Errorf("trysail %s at the last of three: %s %v", strings.Join(args, " "), out, err)
		}
	}
	all[first].start(all[first].args...)
	w.until("somebody decides", func() bool { return w.decides(w.ask) != "" })
	all[second].start(all[second].args...)
	w.until("all answer", func() bool { return w.answering(w.ask) == 3 })
	w.finish()
	golds := 0
	for _, e := range w.events() {
		if _, ok := e.Body.(release.Committed); ok {
			golds++
		}
	}
	if golds != 1 {
		t.Errorf("%d gold masters", golds)
	}
	// Each holds all that was made.
	for name := range all {
		w.until(name+" has gold", func() bool {
			out, err := w.runAt(name, "depot", "ls", "release/v4.2/gold")
			return err == nil && strings.Contains(out, "out/dist/app.gz")
		})
	}
}

// A control is frozen for longer than it takes to elect another, and thawed: it
// renews nothing and writes nothing, though it does not know what happened.
func TestFleetControlFrozen(t *testing.T) {
	w, all := goldOnA(t)
	first := w.decides("control")
	all[first].signal(syscall.SIGSTOP)
	w.ask = others([]string{"control", "control2", "control3"}, first)[0]
	w.until("another decides", func() bool { d := w.decides(w.ask); return d != "" && d != first })
	epoch := w.item("gold").Epoch
	all[first].signal(syscall.SIGCONT)
	w.until("the thawed control stands by", func() bool { return strings.Contains(w.logOf(first), "stands by") })
	if x := w.item("gold"); x.Epoch != epoch {
		t.Errorf("the thawed control moved gold: %+v", x)
	}
	w.finish()
}

func others(list []string, name string) []string {
	var rest []string
	for _, x := range list {
		if x != name {
			rest = append(rest, x)
		}
	}
	return rest
}

// What a control that joins may not do, and one that does not come back.
func TestFleetJoinControl(t *testing.T) {
	w := plainWorld(t)
	all := w.three()
	used := ""
	for _, x := range all["control3"].args {
		if strings.HasPrefix(x, "trysail://") {
			used = x
		}
	}
	machine := strings.TrimSpace(w.trysail("fleet", "token"))
	for name, link := range map[string]string{"used": used, "a machine's": machine} {
		h := w.host("d"+name[:1], 30+len(name))
		h.start("serve", "--listen", h.ip+":7440", "--join", link)
		err := h.cmd.Wait()
		if exit(err) != 1 || !strings.Contains(w.logOf(h.name), "join token is not known") {
			t.Errorf("a control joins with a link that is %s: %v %s", name, err, w.logOf(h.name))
		}
	}
	for _, name := range []string{"authority.key", "peer.key", "token", "link"} {
		info, err := os.Stat(filepath.Join(w.dir, "control2/control", name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s of a control that joined: %v %v", name, info, err)
		}
	}
	person := strings.TrimSpace(w.trysail("fleet", "token", "--person", "ann"))
	if out, err := w.run("--control", person, "fleet", "token", "--for-control"); err == nil || !strings.Contains(err.Error(), "only root on control") {
		t.Errorf("a person lets a control in: %s %v", out, err)
	}
	first := w.decides("control")
	gone := others([]string{"control", "control2", "control3"}, first)[0]
	w.ask = first
	all[gone].kill()
	if out := w.trysail("fleet", "controls"); !strings.Contains(out, "does not answer") || !strings.Contains(out, "2 of 3 controls answer: if one more goes") {
		t.Errorf("controls:\n%s", out)
	}
	w.trysail("fleet", "dismiss", all[gone].ip+":7440")
	all[gone].start(all[gone].args...)
	if err := all[gone].cmd.Wait(); exit(err) != 1 || !strings.Contains(w.logOf(gone), "dismissed") {
		t.Errorf("a dismissed control begins again: %v %s", err, w.logOf(gone))
	}
}

// The commands of docs/controls.md, in a network of their own.
func TestFleetControlsPage(t *testing.T) {
	t.Parallel()
	if ok, err := condition("root"); err != nil {
		t.Fatal(err)
	} else if !ok {
		t.Skip("needs root")
	}
	data, err := os.ReadFile("../../docs/controls.md")
	if err != nil {
		t.Fatal(err)
	}
	// What is started in the background has begun once it is listed.
	script, begun := "trap 'kill $(jobs -p); wait' EXIT\nip link set lo up\n", 0
	for _, m := range regexp.MustCompile("(?ms)^```sh( background)?\n(.*?)^```$").FindAllStringSubmatch(string(data), -1) {
		if m[1] == "" {
			script += m[2]
			continue
		}
		begun++
		script += strings.TrimSpace(m[2]) + " &\nuntil test $(trysail fleet controls --state one --json | grep -c '\"votes\": true') = " + strconv.Itoa(begun) + "; do sleep 0.2; done 2>/dev/null\n"
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "page") // its text is not to be among the arguments that pkill looks at
	if err := os.WriteFile(file, []byte(script), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--net", "bash", "-eux", file)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+buildBinary(t)+":"+os.Getenv("PATH"), "TRYSAIL_STATE=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"127.0.0.1:7440           decides", "127.0.0.1:7450           stands by", "3 of 3 controls answer: 1 of them may go",
		"127.0.0.1:7440           does not answer", "2 of 3 controls answer: if one more goes", "127.0.0.1:7440 is no control any more", "2 of 2 controls answer: if one more goes",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the page's output lacks %q:\n%s", want, out)
		}
	}
}
