package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"trysail/internal/api"
	"trysail/release"
)

// A fleet of real processes: control and each agent in a network namespace of
// its own, joined by a bridge, so that machines can be killed, frozen and cut
// off. It needs root.

// world is one fleet.
type world struct {
	t       *testing.T
	dir     string
	bin     string
	tag     string // of the namespaces' names
	hosts   map[string]*host
	app     string
	control string // address
}

// host is one machine: a namespace and the process that runs in it.
type host struct {
	w    *world
	name string
	ip   string
	cmd  *exec.Cmd
	log  *os.File
	args []string
}

const fleetNet = "10.213.77."

func newWorld(t *testing.T, runbook string) *world {
	t.Helper()
	if ok, err := condition("root"); err != nil {
		t.Fatal(err)
	} else if !ok {
		t.Skip("needs root")
	}
	w := &world{t: t, dir: t.TempDir(), bin: filepath.Join(buildBinary(t), "trysail"), tag: fmt.Sprintf("ts%06x", rand.Uint32()&0xffffff), hosts: map[string]*host{}}
	w.sh("ip netns add " + w.tag + "-sw && ip -n " + w.tag + "-sw link add br0 type bridge && ip -n " + w.tag + "-sw link set br0 up")
	t.Cleanup(func() { w.sh("ip netns del " + w.tag + "-sw") })
	w.app = filepath.Join(w.dir, "app")
	w.write("app/RELEASE.md", runbook)
	w.write("app/app.txt", "this is VERSION\n")
	w.sh("cd " + w.app + " && git init -q && git add -A && git -c user.name=t -c user.email=t@example.org commit -qm first")
	c := w.host("control", 1)
	w.control = c.ip + ":7440"
	c.start("serve", "--listen", w.control)
	w.until("control has written its link", func() bool {
		_, err := os.Stat(filepath.Join(w.dir, "control/control/link"))
		return err == nil
	})
	return w
}

func (w *world) write(name, text string) {
	w.t.Helper()
	p := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) sh(script string) string {
	w.t.Helper()
	out, err := exec.Command("sh", "-euc", script).CombinedOutput()
	if err != nil {
		w.t.Errorf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// host makes a namespace on the bridge.
func (w *world) host(name string, n int) *host {
	w.t.Helper()
	h := &host{w: w, name: name, ip: fmt.Sprintf("%s%d", fleetNet, n)}
	ns, sw := w.tag+"-"+name, w.tag+"-sw"
	w.sh(fmt.Sprintf("ip netns add %[1]s && ip -n %[2]s link add p%[3]d type veth peer name eth0 netns %[1]s && ip -n %[2]s link set p%[3]d master br0 up && "+
		"ip -n %[1]s link set lo up && ip -n %[1]s addr add %[4]s/24 dev eth0 && ip -n %[1]s link set eth0 up", ns, sw, n, h.ip))
	w.t.Cleanup(func() {
		h.kill()
		w.sh("ip netns del " + ns)
		unmountBelow(w.t, filepath.Join(w.dir, name))
		if w.t.Failed() && h.log != nil {
			data, _ := os.ReadFile(h.log.Name())
			w.t.Logf("log of %s:\n%s", name, data)
		}
	})
	w.hosts[name] = h
	return h
}

func (h *host) start(args ...string) {
	h.w.t.Helper()
	h.args = args
	log, err := os.OpenFile(filepath.Join(h.w.dir, h.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		h.w.t.Fatal(err)
	}
	h.log = log
	h.cmd = exec.Command("nsenter", append([]string{"--net=/run/netns/" + h.w.tag + "-" + h.name, h.w.bin, "-v", "--state", filepath.Join(h.w.dir, h.name)}, args...)...)
	h.cmd.Stdout, h.cmd.Stderr = log, log
	h.cmd.Env = append(os.Environ(), "TRYSAIL_DEPOT=", "TRYSAIL_STATE=", "NO_COLOR=1")
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := h.cmd.Start(); err != nil {
		h.w.t.Fatal(err)
	}
}

func (h *host) kill() {
	if h.cmd == nil || h.cmd.ProcessState != nil {
		return
	}
	_ = h.cmd.Process.Kill() // nsenter became the program: this is it
	_ = h.cmd.Wait()
}

func (h *host) signal(s syscall.Signal) {
	h.w.t.Helper()
	if err := h.cmd.Process.Signal(s); err != nil {
		h.w.t.Fatal(err)
	}
}

// agent makes a machine that joined.
func (w *world) agent(name string, n int, args ...string) *host {
	w.t.Helper()
	link := w.trysail("fleet", "token")
	h := w.host(name, n)
	h.start(append([]string{"agent", "--name", name, "--join", strings.TrimSpace(link)}, args...)...)
	w.until(name+" is up", func() bool {
		for _, m := range w.fleet() {
			if m.Name == name && m.Condition == "up" {
				return true
			}
		}
		return false
	})
	return h
}

// run runs the program on the control machine.
func (w *world) run(args ...string) (string, error) {
	cmd := exec.Command("nsenter", append([]string{"--net=/run/netns/" + w.tag + "-control", w.bin, "--state", filepath.Join(w.dir, "control")}, args...)...)
	cmd.Dir = w.app
	cmd.Env = append(os.Environ(), "TRYSAIL_DEPOT=", "TRYSAIL_STATE=")
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("trysail %s: %w\n%s%s", strings.Join(args, " "), err, out.Bytes(), errOut.Bytes())
	}
	return out.String(), err
}

func (w *world) trysail(args ...string) string {
	w.t.Helper()
	out, err := w.run(args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func (w *world) fleet() []api.MachineStatus {
	var list []api.MachineStatus
	out, err := w.run("fleet", "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &list)
	}
	if err != nil {
		w.t.Log(err)
	}
	return list
}

func (w *world) status() *api.Status {
	s := &api.Status{}
	out, err := w.run("release", "status", "4.2", "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), s)
	}
	if err != nil {
		w.t.Log(err)
	}
	return s
}

func (w *world) item(name string) api.ItemStatus {
	for _, x := range w.status().Items {
		if x.Name == name {
			return x
		}
	}
	return api.ItemStatus{}
}

// until waits for something that must come; how long it takes is no matter here.
func (w *world) until(what string, is func() bool) {
	w.t.Helper()
	for end := time.Now().Add(60 * time.Second); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			out, err := w.run("release", "status", "4.2")
			w.t.Fatalf("in vain: %s\n%s%v", what, out, err)
		}
	}
}

func (w *world) begin() {
	w.t.Helper()
	w.trysail("release", "start", "4.2", "--ship", "2036-12-01T09:00:00Z")
}

// events is the ledger of the release.
func (w *world) events() []release.Event {
	w.t.Helper()
	var list []release.Event
	data, err := os.ReadFile(filepath.Join(w.dir, "events.jsonl"))
	if errors.Is(err, os.ErrNotExist) {
		data, err = []byte(w.trysail("release", "events", "4.2")), nil
	}
	if err != nil {
		w.t.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		var e release.Event
		if err := json.Unmarshal(line, &e); err != nil {
			w.t.Fatalf("%s: %v", line, err)
		}
		list = append(list, e)
	}
	return list
}

// check is the history's checker: what must hold of every release whatever
// happened to its machines.
func (w *world) check() []release.Event {
	w.t.Helper()
	events := w.events()
	if _, err := release.Fold(events); err != nil {
		w.t.Errorf("the ledger does not fold: %v", err)
	}
	golds, results := 0, map[string]int{}
	epochs := map[string]int64{}
	for _, e := range events {
		switch b := e.Body.(type) {
		case release.Granted:
			if e.Seq <= epochs[b.Item] {
				w.t.Errorf("epoch %d of %s after %d", e.Seq, b.Item, epochs[b.Item])
			}
			epochs[b.Item] = e.Seq
		case release.Committed:
			golds++
		case release.Finished:
			if b.Exit == 0 {
				results[b.Item]++
			}
		}
	}
	if golds > 1 {
		w.t.Errorf("%d gold masters", golds)
	}
	for item, n := range results {
		if n > 1 {
			w.t.Errorf("%s ended well %d times", item, n)
		}
	}
	return events
}

// marker is where the steps of these tests say that they ran, and what did.
func (w *world) marker(name string) string {
	data, err := os.ReadFile(filepath.Join(w.dir, "marks", name))
	if err != nil {
		return ""
	}
	return string(data)
}

// plainRelease is a runbook whose gold step says when it begins and waits to be
// let go, so that something can happen to its machine meanwhile.
func plainRelease(dir string) string {
	return strings.ReplaceAll("---\nroles:\n  host: {plain: true}\npeople:\n  ann: {}\n  bob: {}\napprovers: [ann, bob]\n---\n# Release\n\n## Build\n\n"+
		"```sh {\"name\":\"compile\",\"timeout\":\"1m\",\"budget\":\"5s\",\"out\":\"obj/*\"}\n"+
		"echo compile >> DIR/marks/ran\nmkdir -p obj\nsed s/VERSION/1/ app.txt > obj/app\n```\n\n"+
		"## Gold master\n\n"+
		"```sh {\"name\":\"gold\",\"needs\":\"compile\",\"in\":\"obj/app\",\"timeout\":\"5m\",\"budget\":\"5s\",\"out\":\"dist/*.gz\",\"gold\":\"true\"}\n"+
		"me=$(cat /proc/self/cgroup | tail -1 | sed 's,.*/,,')\necho $me >> DIR/marks/began\n: > DIR/marks/first-$me\n"+
		"(while sleep 0.1; do date +%s.%N > DIR/marks/alive-$me; done) &\n"+
		"while ! test -e DIR/marks/go; do sleep 0.1; done\nkill $!\nmkdir dist\ngzip -n < obj/app > dist/app.gz\n```\n\n"+
		"## Due diligence\n\n- [ ] **tried** (@ann, budget 1h, needs gold): installed and tried\n\n"+
		"## Ship\n\n"+
		"```sh {\"name\":\"upload\",\"kind\":\"publish\",\"in\":\"dist/app.gz\",\"timeout\":\"1m\",\"network\":\"true\"}\n"+
		"echo upload >> DIR/marks/ran\ncp -n dist/app.gz DIR/marks/published\n```\n", "DIR", dir)
}

func plainWorld(t *testing.T) *world {
	t.Parallel() // each has namespaces of its own, and waits most of the time
	dir := t.TempDir()
	w := newWorld(t, plainRelease(dir))
	if err := os.Mkdir(filepath.Join(dir, "marks"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "marks"), filepath.Join(w.dir, "marks")); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) letGo() { w.write("marks/go", "") }

func (w *world) finish() {
	w.t.Helper()
	w.letGo()
	w.until("gold is confirmed", func() bool { return w.item("gold").Status == release.Complete })
	w.trysail("release", "sign", "4.2", "tried", "--as", "ann")
	w.until("it is published", func() bool { return w.item("upload").Status == release.Complete })
	w.trysail("release", "ship", "4.2")
	events := w.check()
	if _, ok := events[len(events)-1].Body.(release.Shipped); !ok {
		w.t.Errorf("the last event is %s", events[len(events)-1].Type)
	}
	if got := w.marker("ran"); got != "compile\nupload\n" {
		w.t.Errorf("what ran: %q", got)
	}
}

// Survival 1 and 4: the primary is killed in mid-build, then the backup; a spare
// ends the release. Finished steps do not run again.
func TestFleetLosesTwoMachines(t *testing.T) {
	w := plainWorld(t)
	a := w.agent("a", 11, "--plain")
	b := w.agent("b", 12, "--plain", "--rank", "backup")
	w.agent("c", 13, "--plain", "--rank", "spare")
	w.agent("d", 14, "--plain", "--rank", "spare")
	w.begin()
	w.until("gold begins on a", func() bool { return w.item("gold").Machine == "a" && w.marker("began") != "" })
	a.kill()
	w.until("gold begins on b", func() bool {
		return w.item("gold").Machine == "b" && strings.Count(w.marker("began"), "\n") == 2
	})
	b.kill()
	w.until("gold begins on c", func() bool {
		return w.item("gold").Machine == "c" && strings.Count(w.marker("began"), "\n") == 3
	})
	if n := w.item("gold").Moves; n != 2 {
		t.Errorf("gold moved %d times", n)
	}
	w.finish()
}

// began lists the runs of the gold step, in order: the names of their cgroups.
func (w *world) began() []string { return strings.Fields(w.marker("began")) }

// noOverlap checks that one run of a step had ended when the next began.
func (w *world) noOverlap(earlier, later string) {
	w.t.Helper()
	last := strings.TrimSpace(w.marker("alive-" + earlier))
	info, err := os.Stat(filepath.Join(w.dir, "marks", "first-"+later))
	if err != nil {
		w.t.Fatal(err)
	}
	var sec, nsec int64
	if _, err := fmt.Sscanf(last, "%d.%d", &sec, &nsec); err != nil {
		w.t.Fatalf("%q: %v", last, err)
	}
	if end := time.Unix(sec, nsec); !end.Before(info.ModTime()) {
		w.t.Errorf("run %s was alive %s after run %s began", earlier, end.Sub(info.ModTime()), later)
	}
}

// refusals lists the results that were refused.
func (w *world) refusals() []release.Refused { return w.status().Refused }

// twoMachines begins a release whose gold is being built on a.
func twoMachines(t *testing.T) (w *world, a, b *host) {
	w = plainWorld(t)
	a = w.agent("a", 11, "--plain")
	b = w.agent("b", 12, "--plain", "--rank", "backup")
	w.begin()
	w.until("gold begins on a", func() bool { return w.item("gold").Machine == "a" && len(w.began()) == 1 })
	return w, a, b
}

func (w *world) movesTo(machine string, runs int) {
	w.t.Helper()
	w.until("gold begins on "+machine, func() bool { return w.item("gold").Machine == machine && len(w.began()) == runs })
}

// Survival 2, first half: the agent hangs and its step runs on. The guard beside
// it kills the step before the backup begins; when the agent comes back it has
// nothing to give, and that is written down.
func TestFleetHungAgent(t *testing.T) {
	w, a, _ := twoMachines(t)
	a.signal(syscall.SIGSTOP)
	w.movesTo("b", 2)
	runs := w.began()
	w.noOverlap(runs[0], runs[1])
	a.signal(syscall.SIGCONT)
	w.until("the refusal is written down", func() bool { return len(w.refusals()) == 1 })
	w.finish()
}

// Survival 2, second half: the whole machine is frozen, agent, guard and build,
// and thawed after the backup has made gold: one gold, the late result refused.
func TestFleetFrozenMachine(t *testing.T) {
	w, a, _ := twoMachines(t)
	w.agent("c", 13, "--plain", "--rank", "spare")
	build := filepath.Join("/sys/fs/cgroup", w.began()[0], "cgroup.freeze")
	if list, _ := filepath.Glob("/sys/fs/cgroup/*/" + w.began()[0] + "/cgroup.freeze"); len(list) == 1 {
		build = list[0]
	}
	guard := strings.TrimSpace(w.sh(fmt.Sprintf("pgrep -P %d -f trysail-guard", a.cmd.Process.Pid)))
	a.signal(syscall.SIGSTOP)
	w.sh("kill -STOP " + guard + "; echo 1 > " + build)
	w.movesTo("b", 2)
	w.letGo()
	w.until("gold is confirmed", func() bool { return w.item("gold").Status == release.Complete })
	gold := w.status().Gold
	w.sh("echo 0 > " + build + "; kill -CONT " + guard)
	a.signal(syscall.SIGCONT)
	w.until("the late result is refused", func() bool { return len(w.refusals()) == 1 })
	if again := w.status().Gold; again.Event != gold.Event || again.Machine != "b" {
		t.Errorf("gold was %+v and is %+v", gold, again)
	}
	w.finish()
}

// Survival 3: cut off from control, both ways and each way alone, a machine ends
// its step before the other begins it, and comes back by itself.
func TestFleetPartition(t *testing.T) {
	for name, c := range map[string]struct{ cut, heal string }{
		"both ways":    {"ip -n NS link set eth0 down", "ip -n NS link set eth0 up"},
		"to control":   {"ip -n NS route add blackhole CONTROL", "ip -n NS route del blackhole CONTROL"},
		"from control": {"ip -n TAG-control route add blackhole AGENT", "ip -n TAG-control route del blackhole AGENT"},
	} {
		t.Run(name, func(t *testing.T) {
			w, a, _ := twoMachines(t)
			names := strings.NewReplacer("NS", w.tag+"-"+a.name, "TAG", w.tag, "CONTROL", w.hosts["control"].ip, "AGENT", a.ip)
			w.sh(names.Replace(c.cut))
			w.movesTo("b", 2)
			runs := w.began()
			w.noOverlap(runs[0], runs[1])
			w.sh(names.Replace(c.heal))
			w.until("a is back", func() bool {
				for _, m := range w.fleet() {
					if m.Name == "a" {
						return m.Condition == "up"
					}
				}
				return false
			})
			w.finish()
		})
	}
}

// Survival 6: control's disk is destroyed. A new control begins from an agent's
// copy; nothing that was acknowledged is lost, and the machines come back.
func TestFleetRecover(t *testing.T) {
	w, _, _ := twoMachines(t)
	w.until("b has the ledger", func() bool {
		for _, m := range w.fleet() {
			if m.Name == "b" {
				return m.Events >= w.status().Head
			}
		}
		return false
	})
	before := w.trysail("release", "events", "4.2")
	c := w.hosts["control"]
	c.kill()
	w.sh("mv " + filepath.Join(w.dir, "control/control/etcd") + " " + filepath.Join(w.dir, "lost"))
	c.start("serve", "--listen", w.control, "--recover", filepath.Join(w.dir, "b/agent/ledger"))
	w.until("control answers", func() bool { _, err := w.run("fleet"); return err == nil })
	after := w.trysail("release", "events", "4.2")
	if !strings.HasPrefix(after, before) {
		t.Errorf("the ledger was\n%s\nand is\n%s", before, after)
	}
	w.finish()
}

// Survival 5: control is killed after every event; what comes after is as if it
// had not been, and nobody is asked to sign twice.
func TestFleetControlKilled(t *testing.T) {
	w := plainWorld(t)
	w.agent("a", 11, "--plain")
	w.agent("b", 12, "--plain", "--rank", "backup")
	w.letGo()
	w.begin()
	c := w.hosts["control"]
	signed := false
	for kills := 0; ; {
		s := w.status()
		if s.Head == 0 {
			continue // it is not up yet
		}
		if !signed && len(s.Asks) == 1 && s.Asks[0].Item == "tried" {
			_, err := w.run("release", "sign", "4.2", "tried", "--as", "ann")
			signed = err == nil
		}
		if len(s.Asks) > 0 && signed && s.Asks[0].Item == "tried" && w.item("tried").Status == release.Ready {
			t.Fatal("asked to sign twice")
		}
		if w.item("upload").Status == release.Complete {
			break
		}
		before := w.trysail("release", "events", "4.2")
		c.kill()
		kills++
		c.start("serve", "--listen", w.control)
		w.until("control answers", func() bool { _, err := w.run("fleet"); return err == nil })
		if after := w.trysail("release", "events", "4.2"); !strings.HasPrefix(after, before) {
			t.Fatalf("events were lost:\n%s\n%s", before, after)
		}
		head := w.status().Head
		w.until("something happens", func() bool {
			s := w.status()
			return s.Head > head || (len(s.Asks) > 0 && !signed)
		})
		if kills > 60 {
			t.Fatal("no end")
		}
	}
	w.trysail("release", "ship", "4.2")
	w.check()
	if n := strings.Count(w.marker("ran"), "upload"); n != 1 {
		t.Logf("publish ran %d times", n) // its machine was cut off from a dead control: it is safe to repeat
	}
}

// What people decide while a release runs: a failed test is waived by name, a
// change of the runbook is proposed by one and approved by another, a rejected
// sign-off stops the release until it is withdrawn, a hold starts nothing new.
func TestFleetPeople(t *testing.T) {
	t.Parallel()
	book := func(more string) string {
		return "---\nroles:\n  host: {plain: true}\npeople:\n  ann: {}\n  bob: {}\napprovers: [ann, bob]\n" +
			"endgame:\n  - {phase: Gold master, freezes: [runbook], approvals: 1}\n---\n## Tests\n\n" +
			"```sh {\"name\":\"test\",\"timeout\":\"1m\",\"results\":\"r.xml\"}\n" +
			"echo '<testsuite><testcase name=\"good\"/><testcase name=\"flaky\"><failure/></testcase></testsuite>' > r.xml\nexit 1\n```\n\n" +
			"## Gold master\n\n```sh {\"name\":\"gold\",\"needs\":\"test\",\"timeout\":\"1m\",\"out\":\"dist/*\",\"gold\":\"true\"}\n" +
			"mkdir dist\ncp app.txt dist/app\n" + more + "```\n\n## Diligence\n\n- [ ] **tried** (@bob, needs gold): tried\n"
	}
	w := newWorld(t, book("exit 3\n"))
	w.agent("a", 11, "--plain")
	w.agent("b", 12, "--plain", "--rank", "backup")
	w.begin()
	refused := func(why string, args ...string) {
		t.Helper()
		if out, err := w.run(args...); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("trysail %s was not refused for %q: %s %v", strings.Join(args, " "), why, out, err)
		}
	}
	w.until("the test stops the release", func() bool { return w.item("test").Status == release.Stopped })
	refused("says why", "release", "waive", "4.2", "test", "flaky", "--as", "ann")
	refused(`no failing test "good"`, "release", "waive", "4.2", "test", "good", "--as", "ann", "--reason", "r")
	refused("nobody is named who signs", "release", "waive", "4.2", "test", "flaky", "--reason", "r")
	w.trysail("release", "hold", "4.2", "--reason", "lunch")
	w.trysail("release", "waive", "4.2", "test", "flaky", "--as", "ann", "--reason", "known")
	if x := w.item("gold"); x.Status != release.Ready || x.Machine != "" {
		t.Errorf("gold of a release that is held: %+v", x)
	}
	w.trysail("release", "resume", "4.2")
	w.until("gold has failed", func() bool { return w.item("gold").Status == release.Stopped })
	if log := w.trysail("release", "log", "4.2", "gold"); log != "" {
		t.Errorf("the log of gold: %q", log)
	}

	w.write("app/RELEASE.md", book(""))
	refused("a change says why", "release", "amend", "4.2", "--runbook", "RELEASE.md", "--as", "ann")
	w.trysail("release", "amend", "4.2", "--runbook", "RELEASE.md", "--as", "ann", "--reason", "the last line fails")
	refused("another must approve", "release", "agree", "4.2", "--as", "ann")
	w.trysail("release", "agree", "4.2", "--as", "bob")
	w.until("gold is confirmed", func() bool { return w.item("gold").Status == release.Complete })
	refused("does not change any more", "release", "amend", "4.2", "--runbook", "RELEASE.md", "--as", "ann", "--reason", "r")
	refused("not asked to sign", "release", "sign", "4.2", "tried", "--as", "ann")
	w.trysail("release", "reject", "4.2", "tried", "--as", "bob", "--reason", "it does not start")
	refused("not done: [tried]", "release", "ship", "4.2")
	w.trysail("release", "withdraw", "4.2", "tried", "--as", "bob", "--reason", "wrong machine")

	// A person's own token signs for that person, and for nobody else.
	link := strings.TrimSpace(w.trysail("fleet", "token", "--person", "bob"))
	refused("cannot speak for ann", "--control", link, "release", "sign", "4.2", "tried", "--as", "ann")
	viewer := strings.TrimSpace(w.trysail("fleet", "token", "--person", "bob", "--role", "viewer"))
	refused("may not", "--control", viewer, "release", "sign", "4.2", "tried")
	w.trysail("--control", viewer, "release", "status", "4.2")
	w.trysail("--control", link, "release", "sign", "4.2", "tried")
	w.trysail("release", "ship", "4.2")
	w.check()
}
