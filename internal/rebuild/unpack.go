package rebuild

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"trysail/blueprint"
	"trysail/internal/debian"
	"trysail/internal/machine"
	"trysail/internal/tree"
)

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
	m.heads = map[string]*debian.Deb{}
	var held atomic.Int64
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.NumCPU())
	for i, p := range m.Blueprint.Packages {
		g.Go(func() error {
			d, r, err := m.open(gctx, p, nil)
			if err != nil {
				return err
			}
			for _, c := range d.Control {
				held.Add(int64(len(c.Data)))
			}
			if held.Load() > maxDatabase {
				return errors.Join(fmt.Errorf("the packages have more than %d MB of scripts and lists", maxDatabase>>20), r.Close())
			}
			heads[i] = d
			return r.Close()
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, p := range m.Blueprint.Packages {
		m.heads[p.Key()] = heads[i]
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
	if err := target.Move(m.root); err != nil { // the scripts needed it mounted
		return err
	}
	var data []byte
	err = m.inside(func(root *tree.Dir) (err error) {
		data, err = root.ReadFile("var/lib/dpkg/diversions", maxDatabase)
		return err
	})
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

// maxDatabase bounds a file of dpkg's database, and what becomes of it in memory, in bytes. A machine with all of
// Debian has 150 MB.
const maxDatabase = 512 << 20

// inside gives the root that is being made. Whatever a package or its scripts
// put there, a link of theirs does not lead out of it.
func (m *maker) inside(f func(root *tree.Dir) error) error {
	root, err := tree.OpenRoot(m.root)
	if err != nil {
		return err
	}
	defer root.Close()
	return f(root)
}

// open opens a package's original; known is what an earlier open gave of it.
func (m *maker) open(ctx context.Context, p blueprint.Package, known *debian.Deb) (*debian.Deb, io.ReadCloser, error) {
	r, err := m.Depot.Get(ctx, m.Sum[p.DebName()])
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", p.DebName(), err)
	}
	d, err := debian.ReadDebAgain(ctx, p.File, r, known)
	if err != nil {
		r.Close()
		return nil, nil, m.blame(ctx, p.DebName(), err)
	}
	if d.Package.Name != p.Name || d.Package.Version != p.Version || d.Package.Architecture != p.Architecture {
		r.Close()
		return nil, nil, fmt.Errorf("%s holds %s %s, and the blueprint wants %s %s", p.DebName(), d.Package.Key(), d.Package.Version, p.Key(), p.Version)
	}
	return d, r, nil
}

// blame finds out whether an archive that cannot be read is the captured one:
// a disk that changed it shows as a broken archive before its digest is reached.
func (m *maker) blame(ctx context.Context, name string, err error) error {
	var broken *debian.ArchiveError
	if !errors.As(err, &broken) {
		return err
	}
	r, derr := m.Depot.Get(ctx, m.Sum[name])
	if derr == nil {
		_, derr = io.Copy(io.Discard, r)
		r.Close()
	}
	if derr != nil {
		return fmt.Errorf("%s: %w", name, derr)
	}
	return err
}

func (m *maker) wave(ctx context.Context, list []blueprint.Package, done *atomic.Int64) error {
	// Largest first: the last to finish should not be the longest.
	sizes := map[string]int64{}
	for _, p := range list {
		sizes[p.Key()] = m.Depot.Size(m.Sum[p.DebName()])
	}
	list = slices.SortedFunc(slices.Values(list), func(a, b blueprint.Package) int { return cmp.Compare(sizes[b.Key()], sizes[a.Key()]) })
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.NumCPU() + 1)
	var mu sync.Mutex
	for _, p := range list {
		g.Go(func() error {
			d, r, err := m.open(ctx, p, m.heads[p.Key()])
			if err != nil {
				return err
			}
			defer r.Close()
			u, err := m.target.Unpack(ctx, d)
			if err != nil {
				return m.blame(ctx, p.DebName(), err)
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
	return m.inside(func(root *tree.Dir) error { return writeInfo(root, d, u) })
}

func writeInfo(root *tree.Dir, d *debian.Deb, u *debian.Unpacked) error {
	base := "var/lib/dpkg/info/" + d.Package.InfoName() + "."
	for _, c := range d.Control {
		if c.Name == "control" || strings.Contains(c.Name, "/") {
			continue
		}
		mode := fs.FileMode(c.Mode) & 0o777
		if err := root.Put(base+c.Name, c.Data, mode); err != nil {
			return err
		}
	}
	if u.MD5 != "" {
		if err := root.Put(base+"md5sums", []byte(u.MD5), 0o644); err != nil {
			return err
		}
	}
	return root.Put(base+"list", u.ListFile(), 0o644)
}

// database makes dpkg's empty database.
func (m *maker) database(own []debian.Diversion) error {
	const dir = "var/lib/dpkg/"
	var div bytes.Buffer
	for _, d := range own {
		fmt.Fprintf(&div, "%s\n%s\n%s\n", d.From, d.To, d.By)
	}
	files := map[string]string{"info/format": "1\n", "diversions": div.String(), "status": "", "triggers/Unincorp": "", "triggers/File": ""}
	// Without foreign ones the file says what dpkg assumes where there is none; some machines have it, such as those of mmdebstrap.
	files["arch"] = strings.Join(append([]string{m.Blueprint.Machine.Architecture}, m.Blueprint.Machine.Foreign...), "\n") + "\n"
	return m.inside(func(root *tree.Dir) error {
		for _, d := range []string{"info", "updates", "triggers", "alternatives", "parts"} {
			if err := root.MkdirAll(dir+d, 0o755); err != nil {
				return err
			}
		}
		for name, text := range files {
			if err := root.Put(dir+name, []byte(text), 0o644); err != nil {
				return err
			}
		}
		return nil
	})
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
	return m.inside(func(root *tree.Dir) error {
		if err := root.Put("var/lib/dpkg/status", buf.Bytes(), 0o644); err != nil {
			return err
		}
		return m.interests(root)
	})
}

func (m *maker) interests(root *tree.Dir) error {
	const dir = "var/lib/dpkg/"
	var file bytes.Buffer
	named := map[string][]string{}
	for _, p := range m.Blueprint.Packages {
		if m.status[p.Key()] == nil {
			continue // not unpacked yet
		}
		d := m.heads[p.Key()]
		base := d.Package.InfoName()
		for _, t := range d.Interests() {
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
		if err := root.Put(dir+"triggers/"+name, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			return err
		}
	}
	return root.Put(dir+"triggers/File", file.Bytes(), 0o644)
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
	if err := m.mount(); err != nil {
		return err
	}
	var out tail
	x, err := m.session.Run(ctx, machine.Spec{
		Root: m.root, Hostname: m.Blueprint.Machine.Hostname, Args: []string{"/bin/sh", "-c", script}, Dir: "/", Umask: 0o022, Mounts: mounts, Chroot: true, Stdout: &out, Stderr: &out,
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "DEBCONF_NONINTERACTIVE_SEEN=true", "LC_ALL=C.UTF-8", "HOME=/root", "DPKG_FRONTEND_LOCKED=1", "DEBCONF_NOWARNINGS=yes", "TERM=dumb"},
	})
	var none *machine.CommandError
	if errors.As(err, &none) { // a root without a shell that runs
		return &ScriptError{Code: 127, Output: none.Error()}
	}
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
	const policy = "usr/sbin/policy-rc.d"
	err := m.inside(func(root *tree.Dir) error {
		if err := root.MkdirAll(path.Dir(policy), 0o755); err != nil {
			return err
		}
		return root.Put(policy, []byte("#!/bin/sh\nexit 101\n"), 0o755)
	})
	if err != nil {
		return err
	}
	if err := m.sh(ctx, "dpkg --log=/var/log/dpkg.log --force-"+m.Blueprint.DpkgForces()+" --configure -a </dev/null"); err != nil {
		return err
	}
	// dpkg's exit status is good even where it leaves something half done.
	var data []byte
	err = m.inside(func(root *tree.Dir) (err error) {
		data, err = root.ReadFile("var/lib/dpkg/status", maxDatabase)
		return errors.Join(err, root.Remove(policy))
	})
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
