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
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/google/renameio/v2"
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
