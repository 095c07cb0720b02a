package rebuild

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"trysail/blueprint"
	"trysail/internal/machine"
)

// layer is one directory below roots/, made by some steps of the plan:
//
//	root/       the files, an overlay's upper layer
//	steps.json  which steps are whole, written after each
//	lock        shared by those who use it, exclusive for the one who makes it
type layer struct {
	dir   string
	steps []string
	// indivisible steps are not taken up in the middle.
	indivisible int
	prog        progress
	lock        *os.File
}

// progress is kept beside a layer that is being made.
type progress struct {
	Boot       string     `json:"boot"` // the kernel's boot id: what was written before a crash is not known to be there
	Done       []StepTime `json:"done"`
	Whole      bool       `json:"whole"`
	Synced     bool       `json:"synced"`
	Generation string     `json:"generation"` // another one each time the layer is made
	Below      string     `json:"below"`      // generation of the layer below, which must not change under it
	Skipped    []string   `json:"skipped,omitempty"`
}

// HeldError says that another run uses the same root.
type HeldError struct{ Root string }

func (e *HeldError) Error() string { return "another run holds " + e.Root }

// Hint says what to do.
func (e *HeldError) Hint() string {
	return "wait for it and run again: without --cold the root is then ready"
}

func (l *layer) root() string { return filepath.Join(l.dir, "root") }

func (l *layer) file() string { return filepath.Join(l.dir, "steps.json") }

// read forgets what cannot be relied on.
func (l *layer) read(boot string) {
	l.prog = progress{}
	data, err := os.ReadFile(l.file())
	if err != nil || json.Unmarshal(data, &l.prog) != nil || (!l.prog.Synced && l.prog.Boot != boot) {
		l.prog = progress{}
	}
}

func (l *layer) save() error {
	data, err := json.Marshal(l.prog)
	if err != nil {
		return err
	}
	return renameio.WriteFile(l.file(), data, 0o600)
}

func (l *layer) sync() error {
	f, err := os.Open(l.root())
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", l.root(), err)
	}
	l.prog.Synced = true
	return l.save()
}

// patience is how long a run waits for another that holds the same layer.
const patience = 10 * time.Minute

// hold takes the lock, shared or exclusive, and tells who waits.
func (l *layer) hold(ctx context.Context, how int, waiting func()) error {
	if l.lock == nil {
		if err := l.open(); err != nil {
			return err
		}
	}
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for first := true; ; first = false {
		err := unix.Flock(int(l.lock.Fd()), how|unix.LOCK_NB)
		if err == nil {
			if l.current() {
				return nil
			}
			// Trimmed away between opening and locking: begin with a new one.
			if err := errors.Join(l.release(), l.open()); err != nil {
				return err
			}
			continue
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if first {
			waiting()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timeout.C:
			return &HeldError{l.dir}
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (l *layer) open() (err error) {
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return err
	}
	l.lock, err = os.OpenFile(filepath.Join(l.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	return err
}

// current tells that the lock held is the one that others would find.
func (l *layer) current() bool {
	held, err := l.lock.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(filepath.Join(l.dir, "lock"))
	return err == nil && os.SameFile(held, there)
}

func (l *layer) release() error {
	if l.lock == nil {
		return nil
	}
	err := l.lock.Close()
	l.lock = nil
	return err
}

// stand makes a layer unless it stands, and holds it for the server. below is
// the generation of the layer beneath.
func (m *maker) stand(ctx context.Context, l *layer, below string) error {
	m.server.held = append(m.server.held, l)
	waiting := func() { m.Step("waiting for another run that makes or uses the same root") }
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	if !m.Cold {
		if err := l.hold(ctx, unix.LOCK_SH, waiting); err != nil {
			return err
		}
		l.read(string(boot))
		if l.stands(below, len(m.Identities) > 0) {
			m.server.Skipped = append(m.server.Skipped, l.prog.Skipped...)
			return nil
		}
	}
	if err := l.hold(ctx, unix.LOCK_EX, waiting); err != nil {
		return err
	}
	l.read(string(boot))
	if !m.Cold && l.stands(below, len(m.Identities) > 0) { // made while we waited
		m.server.Skipped = append(m.server.Skipped, l.prog.Skipped...)
		return l.hold(ctx, unix.LOCK_SH, waiting)
	}
	if l.prog.Whole || l.prog.Below != below {
		l.prog = progress{}
	}
	l.prog.Boot, l.prog.Below = string(boot), below
	if err := m.make(ctx, l); err != nil {
		return err
	}
	m.server.Cold = true
	m.server.Skipped = append(m.server.Skipped, l.prog.Skipped...)
	return l.hold(ctx, unix.LOCK_SH, waiting)
}

// stands tells that a layer is whole and fits; with keys at hand, also that
// none of its files was left out for want of one.
func (l *layer) stands(below string, keys bool) bool {
	return l.prog.Whole && l.prog.Below == below && (!keys || len(l.prog.Skipped) == 0)
}

// make runs the layer's steps over the layers that stand.
func (m *maker) make(ctx context.Context, l *layer) (err error) {
	if m.session, err = m.State.Begin(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.session.Close()) }()
	if len(l.prog.Done) == 0 || len(l.prog.Done) < l.indivisible {
		l.prog.Done, l.prog.Generation, l.prog.Skipped = nil, rand.Text(), nil
		if err := machine.RemoveAll(l.root()); err != nil {
			return err
		}
	} else {
		m.server.Resumed = true
	}
	if err := os.MkdirAll(l.root(), 0o755); err != nil {
		return err
	}
	if err := os.Chmod(l.root(), 0o755); err != nil {
		return err
	}
	if err := l.save(); err != nil {
		return err
	}
	if err := machine.RemoveAll(l.root() + ".work"); err != nil {
		return err
	}
	m.layer, m.root, m.mounted = l, l.root(), false
	if len(m.server.Layers) > 0 {
		if err := m.mount(); err != nil {
			return err
		}
	}
	doers := m.doers()
	for _, st := range m.Blueprint.Plan() {
		if !slices.Contains(l.steps, st.Name) || slices.ContainsFunc(l.prog.Done, func(t StepTime) bool { return t.Name == st.Name }) {
			continue
		}
		if err := m.step(ctx, l, st, doers[st.Name]); err != nil {
			return err
		}
	}
	if err := m.tidy(); err != nil {
		return err
	}
	if m.mounted {
		if err := m.session.Unmount(m.root); err != nil {
			return err
		}
	}
	l.prog.Whole = true
	return errors.Join(l.save(), machine.RemoveAll(l.root()+".work"))
}

// mount puts an overlay above the layer, which does not sync what commands there
// want synced. From now on nothing may be written into the layer but through it.
func (m *maker) mount() error {
	if m.mounted {
		return nil
	}
	lower := m.server.Layers
	if len(lower) == 0 {
		empty, err := m.session.MkdirAll(0o755, "empty")
		if err != nil {
			return err
		}
		lower = []string{empty}
	}
	m.session.MapIDs(m.server.ids)
	root, err := m.session.Overlay("root", lower, m.layer.root(), true)
	if err != nil {
		return err
	}
	m.root, m.mounted = root, true
	return nil
}

func (m *maker) step(ctx context.Context, l *layer, st blueprint.Step, do func(context.Context) error) error {
	m.Step(st.Title)
	begin := m.Now()
	m.skipped = nil
	if err := do(ctx); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &StepError{st.Name, err}
	}
	l.prog.Skipped = append(l.prog.Skipped, m.skipped...)
	l.prog.Done = append(l.prog.Done, StepTime{st.Name, m.Now().Sub(begin).Seconds()})
	return l.save()
}

// spare is how many layers are kept besides those in use.
const spare = 6

// trim removes the layers that were not made or used for longest. What cannot
// be removed now (another run holds it) is left for the next time.
func (m *maker) trim() {
	type old struct {
		dir  string
		used time.Time
	}
	var list []old
	entries, err := os.ReadDir(m.State.Roots())
	if err != nil {
		return
	}
	for _, e := range entries {
		dir := filepath.Join(m.State.Roots(), e.Name())
		if slices.ContainsFunc(m.server.held, func(l *layer) bool { return l.dir == dir }) {
			now := m.Now()
			_ = os.Chtimes(filepath.Join(dir, "lock"), now, now) // only makes it younger
			continue
		}
		info, err := os.Stat(filepath.Join(dir, "lock"))
		if err != nil || !(strings.HasPrefix(e.Name(), "packages-") || strings.HasPrefix(e.Name(), "machine-")) {
			continue // not ours, or being made
		}
		list = append(list, old{dir, info.ModTime()})
	}
	slices.SortFunc(list, func(a, b old) int { return b.used.Compare(a.used) })
	for i, o := range list {
		if i < spare {
			continue
		}
		l := &layer{dir: o.dir}
		f, err := os.OpenFile(filepath.Join(o.dir, "lock"), os.O_RDWR, 0)
		if err != nil {
			continue
		}
		l.lock = f
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			if err := machine.RemoveAll(o.dir); err != nil {
				m.Log.Warn("an old root could not be removed", "dir", o.dir, "err", err)
			}
		}
		_ = l.release()
	}
}
