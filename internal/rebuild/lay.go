package rebuild

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"filippo.io/age"

	"golang.org/x/sys/unix"

	"trysail/blueprint"
	"trysail/internal/build"
	"trysail/internal/debian"
	"trysail/internal/tree"
)

func (m *maker) software(ctx context.Context) error {
	root, err := tree.OpenRoot(m.root)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, s := range m.Blueprint.Software {
		// A tree takes the place of what a package put there.
		if err := root.RemoveAll(s.Path[1:]); err != nil {
			return err
		}
		r, err := m.Depot.Get(ctx, m.Sum[s.OriginalName()])
		if err != nil {
			return err
		}
		err = build.Extract(ctx, root, &counted{r, s.Size, 0, func(done string) { m.Progress(s.Path + ": " + done) }}, nil)
		r.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", s.OriginalName(), err)
		}
	}
	return nil
}

// counted says how much of an archive was read. Its size is that of the files in it.
type counted struct {
	io.Reader
	size, done int64
	say        func(string)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.done += int64(n)
	c.say(fmt.Sprintf("%d MB of its archive read, %d MB of files in all", c.done>>20, c.size>>20))
	return n, err
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
		same := false
		err := m.inside(func(root *tree.Dir) error {
			sum, err := fileSum(root, f.Path[1:])
			same = err == nil && sum == f.SHA256
			return nil // what cannot be read is laid anew
		})
		if err != nil {
			return err
		}
		if same {
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
	if err := m.inside(m.directories); err != nil { // closed before a command runs
		return err
	}
	alts, err := debian.ReadAlternatives(m.root)
	if err != nil {
		return err
	}
	registered := map[string]debian.Alternative{}
	for _, a := range alts {
		registered[a.Name] = a
	}
	err = m.sh(ctx, "set -e\n"+strings.Join(blueprint.AlternativeCommands(m.Blueprint.Alternatives, func(name, value string) (known, current bool) {
		a, ok := registered[name]
		if !ok {
			return false, false
		}
		known = slices.ContainsFunc(a.Choices, func(c debian.Choice) bool { return c.Path == value })
		return known, a.Value == value
	}), "\n")+"\n"+strings.Join(append(blueprint.CacheCommands(), m.Blueprint.HoldCommands()...), "\n"))
	if err != nil {
		return err
	}
	return m.inside(m.overrides)
}

// overrides gives files their mode, owner and attributes where the administrator changed them. It
// passes over a file that does not exist: Verify names it.
func (m *maker) overrides(root *tree.Dir) error {
	for _, o := range m.Blueprint.Overrides {
		rel := o.Path[1:]
		if info, err := root.Lstat(rel); errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode()&fs.ModeSymlink != 0 {
			continue
		}
		if err := m.own(root, rel, o.Owner, o.Mode); err != nil {
			return fmt.Errorf("override %s: %w", o.Path, err)
		}
		for _, a := range o.Attributes {
			value, err := base64.StdEncoding.DecodeString(a.Value)
			if err == nil {
				err = root.SetAttribute(rel, a.Name, value)
			}
			if err != nil {
				return fmt.Errorf("override %s: %w", o.Path, err)
			}
		}
	}
	return nil
}

// directories makes those that no package owns.
func (m *maker) directories(root *tree.Dir) error {
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
	return nil
}

// lay writes one file or link of the blueprint into the root.
func (m *maker) lay(ctx context.Context, f blueprint.File, name string) error {
	root, err := tree.OpenRoot(m.root)
	if err != nil {
		return err
	}
	defer root.Close()
	rel := f.Path[1:]
	if f.Absent {
		return root.RemoveAll(rel)
	}
	if err := root.MkdirAll(path.Dir(rel), 0o755); err != nil {
		return err
	}
	// An empty directory makes room: that of a package, for instance, for a link to another disk.
	if err := root.Remove(rel); errors.Is(err, unix.ENOTEMPTY) {
		return errors.New("a directory with files in it already has its name")
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
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
			m.skipped = append(m.skipped, f.Path)
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
	w, err := root.Create(rel, 0o600)
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
	if err := m.own(root, rel, f.Owner, f.Mode); err != nil || f.Modified.IsZero() {
		return err
	}
	return root.Chtimes(rel, f.Modified)
}

func (m *maker) own(root *tree.Dir, rel, owner, mode string) error {
	uid, gid := m.ids(owner)
	if err := root.Lchown(rel, uid, gid); err != nil {
		return err
	}
	n, err := strconv.ParseUint(mode, 8, 32)
	if err != nil {
		return err
	}
	return root.Chmod(rel, debian.FileMode(int64(n)))
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

func fileSum(root *tree.Dir, name string) (string, error) {
	f, err := root.Open(name)
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
