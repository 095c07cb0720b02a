// Package rebuild makes a build server again from its blueprint and its
// originals, with no network, and proves that it builds the same bytes.
//
// A rebuild executes the steps of [blueprint.Plan], the same that REBUILD.md
// describes for a person: seed the users, unpack every package, configure all
// of them once with their own scripts, lay software and configuration on top.
// It is fast where order does not matter (unpacking is parallel, and one
// dpkg --configure -a does for all packages what apt does for each), and exact
// where it does: every maintainer script runs, users exist before the first
// file that belongs to them, diversions before the files they divert.
//
// A configured root is kept in the state directory under the digest of
// everything that went into it, so a warm rebuild is one mount. A rebuild that
// was killed goes on after its last whole step; after a power cut, when what
// the disk holds is not known, it begins again.
package rebuild

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"filippo.io/age"
	"github.com/google/renameio/v2"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"trysail/blueprint"
	"trysail/internal/debian"
	"trysail/internal/depot"
	"trysail/internal/machine"
)

// Options say what to rebuild.
type Options struct {
	State     *machine.State
	Depot     *depot.Depot
	Blueprint *blueprint.Blueprint
	Sum       blueprint.Sum
	Cold      bool // from originals only, whatever is cached
	// Identities decrypt configuration files; without one they are left out and named.
	Identities []age.Identity
	Log        *slog.Logger
	Step       func(text string)
	Progress   func(text string)
	Now        func() time.Time
}

// StepTime is one finished step.
type StepTime struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
}

// Server is a rebuilt root, ready to be mounted.
type Server struct {
	Digest  string     `json:"digest"` // of everything that went into it
	Root    string     `json:"root"`   // never write into it: mount it
	Cold    bool       `json:"cold"`   // made by this call
	Resumed bool       `json:"resumed,omitempty"`
	Seconds float64    `json:"seconds"`
	Steps   []StepTime `json:"steps"`
	Skipped []string   `json:"skipped,omitempty"` // encrypted files that no identity opens
	lock    *os.File
	synced  chan error
}

// Configure is the duration of the configure step in seconds.
func (s *Server) Configure() float64 {
	for _, t := range s.Steps {
		if t.Name == "configure" {
			return t.Seconds
		}
	}
	return 0
}

// Close waits until the root is safely on the disk and releases it.
func (s *Server) Close() error {
	var err error
	if s.synced != nil {
		err = <-s.synced
		s.synced = nil
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
		s.lock = nil
	}
	return err
}

// Mount mounts the root, writable, for one session. What is written there is
// thrown away with the session.
func (s *Server) Mount(n *machine.Session, name string) (string, error) {
	return n.Overlay(name, []string{s.Root}, n.Path(name+"-upper"), true)
}

// HeldError says that another run is making the same root.
type HeldError struct{ Root string }

func (e *HeldError) Error() string { return "another run is making " + e.Root }

// Hint says what to do.
func (e *HeldError) Hint() string { return "wait for it and run again: the root is then ready" }

// StepError says which step of a rebuild failed.
type StepError struct {
	Step string
	Err  error
}

func (e *StepError) Error() string { return "step " + e.Step + ": " + e.Err.Error() }
func (e *StepError) Unwrap() error { return e.Err }

// Digest names a root by everything that goes into it. Builds are left out:
// several share one machine.
func Digest(b *blueprint.Blueprint, sum blueprint.Sum) (string, error) {
	m := b.Machine
	m.Kernel, m.CPU, m.Identity = "", "", "" // facts for information
	c := blueprint.Blueprint{
		Trysail: b.Trysail, Machine: m, Packages: b.Packages, Software: b.Software, Config: b.Config, Generated: b.Generated,
		Directories: b.Directories, Alternatives: b.Alternatives, Diversions: b.Diversions, Users: b.Users, Groups: b.Groups,
	}
	h := sha256.New()
	enc := json.NewEncoder(h)
	if err := enc.Encode(c); err != nil {
		return "", err
	}
	for _, name := range c.Names() {
		fmt.Fprintf(h, "%s %s\n", name, sum[name])
	}
	fmt.Fprintf(h, "rebuild 1\n") // changes when the same inputs give another root
	return hex.EncodeToString(h.Sum(nil)), nil
}

// progress is kept beside a root that is being made.
type progress struct {
	Boot   string     `json:"boot"` // the kernel's boot id: what was written before a crash is not known to be there
	Done   []StepTime `json:"done"`
	Whole  bool       `json:"whole"`
	Synced bool       `json:"synced"`
}

// maker makes one root.
type maker struct {
	Options
	dir     string // roots/DIGEST
	prog    progress
	session *machine.Session
	root    string // the mounted overlay whose upper layer is the root
	target  *debian.Target
	server  *Server
	debs    map[string]bool // unpacked
	status  map[string][]byte
}

// Root makes or finds the root for a blueprint.
func Root(ctx context.Context, o Options) (s *Server, err error) {
	begin := o.Now()
	if err := o.Sum.Check(o.Blueprint); err != nil {
		return nil, err
	}
	digest, err := Digest(o.Blueprint, o.Sum)
	if err != nil {
		return nil, err
	}
	m := &maker{Options: o, dir: filepath.Join(o.State.Roots(), digest), debs: map[string]bool{}, status: map[string][]byte{}}
	if err := os.MkdirAll(m.dir, 0o711); err != nil {
		return nil, err
	}
	m.server = &Server{Digest: "sha256:" + digest, Root: filepath.Join(m.dir, "root")}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.server.Close())
		}
	}()
	if m.server.lock, err = lock(m.dir); err != nil {
		return nil, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	m.prog = m.read()
	usable := m.prog.Synced || m.prog.Boot == string(boot)
	if m.prog.Whole && usable && !o.Cold {
		m.server.Steps, m.server.Seconds = m.prog.Done, o.Now().Sub(begin).Seconds()
		return m.server, nil
	}
	if m.prog.Whole || !usable {
		m.prog = progress{}
	}
	m.prog.Boot = string(boot)
	if err := m.make(ctx); err != nil {
		return nil, err
	}
	m.server.Cold, m.server.Steps, m.server.Seconds = true, m.prog.Done, o.Now().Sub(begin).Seconds()
	m.sync()
	return m.server, nil
}

func lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &HeldError{dir}
		}
		return nil, err
	}
	return f, nil
}

func (m *maker) progressFile() string { return filepath.Join(m.dir, "steps.json") }

func (m *maker) read() progress {
	var p progress
	data, err := os.ReadFile(m.progressFile())
	if err != nil || json.Unmarshal(data, &p) != nil {
		return progress{} // nothing that can be relied on: begin again
	}
	return p
}

func (m *maker) save() error {
	data, err := json.Marshal(m.prog)
	if err != nil {
		return err
	}
	return renameio.WriteFile(m.progressFile(), data, 0o600)
}

// sync writes the root to the disk behind the caller's back; Close waits.
func (m *maker) sync() {
	m.server.synced = make(chan error, 1)
	go func() {
		err := func() error {
			f, err := os.Open(m.server.Root)
			if err != nil {
				return err
			}
			defer f.Close()
			if err := unix.Syncfs(int(f.Fd())); err != nil {
				return fmt.Errorf("sync %s: %w", m.server.Root, err)
			}
			m.prog.Synced = true
			return m.save()
		}()
		m.server.synced <- err
	}()
}

// doers are the executable twins of the plan's steps.
func (m *maker) doers() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"check": m.check, "seed": m.seed, "unpack": m.unpack, "configure": m.configure,
		"software": m.software, "config": m.config, "generated": m.generated, "finish": m.finish,
	}
}

func (m *maker) make(ctx context.Context) (err error) {
	if m.session, err = m.State.Begin(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.session.Close()) }()
	if len(m.prog.Done) < 3 {
		// Unpacking is not taken up in the middle.
		m.prog.Done = nil
		if err := os.RemoveAll(m.server.Root); err != nil {
			return err
		}
	} else {
		m.server.Resumed = true
	}
	if err := os.MkdirAll(m.server.Root, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(m.server.Root, 0o755); err != nil {
		return err
	}
	if err := m.save(); err != nil {
		return err
	}
	if err := os.RemoveAll(m.server.Root + ".work"); err != nil {
		return err
	}
	empty, err := m.session.MkdirAll(0o755, "empty")
	if err != nil {
		return err
	}
	if m.root, err = m.session.Overlay("root", []string{empty}, m.server.Root, true); err != nil {
		return err
	}
	doers := m.doers()
	for _, st := range m.Blueprint.Plan() {
		if slices.ContainsFunc(m.prog.Done, func(t StepTime) bool { return t.Name == st.Name }) {
			continue
		}
		do := doers[st.Name]
		if do == nil {
			return fmt.Errorf("the plan has a step %q that rebuild does not know", st.Name)
		}
		m.Step(st.Title)
		begin := m.Now()
		if err := do(ctx); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return &StepError{st.Name, err}
		}
		m.prog.Done = append(m.prog.Done, StepTime{st.Name, m.Now().Sub(begin).Seconds()})
		if err := m.save(); err != nil {
			return err
		}
	}
	if err := m.tidy(); err != nil {
		return err
	}
	if err := m.session.Unmount(m.root); err != nil {
		return err
	}
	m.prog.Whole = true
	return errors.Join(m.save(), os.RemoveAll(m.server.Root+".work"))
}

// tidy removes the mount points that running commands in the root left there.
func (m *maker) tidy() error {
	for _, name := range []string{machine.InitPath, preinstDir} {
		if err := os.Remove(filepath.Join(m.root, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// preinstDir is where the packages' preinst scripts stand while they run.
const preinstDir = "/.trysail-preinst"

// check makes sure that every original is in the depot before anything is made.
func (m *maker) check(ctx context.Context) error {
	var missing []string
	for _, name := range m.Blueprint.MachineNames() {
		if !m.Depot.Has(m.Sum[name]) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return &MissingError{Names: missing, Depot: m.Depot.Dir(), Reference: m.Blueprint.Reference()}
	}
	return ctx.Err()
}

// MissingError says which originals the depot lacks.
type MissingError struct {
	Names            []string
	Depot, Reference string
}

func (e *MissingError) Error() string {
	n := len(e.Names)
	list := e.Names
	if n > 5 {
		list = append(slices.Clone(list[:5]), fmt.Sprintf("and %d more", n-5))
	}
	return fmt.Sprintf("the depot %s lacks %d original(s): %s", e.Depot, n, strings.Join(list, ", "))
}

// Hint says what to do.
func (e *MissingError) Hint() string {
	return "fetch them: trysail depot pull REGISTRY/REPOSITORY " + e.Reference
}

// seed makes what must stand before the first package: the links of a merged
// /usr, the users with their numbers, the host's own names.
func (m *maker) seed(context.Context) error {
	b := m.Blueprint
	for _, d := range b.SeedDirectories() {
		if err := os.MkdirAll(filepath.Join(m.root, d), 0o755); err != nil {
			return err
		}
	}
	for _, l := range b.Machine.MergedUsr {
		if err := os.Symlink("usr/"+l, filepath.Join(m.root, l)); err != nil {
			return err
		}
	}
	for _, f := range b.SeedFiles() {
		mode, err := strconv.ParseUint(f.Mode, 8, 32)
		if err != nil {
			return err
		}
		p := filepath.Join(m.root, f.Path)
		if err := os.WriteFile(p, []byte(f.Text), fs.FileMode(mode)); err != nil {
			return err
		}
		if err := os.Chmod(p, fs.FileMode(mode)); err != nil {
			return err
		}
	}
	for name, gid := range b.GroupNumbers() {
		if name == "shadow" {
			for _, f := range []string{"etc/shadow", "etc/gshadow"} {
				if err := os.Chown(filepath.Join(m.root, f), 0, gid); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// unpack writes every package's files and dpkg's database, as dpkg --unpack
// would: first the packages that everything else needs and those without a
// script of their own to run before, in parallel; then all preinst scripts in
// the order of dependency; then the packages whose scripts had to come first.
func (m *maker) unpack(ctx context.Context) error {
	target, err := debian.NewTarget(m.root)
	if err != nil {
		return err
	}
	defer target.Close()
	m.target = target
	users, groups := m.Blueprint.UserNumbers(), m.Blueprint.GroupNumbers()
	target.UserID = func(n string) (int, bool) { id, ok := users[n]; return id, ok }
	target.GroupID = func(n string) (int, bool) { id, ok := groups[n]; return id, ok }
	var own []debian.Diversion
	for _, d := range m.Blueprint.Diversions {
		own = append(own, debian.Diversion{From: d.From, To: d.To, By: ":"})
	}
	target.Divert(own)
	if err := m.database(own); err != nil {
		return err
	}
	var first, second []blueprint.Package
	preinst := map[string][]byte{}
	heads := make([]*debian.Deb, len(m.Blueprint.Packages))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.NumCPU())
	for i, p := range m.Blueprint.Packages {
		g.Go(func() error {
			d, r, err := m.open(gctx, p)
			if err != nil {
				return err
			}
			heads[i] = d
			return r.Close()
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	// What a script needs to run at all cannot wait for its own script.
	base := debian.Needed(heads, func(p *debian.Package) bool { return p.Essential })
	for i, p := range m.Blueprint.Packages {
		if f := heads[i].File("preinst"); f != nil {
			preinst[p.Key()] = f.Data
			if !slices.Contains(base, heads[i]) {
				second = append(second, p)
				continue
			}
		}
		first = append(first, p)
	}
	var done atomic.Int64
	if err := m.wave(ctx, first, &done); err != nil {
		return err
	}
	if err := m.writeStatus(); err != nil {
		return err
	}
	if err := m.preinst(ctx, preinst, heads); err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(m.root, "var/lib/dpkg/diversions"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	all, err := debian.ParseDiversions("var/lib/dpkg/diversions", data)
	if err != nil {
		return err
	}
	target.Divert(all)
	if err := m.wave(ctx, second, &done); err != nil {
		return err
	}
	return m.writeStatus()
}

func (m *maker) open(ctx context.Context, p blueprint.Package) (*debian.Deb, io.ReadCloser, error) {
	r, err := m.Depot.Get(ctx, m.Sum[p.DebName()])
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", p.DebName(), err)
	}
	d, err := debian.ReadDeb(ctx, p.File, r)
	if err != nil {
		r.Close()
		return nil, nil, err
	}
	if d.Package.Name != p.Name || d.Package.Version != p.Version || d.Package.Architecture != p.Architecture {
		r.Close()
		return nil, nil, fmt.Errorf("%s holds %s %s, and the blueprint wants %s %s", p.DebName(), d.Package.Key(), d.Package.Version, p.Key(), p.Version)
	}
	return d, r, nil
}

func (m *maker) wave(ctx context.Context, list []blueprint.Package, done *atomic.Int64) error {
	// Largest first: the last to finish should not be the longest.
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.NumCPU() + 1)
	var mu sync.Mutex
	for _, p := range list {
		g.Go(func() error {
			d, r, err := m.open(ctx, p)
			if err != nil {
				return err
			}
			defer r.Close()
			u, err := m.target.Unpack(ctx, d)
			if err != nil {
				return err
			}
			if err := m.info(d, u); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			m.status[p.Key()] = d.StatusEntry()
			m.Progress(fmt.Sprintf("%d of %d packages", done.Add(1), len(m.Blueprint.Packages)))
			return nil
		})
	}
	return g.Wait()
}

// info writes what dpkg keeps of an unpacked package.
func (m *maker) info(d *debian.Deb, u *debian.Unpacked) error {
	base := filepath.Join(m.root, "var/lib/dpkg/info", d.Package.InfoName()+".")
	for _, c := range d.Control {
		if c.Name == "control" || strings.Contains(c.Name, "/") {
			continue
		}
		mode := fs.FileMode(c.Mode) & 0o777
		if err := os.WriteFile(base+c.Name, c.Data, mode); err != nil {
			return err
		}
		if err := os.Chmod(base+c.Name, mode); err != nil {
			return err
		}
	}
	if u.MD5 != "" {
		if err := os.WriteFile(base+"md5sums", []byte(u.MD5), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(base+"list", u.ListFile(), 0o644)
}

// database makes dpkg's empty database.
func (m *maker) database(own []debian.Diversion) error {
	dir := filepath.Join(m.root, "var/lib/dpkg")
	for _, d := range []string{"info", "updates", "triggers", "alternatives", "parts"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	var div bytes.Buffer
	for _, d := range own {
		fmt.Fprintf(&div, "%s\n%s\n%s\n", d.From, d.To, d.By)
	}
	files := map[string]string{"info/format": "1\n", "available": "", "diversions": div.String(), "statoverride": "", "status": "", "triggers/Unincorp": "", "triggers/File": "", "triggers/Lock": "", "lock": "", "lock-frontend": ""}
	arch := m.Blueprint.Machine.Architecture + "\n"
	for _, a := range m.Blueprint.Machine.Foreign {
		arch += a + "\n"
	}
	if len(m.Blueprint.Machine.Foreign) > 0 {
		files["arch"] = arch
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// writeStatus writes the status file and the triggers that packages want to hear of.
func (m *maker) writeStatus() error {
	var buf bytes.Buffer
	for _, p := range m.Blueprint.Packages {
		if entry := m.status[p.Key()]; entry != nil {
			buf.Write(entry)
			buf.WriteByte('\n')
		}
	}
	if err := os.WriteFile(filepath.Join(m.root, "var/lib/dpkg/status"), buf.Bytes(), 0o644); err != nil {
		return err
	}
	return m.interests()
}

func (m *maker) interests() error {
	dir := filepath.Join(m.root, "var/lib/dpkg")
	var file bytes.Buffer
	named := map[string][]string{}
	for _, p := range m.Blueprint.Packages {
		base := ""
		for _, n := range []string{p.Name, p.Key()} {
			if _, err := os.Stat(filepath.Join(dir, "info", n+".triggers")); err == nil {
				base = n
			}
		}
		if base == "" {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, "info", base+".triggers"))
		if err != nil {
			return err
		}
		for _, t := range debian.ParseTriggers(data) {
			line := base
			if !t.Await {
				line += "/noawait"
			}
			if strings.HasPrefix(t.Name, "/") {
				fmt.Fprintf(&file, "%s %s\n", t.Name, line)
			} else {
				named[t.Name] = append(named[t.Name], line)
			}
		}
	}
	for name, lines := range named {
		if strings.Contains(name, "/") || strings.HasPrefix(name, ".") {
			return fmt.Errorf("trigger name %q is not valid", name)
		}
		if err := os.WriteFile(filepath.Join(dir, "triggers", name), []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "triggers/File"), file.Bytes(), 0o644)
}

// preinst runs the packages' scripts in one go, in the order of dependency.
func (m *maker) preinst(ctx context.Context, scripts map[string][]byte, heads []*debian.Deb) error {
	if len(scripts) == 0 {
		return nil
	}
	dir, err := m.session.MkdirAll(0o755, "preinst")
	if err != nil {
		return err
	}
	var script strings.Builder
	script.WriteString("set -e\n")
	version := ""
	for _, d := range heads {
		if d.Package.Name == "dpkg" {
			version = d.Package.Version
		}
	}
	for _, d := range debian.Order(heads) {
		data := scripts[d.Package.Key()]
		if data == nil {
			continue
		}
		name := d.Package.InfoName() + ".preinst"
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o755); err != nil {
			return err
		}
		fmt.Fprintf(&script, "DPKG_MAINTSCRIPT_NAME=preinst DPKG_MAINTSCRIPT_PACKAGE=%s DPKG_MAINTSCRIPT_ARCH=%s DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1 DPKG_MAINTSCRIPT_DEBUG=0 DPKG_RUNNING_VERSION=%s DPKG_ROOT= DPKG_ADMINDIR=/var/lib/dpkg %s/%s install || { echo 'preinst of %s failed' >&2; exit 1; }\n",
			d.Package.Name, d.Package.Architecture, version, preinstDir, name, d.Package.Key())
	}
	return m.sh(ctx, script.String(), machine.Mount{Source: dir, Target: preinstDir, ReadOnly: true})
}

// sh runs a script in the root, without network, as root.
func (m *maker) sh(ctx context.Context, script string, mounts ...machine.Mount) error {
	var out tail
	x, err := m.session.Run(ctx, machine.Spec{
		Root: m.root, Hostname: m.Blueprint.Machine.Hostname, Args: []string{"/bin/sh", "-c", script}, Dir: "/", Umask: 0o022, Mounts: mounts, Stdout: &out, Stderr: &out,
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "DEBCONF_NONINTERACTIVE_SEEN=true", "LC_ALL=C.UTF-8", "HOME=/root", "DPKG_FRONTEND_LOCKED=1", "DEBCONF_NOWARNINGS=yes", "TERM=dumb"},
	})
	if err != nil {
		return err
	}
	m.Log.Debug("script in the root", "output", out.String())
	if x.Code != 0 {
		return &ScriptError{Code: x.Code, Output: out.String()}
	}
	return nil
}

// ScriptError says that a command in the root failed, and how it ended.
type ScriptError struct {
	Code   int
	Output string
}

func (e *ScriptError) Error() string {
	lines := strings.Split(strings.TrimSpace(e.Output), "\n")
	if len(lines) > 12 {
		lines = lines[len(lines)-12:]
	}
	return fmt.Sprintf("exit status %d:\n  %s", e.Code, strings.Join(lines, "\n  "))
}

// tail keeps the end of a long output.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if len(t.buf) > 1<<18 {
		t.buf = append([]byte(nil), t.buf[len(t.buf)-1<<17:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}

// configure configures every package with its own scripts, in one pass of dpkg.
// No service is started: a policy-rc.d says so, as Debian's policy provides.
func (m *maker) configure(ctx context.Context) error {
	policy := filepath.Join(m.root, "usr/sbin/policy-rc.d")
	if err := os.MkdirAll(filepath.Dir(policy), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(policy, []byte("#!/bin/sh\nexit 101\n"), 0o755); err != nil {
		return err
	}
	if err := m.sh(ctx, "dpkg --log=/var/log/dpkg.log --force-confold,unsafe-io --configure -a </dev/null"); err != nil {
		return err
	}
	if err := os.Remove(policy); err != nil {
		return err
	}
	// dpkg's exit status is good even where it leaves something half done.
	data, err := os.ReadFile(filepath.Join(m.root, "var/lib/dpkg/status"))
	if err != nil {
		return err
	}
	pkgs, err := debian.ParseStatus("var/lib/dpkg/status", data)
	if err != nil {
		return err
	}
	for _, p := range pkgs {
		if p.Status != "install ok installed" {
			return fmt.Errorf("package %s ended as %q", p.Key(), p.Status)
		}
	}
	if len(pkgs) != len(m.Blueprint.Packages) {
		return fmt.Errorf("%d of %d packages are installed", len(pkgs), len(m.Blueprint.Packages))
	}
	return nil
}

func (m *maker) software(ctx context.Context) error {
	root, err := os.OpenRoot(m.root)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, s := range m.Blueprint.Software {
		m.Progress(s.Path)
		r, err := m.Depot.Get(ctx, m.Sum[s.OriginalName()])
		if err != nil {
			return err
		}
		err = Extract(ctx, root, r, nil)
		r.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", s.OriginalName(), err)
		}
	}
	return nil
}

func (m *maker) config(ctx context.Context) error {
	for _, f := range m.Blueprint.Config {
		if err := m.lay(ctx, f, f.ConfigName()); err != nil {
			return fmt.Errorf("%s: %w", f.ConfigName(), err)
		}
	}
	return nil
}

// generated lays down what the captured machine's scripts made, where the
// rebuilt machine's own scripts made something else.
func (m *maker) generated(ctx context.Context) error {
	for _, f := range m.Blueprint.Generated {
		if sum, err := fileSum(filepath.Join(m.root, f.Path)); err == nil && sum == f.SHA256 {
			continue
		}
		if err := m.lay(ctx, f, f.GeneratedName()); err != nil {
			return fmt.Errorf("%s: %w", f.GeneratedName(), err)
		}
	}
	return nil
}

// finish makes the directories that no package owns, sets the alternatives as
// the administrator left them, and tells the loader of what came since.
func (m *maker) finish(ctx context.Context) error {
	root, err := os.OpenRoot(m.root)
	if err != nil {
		return err
	}
	defer root.Close()
	dirs := slices.Clone(m.Blueprint.Directories)
	slices.SortFunc(dirs, func(a, b blueprint.Directory) int { return strings.Compare(a.Path, b.Path) })
	for _, d := range dirs {
		rel := d.Path[1:]
		if err := root.MkdirAll(rel, 0o755); err != nil {
			return fmt.Errorf("directory %s: %w", d.Path, err)
		}
		if err := m.own(root, rel, d.Owner, d.Mode); err != nil {
			return fmt.Errorf("directory %s: %w", d.Path, err)
		}
	}
	alts, err := debian.ReadAlternatives(m.root)
	if err != nil {
		return err
	}
	registered := map[string]debian.Alternative{}
	for _, a := range alts {
		registered[a.Name] = a
	}
	return m.sh(ctx, "set -e\n"+strings.Join(blueprint.AlternativeCommands(m.Blueprint.Alternatives, func(name, value string) (known, current bool) {
		a, ok := registered[name]
		if !ok {
			return false, false
		}
		known = slices.ContainsFunc(a.Choices, func(c debian.Choice) bool { return c.Path == value })
		return known, a.Value == value
	}), "\n")+"\n"+strings.Join(blueprint.CacheCommands(), "\n"))
}

// lay writes one file or link of the blueprint into the root.
func (m *maker) lay(ctx context.Context, f blueprint.File, name string) error {
	root, err := os.OpenRoot(m.root)
	if err != nil {
		return err
	}
	defer root.Close()
	rel := f.Path[1:]
	if err := root.MkdirAll(path.Dir(rel), 0o755); err != nil {
		return err
	}
	if info, err := root.Lstat(rel); err == nil && info.IsDir() {
		return errors.New("a directory stands in its place")
	} else if err == nil {
		if err := root.Remove(rel); err != nil {
			return err
		}
	}
	if f.Link != "" {
		if err := root.Symlink(f.Link, rel); err != nil {
			return err
		}
		uid, gid := m.ids(f.Owner)
		return root.Lchown(rel, uid, gid)
	}
	r, err := m.Depot.Get(ctx, m.Sum[name])
	if err != nil {
		return err
	}
	defer r.Close()
	var in io.Reader = r
	if f.Encrypted {
		if len(m.Identities) == 0 {
			m.server.Skipped = append(m.server.Skipped, f.Path)
			return nil
		}
		// The whole is verified against its digest before any is decrypted.
		data, err := io.ReadAll(io.LimitReader(r, 64<<20))
		if err != nil {
			return err
		}
		if in, err = age.Decrypt(bytes.NewReader(data), m.Identities...); err != nil {
			return fmt.Errorf("decrypt: %w", err)
		}
	}
	w, err := root.OpenFile(rel, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, in); err != nil {
		w.Close()
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return m.own(root, rel, f.Owner, f.Mode)
}

func (m *maker) own(root *os.Root, rel, owner, mode string) error {
	uid, gid := m.ids(owner)
	if err := root.Lchown(rel, uid, gid); err != nil {
		return err
	}
	n, err := strconv.ParseUint(mode, 8, 32)
	if err != nil {
		return err
	}
	return root.Chmod(rel, fileMode(uint32(n)))
}

// fileMode turns the twelve permission bits into Go's.
func fileMode(n uint32) fs.FileMode {
	mode := fs.FileMode(n & 0o777)
	if n&0o4000 != 0 {
		mode |= fs.ModeSetuid
	}
	if n&0o2000 != 0 {
		mode |= fs.ModeSetgid
	}
	if n&0o1000 != 0 {
		mode |= fs.ModeSticky
	}
	return mode
}

func (m *maker) ids(owner string) (uid, gid int) {
	u, g, _ := strings.Cut(owner, ":")
	number := func(name string, table map[string]int) int {
		if id, ok := table[name]; ok {
			return id
		}
		id, err := strconv.Atoi(name)
		if err != nil {
			return 0
		}
		return id
	}
	return number(u, m.Blueprint.UserNumbers()), number(g, m.Blueprint.GroupNumbers())
}

func fileSum(p string) (string, error) {
	f, err := os.Open(p)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}
