package site

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"

	"trysail/drill"
	"trysail/internal/lab"
	"trysail/internal/machine"
)

// Drills over SSH: real sshds, each on a machine of its own with its own processes,
// disk and network. The drill is run from another place in that network.

const word = "fathom-2026"

func TestMain(m *testing.M) {
	switch {
	case os.Args[0] == machine.InitPath:
		os.Exit(machine.Init())
	case os.Getenv("SITE_WORKER") != "":
		os.Exit(worker(os.Getenv("SITE_WORKER"), os.Getenv("SITE_RUN")))
	case filepath.Base(os.Args[0]) == "trysail": // laid on a host, which is to know that it runs there
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// yard is such machines, and a working copy in which drills are run.
type yard struct {
	t     *testing.T
	bin   string
	state string
	app   string
	lab   *lab.Lab
	desk  *lab.Host
	dir   string // keys and configuration of ssh
	files int    // of hosts
	hosts map[string]*lab.Host
}

func newYard(t *testing.T, names ...string) *yard {
	t.Helper()
	root(t)
	tmp := t.TempDir()
	y := &yard{t: t, bin: filepath.Join(tmp, "trysail"), state: filepath.Join(tmp, "state"), dir: t.TempDir(), hosts: map[string]*lab.Host{}}
	build := exec.Command("go", "build", "-trimpath", "-o", y.bin, "../../cmd/trysail")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	y.copy("plain")
	if _, err := exec.LookPath("/usr/sbin/sshd"); err != nil {
		t.Fatal("needs openssh-server: make packages-test")
	}
	st, err := machine.OpenState(t.Context(), filepath.Join(tmp, "yard"), "/run/trysail", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if y.lab, err = lab.New(st, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := y.lab.Close(); err != nil {
			t.Errorf("the yard: %v", err)
		}
	})
	if y.desk, err = y.lab.Host(lab.HostSpec{Name: "person"}); err != nil {
		t.Fatal(err)
	}
	y.keygen("person")
	config := fmt.Sprintf("IdentityFile %s/person\nIdentitiesOnly yes\nUserKnownHostsFile %s/known\nGlobalKnownHostsFile /dev/null\n", y.dir, y.dir)
	for _, name := range names {
		y.host(name)
	}
	config += "Host build9\n  HostName " + y.hosts[names[0]].IP + "\n"
	y.put("config", config)
	return y
}

// copy makes a working copy of scenarios, in which drills are run from now on.
func (y *yard) copy(library string) {
	y.t.Helper()
	y.app = filepath.Join(y.t.TempDir(), library)
	if err := os.CopyFS(y.app, os.DirFS("../../drills/"+library)); err != nil {
		y.t.Fatal(err)
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "-A"}, {"-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "x"}} {
		if out, err := exec.Command("git", append([]string{"-C", y.app}, args...)...).CombinedOutput(); err != nil {
			y.t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
}

func (y *yard) put(name, text string) {
	y.t.Helper()
	if err := os.WriteFile(filepath.Join(y.dir, name), []byte(text), 0o600); err != nil {
		y.t.Fatal(err)
	}
}

func (y *yard) keygen(name string) []byte {
	y.t.Helper()
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(y.dir, name)).CombinedOutput(); err != nil {
		y.t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	key, err := os.ReadFile(filepath.Join(y.dir, name+".pub"))
	if err != nil {
		y.t.Fatal(err)
	}
	return key
}

// host makes a machine with sshd, of which /etc and /var/lib are its own.
func (y *yard) host(name string) {
	y.t.Helper()
	h, err := y.lab.Host(lab.HostSpec{Name: name, Disk: 12 << 30, Plain: true})
	if err != nil {
		y.t.Fatal(err)
	}
	y.hosts[name] = h
	key := y.keygen("host-" + name)
	known, err := os.OpenFile(filepath.Join(y.dir, "known"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		y.t.Fatal(err)
	}
	fmt.Fprintf(known, "%s,[%s]:2222 %s", h.IP, h.IP, key)
	if err := known.Close(); err != nil {
		y.t.Fatal(err)
	}
	for to, from := range map[string]string{"authorized_keys": "person.pub", "host_key": "host-" + name} {
		data, err := os.ReadFile(filepath.Join(y.dir, from))
		if err == nil {
			_, err = h.Give(to, data)
		}
		if err != nil {
			y.t.Fatal(err)
		}
	}
	const begin = `
mknod /dev/loop-control c 10 237
mkdir -p /root /run/sshd /var/lib/trysail/varlib
cp -a /etc /run/etc
mount --bind /run/etc /etc
mount --bind /var/lib/trysail/varlib /var/lib
serve() { /usr/sbin/sshd -D -e -f /dev/null -p $1 -h /drill/host_key -o AuthorizedKeysFile=/drill/authorized_keys -o StrictModes=no -o UsePAM=no -o PidFile=none; }
serve 2222 &
serve 22`
	if err := h.StartProgram("/bin/sh", "-euc", begin); err != nil {
		y.t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		out, err := y.ssh(name, "true")
		if err == nil {
			return
		}
		if time.Now().After(end) {
			y.t.Fatalf("%s: %v\n%s\n%s", name, err, out, h.Tail(2000))
		}
	}
}

// here runs a command where the drill is run from.
func (y *yard) here(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + y.desk.Network()}, args...)...)
	cmd.Dir = y.app
	cmd.Env = append(os.Environ(), "TRYSAIL_DEPOT=", "TRYSAIL_STATE=", "TRYSAIL_CONTROL=", "NO_COLOR=1")
	return cmd
}

func (y *yard) ssh(name, command string) (string, error) {
	config := filepath.Join(y.dir, "ssh-only")
	if err := os.WriteFile(config, fmt.Appendf(nil, "IdentityFile %s/person\nUserKnownHostsFile %s/known\n", y.dir, y.dir), 0o600); err != nil {
		return "", err
	}
	out, err := y.here(y.t.Context(), "ssh", "-F", config, "-o", "BatchMode=yes", "root@"+y.hosts[name].IP, command).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (y *yard) must(name, command string) string {
	y.t.Helper()
	out, err := y.ssh(name, command)
	if err != nil {
		y.t.Fatalf("%s: %s: %v\n%s", name, command, err, out)
	}
	return out
}

func (y *yard) trysail(ctx context.Context, args ...string) *exec.Cmd {
	return y.here(ctx, append([]string{y.bin, "--state", y.state}, args...)...)
}

// file names hosts for a drill.
func (y *yard) file(lines ...string) string {
	y.t.Helper()
	text := "nonce: " + word + "\nssh_config: " + y.dir + "/config\nhosts:\n"
	for _, l := range lines {
		text += "  - " + l + "\n"
	}
	y.files++
	name := fmt.Sprintf("hosts-%d.yaml", y.files)
	y.put(name, text)
	return filepath.Join(y.dir, name)
}

// line is that of a host.
func (y *yard) line(name string) string {
	return "{name: " + name + ", ssh: root@" + y.hosts[name].IP + "}"
}

func (y *yard) all() string { return y.only(slices.Sorted(maps.Keys(y.hosts))) }

func (y *yard) only(names []string) string {
	var lines []string
	for _, name := range names {
		lines = append(lines, y.line(name))
	}
	return y.file(lines...)
}

// tables are those of packet rules on a host.
func (y *yard) tables(name string) string {
	y.t.Helper()
	ns, err := os.Open(y.hosts[name].Network())
	if err != nil {
		y.t.Fatal(err)
	}
	defer ns.Close()
	c, err := nftables.New(nftables.WithNetNSFd(int(ns.Fd())))
	if err != nil {
		y.t.Fatal(err)
	}
	list, err := c.ListTables()
	if err != nil {
		y.t.Fatal(err)
	}
	text := ""
	for _, t := range list {
		text += t.Name + "\n"
	}
	return text
}

// traces is what of a drill is on a host.
func (y *yard) traces(name string) string {
	y.t.Helper()
	return y.tables(name) + y.must(name, "ls -d "+Dir+" 2>/dev/null; grep -c "+Dir+" /proc/self/mountinfo; ls /run/trysail/journal 2>/dev/null; pgrep -fa 'drill-clock|drill worker|reaper' | grep -v pgrep; true")
}

// TestDrillOverSSH: hosts that do not carry the marker, or are not what they are taken
// for, are refused; on those that do, the plain scenarios run as in a lab; and when the
// machine that the drill is run from is gone, each host takes everything away itself.
func TestDrillOverSSH(t *testing.T) {
	names := []string{"control", "primary", "backup", "spare", "second"}
	y := newYard(t, names...)
	ctx := t.Context()
	refused := func(what, file string) {
		t.Helper()
		for _, args := range [][]string{{"drill", "hosts", file}, {"drill", "run", "--hosts", file, "two-servers-lost.yaml"}} {
			out, err := y.trysail(ctx, args...).CombinedOutput()
			if err == nil || !strings.Contains(string(out), what) || !strings.Contains(string(out), "→") {
				t.Errorf("%v, and not for %q\n%s", err, what, out)
			}
		}
		for _, name := range names {
			if got := y.traces(name); got != "0" {
				t.Errorf("%s was touched: %s", name, got)
			}
		}
	}
	refused("carries no marker", y.all())
	for _, name := range names {
		y.must(name, "echo another-drill > "+Marker)
	}
	refused("of another drill", y.all())
	y.mark()
	y.must("spare", "chmod 666 "+Marker)
	refused("written by anybody", y.all())
	y.must("spare", "chmod 644 "+Marker+"; mkdir -p /var/lib/trysail/agent; touch /var/lib/trysail/agent/identity.json")
	refused("works for a fleet", y.all())
	y.must("spare", "rm -r /var/lib/trysail")

	line := func(name, at string) string { return "{name: " + name + ", " + at + "}" }
	ip := func(name string) string { return y.hosts[name].IP }
	rest := []string{y.line("backup"), y.line("control"), y.line("second"), y.line("spare")}
	refused("is an alias", y.file(append(rest, line("primary", "ssh: root@build9, address: "+ip("primary")))...))
	refused("are one machine", y.file(append(rest, line("primary", "ssh: root@"+ip("spare")+":2222, address: "+ip("primary")))...))
	refused("is no address of", y.file(append(rest, line("primary", "ssh: root@"+ip("primary")+", address: 198.18.0.99"))...))
	refused("from which the drill is run", y.file(append(rest, line("primary", "ssh: root@"+ip("primary")+", address: "+y.desk.IP))...))
	file := y.file(rest...)
	if out, err := y.trysail(ctx, "drill", "run", "--hosts", file, "two-servers-lost.yaml").CombinedOutput(); err == nil || !strings.Contains(string(out), "no host is named for it") {
		t.Errorf("a machine without a host: %v\n%s", err, out)
	}

	// As in a lab.
	y.scenarios("plain", "two-servers-lost")
	y.killed(y.only([]string{"control", "primary", "backup", "spare"}))
}

// mark lets all of the hosts be broken.
func (y *yard) mark() {
	y.t.Helper()
	for name := range y.hosts {
		y.must(name, "echo "+word+" > "+Marker)
	}
}

// scenarios plays them on those hosts that each names: these, or all of a directory.
func (y *yard) scenarios(of string, names ...string) {
	t := y.t
	t.Helper()
	y.copy(of)
	if len(names) == 0 {
		files, err := filepath.Glob(filepath.Join(y.app, "*.yaml"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no scenarios: %v", err)
		}
		for _, f := range files {
			names = append(names, strings.TrimSuffix(filepath.Base(f), ".yaml"))
		}
	}
	if only := os.Getenv("TRYSAIL_DRILL"); only != "" {
		names = slices.DeleteFunc(names, func(n string) bool { return n != only })
	}
	for _, name := range names {
		file := name + ".yaml"
		data, err := os.ReadFile(filepath.Join(y.app, file))
		if err != nil {
			t.Fatal(err)
		}
		p, err := drill.Parse(file, data)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		v := y.over(y.only(slices.Concat(p.Machines(), p.Services())), file)
		if v.Value != drill.Pass || !strings.HasPrefix(v.Sentence, "Rehearsed on ") || !strings.Contains(v.Sentence, " hosts: ") {
			t.Errorf("%s: %s\nsystem: %v\nharness: %v\nclean-up: %v", name, v.Sentence, v.System, v.Harness, v.Cleanup)
		}
		for name := range y.hosts {
			if got := y.traces(name); got != "0" {
				t.Errorf("%s: left on %s: %s", file, name, got)
			}
		}
		t.Logf("%s, %s: %s", name, time.Since(began).Round(time.Second), v.Sentence)
	}
}

// over runs a scenario on hosts.
func (y *yard) over(hosts, scenario string) *drill.Verdict {
	y.t.Helper()
	cmd := y.trysail(y.t.Context(), "--json", "drill", "run", "--hosts", hosts, scenario)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	v := &drill.Verdict{}
	if jerr := json.Unmarshal(out.Bytes(), v); jerr != nil || v.Value == "" {
		y.t.Fatalf("%s: %v\n%s%s", scenario, errors.Join(err, jerr), out.Bytes(), said.Bytes())
	}
	if v.Value != drill.Pass {
		y.t.Logf("%s:\n%s", scenario, said.Bytes())
	}
	return v
}

// killed: a host is cut off, and in the middle of it the drill is killed where it is
// run. Every host is soon as it was, without anybody.
func (y *yard) killed(hosts string) {
	t := y.t
	t.Helper()
	cmd := y.trysail(t.Context(), "drill", "run", "--hosts", hosts, "cut-off.yaml")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ruled := ""
	for end := time.Now().Add(2 * time.Minute); ruled == "" && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		for name := range y.hosts {
			if strings.Contains(y.tables(name), "-cut") {
				ruled = name
			}
		}
	}
	if ruled == "" {
		t.Fatal("nobody is cut off")
	}
	rid := func(what, name string) {
		t.Helper()
		for end := time.Now().Add(time.Minute); y.traces(name) != "0"; time.Sleep(100 * time.Millisecond) {
			if time.Now().After(end) {
				t.Errorf("a minute after %s was killed, on %s: %s", what, name, y.traces(name))
				return
			}
		}
	}
	// The hand on the host that is cut off: nobody but the reaper is left there.
	y.must(ruled, "pkill -9 -f 'drill worker'")
	rid("its worker", ruled)
	if err := cmd.Process.Kill(); err != nil { // nsenter became the program
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	for name := range y.hosts {
		rid("the drill", name)
	}
}
