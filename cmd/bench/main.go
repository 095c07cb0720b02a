// Command bench measures Trysail against its peers and writes bench.json.
//
// Every figure is a ratio to something that ran in the same minutes on the same
// machine: the plain build beside the traced one, mmdebstrap beside a cold
// rebuild, in interleaved pairs, so that a busy machine slows both. Medians are
// compared. A figure has a limit and says whether it is met; the exit status is
// 3 if one is not.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"trysail/blueprint"
	"trysail/internal/machine"
)

// figure is one line of bench.json.
type figure struct {
	Name    string  `json:"name"`
	Ratio   float64 `json:"ratio"`
	Against string  `json:"against"`
	Limit   float64 `json:"limit"`
	Met     bool    `json:"met"`
}

type bench struct {
	trysail string
	scripts string
	work    string
	pairs   int
	figures []figure
}

func main() {
	pairs := flag.Int("pairs", 5, "interleaved pairs of each comparison")
	only := flag.String("only", "", "run only this part: trace, rebuild, fleet, log, crowd")
	kills := flag.Int("kills", 50, "how many machines of a fleet are killed")
	produce := flag.Int64("produce", 0, "only write lines of so many `BYTES`, as the part log has it done")
	agents := flag.Int("agents", 1000, "how many agents a control has")
	window := flag.Duration("window", time.Minute, "for how long it is watched")
	flag.Parse()
	if *produce > 0 {
		if err := producer(os.Stdout, *produce); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *pairs, *kills, *agents, *window, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		if errors.Is(err, errLimit) {
			os.Exit(3)
		}
		os.Exit(1)
	}
}

var errLimit = errors.New("a limit is not met")

func run(ctx context.Context, pairs, kills, agents int, window time.Duration, only string) (err error) {
	b := &bench{pairs: pairs}
	if b.trysail, err = filepath.Abs("bin/trysail"); err != nil {
		return err
	}
	if b.scripts, err = filepath.Abs("scripts"); err != nil {
		return err
	}
	jq := project{"jq (C, autotools)", "jq", ". " + b.scripts + "/jq-release; jq_working_copy $DIR", "jq-dist.tar.xz"}
	age := project{"age (Go)", "age", ". " + b.scripts + "/age-release; age_working_copy $DIR filippo.io/age@v1.2.1", "dist/*.tar.gz"}
	part := func(name string) bool { return only == "" || only == name }
	if part("trace") {
		// Builds are compared in memory where there is room: what the disk does
		// in the meantime differs by more than tracing costs.
		err := b.within(memory(8<<30), func() error {
			for _, p := range []project{age, jq} {
				if err := b.prepare(ctx, p); err != nil {
					return err
				}
				if err := b.tracing(ctx, p); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if part("rebuild") {
		err := b.within("/var/tmp", func() error {
			if err := b.prepare(ctx, jq); err != nil {
				return err
			}
			if _, err := b.capture(ctx, jq, fmt.Sprintf("0-%d", runtime.NumCPU()-1)); err != nil {
				return err
			}
			return b.rebuilding(ctx, jq)
		})
		if err != nil {
			return err
		}
	}
	if part("fleet") {
		err := b.within("/var/tmp", func() error {
			if err := b.appending(ctx, 1000); err != nil {
				return err
			}
			return b.moving(ctx, kills)
		})
		if err != nil {
			return err
		}
	}
	if part("log") {
		if err := b.within("/var/tmp", func() error { return b.logging(ctx) }); err != nil {
			return err
		}
	}
	if part("crowd") {
		if err := b.within("/var/tmp", func() error { return b.crowding(ctx, agents, window) }); err != nil {
			return err
		}
	}
	return b.report()
}

// memory is the file system in memory if it has room for so many bytes, else the disk.
func memory(need int64) string {
	var s unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &s); err == nil && s.Type == unix.TMPFS_MAGIC && int64(s.Bavail)*s.Bsize >= need {
		return "/dev/shm"
	}
	say("no room in /dev/shm: builds are compared on the disk, whose own noise is larger")
	return "/var/tmp"
}

// within does a part in a new working directory, and removes it.
func (b *bench) within(parent string, part func() error) (err error) {
	if b.work, err = os.MkdirTemp(parent, "trysail-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, machine.RemoveAll(b.work)) }()
	return part()
}

// project is a real program: how its working copy is made at $DIR, and what its
// release makes.
type project struct{ title, dir, prepare, output string }

func (b *bench) prepare(ctx context.Context, p project) error {
	return b.sh(ctx, b.work, []string{"DIR=" + filepath.Join(b.work, p.dir)}, p.prepare)
}

// command is one that an interrupted benchmark interrupts, with all that it
// started, and waits for: a killed Trysail leaves its mounts to the next run.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = time.Minute
	return cmd
}

// sh runs a script and shows its output only if it fails.
func (b *bench) sh(ctx context.Context, dir string, env []string, script string) error {
	cmd := command(ctx, "bash", "-euc", script)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", script, err, out)
	}
	return nil
}

func (b *bench) env() []string { return []string{"TRYSAIL_STATE=" + filepath.Join(b.work, "state")} }

// plain builds in a clean clone with empty caches, as the capture does.
func (b *bench) plain(ctx context.Context, p project, core int) (time.Duration, error) {
	clone, home := filepath.Join(b.work, "plain"), filepath.Join(b.work, "home")
	if err := b.sh(ctx, b.work, nil, "git clone -q "+p.dir+" "+clone+"; mkdir "+home); err != nil {
		return 0, err
	}
	cmd := command(ctx, "taskset", "--cpu-list", strconv.Itoa(core), "./release.sh")
	cmd.Dir = clone
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CACHE_HOME="+home+"/.cache", "GOPATH="+home+"/go", "GOCACHE="+home+"/.cache/go-build", "GOMODCACHE="+home+"/go/pkg/mod")
	begin := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(begin)
	if err != nil {
		return 0, fmt.Errorf("plain build of %s: %w\n%s", p.title, err, out)
	}
	return took, nil
}

type captured struct {
	Capture struct {
		Seconds float64 `json:"seconds"`
	} `json:"capture"`
	peak int64 // bytes of memory of the tracing program
}

// capture runs a capture and gives what it says of the traced build.
func (b *bench) capture(ctx context.Context, p project, cores string) (*captured, error) {
	cmd := command(ctx, "taskset", "--cpu-list", cores, b.trysail, "capture", "--json", "--yes", "--output", p.output, "--", "./release.sh")
	cmd.Dir, cmd.Env = filepath.Join(b.work, p.dir), append(os.Environ(), b.env()...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &captured{}
	done := make(chan struct{})
	watched := make(chan struct{})
	go func() { // until the capture has ended
		defer close(watched)
		for {
			select {
			case <-done:
				return
			case <-time.After(100 * time.Millisecond):
				c.peak = max(c.peak, highWater(cmd.Process.Pid))
			}
		}
	}()
	err := cmd.Wait()
	close(done)
	<-watched
	if err != nil {
		return nil, fmt.Errorf("capture of %s: %w\n%s%s", p.title, err, out.Bytes(), errOut.Bytes())
	}
	return c, json.Unmarshal(out.Bytes(), c)
}

func highWater(pid int) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0 // ended
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			if err == nil {
				return kb << 10
			}
		}
	}
	return 0
}

// tracing compares the traced build with the plain one. Both run at the same
// time, on a core each (Trysail's own work is on the traced one's), so that a
// machine whose speed goes up and down by more than tracing costs slows both. Two
// cores of one machine differ too, by as much as a sixth here: the builds change
// places each round, and a ratio is that of two rounds, the geometric mean.
func (b *bench) tracing(ctx context.Context, p project) error {
	if runtime.NumCPU() < 2 {
		return errors.New("two builds at once need two cores")
	}
	var rounds, ratios []float64
	var peak int64
	for i := range b.pairs + 1 {
		say("%s: round %d of %d", p.title, i+1, b.pairs+1)
		var plain time.Duration
		var traced *captured
		g, gctx := errgroup.WithContext(ctx)
		g.Go(func() (err error) {
			plain, err = b.plain(gctx, p, i%2)
			return err
		})
		g.Go(func() (err error) {
			traced, err = b.capture(gctx, p, strconv.Itoa(1-i%2))
			return err
		})
		if err := g.Wait(); err != nil {
			return err
		}
		if err := b.sh(ctx, b.work, nil, "rm -rf plain home"); err != nil {
			return err
		}
		rounds = append(rounds, traced.Capture.Seconds/plain.Seconds())
		peak = max(peak, traced.peak)
		say("  core %d plain %.1f s, core %d traced %.1f s: %.3f", i%2, plain.Seconds(), 1-i%2, traced.Capture.Seconds, rounds[i])
		if i > 0 {
			ratios = append(ratios, math.Sqrt(rounds[i-1]*rounds[i]))
			say("  with the round before, places changed: %.3f", ratios[i-1])
		}
	}
	b.add("traced build of "+p.title, median(ratios), "the plain build at the same time, no Trysail", 1.05)
	b.add("memory while capturing "+p.title, float64(peak)/(150<<20), "150 MB", 1)
	return nil
}

func (b *bench) rebuilding(ctx context.Context, p project) error {
	dir := filepath.Join(b.work, p.dir, "trysail")
	packages := filepath.Join(b.work, "packages")
	n, err := packagesOnly(dir, packages)
	if err != nil {
		return err
	}
	depot := filepath.Join(b.work, "state/depot")
	env := append(b.env(), "REPOSITORY="+filepath.Join(b.work, "repository"))
	reference := filepath.Join(b.work, "reference")
	rebuild := b.trysail + " rebuild --blueprint " + packages
	if err := b.sh(ctx, b.work, env, rebuild+" --into "+reference); err != nil {
		return err
	}
	if err := b.sh(ctx, b.work, append(env, "SETUP_ONLY=1"), b.scripts+"/mmdebstrap-same-set "+packages+" "+depot+" "+reference+" -"); err != nil {
		return err
	}
	floor := "ls repository/deb/*.deb | xargs -P2 -I{} sh -c 'dpkg-deb --fsys-tarfile {} | tar --extract --directory %s/floor --keep-directory-symlink'"
	var ours, theirs, floors []float64
	for i := range max(3, b.pairs-2) {
		say("rebuild of %d packages: pair %d of %d", n, i+1, max(3, b.pairs-2))
		// Nothing is removed before the end: ext4 is slow to make files for a
		// minute after many were removed, which would fall on whoever comes next.
		pair := strconv.Itoa(i)
		if err := b.sh(ctx, b.work, nil, "mkdir "+pair+" && cd "+pair+" && mkdir -p floor/usr/bin floor/usr/sbin floor/usr/lib floor/usr/lib64 && ln -s usr/bin usr/sbin usr/lib usr/lib64 floor/"); err != nil {
			return err
		}
		ownState := append(slices.Clone(env), "TRYSAIL_STATE="+filepath.Join(b.work, pair, "state"), "TRYSAIL_DEPOT="+depot)
		o, err := b.time(ctx, ownState, rebuild+" --cold --json > cold.json")
		if err != nil {
			return err
		}
		t, err := b.time(ctx, env, b.scripts+"/mmdebstrap-same-set "+packages+" "+depot+" "+reference+" "+pair+"/theirs")
		if err != nil {
			return err
		}
		f, err := b.time(ctx, env, fmt.Sprintf(floor, pair))
		if err != nil {
			return err
		}
		c, err := configureSeconds(filepath.Join(b.work, "cold.json"))
		if err != nil {
			return err
		}
		ours, theirs, floors = append(ours, o), append(theirs, t), append(floors, f+c)
		say("  cold rebuild %.1f s (%.1f s of it dpkg --configure), mmdebstrap %.1f s, floor %.1f s", o, c, t, f+c)
	}
	b.add(fmt.Sprintf("cold rebuild of %d packages", n), median(ours)/median(theirs), "mmdebstrap, same packages, same local .debs", 0.33)
	b.add("cold rebuild, beside its floor", median(ours)/median(floors), "untarring the same bytes and one dpkg --configure -a", 2)
	var warm []float64
	for range b.pairs {
		w, err := b.time(ctx, env, "echo exit | "+rebuild+" --shell")
		if err != nil {
			return err
		}
		warm = append(warm, w)
	}
	b.add("warm rebuild to a shell and out", median(warm)/0.5, "0.5 s", 1)
	return nil
}

// time measures a script, once the disk has written what was before it.
func (b *bench) time(ctx context.Context, env []string, script string) (float64, error) {
	if err := b.sh(ctx, b.work, nil, "sync"); err != nil {
		return 0, err
	}
	begin := time.Now()
	err := b.sh(ctx, b.work, env, script)
	return time.Since(begin).Seconds(), err
}

func configureSeconds(file string) (float64, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	var s struct {
		Steps []struct {
			Name    string
			Seconds float64
		}
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return 0, err
	}
	for _, t := range s.Steps {
		if t.Name == "configure" {
			return t.Seconds, nil
		}
	}
	return 0, fmt.Errorf("%s: no step configure", file)
}

// packagesOnly writes a blueprint with nothing but the packages and users of another.
func packagesOnly(from, to string) (int, error) {
	data, err := os.ReadFile(filepath.Join(from, "blueprint.yaml"))
	if err != nil {
		return 0, err
	}
	bp, err := blueprint.Parse("blueprint.yaml", data)
	if err != nil {
		return 0, err
	}
	sum, err := os.ReadFile(filepath.Join(from, "blueprint.sum"))
	if err != nil {
		return 0, err
	}
	bp = bp.PackagesOnly()
	if data, err = bp.Marshal(); err != nil {
		return 0, err
	}
	return len(bp.Packages), errors.Join(os.MkdirAll(to, 0o755), os.WriteFile(filepath.Join(to, "blueprint.yaml"), data, 0o644), os.WriteFile(filepath.Join(to, "blueprint.sum"), sum, 0o644))
}

func (b *bench) add(name string, ratio float64, against string, limit float64) {
	ratio = float64(int(ratio*1000+0.5)) / 1000
	b.figures = append(b.figures, figure{name, ratio, against, limit, ratio <= limit})
}

func (b *bench) report() error {
	missed := false
	fmt.Printf("%-42s %7s %7s  %-4s %s\n", "figure", "ratio", "limit", "met", "against")
	for _, f := range b.figures {
		met := "yes"
		if !f.Met {
			met, missed = "NO", true
		}
		fmt.Printf("%-42s %7.3f %7.2f  %-4s %s\n", f.Name, f.Ratio, f.Limit, met, f.Against)
	}
	data, err := json.MarshalIndent(b.figures, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile("bench.json", append(data, '\n'), 0o644); err != nil {
		return err
	}
	if missed {
		return errLimit
	}
	return nil
}

func median(list []float64) float64 {
	s := slices.SortedFunc(slices.Values(list), func(a, b float64) int { return cmp.Compare(a, b) })
	return s[len(s)/2]
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
