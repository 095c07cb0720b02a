package site

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/rpc/jsonrpc"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"trysail/internal/machine"
	"trysail/internal/strict"
)

const whole = `nonce: fathom-2026
ssh_config: ./ssh
hosts:
- {name: control, ssh: root@10.0.0.5}
- {name: primary, ssh: "root@build1.example.org:2222", address: 10.0.0.6}
- {name: backup, ssh: root@10.0.0.7}
`

func TestParseHosts(t *testing.T) {
	h, err := ParseHosts("hosts.yaml", []byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	if h.Hosts[0].Address != "10.0.0.5" || h.Hosts[1].Address != "10.0.0.6" || strings.Join(h.Names(), " ") != "control primary backup" {
		t.Errorf("%+v", h)
	}
	if user, host, port, err := h.Hosts[1].split(); user != "root" || host != "build1.example.org" || port != 2222 || err != nil {
		t.Errorf("%s %s %d %v", user, host, port, err)
	}
	for _, x := range []struct{ name, old, new, at, what string }{
		{"nothing", whole, "\n", "", "empty"},
		{"another key", "nonce:", "nounce:", "nounce", "nounce"},
		{"no nonce", "nonce: fathom-2026\n", "", "", "no nonce"},
		{"a nonce that anybody has", "fathom-2026", "drill", "drill", "no nonce"},
		{"a nonce for a shell", "fathom-2026", "\"$(reboot)1\"", "reboot", "no nonce"},
		{"no hosts", whole[strings.Index(whole, "hosts:"):], "hosts: []\n", "hosts", "no hosts"},
		{"no name", "{name: control, ", "{", "10.0.0.5", `""`},
		{"a name twice", "name: backup", "name: primary", "10.0.0.7", `"primary"`},
		{"nobody", "root@10.0.0.5", "10.0.0.5", "10.0.0.5", "root@"},
		{"somebody else", "root@10.0.0.5", "ann@10.0.0.5", "ann", "root@"},
		{"no host", "root@10.0.0.5", "root@", "root@", "names no host"},
		{"a flag", "root@10.0.0.5", "root@-oProxyCommand=reboot", "-oProxy", "names no host"},
		{"two words", "ssh: root@10.0.0.5", `ssh: "root@10.0.0.5 reboot"`, "reboot", "names no host"},
		{"a port that is none", ":2222", ":70000", "70000", "no port"},
		{"a name without an address", ", address: 10.0.0.6", "", "build1", "no address"},
		{"an address that is a name", "address: 10.0.0.6", "address: build1", "address: build1", "no address"},
		{"an address in other clothes", "address: 10.0.0.6", `address: "::ffff:10.0.0.6"`, "::ffff", "no address"},
		{"its own", "address: 10.0.0.6", "address: 127.0.0.1", "127.0.0.1", "every host's own"},
		{"two on one host", "root@10.0.0.7", "root@10.0.0.5", "backup", "control and backup are one host"},
	} {
		text := strings.Replace(whole, x.old, x.new, 1)
		_, err := ParseHosts("hosts.yaml", []byte(text))
		var e *strict.Error
		if !errors.As(err, &e) || e.Hint() == "" || !strings.Contains(e.What, x.what) {
			t.Errorf("%s: %v", x.name, err)
			continue
		}
		if lines := strings.Split(text, "\n"); x.at != "" && (e.Line < 1 || !strings.Contains(lines[e.Line-1], x.at)) {
			t.Errorf("%s: %v: line %d", x.name, err, e.Line)
		}
	}
}

func FuzzParseHosts(f *testing.F) {
	f.Add([]byte(whole))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := ParseHosts("f", data)
		if err != nil {
			var e *strict.Error
			if !errors.As(err, &e) || e.Hint() == "" {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		for _, x := range h.Hosts {
			for _, a := range h.ssh(t.Context(), x, nil, "true").Args[1:] {
				if strings.ContainsAny(a, "\n\x00") {
					t.Fatalf("%q", a)
				}
			}
		}
		if h.Covers(h.Names()) != nil || h.Covers(nil) == nil {
			t.Fatal("it does not cover its own")
		}
	})
}

func TestGuard(t *testing.T) {
	boot := func(n int) string { return fmt.Sprintf("%08d-0000-4000-8000-000000000000", n) }
	self := Found{Boot: boot(0), Space: "pid:[1]"}
	before := []Found{{Name: "control", Boot: boot(1), Space: "pid:[1]"}}
	target := Target{Name: "primary", SSH: "root@build1.example.org:2222", Address: "10.0.0.6"}
	good := Found{Name: "primary", Host: "build1.example.org", User: "root", Port: 2222, Marker: "fathom-2026", Safe: true, Boot: boot(2), Space: "pid:[1]", Addresses: []string{"10.0.0.6", "192.168.1.6"}}
	for _, x := range []struct {
		name   string
		change func(f *Found)
		what   string // "": it may be broken
	}{
		{"good", func(*Found) {}, ""},
		{"a container beside this machine", func(f *Found) { f.Boot, f.Space = boot(0), "pid:[2]" }, ""},
		{"a container beside another", func(f *Found) { f.Boot, f.Space = boot(1), "pid:[2]" }, ""},
		{"an alias", func(f *Found) { f.Host = "10.0.0.99" }, "alias"},
		{"an alias for a port", func(f *Found) { f.Port = 22 }, "alias"},
		{"an alias for a user", func(f *Found) { f.User = "ann" }, "alias"},
		{"another's key", func(f *Found) { f.KeyAlias = "build2" }, "alias"},
		{"nobody", func(f *Found) { f.Boot = "" }, "who it is"},
		{"this machine", func(f *Found) { f.Boot, f.Space = boot(0), "pid:[1]" }, "is this machine"},
		{"this machine, marked", func(f *Found) { f.Boot = boot(0) }, "is this machine"},
		{"no marker", func(f *Found) { f.Marker = "" }, "no marker"},
		{"another marker", func(f *Found) { f.Marker = "fathom-2025" }, "another drill"},
		{"a marker that begins so", func(f *Found) { f.Marker = "fathom-2026-not" }, "another drill"},
		{"anybody's marker", func(f *Found) { f.Safe = false }, "anybody"},
		{"a build server at work", func(f *Found) { f.Fleet = true }, "works for a fleet"},
		{"another drill", func(f *Found) { f.Busy = f.Boot }, "another drill"},
		{"a drill before it went down", func(f *Found) { f.Busy = boot(7) }, "when that host went down"},
		{"an address of another host", func(f *Found) { f.Addresses = []string{"10.0.0.8"} }, "no address of"},
		{"words for a shell", func(f *Found) { f.Boot = "$(reboot)" }, "who it is"},
		{"more words for a shell", func(f *Found) { f.Space = "pid:[1]'; reboot; '" }, "who it is"},
		{"twice", func(f *Found) { f.Boot = boot(1) }, "control and primary are one machine"},
	} {
		f := good
		x.change(&f)
		err := Guard(target, "fathom-2026", f, self, before)
		var e *HostsError
		switch {
		case x.what == "" && err != nil:
			t.Errorf("%s: %v", x.name, err)
		case x.what != "" && (!errors.As(err, &e) || e.Hint() == "" || !strings.Contains(err.Error(), x.what)):
			t.Errorf("%s: %v", x.name, err)
		}
	}
}

// What a host answers is read for what it is.
func TestFound(t *testing.T) {
	for _, x := range []struct {
		answer string
		want   Found
	}{
		{"", Found{}},
		{"marker fathom-2026\nsafe 0 644 regular file\nboot b\nspace pid:[1]\n", Found{Marker: "fathom-2026", Safe: true, Boot: "b", Space: "pid:[1]"}},
		{"marker \nsafe \nboot b\n", Found{Boot: "b"}},
		{"marker x\nsafe 1000 644 regular file\n", Found{Marker: "x"}},
		{"marker x\nsafe 0 664 regular file\n", Found{Marker: "x"}},
		{"marker x\nsafe 0 646 regular file\n", Found{Marker: "x"}},
		{"marker x\nsafe 0 755 directory\n", Found{Marker: "x"}},
		{"marker x\nsafe 0 regular\n", Found{Marker: "x"}},
		{"fleet\nbusy b\nnoise\n", Found{Fleet: true, Busy: "b"}},
		{"busy\n", Found{Busy: "unknown"}},
		{"address 127.0.0.1\naddress 10.0.0.6\naddress 10.0.0.6\naddress $(x)\naddress 10.0.0.7\n", Found{Addresses: []string{"10.0.0.6", "10.0.0.7"}}},
	} {
		var f Found
		f.read(x.answer)
		if !reflect.DeepEqual(f, x.want) {
			t.Errorf("%q: %+v", x.answer, f)
		}
	}
}

// worker is a process with a journal, as one that serves a drill: a mount and a directory.
func worker(dir, run string) int {
	st, err := machine.OpenState(context.Background(), filepath.Join(dir, "state"), run, slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	n, err := st.Begin()
	if err == nil {
		var at string
		if at, err = n.MkdirAll(0o755, "mounted"); err == nil {
			err = n.Mount("tmpfs", at, "tmpfs", 0, "")
		}
	}
	fmt.Println("ready", err)
	time.Sleep(time.Hour)
	return 0
}

// The reaper acts when the worker has ended, and when its time is up. What is in the
// worker's journals is gone then, and the drill's directory.
func TestReaper(t *testing.T) {
	root(t)
	for _, within := range []time.Duration{time.Hour, 100 * time.Millisecond} {
		t.Run(within.String(), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "drill")
			run := t.TempDir()
			open := func() (*machine.State, error) {
				return machine.OpenState(t.Context(), filepath.Join(dir, "state"), run, slog.New(slog.DiscardHandler))
			}
			worker := exec.Command(os.Args[0])
			worker.Env = append(os.Environ(), "SITE_WORKER="+dir, "SITE_RUN="+run)
			out, err := worker.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := worker.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(out).ReadString('\n')
			if err != nil || line != "ready <nil>\n" {
				t.Fatalf("the worker says %q: %v", line, err)
			}
			ended := make(chan error, 1)
			go func() {
				ended <- Reap(worker.Process.Pid, within, dir, slog.New(slog.DiscardHandler), open)
			}()
			if within == time.Hour {
				if _, err := os.Stat(dir); err != nil {
					t.Errorf("it acts while the worker is there: %v", err)
				}
				if err := worker.Process.Signal(unix.SIGTERM); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(300 * time.Millisecond) // nobody has waited for it yet: it is taken for one that lives
			_ = worker.Wait()                  // by a signal
			if err := <-ended; err != nil {
				t.Error(err)
			}
			want := syscall.SIGKILL
			if within == time.Hour {
				want = syscall.SIGTERM
			}
			if got := worker.ProcessState.Sys().(syscall.WaitStatus).Signal(); got != want {
				t.Errorf("the worker ended by %v", got)
			}
			if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("its directory is there: %v", err)
			}
			if left, err := filepath.Glob(filepath.Join(run, "journal", "*")); err != nil || len(left) > 0 {
				t.Errorf("journals are there: %v %v", left, err)
			}
			if mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir)); err != nil || len(mounts) > 0 {
				t.Errorf("mounts are there: %v %v", mounts, err)
			}
		})
	}
}

// A worker ends by itself when no heartbeat comes, and when the drill says so.
func TestHandEnds(t *testing.T) {
	root(t)
	st, err := machine.OpenState(t.Context(), t.TempDir(), t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	here, there := net.Pipe()
	defer there.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, st, slog.New(slog.DiscardHandler), here) }()
	c := jsonrpc.NewClient(there)
	if err := c.Call("Worker.Beat", None{}, &None{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Call("Worker.Tail", 10, new(string)); err == nil || !strings.Contains(err.Error(), "no machine") {
		t.Errorf("without a machine: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func root(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("TRYSAIL_TESTS") == "all" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
}

// TestAttackHostUsesTheCallersKeys: whoever is root on a host of a drill waits for the SSH
// agent, display and forwarded ports that the caller's configuration gives to every host.
func TestAttackHostUsesTheCallersKeys(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(config, []byte("Host *\n\tForwardAgent yes\n\tForwardX11 yes\n\tRemoteForward 9000 127.0.0.1:22\n\tPermitLocalCommand yes\n\tLocalCommand touch %h\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := &Hosts{Config: config}
	out, err := h.ssh(t.Context(), Target{SSH: "root@10.0.0.7"}, []string{"-G"}).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"forwardagent no", "forwardx11 no", "permitlocalcommand no", "clearallforwardings yes"} {
		if !strings.Contains(string(out), want+"\n") {
			t.Errorf("ssh does not say %q:\n%s", want, out)
		}
	}
}
