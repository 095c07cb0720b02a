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
// A root is two layers: what the packages make, and what is laid on top. Each
// is kept in the state directory under the digest of everything that went into
// it, so a warm rebuild is one mount, and a changed configuration file does not
// configure the packages anew. A rebuild that was killed goes on after its last
// whole step; after a power cut, when what the disk holds is not known, it
// begins again ([layer]).
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

	"trysail/blueprint"
	"trysail/internal/debian"
	"trysail/internal/depot"
	"trysail/internal/machine"
	"trysail/internal/tree"
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
	Digest string `json:"digest"` // of everything that went into it
	// Layers are the directories that make up the root, topmost first. Never
	// write into them: mount them.
	Layers  []string   `json:"layers"`
	Cold    bool       `json:"cold"` // made by this call, from originals only
	Resumed bool       `json:"resumed,omitempty"`
	Seconds float64    `json:"seconds"`
	Steps   []StepTime `json:"steps"`
	Skipped []string   `json:"skipped,omitempty"` // encrypted files that no identity opens
	// Isolation is what keeps root in the server from this machine.
	Isolation string   `json:"isolation"`
	ids       []uint32 // users and groups of the blueprint
	held      []*layer
	synced    chan error
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
	for _, l := range s.held {
		err = errors.Join(err, l.release())
	}
	s.held = nil
	return err
}

// Mount mounts the root, writable, for one session. What is written there is
// thrown away with the session.
func (s *Server) Mount(n *machine.Session, name string) (string, error) {
	n.MapIDs(s.ids)
	return n.Overlay(name, s.Layers, n.Path(name+"-upper"), true)
}

// StepError says which step of a rebuild failed.
type StepError struct {
	Step string
	Err  error
}

func (e *StepError) Error() string { return "step " + e.Step + ": " + e.Err.Error() }
func (e *StepError) Unwrap() error { return e.Err }

// method changes when the same inputs give another root.
const method = "rebuild 3"

// Digest names a root by everything that goes into it. Builds are left out:
// several share one machine.
func Digest(b *blueprint.Blueprint, sum blueprint.Sum) (string, error) {
	return digest(blueprint.Blueprint{
		Trysail: b.Trysail, Machine: facts(b.Machine), Packages: b.Packages, Software: b.Software, Config: b.Config, Generated: b.Generated,
		Directories: b.Directories, Overrides: b.Overrides, Alternatives: b.Alternatives, Diversions: b.Diversions, Users: b.Users, Groups: b.Groups,
	}, sum)
}

// PackagesDigest names the part of a root that the packages alone make: what
// stays the same when only configuration or software changed.
func PackagesDigest(b *blueprint.Blueprint, sum blueprint.Sum) (string, error) {
	p := b.PackagesOnly()
	return digest(blueprint.Blueprint{
		Trysail: p.Trysail, Machine: facts(p.Machine), Packages: p.Packages, Diversions: p.Diversions, Users: p.Users, Groups: p.Groups,
	}, sum)
}

// facts leaves out what no root depends on.
func facts(m blueprint.Machine) blueprint.Machine {
	m.Kernel, m.CPU, m.Identity = "", "", ""
	return m
}

func digest(c blueprint.Blueprint, sum blueprint.Sum) (string, error) {
	h := sha256.New()
	enc := json.NewEncoder(h)
	if err := enc.Encode(c); err != nil {
		return "", err
	}
	for _, name := range c.Names() {
		fmt.Fprintf(h, "%s %s\n", name, sum[name])
	}
	fmt.Fprintln(h, method)
	return hex.EncodeToString(h.Sum(nil)), nil
}

// maker makes one root.
type maker struct {
	Options
	server  *Server
	session *machine.Session
	layer   *layer // the one being made
	// root is where it is made: its directory itself until something must run
	// there (writing through an overlay costs time), then an overlay above it.
	root    string
	mounted bool
	target  *debian.Target
	heads   map[string]*debian.Deb // what is known of each package's original
	status  map[string][]byte
	skipped []string
}

// Root makes or finds the root for a blueprint.
func Root(ctx context.Context, o Options) (s *Server, err error) {
	begin := o.Now()
	if err := o.Sum.Check(o.Blueprint); err != nil {
		return nil, err
	}
	whole, err := Digest(o.Blueprint, o.Sum)
	if err != nil {
		return nil, err
	}
	packages, err := PackagesDigest(o.Blueprint, o.Sum)
	if err != nil {
		return nil, err
	}
	m := &maker{Options: o, status: map[string][]byte{}}
	m.server = &Server{Digest: "sha256:" + whole, ids: numbers(o.Blueprint), Isolation: o.State.Isolation().String()}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.server.Close())
		}
	}()
	if err := Check(o.Depot, o.Blueprint, o.Sum, nil); err != nil {
		return nil, err
	}
	below := ""
	for _, l := range []*layer{
		{dir: filepath.Join(o.State.Roots(), "packages-"+packages), steps: []string{"seed", "unpack", "configure"}, indivisible: 2},
		{dir: filepath.Join(o.State.Roots(), "machine-"+whole), steps: []string{"software", "config", "generated", "finish"}},
	} {
		if err := m.stand(ctx, l, below); err != nil {
			return nil, err
		}
		below = l.prog.Generation
		m.server.Layers = append([]string{l.root()}, m.server.Layers...)
		m.server.Steps = append(m.server.Steps, l.prog.Done...)
	}
	m.server.Seconds = o.Now().Sub(begin).Seconds()
	m.sync()
	m.trim()
	return m.server, nil
}

// numbers lists the users and groups of a blueprint.
func numbers(b *blueprint.Blueprint) []uint32 {
	var list []uint32
	for _, u := range b.Users {
		list = append(list, uint32(u.UID), uint32(u.GID))
	}
	for _, g := range b.Groups {
		list = append(list, uint32(g.GID))
	}
	return list
}

// settle is how long after a layer was made the kernel has written it out by
// itself, so that making sure takes no time.
const settle = 2 * time.Minute

// sync makes sure, behind the caller's back, that layers of earlier runs are on
// the disk; Close waits. A layer that was just made is left to the kernel: until
// it is known to be safe, a crash of the machine means that it is made again.
func (m *maker) sync() {
	var old []*layer
	for _, l := range m.server.held {
		if info, err := os.Stat(l.file()); err == nil && !l.prog.Synced && m.Now().Sub(info.ModTime()) > settle {
			old = append(old, l)
		}
	}
	if len(old) == 0 {
		return
	}
	m.server.synced = make(chan error, 1)
	go func() {
		var errs []error
		for _, l := range old {
			errs = append(errs, l.sync())
		}
		m.server.synced <- errors.Join(errs...)
	}()
}

// doers are the executable twins of the plan's steps.
func (m *maker) doers() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"seed": m.seed, "unpack": m.unpack, "configure": m.configure,
		"software": m.software, "config": m.config, "generated": m.generated, "finish": m.finish,
	}
}

// tidy removes the mount points that running commands in the root left there.
func (m *maker) tidy() error {
	return m.inside(func(root *tree.Dir) error {
		for _, name := range []string{machine.InitPath, preinstDir} {
			if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	})
}

// preinstDir is where the packages' preinst scripts stand while they run.
const preinstDir = "/.trysail-preinst"

// Check makes sure that every original is in the depot before anything is
// made: those of the machine, and those of the builds named.
func Check(d *depot.Depot, b *blueprint.Blueprint, sum blueprint.Sum, builds []string) error {
	names := b.MachineNames()
	for _, x := range b.Builds {
		if slices.Contains(builds, x.Name) {
			only := blueprint.Blueprint{Builds: []blueprint.Build{x}}
			names = append(names, only.Names()...)
		}
	}
	var missing []string
	for _, name := range names {
		if !d.Has(sum[name]) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return &MissingError{Names: missing, Depot: d.Dir(), Reference: b.Reference()}
	}
	return nil
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
	return m.inside(func(root *tree.Dir) error {
		for _, d := range b.SeedDirectories() {
			if err := root.MkdirAll(d, 0o755); err != nil {
				return err
			}
		}
		for _, l := range b.Machine.MergedUsr {
			if err := root.Symlink("usr/"+l, l); err != nil {
				return err
			}
		}
		for _, f := range b.SeedFiles() {
			mode, err := strconv.ParseUint(f.Mode, 8, 32)
			if err != nil {
				return err
			}
			if err := root.Put(f.Path, []byte(f.Text), fs.FileMode(mode)); err != nil {
				return err
			}
		}
		gid, ok := b.GroupNumbers()["shadow"]
		if !ok {
			return nil
		}
		return errors.Join(root.Lchown("etc/shadow", 0, gid), root.Lchown("etc/gshadow", 0, gid))
	})
}
