package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"trysail/fleet"
	"trysail/internal/api"
	"trysail/internal/control"
	"trysail/internal/depot"
	"trysail/internal/ledger"
)

// bystander is a real process of the fleet: control, or an agent.
type bystander struct {
	cmd  *exec.Cmd
	args []string
}

func (b *bench) spawn(args ...string) (*bystander, error) {
	p := &bystander{args: args}
	return p, p.start(b)
}

func (p *bystander) start(b *bench) error {
	p.cmd = exec.Command(b.trysail, p.args...)
	p.cmd.Env = append(os.Environ(), "TRYSAIL_DEPOT=", "TRYSAIL_STATE=")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	return p.cmd.Start()
}

func (p *bystander) kill(s syscall.Signal) {
	_ = p.cmd.Process.Signal(s)
	_ = p.cmd.Wait()
}

// cli runs the program against the control of the benchmark.
func (b *bench) cli(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := command(ctx, b.trysail, append([]string{"--state", filepath.Join(b.work, "control")}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TRYSAIL_DEPOT=", "TRYSAIL_STATE=")
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("trysail %s: %w\n%s", strings.Join(args, " "), err, errOut.Bytes())
	}
	return string(out), nil
}

// control starts one, and returns once it answers.
func (b *bench) control(ctx context.Context) (*bystander, error) {
	c, err := b.spawn("--state", filepath.Join(b.work, "control"), "serve", "--listen", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	if err := wait(ctx, func() bool { _, err := os.Stat(filepath.Join(b.work, "control/control/link")); return err == nil }); err != nil {
		c.kill(syscall.SIGTERM)
		return nil, err
	}
	return c, nil
}

// join starts the agent of a machine that runs steps plainly.
func (b *bench) join(ctx context.Context, name string) (*bystander, error) {
	link, err := b.cli(ctx, b.work, "fleet", "token")
	if err != nil {
		return nil, err
	}
	p, err := b.spawn("--state", filepath.Join(b.work, name), "agent", "--name", name, "--plain", "--join", strings.TrimSpace(link))
	if err != nil {
		return nil, err
	}
	p.args = p.args[:3] // once it has joined it needs no link
	return p, nil
}

// working is the script that makes $DIR a working copy with runbook $BOOK.
const working = `mkdir "$DIR"; cd "$DIR"; printf '%s' "$BOOK" > RELEASE.md; git init -q; git add -A; git -c user.name=b -c user.email=b@example.org commit -qm first`

// moving measures from the kill of a machine's agent to the first instruction of
// its step on another machine. Every kill is one of a fresh release.
func (b *bench) moving(ctx context.Context, kills int) error {
	app, marks := filepath.Join(b.work, "app"), filepath.Join(b.work, "marks")
	book := "---\nroles:\n  host: {plain: true}\npeople:\n  ann: {}\napprovers: [ann]\n---\n## Make\n\n```sh {\"name\":\"build\",\"timeout\":\"1h\",\"out\":\"app\",\"gold\":\"true\"}\ndate +%s.%N > " + marks + "/$$.new\nmv " + marks + "/$$.new " + marks + "/$$\nsleep 1000\n```\n"
	if err := b.sh(ctx, b.work, []string{"DIR=" + app, "BOOK=" + book}, "mkdir marks; "+working); err != nil {
		return err
	}
	c, err := b.control(ctx)
	if err != nil {
		return err
	}
	defer c.kill(syscall.SIGTERM)
	agents := map[string]*bystander{}
	for _, name := range []string{"a", "b"} {
		p, err := b.join(ctx, name)
		if err != nil {
			return err
		}
		defer func() { p.kill(syscall.SIGTERM) }()
		agents[name] = p
	}
	if kills == 0 {
		return nil
	}
	var took []float64
	for i := range kills {
		version := "1." + strconv.Itoa(i)
		if err := wait(ctx, func() bool { return b.up(ctx) == 2 }); err != nil {
			return err
		}
		if _, err := b.cli(ctx, app, "release", "start", version, "--yes", "--ship", "2036-12-01T09:00:00Z"); err != nil {
			return err
		}
		if err := wait(ctx, func() bool { return len(list(marks)) == 1 }); err != nil {
			return err
		}
		victim, err := b.machineOf(ctx, version)
		if err != nil {
			return err
		}
		killed := time.Now()
		agents[victim].kill(syscall.SIGKILL)
		if err := wait(ctx, func() bool { return len(list(marks)) == 2 }); err != nil {
			return err
		}
		began, err := latest(marks)
		if err != nil {
			return err
		}
		took = append(took, began.Sub(killed).Seconds())
		say("kill %d of %d: running elsewhere after %.2f s", i+1, kills, took[i])
		if _, err := b.cli(ctx, app, "release", "abort", version, "--yes", "--reason", "measured"); err != nil {
			return err
		}
		if err := agents[victim].start(b); err != nil {
			return err
		}
		for _, m := range list(marks) {
			if err := os.Remove(filepath.Join(marks, m)); err != nil {
				return err
			}
		}
	}
	b.add(fmt.Sprintf("a killed machine's step runs elsewhere, median of %d", kills), median(took)/5, "5 s (Nomad's defaults: 20 to 30 s)", 1)
	b.add(fmt.Sprintf("a killed machine's step runs elsewhere, worst of %d", kills), slices.Max(took)/8, "8 s", 1)
	return nil
}

func wait(ctx context.Context, is func() bool) error {
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(20 * time.Millisecond) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(end) {
			return fmt.Errorf("the fleet did not do what was waited for within a minute")
		}
	}
	return nil
}

// list gives the marks of steps that began.
func list(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".new") {
			names = append(names, e.Name())
		}
	}
	return names
}

// latest is when the last step began, by its own clock, which is this machine's.
func latest(dir string) (time.Time, error) {
	var last time.Time
	for _, name := range list(dir) {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return last, err
		}
		var sec, nsec int64
		if _, err := fmt.Sscanf(string(data), "%d.%d", &sec, &nsec); err != nil {
			return last, fmt.Errorf("mark %q: %w", data, err)
		}
		if t := time.Unix(sec, nsec); t.After(last) {
			last = t
		}
	}
	return last, nil
}

func (b *bench) up(ctx context.Context) int {
	var machines []api.MachineStatus
	out, err := b.cli(ctx, b.work, "fleet", "--json")
	if err != nil || json.Unmarshal([]byte(out), &machines) != nil {
		return 0
	}
	n := 0
	for _, m := range machines {
		if m.Condition == fleet.Up && len(m.Running) == 0 {
			n++
		}
	}
	return n
}

func (b *bench) machineOf(ctx context.Context, version string) (string, error) {
	var s api.Status
	out, err := b.cli(ctx, b.work, "release", "status", version, "--json")
	if err != nil {
		return "", err
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return "", err
	}
	return s.Items[0].Machine, nil
}

// appending compares an event that is appended through the API (HTTPS, the rules,
// the ledger's transaction) with a plain put by etcd's own client, in turns.
func (b *bench) appending(ctx context.Context, events int) error {
	log := slog.New(slog.DiscardHandler)
	store, err := ledger.Start(ctx, ledger.StartOptions{Dir: filepath.Join(b.work, "etcd"), Log: log})
	if err != nil {
		return err
	}
	defer store.Close()
	d, err := depot.Open(filepath.Join(b.work, "depot"))
	if err != nil {
		return err
	}
	dir := filepath.Join(b.work, "api")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	id, err := control.OpenIdentity(dir, []string{"127.0.0.1"}, time.Now)
	if err != nil {
		return err
	}
	term, err := store.Campaign(ctx)
	if err != nil {
		return err
	}
	c := control.New(control.Options{Ledger: term.Ledger, Depot: d, Dir: dir, Identity: id, Actor: "bench", Log: log, Now: time.Now})
	secret, err := c.LocalToken(ctx)
	if err != nil {
		return err
	}
	srv := httptest.NewUnstartedServer(c.Handler())
	srv.TLS = id.TLS()
	cert, err := srv.TLS.GetCertificate(nil)
	if err != nil {
		return err
	}
	srv.TLS.Certificates = []tls.Certificate{*cert} // or the test server shows one of its own
	srv.StartTLS()
	defer srv.Close()
	client := api.NewClient([]string{srv.Listener.Addr().String()}, secret, api.TrustFingerprint(id.Fingerprint(), time.Now))
	start, _, err := begin(ctx, d, "---\npeople:\n  ann: {}\n---\n## Ship\n\n- [ ] **a** (@ann, budget 1h): it\n")
	if err != nil {
		return err
	}
	if err := client.Do(ctx, http.MethodPost, "/releases", api.StartOf(start), nil); err != nil {
		return err
	}
	etcd, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + filepath.Join(b.work, "etcd/client")}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	defer etcd.Close()
	var ours, theirs []float64
	for i := range events {
		begin := time.Now()
		what := "hold"
		if i%2 == 1 {
			what = "resume"
		}
		if err := client.Do(ctx, http.MethodPost, "/releases/1/"+what, api.Reason{Reason: "measured"}, nil); err != nil {
			return err
		}
		ours = append(ours, time.Since(begin).Seconds())
		begin = time.Now()
		if _, err := etcd.Put(ctx, "bench/"+strconv.Itoa(i), strings.Repeat("x", 150)); err != nil {
			return err
		}
		theirs = append(theirs, time.Since(begin).Seconds())
	}
	say("an event through the API: %.2f ms, a put into etcd: %.2f ms", 1000*median(ours), 1000*median(theirs))
	b.add("an event appended through the API", median(ours)/median(theirs), "a plain put by etcd's client, same etcd", 1.5)
	return nil
}
