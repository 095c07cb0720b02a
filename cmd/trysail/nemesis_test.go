package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netns"

	"trysail/release"
)

// nemesisRelease is a process of small steps. Each run of one says when it began
// and, ten times a second, that it is alive; publish writes what it was given,
// unless it is there already.
func nemesisRelease(dir string) string {
	step := func(more, script string) string {
		return "```sh {" + more + ",\"timeout\":\"2m\",\"budget\":\"5s\"}\n" +
			"v=$(cat version.txt)\nme=$(basename $0).$(sed -n 's,.*/,,;$p' /proc/self/cgroup)\nm=DIR/marks/$v\nmkdir -p $m\ndate +%s.%N > $m/began-$me\n" +
			"(while :; do date +%s.%N > $m/now-$me; mv $m/now-$me $m/alive-$me; sleep 0.1; done) &\nalive=$!\n" + script + "kill $alive\nwait\n```\n\n"
	}
	book := "---\nroles:\n  host: {plain: true}\npeople:\n  ann: {}\n  bob: {}\napprovers: [ann, bob]\n---\n# Release\n\n## Build\n\n" +
		step(`"name":"compile","out":"obj/app","retry":"3"`, "sleep 1\nmkdir -p obj\ncat version.txt app.txt > obj/app\n") +
		step(`"name":"docs","out":"obj/doc","retry":"3"`, "sleep 2\nmkdir -p obj\ncat version.txt > obj/doc\n") +
		step(`"name":"test","needs":"compile","in":"obj/app","retry":"3"`, "sleep 2\ntest -s obj/app\n") +
		"## Gold master\n\n" +
		step(`"name":"gold","needs":"test,docs","in":"obj/app,obj/doc","out":"dist/app.gz","gold":"true","retry":"3"`, "sleep 3\nmkdir dist\ncat obj/app obj/doc | gzip -n > dist/app.gz\n") +
		"## Due diligence\n\n- [ ] **tried** (@ann, budget 1h, needs gold): installed and tried\n- [ ] **legal** (@bob, budget 1h, needs gold): licences\n\n## Ship\n\n" +
		step(`"name":"upload","kind":"publish","in":"dist/app.gz","network":"true","retry":"3"`, "sleep 1\ncp -n dist/app.gz $m/published\n")
	return strings.ReplaceAll(book, "DIR", dir)
}

func nemesisWorld(t *testing.T) *world {
	t.Parallel()
	dir := t.TempDir()
	w := newWorld(t, nemesisRelease(dir))
	if err := os.Mkdir(filepath.Join(dir, "marks"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "marks"), filepath.Join(w.dir, "marks")); err != nil {
		t.Fatal(err)
	}
	return w
}

// seen collects what clients were told.
type seen struct {
	mu   sync.Mutex
	acks map[string][]release.Ack // by release
}

func (s *seen) add(version string, a release.Ack) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acks[version] = append(s.acks[version], a)
}

// word gives one word on a release at some control, and remembers it if it was
// acknowledged. A word without an answer may have been taken or not.
func (w *world) word(s *seen, at, version string, a release.Ack, args ...string) {
	out, err := w.runAt(at, append(args, "--json")...)
	if err != nil {
		return
	}
	var did struct {
		Event int64 `json:"event"`
	}
	if json.Unmarshal([]byte(out), &did) == nil {
		a.Seq = did.Event
	}
	s.add(version, a)
}

// people do what they are asked, at any control that answers,
// until it has shipped or they are told to stop.
func (w *world) people(s *seen, version string, controls []string, stop <-chan struct{}) {
	for turn := 0; ; turn++ {
		select {
		case <-stop:
			return
		case <-time.After(300 * time.Millisecond):
		}
		at := controls[turn%len(controls)]
		out, err := w.runAt(at, "release", "status", version, "--json")
		var st struct {
			Phase release.Phase `json:"phase"`
			Asks  []struct {
				Item, Type string
				People     []string
			} `json:"asks"`
			Items []struct {
				Name   string
				Status release.Status
			} `json:"items"`
		}
		switch {
		case err != nil || json.Unmarshal([]byte(out), &st) != nil:
			continue
		case st.Phase == release.Done:
			return
		}
		for _, a := range st.Asks {
			switch a.Type {
			case "sign":
				for _, who := range a.People {
					w.word(s, at, version, release.Ack{Type: "signed", Item: a.Item, Person: who}, "release", "sign", version, a.Item, "--as", who)
				}
			case "retry":
				w.word(s, at, version, release.Ack{Type: "retried", Item: a.Item}, "release", "retry", version, a.Item, "--reason", "nemesis")
			}
		}
		if !slices.ContainsFunc(st.Items, func(x struct {
			Name   string
			Status release.Status
		},
		) bool {
			return x.Status != release.Complete
		}) {
			w.word(s, at, version, release.Ack{Type: "shipped"}, "release", "ship", version)
		}
	}
}

// history is what was seen of a release from outside.
func (w *world) history(s *seen, version string) release.History {
	w.t.Helper()
	h := release.History{Acks: s.acks[version]}
	dir := filepath.Join(w.dir, "marks", version)
	stamp := func(name string) time.Time {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return time.Time{}
		}
		sec, nsec, _ := strings.Cut(strings.TrimSpace(string(data)), ".")
		a, err := strconv.ParseInt(sec, 10, 64)
		b, berr := strconv.ParseInt(nsec, 10, 64)
		if err != nil || berr != nil {
			return time.Time{} // it was killed while it wrote
		}
		return time.Unix(a, b)
	}
	names, err := filepath.Glob(dir + "/began-*")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, p := range names {
		name := strings.TrimPrefix(filepath.Base(p), "began-")
		item, _, _ := strings.Cut(name, ".")
		r := release.Run{Item: item, Name: name, Began: stamp("began-" + name), Alive: stamp("alive-" + name)}
		if !r.Began.IsZero() {
			h.Runs = append(h.Runs, r)
		}
	}
	if data, err := os.ReadFile(filepath.Join(dir, "published")); err == nil {
		sum := sha256.Sum256(data)
		h.Published = append(h.Published, "sha256:"+hex.EncodeToString(sum[:]))
	}
	return h
}

// fault is one thing that goes wrong, and how it is mended.
type fault struct {
	what     string
	do, mend func()
}

// faults are those that can befall a host.
func (w *world) faults(h *host) []fault {
	ns := w.tag + "-" + h.name
	quiet := func(script string) func() {
		return func() { w.sh(script + " || true") } // it may be so already
	}
	list := []fault{
		{"killed", h.kill, func() { h.start(h.args...) }},
		{"frozen", func() { h.signal(syscall.SIGSTOP) }, func() { h.signal(syscall.SIGCONT) }},
		{"unplugged", quiet("ip -n " + ns + " link set eth0 down"), quiet("ip -n " + ns + " link set eth0 up")},
	}
	for name, other := range w.hosts {
		if strings.HasPrefix(name, "control") && other != h {
			list = append(list, fault{
				"deaf to " + name, quiet("ip -n " + w.tag + "-" + name + " route add blackhole " + h.ip),
				quiet("ip -n " + w.tag + "-" + name + " route del blackhole " + h.ip),
			})
		}
	}
	slices.SortFunc(list, func(a, b fault) int { return strings.Compare(a.what, b.what) })
	return list
}

// Survival 10: a nemesis does what it likes to machines and controls, one or two
// at a time, while people run releases. Then everything is mended, every release
// must ship, and its history must hold. The seed is in the log:
// TRYSAIL_SEED=N makes the same schedule again.
func TestFleetNemesis(t *testing.T) {
	w := nemesisWorld(t)
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("TRYSAIL_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("TRYSAIL_SEED=%d", seed)
	dice := rand.New(rand.NewPCG(seed, 1))
	w.three()
	controls := []string{"control", "control2", "control3"}
	for i, name := range []string{"a", "b", "c", "d"} {
		w.agent(name, 11+i, "--plain", "--rank", []string{"primary", "primary", "backup", "spare"}[i], "--slots", "2")
		w.hosts[name].args = slices.DeleteFunc(w.hosts[name].args, func(s string) bool { return s == "--join" || strings.HasPrefix(s, "trysail://") })
	}
	s := &seen{acks: map[string][]release.Ack{}}
	versions := []string{"1.0", "2.0", "3.0"}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	tormented := make(chan struct{})
	go func() {
		defer close(tormented)
		w.torment(dice, time.Minute)
	}()
	for i, v := range versions {
		w.write("app/version.txt", v+"\n")
		w.sh("cd " + w.app + " && git add -A && git -c user.name=t -c user.email=t@example.org commit -qm " + v)
		n := 0
		w.until("release "+v+" has begun", func() bool { // its source is fixed then
			at := controls[n%len(controls)]
			n++
			w.word(s, at, v, release.Ack{Type: "started"}, "release", "start", v, "--yes", "--ship", "2036-12-01T09:00:00Z")
			_, err := w.runAt(at, "release", "status", v)
			return err == nil || exit(err) == 4
		})
		wg.Go(func() { w.people(s, v, controls, stop) })
		if i < len(versions)-1 {
			time.Sleep(15 * time.Second)
		}
	}
	<-tormented
	shipped := make(chan struct{})
	go func() { wg.Wait(); close(shipped) }()
	select {
	case <-shipped:
	case <-time.After(3 * time.Minute):
		close(stop)
		<-shipped
		for _, v := range versions {
			out, err := w.run("release", "status", v)
			t.Errorf("release %s does not end:\n%s%v", v, out, err)
		}
	}
	w.until("control answers, which may have been mended last", func() bool {
		_, err := w.run("release", "events", versions[0])
		return err == nil
	})
	moves := 0
	for _, v := range versions {
		events := w.eventsOf(v)
		for _, wrong := range release.Check(events, w.history(s, v)) {
			t.Errorf("release %s: %s", v, wrong)
		}
		for _, e := range events {
			if _, ok := e.Body.(release.Lost); ok {
				moves++
			}
		}
		if !t.Failed() {
			w.copies(v)
		}
	}
	t.Logf("%d leases were lost", moves)
}

// torment makes one or two hosts at a time fail, and mends all in the end.
func (w *world) torment(dice *rand.Rand, d time.Duration) {
	w.t.Helper()
	names := []string{"a", "b", "c", "d", "control", "control2", "control3"}
	broken := map[string]func(){}
	for end := time.Now().Add(d); time.Now().Before(end); {
		name := names[dice.IntN(len(names))]
		list := w.faults(w.hosts[name])
		f := list[dice.IntN(len(list))]
		pause := time.Duration(200+dice.IntN(4000)) * time.Millisecond
		if mend := broken[name]; mend != nil {
			mend()
			delete(broken, name)
		}
		if len(broken) >= 2 { // the one that sorts first is mended
			var first string
			for n := range broken {
				if first == "" || n < first {
					first = n
				}
			}
			broken[first]()
			delete(broken, first)
		}
		w.t.Logf("%s is %s for %s", name, f.what, pause)
		f.do()
		broken[name] = f.mend
		time.Sleep(pause)
	}
	for _, mend := range broken {
		mend()
	}
}

// copies checks that each machine's copy of a release's ledger becomes the ledger.
func (w *world) copies(version string) {
	w.t.Helper()
	want := w.trysail("release", "events", version)
	for _, name := range []string{"a", "b", "c", "d"} {
		var got []byte
		w.until(name+" has the ledger of "+version, func() bool {
			var err error
			got, err = os.ReadFile(filepath.Join(w.dir, name, "agent/ledger", "release."+version+".jsonl"))
			return err == nil && string(got) == want
		})
	}
}

// Break the fencing on purpose, and the checker must fail: the agent hangs, and
// its guard is killed, so that the step runs on when its lease is over.
func TestFleetBrokenFence(t *testing.T) {
	w := nemesisWorld(t)
	a := w.agent("a", 11, "--plain")
	w.agent("b", 12, "--plain", "--rank", "backup")
	w.write("app/version.txt", "1.0\n")
	// A step that ends by itself after the other began.
	w.write("app/RELEASE.md", strings.Replace(nemesisRelease(filepath.Dir(w.marks())), "sleep 1\nmkdir -p obj", "sleep 12\nmkdir -p obj", 1))
	w.sh("cd " + w.app + " && git add -A && git -c user.name=t -c user.email=t@example.org commit -qm 1.0")
	w.trysail("release", "start", "1.0", "--yes", "--ship", "2036-12-01T09:00:00Z")
	ran := func() int {
		list, _ := filepath.Glob(filepath.Join(w.marks(), "1.0/began-compile.*"))
		return len(list)
	}
	w.until("compile runs on a", func() bool { return ran() == 1 })
	guard := strings.TrimSpace(w.sh(fmt.Sprintf("pgrep -P %d -f trysail-guard", a.cmd.Process.Pid)))
	a.signal(syscall.SIGSTOP)
	w.sh("kill -KILL " + guard)
	w.until("compile runs on b", func() bool { return ran() == 2 })
	time.Sleep(500 * time.Millisecond) // both say that they are alive
	wrong := release.Check(w.eventsOf("1.0"), w.history(&seen{}, "1.0"))
	if !slices.ContainsFunc(wrong, func(s string) bool { return strings.HasPrefix(s, "two at once") }) {
		t.Errorf("the fence is down, and the checker says %q", wrong)
	}
	a.signal(syscall.SIGCONT)
}

func (w *world) marks() string {
	dir, err := os.Readlink(filepath.Join(w.dir, "marks"))
	if err != nil {
		w.t.Fatal(err)
	}
	return dir
}

// holdUp loses what a host sends to an address, but for what TCP says of itself: the
// connections stand, and what was sent comes when it is let through.
func (w *world) holdUp(from, to string) (letThrough func()) {
	w.t.Helper()
	ns, err := netns.GetFromName(w.tag + "-" + from)
	if err != nil {
		w.t.Fatal(err)
	}
	change := func(f func(c *nftables.Conn)) {
		w.t.Helper()
		c, err := nftables.New(nftables.WithNetNSFd(int(ns)))
		if err == nil {
			f(c)
			err = c.Flush()
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "held"}
	change(func(c *nftables.Conn) {
		t := c.AddTable(table)
		chain := c.AddChain(&nftables.Chain{Name: "out", Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter})
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}, // whereto
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: net.ParseIP(to).To4()},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 2, Len: 2}, // how long
			&expr.Cmp{Op: expr.CmpOpGt, Register: 1, Data: []byte{0, 80}},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}})
	})
	return func() {
		w.t.Helper()
		change(func(c *nftables.Conn) { c.DelTable(table) })
		ns.Close()
	}
}

// A lease that comes late: what control gave a machine is held up on its way until
// the lease is over and the step runs elsewhere. The machine, which is in touch
// again by then, must not begin it.
func TestFleetLateLease(t *testing.T) {
	w := nemesisWorld(t)
	for i, name := range []string{"a", "b", "c"} { // witnesses, whose polls are answered for more than leases
		w.agent(name, 21+i, "--plain", "--serves", "nothing")
	}
	x := w.agent("x", 11, "--plain")
	w.agent("y", 12, "--plain", "--rank", "spare")
	w.write("app/version.txt", "1.0\n")
	w.write("app/RELEASE.md", strings.Replace(nemesisRelease(filepath.Dir(w.marks())), "sleep 1\nmkdir -p obj", "sleep 20\nmkdir -p obj", 1))
	w.sh("cd " + w.app + " && git add -A && git -c user.name=t -c user.email=t@example.org commit -qm 1.0")
	time.Sleep(time.Second) // x asks for work
	letThrough := w.holdUp("control", x.ip)
	w.trysail("release", "start", "1.0", "--yes", "--ship", "2036-12-01T09:00:00Z")
	ran := func() int {
		list, _ := filepath.Glob(filepath.Join(w.marks(), "1.0/began-compile.*"))
		return len(list)
	}
	w.until("compile runs on y", func() bool { return ran() > 0 && w.statusOf("1.0").Items[0].Machine == "y" })
	letThrough()
	w.until("the late lease has come", func() bool { return strings.Contains(w.logOf("x"), "release=1.0 step=compile") })
	time.Sleep(2 * time.Second) // it would say that it is alive
	events := w.eventsOf("1.0")
	granted := ""
	for _, e := range events {
		if g, ok := e.Body.(release.Granted); ok && g.Item == "compile" {
			granted += g.Machine
		}
	}
	if granted != "xy" {
		t.Fatalf("compile was granted to %q: this shows nothing", granted)
	}
	for _, wrong := range release.Check(events, w.history(&seen{}, "1.0")) {
		t.Error(wrong)
	}
}
