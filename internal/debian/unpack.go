package debian

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Target is a root that packages are unpacked into, several at a time.
type Target struct {
	root *os.Root
	// UserID and GroupID look names up in the root's own passwd and group, as
	// dpkg does; an unknown name keeps the archive's number.
	UserID, GroupID func(name string) (int, bool)

	// places keep two packages from writing one file at once; mu the maps below.
	places     [64]sync.Mutex
	mu         sync.Mutex
	dirs       map[string]string // a directory's name -> where it really is
	claims     map[string]claim  // which package a file belongs to
	seed       maphash.Seed
	diversions []Diversion
}

type claim struct {
	pkg      *Package
	replaces map[string]bool
}

// NewTarget opens a root for unpacking.
func NewTarget(dir string) (*Target, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	none := func(string) (int, bool) { return 0, false }
	return &Target{root: root, UserID: none, GroupID: none, dirs: map[string]string{".": "."}, claims: map[string]claim{}, seed: maphash.MakeSeed()}, nil
}

// Move goes on unpacking at another name of the same root.
func (t *Target) Move(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	old := t.root
	t.root = root
	return old.Close()
}

// Close releases the root.
func (t *Target) Close() error { return t.root.Close() }

// Divert sets the diversions that later unpacking honours.
func (t *Target) Divert(list []Diversion) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.diversions = list
}

// Unpacked is what one package brought.
type Unpacked struct {
	Paths []string // as dpkg lists them, "/." first
	MD5   string   // md5sums made while unpacking, "" where the package brings its own
	Bytes int64
}

const conffileSuffix = ".dpkg-new" // as dpkg leaves them for configuration

// Unpack writes the package's files. Configuration files are written with the
// suffix that dpkg's configuration step expects.
func (t *Target) Unpack(ctx context.Context, d *Deb) (*Unpacked, error) {
	conffiles := map[string]bool{}
	for _, c := range d.Conffiles() {
		conffiles[c] = true
	}
	u := &unpacking{t: t, d: d, replaces: replaced(d.Package), conffiles: conffiles, sums: d.File("md5sums") == nil}
	if err := d.Members(ctx, u.member); err != nil {
		return nil, err
	}
	return &u.out, nil
}

// Members visits the package's files, and reads the archive to its end.
func (d *Deb) Members(ctx context.Context, visit func(*tar.Header, io.Reader) error) error {
	rd, err := decompress(ctx, d.dataName, d.data)
	if err != nil {
		return &ArchiveError{d.Package.Name, d.dataName, err.Error()}
	}
	defer rd.Close()
	tr := tar.NewReader(bufio.NewReaderSize(rd, 256<<10))
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = visit(h, tr)
		}
		if err != nil {
			member := ""
			if h != nil {
				member = h.Name
			}
			if isDisk(err) {
				return fmt.Errorf("unpack %s: %w", d.Package.Name, err)
			}
			return &ArchiveError{d.Package.Name, member, err.Error()}
		}
	}
	// The decompressor's checksum, and the depot's digest behind it, are at the end.
	if _, err := io.Copy(io.Discard, rd); err != nil {
		return &ArchiveError{d.Package.Name, d.dataName, err.Error()}
	}
	for _, r := range []io.Reader{d.data, d.rest} {
		if _, err := io.Copy(io.Discard, r); err != nil {
			return fmt.Errorf("package %s: %w", d.Package.Name, err)
		}
	}
	return nil
}

func isDisk(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EIO) || errors.Is(err, context.Canceled)
}

func replaced(p *Package) map[string]bool {
	m := map[string]bool{}
	for _, name := range names(p.Replaces) {
		m[name] = true
	}
	return m
}

type unpacking struct {
	t         *Target
	d         *Deb
	replaces  map[string]bool
	conffiles map[string]bool
	sums      bool
	held      int // bytes, about
	out       Unpacked
}

// maxPaths bounds the memory for the list of a package's files, in bytes: half a million of them.
const maxPaths = 128 << 20

func (u *unpacking) member(h *tar.Header, r io.Reader) error {
	if strings.Contains("/"+h.Name+"/", "/../") {
		return errors.New("its name leaves the root")
	}
	if strings.ContainsAny(h.Name, "\x00\n") {
		return errors.New("its name holds a line end, which dpkg's lists cannot")
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return errors.New("it is a sparse file, which no package holds")
		}
	}
	name := strings.Clone(path.Clean("/" + h.Name)) // of a long name with very many slashes little is left
	if u.held += len(name) + 128; u.held > maxPaths {
		return fmt.Errorf("its list of files takes more than %d MB", maxPaths>>20)
	}
	if name == "/" {
		u.out.Paths = append(u.out.Paths, "/.")
		return nil
	}
	u.out.Paths = append(u.out.Paths, name)
	at := u.t.divert(name, u.d.Package.Name)
	if u.conffiles[name] && h.Typeflag != tar.TypeDir {
		at += conffileSuffix
	}
	dir, err := u.t.directory(path.Dir(at)[1:])
	if err != nil {
		return err
	}
	at = path.Join(dir, path.Base(at))
	if h.Typeflag == tar.TypeDir {
		return u.t.mkdir(at, h)
	}
	write, err := u.t.claim(at, u.d.Package, u.replaces)
	if err != nil || !write {
		return err
	}
	return u.write(at, name, h, r)
}

func (u *unpacking) write(at, name string, h *tar.Header, r io.Reader) error {
	root := u.t.root
	switch h.Typeflag {
	case tar.TypeReg:
		var f *os.File
		made, err := u.t.create(at, u.d.Package, func() (err error) {
			f, err = root.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			return err
		})
		if err != nil || !made {
			return err
		}
		defer f.Close()
		var w io.Writer = f
		sum := md5.New()
		if u.sums {
			w = io.MultiWriter(f, sum)
		}
		n, err := io.Copy(w, r)
		if err != nil {
			return err
		}
		u.out.Bytes += n
		if u.sums && !u.conffiles[name] {
			u.out.MD5 += hex.EncodeToString(sum.Sum(nil)) + "  " + name[1:] + "\n"
		}
		uid, gid := u.t.owner(h)
		fd := int(f.Fd())
		if err := unix.Fchown(fd, uid, gid); err != nil {
			return err
		}
		// After the owner: changing the owner clears setuid.
		if err := unix.Fchmod(fd, uint32(h.Mode)&0o7777); err != nil {
			return err
		}
		return futimes(fd, h.ModTime)
	case tar.TypeSymlink:
		// dpkg leaves a directory, or a link to one, where a package has a link.
		if info, err := root.Stat(at); err == nil && info.IsDir() {
			return nil
		}
		made, err := u.t.create(at, u.d.Package, func() error { return root.Symlink(h.Linkname, at) })
		if err != nil || !made {
			return err
		}
		uid, gid := u.t.owner(h)
		return root.Lchown(at, uid, gid)
	case tar.TypeLink:
		if strings.Contains("/"+h.Linkname+"/", "/../") {
			return errors.New("its hard link leaves the root")
		}
		target := path.Clean("/" + h.Linkname)
		to := u.t.divert(target, u.d.Package.Name)
		if u.conffiles[target] {
			to += conffileSuffix
		}
		dir, err := u.t.directory(path.Dir(to)[1:])
		if err != nil {
			return err
		}
		_, err = u.t.create(at, u.d.Package, func() error { return root.Link(path.Join(dir, path.Base(to)), at) })
		return err
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return errors.New("it is a device node or a pipe, which Debian's policy forbids in packages")
	default:
		return fmt.Errorf("members of type %q are not known", h.Typeflag)
	}
}

func futimes(fd int, t time.Time) error {
	tv := []unix.Timeval{unix.NsecToTimeval(t.UnixNano()), unix.NsecToTimeval(t.UnixNano())}
	return unix.Futimes(fd, tv)
}

func (t *Target) owner(h *tar.Header) (uid, gid int) {
	uid, gid = h.Uid, h.Gid
	if id, ok := t.UserID(h.Uname); ok {
		uid = id
	}
	if id, ok := t.GroupID(h.Gname); ok {
		gid = id
	}
	return uid, gid
}

func (t *Target) divert(name, pkg string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, d := range t.diversions {
		if d.From == name && d.By != pkg {
			return d.To
		}
	}
	return name
}

// claim decides whether a package writes a file that another may have written.
// The one that replaces the other wins, whoever came first; packages of one
// name for several architectures share what they have in common.
func (t *Target) claim(at string, p *Package, replaces map[string]bool) (bool, error) {
	defer t.hold(at)()
	t.mu.Lock()
	defer t.mu.Unlock()
	old, taken := t.claims[at]
	if taken && (old.replaces[p.Name] || old.pkg.Name == p.Name || (!replaces[old.pkg.Name] && old.pkg.Name > p.Name)) {
		return false, nil
	}
	t.claims[at] = claim{p, replaces}
	return true, nil
}

// create makes a file or link in the place of what another package had there,
// unless that package has claimed the place since. A directory stays: dpkg never
// replaces one.
func (t *Target) create(at string, p *Package, add func() error) (bool, error) {
	defer t.hold(at)()
	if t.claimant(at) != p {
		return false, nil
	}
	err := add()
	if !errors.Is(err, fs.ErrExist) {
		return err == nil, err
	}
	info, err := t.root.Lstat(at)
	if err != nil {
		return false, err
	}
	if info.IsDir() {
		return false, errDirectory
	}
	if err := t.root.Remove(at); err != nil {
		return false, err
	}
	err = add()
	return err == nil, err
}

// hold locks the place of one file, and gives what lets it go.
func (t *Target) hold(at string) func() {
	mu := &t.places[maphash.String(t.seed, at)%uint64(len(t.places))]
	mu.Lock()
	return mu.Unlock
}

func (t *Target) claimant(at string) *Package {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.claims[at].pkg
}

var errDirectory = errors.New("a directory already has its name")

// mkdir makes a directory, or leaves one (or a link to one) that is there.
func (t *Target) mkdir(at string, h *tar.Header) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if info, err := t.root.Lstat(at); err == nil {
		if info.IsDir() {
			// A directory that had to be made before its own entry came.
			if t.dirs[at] == made {
				t.dirs[at] = at
				return t.permit(at, h)
			}
			return nil
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			if _, err := t.resolve(at); err == nil {
				return nil
			}
		}
		return errors.New("a file stands where it has a directory")
	}
	if err := t.root.Mkdir(at, 0o755); err != nil {
		return err
	}
	t.dirs[at] = at
	return t.permit(at, h)
}

func (t *Target) permit(at string, h *tar.Header) error {
	uid, gid := t.owner(h)
	if err := t.root.Lchown(at, uid, gid); err != nil {
		return err
	}
	return t.root.Chmod(at, FileMode(h.Mode))
}

// FileMode turns the twelve permission bits of an archive into Go's.
func FileMode(n int64) fs.FileMode {
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

// made marks a directory that stood in no archive yet.
const made = "\x00made"

// directory finds where a directory really is, following links inside the root
// (absolute ones too: they mean the root's own paths), and makes what is missing.
func (t *Target) directory(name string) (string, error) {
	if name == "" {
		return ".", nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.resolve(name)
}

func (t *Target) resolve(name string) (string, error) {
	if d, ok := t.dirs[name]; ok {
		if d == made {
			return name, nil
		}
		return d, nil
	}
	cur := "."
	rest := strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			cur = path.Dir(cur)
			continue
		}
		next := path.Join(cur, part)
		info, err := t.root.Lstat(next)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if err := t.root.Mkdir(next, 0o755); err != nil {
				return "", err
			}
			t.dirs[next] = made
			cur = next
		case err != nil:
			return "", err
		case info.IsDir():
			cur = next
		case info.Mode()&fs.ModeSymlink != 0:
			if links++; links > 40 {
				return "", errors.New("its directory is a loop of links")
			}
			target, err := t.root.Readlink(next)
			if err != nil {
				return "", err
			}
			if strings.HasPrefix(target, "/") {
				cur = "."
			}
			rest = append(strings.Split(target, "/"), rest...)
		default:
			return "", errors.New("its directory is a file")
		}
	}
	if t.dirs[name] != made {
		t.dirs[name] = cur
	}
	return cur, nil
}

// ListFile is what dpkg keeps as info/NAME.list.
func (u *Unpacked) ListFile() []byte {
	var b bytes.Buffer
	for _, p := range u.Paths {
		b.WriteString(p + "\n")
	}
	return b.Bytes()
}
