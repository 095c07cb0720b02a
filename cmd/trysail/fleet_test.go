package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	"trysail/release"
)

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
		"me=$(cat /proc/self/cgroup | tail -1 | sed 's,.*/,,')\n: > DIR/marks/first-$me\necho $me >> DIR/marks/began\n"+ // who reads the second looks for the first
		"(while sleep 0.1; do date +%s.%N > DIR/marks/now-$me; mv DIR/marks/now-$me DIR/marks/alive-$me; done) &\n"+
		"while ! test -e DIR/marks/go; do sleep 0.1; done\nkill $!\nmkdir dist\ngzip -n < obj/app > dist/app.gz\n```\n\n"+
		"## Due diligence\n\n- [ ] **tried** (@ann, budget 1h, needs gold): installed and tried\n\n"+
		"## Ship\n\n"+
		"```sh {\"name\":\"upload\",\"kind\":\"publish\",\"in\":\"dist/app.gz\",\"timeout\":\"1m\",\"network\":\"true\",\"secrets\":\"UPLOAD_TOKEN\"}\n"+
		"echo upload >> DIR/marks/ran\nprintf 'token %s\\n' \"$UPLOAD_TOKEN\"\ncp -n dist/app.gz DIR/marks/published\n```\n", "DIR", dir)
}

func plainWorld(t *testing.T) *world { return markedWorld(t, plainRelease) }

// markedWorld is one whose steps leave marks.
func markedWorld(t *testing.T, release func(dir string) string) *world {
	t.Parallel() // each has namespaces of its own, and waits most of the time
	dir := t.TempDir()
	w := newWorld(t, release(dir))
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
	if log := w.trysail("release", "log", "4.2", "upload"); log != "token [secret]\n" {
		w.t.Errorf("the log of upload: %q", log)
	}
	// Each run of a step has a log of its own.
	if runs := strings.Split(strings.TrimSpace(w.trysail("release", "log", "4.2", "gold", "--runs")), "\n"); len(runs) < 2 || !strings.HasPrefix(runs[0], "1  on ") || !strings.Contains(runs[len(runs)-1], "(the second build of gold)") {
		w.t.Errorf("the runs of gold: %q", runs)
	}
	w.trysail("release", "log", "4.2", "gold", "--run", "1")
	if report := w.trysail("release", "report", "4.2"); !strings.HasPrefix(report, "# Release 4.2, as it was run") || !strings.Contains(report, "Release 4.2 shipped") {
		w.t.Errorf("the report:\n%s", report)
	}
	// The secret is where a person put it, and nowhere else.
	if out := w.sh("grep -rlF " + uploadToken + " " + w.dir + "/control " + w.dir + "/*/agent/ledger " + w.dir + "/*/depot " + w.dir + "/*.log || true"); out != "" {
		w.t.Errorf("the secret is in %s", out)
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

// Survival 3: what publishes and cannot be repeated is not repeated when its machine is
// lost: a person is asked, looks, and has it run again.
func TestFleetPublishLost(t *testing.T) {
	w := markedWorld(t, func(dir string) string {
		return strings.NewReplacer(`"network":"true"`, `"network":"true","lost":"ask"`,
			"cp -n dist/app.gz", "while ! test -e "+dir+"/marks/looked; do sleep 0.1; done\ncp -n dist/app.gz").Replace(plainRelease(dir))
	})
	w.agent("a", 11, "--plain")
	w.agent("b", 12, "--plain", "--rank", "backup")
	w.begin()
	w.letGo()
	w.until("gold is confirmed", func() bool { return w.item("gold").Status == release.Complete })
	w.trysail("release", "sign", "4.2", "tried", "--as", "ann")
	w.until("it is being published", func() bool { return strings.HasSuffix(w.marker("ran"), "upload\n") })
	on := w.item("upload").Machine
	w.hosts[on].kill()
	w.until("a person is asked", func() bool { return w.item("upload").Status == release.Stopped })
	if s := w.status(); len(s.Asks) != 1 || s.Asks[0].Type != "retry" || !strings.Contains(s.Asks[0].What, "look what it has done") {
		t.Errorf("asks: %+v", s.Asks)
	}
	time.Sleep(3 * time.Second) // in which another machine would have begun
	if got := w.marker("ran"); got != "compile\nupload\n" {
		t.Errorf("what ran: %q", got)
	}
	w.write("marks/looked", "")
	w.trysail("release", "retry", "4.2", "upload")
	w.until("it is published", func() bool { return w.item("upload").Status == release.Complete })
	if m := w.item("upload").Machine; m == on {
		t.Errorf("by %s, which is dead", m)
	}
	w.trysail("release", "ship", "4.2")
	w.check()
}

// Survival 6: control's disk is destroyed: ledger, depot, and the authority of the fleet. A new
// control begins from an agent's copy; nothing that was acknowledged is lost, the machines
// come back, and a machine that joins later gets the artifacts of before.
func TestFleetRecover(t *testing.T) {
	w, _, _ := twoMachines(t)
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	w.write("ann", key.String())
	c := w.hosts["control"]
	c.kill()
	c.start("serve", "--listen", w.control, "--recipient", key.Recipient().String())
	w.until("b has the sealed authority", func() bool {
		data, err := os.ReadFile(filepath.Join(w.dir, "b/agent/ledger/access.jsonl"))
		return err == nil && bytes.Contains(data, []byte(key.Recipient().String()))
	})
	w.until("b has the ledger", func() bool { return w.copied("b") >= w.status().Head })
	before, kept := w.trysail("release", "events", "4.2"), w.trysail("depot", "ls")
	if !strings.Contains(kept, "release/v4.2/compile ") {
		t.Fatalf("what a alone made is not kept: %s", kept)
	}
	c.kill()
	w.sh("cd " + w.dir + "; mv control lost")
	again := []string{"serve", "--listen", w.control, "--recover", filepath.Join(w.dir, "b/agent/ledger")}
	if _, err := w.run(again...); err == nil || !strings.Contains(err.Error(), "give that key by --identity") {
		t.Errorf("without a key it is recovered: %v", err)
	}
	c.start(append(again, "--identity", filepath.Join(w.dir, "ann"))...)
	w.until("control answers", func() bool { _, err := w.run("fleet"); return err == nil })
	after := w.trysail("release", "events", "4.2")
	if !strings.HasPrefix(after, before) {
		t.Errorf("the ledger was\n%s\nand is\n%s", before, after)
	}
	// A name in the depot has all that it names: what was lost is here again, what a made too.
	w.until("control has fetched what it lost", func() bool { return w.trysail("depot", "ls") == kept })
	// The machines that end the release have nothing of what was made before. While control was
	// away, gold may have moved from a to b.
	var has string
	w.until("gold runs again", func() bool { has = w.item("gold").Machine; return has != "" })
	w.trysail("fleet", "drain", map[string]string{"a": "b", "b": "a"}[has])
	w.hosts[has].kill()
	w.agent("c", 13, "--plain")
	w.agent("d", 14, "--plain")
	w.until("gold is begun by a newcomer", func() bool { m := w.item("gold").Machine; return m == "c" || m == "d" })
	w.finish()
	if out := w.trysail("depot", "ls", "release/v4.2/gold"); !strings.Contains(out, "out/dist/app.gz") {
		t.Errorf("the depot keeps of gold: %s", out)
	}
}

// copied counts the events of the release on a machine's disk.
func (w *world) copied(machine string) int64 {
	data, err := os.ReadFile(filepath.Join(w.dir, machine, "agent/ledger/release.4.2.jsonl"))
	if err != nil {
		return 0
	}
	return int64(strings.Count(string(data), "\n"))
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
		// All may have happened before the state was asked for.
		head := w.status().Head
		w.until("something happens", func() bool {
			s := w.status()
			return s.Head > head || (len(s.Asks) > 0 && !signed) || w.item("upload").Status == release.Complete
		})
		if kills > 60 {
			t.Fatal("no end")
		}
	}
	w.trysail("release", "ship", "4.2")
	w.check()
	// A publish step is safe to repeat, and its machine may have been cut off from a
	// dead control: what counts is that it ended once (check) and published gold.
	if n := strings.Count(w.marker("ran"), "upload"); n == 0 || w.marker("published") == "" {
		t.Errorf("publish ran %d times", n)
	}
}

// decidedRelease is a runbook with a test that fails and is to be waived, and with a gold step
// that ends with what is added to it.
func decidedRelease(front, more string) string {
	return "---\nroles:\n  host: {plain: true}\npeople:\n  ann: {}\n  bob: {}\n  dan: {}\napprovers: [ann, bob, dan]\n" + front + "---\n## Tests\n\n" +
		"```sh {\"name\":\"test\",\"timeout\":\"1m\",\"results\":\"r.xml\"}\n" +
		"echo '<testsuite><testcase name=\"good\"/><testcase name=\"flaky\"><failure/></testcase></testsuite>' > r.xml\nexit 1\n```\n\n" +
		"## Gold master\n\n```sh {\"name\":\"gold\",\"needs\":\"test\",\"timeout\":\"1m\",\"out\":\"dist/*\",\"gold\":\"true\"}\n" +
		"mkdir dist\ncp app.txt dist/app\n" + more + "```\n\n## Diligence\n\n- [ ] **tried** (@bob, needs gold): tried\n"
}

// What people decide while a release runs: a failed test is waived by name, a
// change of the runbook is proposed by one and approved by another, a rejected
// sign-off stops the release until it is withdrawn, a hold starts nothing new.
func TestFleetPeople(t *testing.T) {
	t.Parallel()
	book := func(more string) string {
		return decidedRelease("endgame:\n  - {phase: Gold master, freezes: [runbook], approvals: 1}\n", more)
	}
	w := newWorld(t, book("exit 3\n"))
	w.agent("a", 11, "--plain")
	w.agent("b", 12, "--plain", "--rank", "backup")
	w.begin()
	w.until("the test stops the release", func() bool { return w.item("test").Status == release.Stopped })
	w.refused("needs a reason", "release", "waive", "4.2", "test", "flaky", "--as", "ann")
	w.refused(`no failing test "good"`, "release", "waive", "4.2", "test", "good", "--as", "ann", "--reason", "r")
	w.refused("nobody is named who signs", "release", "waive", "4.2", "test", "flaky", "--reason", "r")
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
	w.refused("differs from revision", "release", "amend", "4.2", "--runbook", "RELEASE.md", "--as", "ann", "--reason", "r")
	w.sh("cd " + w.app + " && git -c user.name=t -c user.email=t@example.org commit -qam mended")
	w.refused("a change needs a reason", "release", "amend", "4.2", "--runbook", "RELEASE.md", "--as", "ann")
	w.trysail("release", "amend", "4.2", "--runbook", "RELEASE.md", "--as", "ann", "--reason", "the last line fails")
	w.refused("another must approve", "release", "agree", "4.2", "--as", "ann")
	w.trysail("release", "agree", "4.2", "--as", "bob")
	w.until("gold is confirmed", func() bool { return w.item("gold").Status == release.Complete })
	w.refused("does not change any more", "release", "amend", "4.2", "--runbook", "RELEASE.md", "--as", "ann", "--reason", "r")
	w.refused("not asked to sign", "release", "sign", "4.2", "tried", "--as", "ann")
	w.trysail("release", "reject", "4.2", "tried", "--as", "bob", "--reason", "it does not start")
	w.refused("not done: tried", "release", "ship", "4.2")
	w.trysail("release", "withdraw", "4.2", "tried", "--as", "bob", "--reason", "wrong machine")

	// A person's own token signs for that person, and for nobody else.
	link := strings.TrimSpace(w.trysail("fleet", "token", "--person", "bob"))
	w.refused("cannot speak for ann", "--control", link, "release", "sign", "4.2", "tried", "--as", "ann")
	viewer := strings.TrimSpace(w.trysail("fleet", "token", "--person", "bob", "--role", "viewer"))
	w.refused("may not", "--control", viewer, "release", "sign", "4.2", "tried")
	w.trysail("--control", viewer, "release", "status", "4.2")
	w.trysail("--control", link, "release", "sign", "4.2", "tried")
	w.trysail("release", "ship", "4.2")
	w.check()
}

// Survival 8: a bit of an artifact flips on control's disk. The damaged blob is
// named and comes again from the machine that has it.
func TestFleetDamage(t *testing.T) {
	w, _, _ := twoMachines(t)
	flip := func(host string) {
		t.Helper()
		var dg string
		out := w.trysail("depot", "ls", "release/v4.2/compile")
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); f[len(f)-1] == "out/obj/app" {
				dg = strings.TrimPrefix(f[0], "sha256:")
			}
		}
		p := filepath.Join(w.dir, host, "depot/blobs/sha256", dg)
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		data[0] ^= 1
		if err := os.Chmod(p, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	flip("control") // b fetches it for the second build, a has it
	w.finish()
	if log := w.logOf("control"); !strings.Contains(log, "a blob is damaged, and set aside") {
		t.Errorf("control does not say that a blob is damaged:\n%s", log)
	}
}

// A step that says a gigabyte does not fail, and its log says what was left out.
func TestFleetLogFlood(t *testing.T) {
	// Not beside the others: their machines would be late.
	w := newWorld(t, "---\nroles:\n  host: {plain: true}\npeople:\n  ann: {}\napprovers: [ann]\n---\n## Build\n\n```sh {\"name\":\"flood\",\"timeout\":\"5m\"}\n"+
		"yes 0123456789abcdef | head -c 1000000000\n```\n\n```sh {\"name\":\"gold\",\"needs\":\"flood\",\"timeout\":\"5m\",\"out\":\"app\",\"gold\":\"true\"}\necho app > app\n```\n")
	w.agent("a", 11, "--plain")
	w.begin()
	w.until("the flood has ended", func() bool { return w.item("flood").Status == release.Complete })
	cmd := w.command("release", "log", "4.2", "flood")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var size int
	var tail []byte
	buf := make([]byte, 1<<20)
	for {
		n, err := out.Read(buf)
		size += n
		tail = append(tail, buf[:n]...)
		tail = tail[max(len(tail)-200, 0):]
		if err != nil {
			break
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if want := "bytes more were not kept"; size > 260<<20 || !strings.Contains(string(tail), want) {
		t.Errorf("the log has %d bytes and ends %q", size, tail)
	}
}
