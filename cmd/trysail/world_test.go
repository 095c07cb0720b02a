package main

import (
	"bytes"
	"encoding/json"
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
	control string   // address
	ask     string   // host of the control that commands are given to
	env     []string // of commands, besides
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

// uploadToken is what the machines of these tests publish with.
const uploadToken = "hunter2-and-more"

const fleetNet = "10.213.77."

func newWorld(t *testing.T, runbook string) *world {
	t.Helper()
	w := prepareWorld(t, runbook)
	w.startControl()
	return w
}

// prepareWorld makes one whose control is yet to begin.
func prepareWorld(t *testing.T, runbook string) *world {
	t.Helper()
	if ok, err := condition("root"); err != nil {
		t.Fatal(err)
	} else if !ok {
		t.Skip("needs root")
	}
	w := &world{t: t, dir: t.TempDir(), bin: filepath.Join(buildBinary(t), "trysail"), tag: fmt.Sprintf("ts%06x", rand.Uint32()&0xffffff), hosts: map[string]*host{}, ask: "control"}
	w.sh("ip netns add " + w.tag + "-sw && ip -n " + w.tag + "-sw link add br0 type bridge && ip -n " + w.tag + "-sw link set br0 up")
	t.Cleanup(func() { w.sh("ip netns del " + w.tag + "-sw") })
	w.app = filepath.Join(w.dir, "app")
	w.write("app/RELEASE.md", runbook)
	w.write("app/app.txt", "this is VERSION\n")
	w.sh("cd " + w.app + " && git init -q && git add -A && git -c user.name=t -c user.email=t@example.org commit -qm first")
	return w
}

func (w *world) startControl() {
	w.t.Helper()
	c := w.host("control", 1)
	w.control = c.ip + ":7440"
	c.start("serve", "--listen", w.control)
	w.until("control has written its link", func() bool {
		_, err := os.Stat(filepath.Join(w.dir, "control/control/link"))
		return err == nil
	})
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
	w.write(name+"/agent/secrets/UPLOAD_TOKEN", uploadToken+"\n")
	if err := os.Chmod(filepath.Join(w.dir, name, "agent/secrets/UPLOAD_TOKEN"), 0o600); err != nil {
		w.t.Fatal(err)
	}
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

// logOf is what a host's process has logged.
func (w *world) logOf(host string) string {
	w.t.Helper()
	data, err := os.ReadFile(filepath.Join(w.dir, host+".log"))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(data)
}

// command is the program on the control machine.
func (w *world) command(args ...string) *exec.Cmd { return w.commandAt(w.ask, args...) }

func (w *world) commandAt(host string, args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{"--net=/run/netns/" + w.tag + "-" + host, w.bin, "--state", filepath.Join(w.dir, host)}, args...)...)
	cmd.Dir = w.app
	cmd.Env = append(append(os.Environ(), "TRYSAIL_DEPOT=", "TRYSAIL_STATE=", "SSH_AUTH_SOCK="), w.env...)
	return cmd
}

// run runs the program on the control machine.
func (w *world) run(args ...string) (string, error) { return w.runAt(w.ask, args...) }

func (w *world) runAt(host string, args ...string) (string, error) {
	cmd := w.commandAt(host, args...)
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

func (w *world) status() *api.Status { return w.statusOf("4.2") }

func (w *world) statusOf(version string) *api.Status {
	s := &api.Status{}
	out, err := w.run("release", "status", version, "--json")
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
	w.within(time.Minute, what, is)
}

// within is until for what takes longer: a server that is made, a build.
func (w *world) within(d time.Duration, what string, is func() bool) {
	w.t.Helper()
	for end := time.Now().Add(d); !is(); time.Sleep(150 * time.Millisecond) {
		if time.Now().After(end) {
			out, err := w.run("release", "status", "4.2")
			w.t.Fatalf("in vain: %s\n%s%v", what, out, err)
		}
	}
}

func (w *world) begin() {
	w.t.Helper()
	w.trysail("release", "start", "4.2", "--yes", "--ship", "2036-12-01T09:00:00Z")
}

// events is the ledger of the release.
func (w *world) events() []release.Event {
	w.t.Helper()
	return w.eventsOf("4.2")
}

func (w *world) eventsOf(version string) []release.Event {
	w.t.Helper()
	var list []release.Event
	for line := range bytes.Lines([]byte(w.trysail("release", "events", version))) {
		var e release.Event
		if err := json.Unmarshal(line, &e); err != nil {
			w.t.Fatalf("%s: %v", line, err)
		}
		list = append(list, e)
	}
	return list
}

// check holds a release against its rules, and against what was seen of it.
func (w *world) check() []release.Event {
	w.t.Helper()
	events := w.events()
	for _, wrong := range release.Check(events, release.History{}) {
		w.t.Error(wrong)
	}
	return events
}

// refused runs a command that fails, and says why.
func (w *world) refused(why string, args ...string) {
	w.t.Helper()
	if out, err := w.run(args...); err == nil || !strings.Contains(err.Error(), why) {
		w.t.Errorf("trysail %s was not refused for %q: %s %v", strings.Join(args, " "), why, out, err)
	}
}
