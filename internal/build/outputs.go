package build

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"trysail/blueprint"
	"trysail/internal/tree"
)

// Limits bound what one build makes.
type Limits struct {
	Files int
	Bytes int64 // of all files; a sparse file has them without a disk of that size
	// Attributes are the bytes of all extended attributes; 0: 64 MiB.
	Attributes int64
}

// mostNames bounds the names of what one build makes, in bytes: in directories that are in one
// another a name may have a hundred thousand.
const mostNames = 256 << 20

// captured bounds the outputs of a captured build: each is named in the blueprint, which
// people read, and 256 GiB take ten minutes to hash.
func captured() Limits { return Limits{Files: 100_000, Bytes: 256 << 30} }

// Found is what globs match.
type Found struct {
	Files     []File   // and links, sorted by path
	Dirs      []File   // sorted by path
	Unmatched []string // globs that nothing matches
}

// File is a file, link or directory that a build made, with what it has beside its bytes.
type File struct {
	blueprint.Output
	UID, GID   int
	Modified   time.Time
	First      string // another path found, before this one, of the same file
	Attributes map[string][]byte
	Empty      bool // a directory with nothing in it
}

// OutputError says why the outputs that a glob matches are not collected. The
// build is at fault, not the machine.
type OutputError struct {
	Glob string
	Err  error
}

func (e *OutputError) Error() string { return fmt.Sprintf("output %q: %v", e.Glob, e.Err) }
func (e *OutputError) Unwrap() error { return e.Err }

// Hint says what to do.
func (e *OutputError) Hint() string {
	var h interface{ Hint() string }
	if errors.As(e.Err, &h) {
		return h.Hint()
	}
	return "let the build put its outputs, as regular files and links, into a directory of their own, and name that"
}

// Outputs lists what the globs match below dir, as [Collect] does, without directories that
// are empty and without setuid bits: a blueprint has neither.
func Outputs(dir string, globs []string) (outputs []blueprint.Output, unmatched []string, err error) {
	found, err := Collect(dir, globs, captured(), func(string) error { return nil })
	if err != nil {
		return nil, nil, err
	}
	for _, f := range found.Files {
		if f.Mode != "" {
			f.Mode = "0" + f.Mode[1:]
		}
		outputs = append(outputs, f.Output)
	}
	return outputs, found.Unmatched, nil
}

// Collect lists what the globs match below dir, with digests. A link is an output itself;
// none is followed. A directory that matches stands for what is in it. What is neither
// file, link nor directory is refused, and so is a name that check refuses.
func Collect(dir string, globs []string, most Limits, check func(name string) error) (*Found, error) {
	d, err := tree.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	found, dirs, out := map[string]bool{}, map[string]bool{}, &Found{}
	var size int64
	named := 0
	for _, g := range globs {
		any, err := match(d, g, func(e *tree.Entry) error {
			link := e.Mode()&fs.ModeSymlink != 0
			if e.Path == "." {
				return nil
			}
			if err := check(e.Path); err != nil {
				return err
			}
			switch {
			case found[e.Path], dirs[e.Path]:
				return nil
			case max(len(found), len(dirs)) >= most.Files:
				return &tree.LimitError{Path: g, What: "files", Limit: int64(most.Files)}
			}
			if named += len(e.Path); named > mostNames {
				return &tree.LimitError{Path: g, What: "bytes of names", Limit: mostNames}
			}
			switch {
			case e.IsDir():
				dirs[e.Path] = true
				return nil
			case !link && !e.Mode().IsRegular():
				return &tree.KindError{Path: e.Path, Mode: e.Mode(), Want: "regular file"}
			}
			if size += e.Size(); size > most.Bytes || size < 0 {
				return &tree.LimitError{Path: g, What: "bytes", Limit: most.Bytes}
			}
			found[e.Path] = true
			return nil
		})
		if err != nil {
			return nil, &OutputError{g, err}
		}
		if !any {
			out.Unmatched = append(out.Unmatched, g)
		}
	}
	first := map[inode]string{}
	limit := cmp.Or(most.Attributes, 64<<20)
	left := limit
	keep := func(to *[]File, f *File) error {
		for name, value := range f.Attributes {
			left -= int64(len(name) + len(value))
		}
		if left < 0 {
			return &OutputError{f.Path, &tree.LimitError{Path: f.Path, What: "bytes of attributes", Limit: limit}}
		}
		*to = append(*to, *f)
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		f, err := readFile(d, name, first)
		if err != nil {
			return nil, err
		}
		if err := keep(&out.Files, f); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(dirs)) {
		f, err := readDirectory(d, name)
		if err != nil {
			return nil, err
		}
		if err := keep(&out.Dirs, f); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// inode is a file, whatever its names.
type inode struct{ device, number uint64 }

// mode is that of a file in four octal digits, with the bits that change who runs it.
func mode(m fs.FileMode) string {
	bits := m.Perm()
	for bit, is := range map[fs.FileMode]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if m&is != 0 {
			bits |= bit
		}
	}
	return fmt.Sprintf("%04o", uint32(bits))
}

// FileMode is what [Collect] writes as four octal digits.
func FileMode(text string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(text, 8, 12)
	if err != nil {
		return 0, fmt.Errorf("mode %q: %w", text, err)
	}
	m := fs.FileMode(n) & fs.ModePerm
	for bit, is := range map[uint64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if n&bit != 0 {
			m |= is
		}
	}
	return m, nil
}

// Made says in words which files below dir a build made since it began, for the person who gave
// a glob that matches none of them.
func Made(dir string, since time.Time) (string, error) {
	const most = 10
	var names []string
	more := 0
	d, err := tree.Open(dir)
	if err != nil {
		return "", err
	}
	defer d.Close()
	err = d.Walk(".", func(e *tree.Entry) error {
		st, ok := e.Sys().(*syscall.Stat_t)
		switch {
		case e.IsDir() && (path.Base(e.Path) == ".git" || path.Base(e.Path) == ".svn"):
			return fs.SkipDir
		case e.IsDir() || !ok || time.Unix(st.Ctim.Unix()).Before(since):
		case len(names) == most:
			more++
		default:
			names = append(names, e.Path)
		}
		return nil
	})
	switch {
	case len(names) == 0:
		return "it made no file at all", err
	case more > 0:
		return fmt.Sprintf("it made %s and %d more", strings.Join(names, ", "), more), err
	}
	return "it made " + strings.Join(names, ", "), err
}

// match visits everything that a glob matches, or that is in a directory that it matches. It reads only directories that can hold a match.
func match(d *tree.Dir, glob string, visit func(*tree.Entry) error) (any bool, err error) {
	base, rest := doublestar.SplitPattern(path.Clean(glob))
	if !fs.ValidPath(base) {
		return false, nil
	}
	prefix := "" // of what is in a directory that matches
	err = d.Walk(base, func(e *tree.Entry) error {
		if e.Path == base && e.Mode()&fs.ModeSymlink != 0 { // the build's files are where it leads, or somebody else's are
			target, err := e.Readlink()
			return errors.Join(err, &tree.LinkError{Path: base, Target: target, Owner: e.UID()})
		}
		inside := prefix != "" && (prefix == "./" || strings.HasPrefix(e.Path, prefix))
		if !inside {
			is, err := doublestar.Match(path.Join(base, rest), e.Path)
			if err != nil {
				return err
			}
			if is && e.IsDir() {
				prefix = e.Path + "/"
			}
			inside, any = is, any || is
		}
		switch {
		case e.IsDir() && !inside && !leads(path.Join(base, rest), e.Path):
			return fs.SkipDir
		case !inside:
			return nil
		}
		return visit(e)
	})
	if errors.Is(err, fs.ErrNotExist) || isNotDir(err) {
		err = nil // nothing is there
	}
	return any, err
}

func isNotDir(err error) bool {
	var k *tree.KindError
	return errors.As(err, &k) && k.Want == "directory"
}

// leads tells whether a directory can hold what a glob matches.
func leads(glob, dir string) bool {
	parts := strings.Split(glob, "/")
	n := strings.Count(dir, "/") + 1
	if dir == "." || strings.ContainsAny(glob, `{\`) { // an alternative may hold a slash
		return true
	}
	for i, p := range parts[:min(n, len(parts))] {
		if strings.Contains(p, "**") {
			n = i + 1
			break
		}
	}
	if n >= len(parts) && !strings.Contains(glob, "**") {
		return false
	}
	is, err := doublestar.Match(strings.Join(parts[:min(n, len(parts))], "/"), strings.Join(strings.SplitN(dir, "/", n+1)[:n], "/"))
	return is || err != nil || strings.Contains(parts[min(n, len(parts))-1], "**")
}

// output describes one file or link. Size, mode and digest are of one descriptor.
func readDirectory(d *tree.Dir, name string) (*File, error) {
	info, err := d.Lstat(name)
	if err != nil {
		return nil, err
	}
	list, err := d.ReadDir(name)
	if err != nil {
		return nil, err
	}
	f := &File{Output: blueprint.Output{Path: name, Mode: mode(info.Mode())}, UID: info.UID(), GID: info.GID(), Modified: info.ModTime(), Empty: len(list) == 0}
	f.Attributes, err = d.Attributes(name)
	return f, err
}

// readFile reads a file from one descriptor. first has a name of each file that has several.
func readFile(d *tree.Dir, name string, first map[inode]string) (*File, error) {
	info, err := d.Lstat(name)
	if err != nil {
		return nil, err
	}
	o := &File{Output: blueprint.Output{Path: name}, UID: info.UID(), GID: info.GID(), Modified: info.ModTime()}
	if info.Mode()&fs.ModeSymlink != 0 {
		o.Size = info.Size()
		o.Link, err = d.Readlink(name)
		return o, err
	}
	f, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	o.Size, o.Mode, o.Modified = st.Size(), mode(st.Mode()), st.ModTime()
	if o.Attributes, err = tree.Attributes(f); err != nil {
		return nil, err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		o.UID, o.GID = int(sys.Uid), int(sys.Gid)
		if is := (inode{sys.Dev, sys.Ino}); sys.Nlink > 1 && first[is] != "" {
			o.First = first[is]
		} else if sys.Nlink > 1 {
			first[is] = name
		}
	}
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, o.Size+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if n != o.Size {
		return nil, fmt.Errorf("%s changed while it was read: a process of the build still writes", name)
	}
	o.SHA256 = "sha256:" + hex.EncodeToString(h.Sum(nil))
	return o, nil
}
