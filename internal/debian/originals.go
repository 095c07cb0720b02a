package debian

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"trysail/internal/tree"
)

// Original is the archive that an installed package came from.
type Original struct {
	Package *Package
	SHA256  string // hex
	Size    int64
	From    string // "depot", "cache", "mirror" or "repacked"
	Why     string // why it had to be repacked
}

// FetchOptions say how originals are found.
type FetchOptions struct {
	Scratch string // an empty directory
	// Have tells that an archive of that digest is kept already and needs no fetching.
	Have func(sha256 string) bool
	// Known recalls the digest of a package that was packed again from the very
	// same installed files; Learn remembers one. Both may be nil.
	Known func(fingerprint string) (sha256 string, ok bool)
	Learn func(fingerprint, sha256 string)
	// Leave tells installed files that a package that is packed again must not
	// hold. It may be nil.
	Leave    func(path string) bool
	Progress func(done, total int, name string)
	Log      *slog.Logger
}

// Sink keeps one original. It is called once for each package, in turn.
type Sink func(ctx context.Context, o *Original, r io.Reader) error

// MissingOriginalError says that a package is neither to be had nor to be made again.
type MissingOriginalError struct {
	Package *Package
	What    string
}

func (e *MissingOriginalError) Error() string {
	return fmt.Sprintf("no original of %s %s: %s", e.Package.Key(), e.Package.Version, e.What)
}

// Hint says what to do.
func (e *MissingOriginalError) Hint() string {
	return "put its .deb into /var/cache/apt/archives, or add a source that still has this version and run apt-get update"
}

// indexed is what apt's signed indexes say of an exact version.
type indexed struct {
	sha256 string
	size   int64
}

// FetchOriginals finds the original of every package by the ladder that the
// package comment describes, and gives each to sink.
func FetchOriginals(ctx context.Context, db *Database, pkgs []*Package, o FetchOptions, sink Sink) ([]*Original, error) {
	index, err := aptIndex(ctx, pkgs)
	if err != nil {
		return nil, err
	}
	done := 0
	report := func(p *Package) {
		done++
		if o.Progress != nil {
			o.Progress(done, len(pkgs), p.Name)
		}
	}
	var list []*Original
	var download []*Package
	for _, p := range pkgs {
		ix, known := index[key(p)]
		if known && o.Have != nil && o.Have(ix.sha256) {
			list = append(list, &Original{Package: p, SHA256: ix.sha256, Size: ix.size, From: "depot"})
			report(p)
			continue
		}
		file := filepath.Join("/var/cache/apt/archives", p.FileName())
		if _, err := os.Stat(file); err == nil {
			got, err := take(ctx, p, file, ix.sha256, "cache", "", sink)
			if err == nil {
				list = append(list, got)
				report(p)
				continue
			}
			o.Log.Warn("package in apt's cache is not the installed one", "file", file, "err", err)
		}
		download = append(download, p)
	}
	var rest []*Package
	var wanted []*Package
	for _, p := range download {
		if _, known := index[key(p)]; known {
			wanted = append(wanted, p)
		} else {
			rest = append(rest, p)
		}
	}
	reasons, err := absent(ctx, rest)
	if err != nil {
		return nil, err
	}
	// In batches, so that one package that a mirror has lost costs few others a
	// second try, and progress can be seen.
	const batch = 64
	for begin := 0; begin < len(wanted); begin += batch {
		part := wanted[begin:min(begin+batch, len(wanted))]
		if derr := aptDownload(ctx, o.Scratch, part); derr != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			o.Log.Warn("apt could not download all packages at once, trying one by one", "err", derr)
			for _, p := range part {
				if err := aptDownload(ctx, o.Scratch, []*Package{p}); err != nil {
					if ctx.Err() != nil {
						return nil, ctx.Err()
					}
					reasons[p] = NoDownload + ": " + err.Error()
					rest = append(rest, p)
				}
			}
		}
		for _, p := range part {
			if reasons[p] != "" {
				continue
			}
			file := filepath.Join(o.Scratch, p.FileName())
			got, err := take(ctx, p, file, index[key(p)].sha256, "mirror", "", sink)
			if err != nil {
				return nil, fmt.Errorf("original of %s: %w", p.Name, err)
			}
			if err := os.Remove(file); err != nil {
				return nil, err
			}
			list = append(list, got)
			report(p)
		}
	}
	for _, p := range rest {
		if slices.Contains(db.Lost(), p) {
			return nil, &MissingOriginalError{p, reasons[p] + ", and it cannot be packed again, as dpkg has lost the list of its files"}
		}
		files := db.Files(p)
		if o.Leave != nil {
			files = slices.DeleteFunc(slices.Clone(files), o.Leave)
		}
		print, err := fingerprint(db, p, files)
		if err != nil {
			return nil, err
		}
		if o.Known != nil {
			if sum, ok := o.Known(print); ok && o.Have != nil && o.Have(sum) {
				list = append(list, &Original{Package: p, SHA256: sum, From: "repacked", Why: reasons[p]})
				report(p)
				continue
			}
		}
		file, err := Repack(ctx, db, p, files, o.Scratch)
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, &MissingOriginalError{p, reasons[p] + "; repacking failed: " + err.Error()}
		}
		got, err := take(ctx, p, file, "", "repacked", reasons[p], sink)
		if err != nil {
			return nil, err
		}
		if err := os.Remove(file); err != nil {
			return nil, err
		}
		if o.Learn != nil {
			o.Learn(print, got.SHA256)
		}
		list = append(list, got)
		report(p)
	}
	return list, nil
}

// fingerprint tells whether a package's installed files are the very same as
// before, without reading them: any change to a file changes its change time.
func fingerprint(db *Database, p *Package, files []string) (string, error) {
	h := sha256.New()
	h.Write(p.Raw)
	members, err := filepath.Glob(filepath.Join(db.root, "var/lib/dpkg/info", p.InfoName()+".*"))
	if err != nil {
		return "", err
	}
	for _, at := range files {
		members = append(members, filepath.Join(db.root, at))
	}
	for _, m := range members {
		var st unix.Stat_t
		if err := unix.Lstat(m, &st); err != nil {
			st = unix.Stat_t{} // not there
		}
		fmt.Fprintln(h, m, st.Mode, st.Uid, st.Gid, st.Size, st.Ino, st.Mtim, st.Ctim)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func key(p *Package) string { return p.Name + " " + p.Architecture + " " + p.Version }

// take checks an archive and hands it to the sink. Without a digest from apt's
// index, the archive must at least say that it is this package and version.
func take(ctx context.Context, p *Package, file, want, from, why string, sink Sink) (*Original, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	size, err := io.Copy(h, f)
	if err != nil {
		return nil, err
	}
	o := &Original{Package: p, SHA256: hex.EncodeToString(h.Sum(nil)), Size: size, From: from, Why: why}
	if want != "" && o.SHA256 != want {
		return nil, fmt.Errorf("%s has sha256 %s, apt's index says %s", file, o.SHA256, want)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	if want == "" {
		d, err := ReadDeb(ctx, p.Name, f)
		if err != nil {
			return nil, err
		}
		if key(d.Package) != key(p) {
			return nil, fmt.Errorf("%s holds %s, not %s", file, key(d.Package), key(p))
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
	}
	return o, sink(ctx, o, f)
}

// aptIndex asks apt once which of the exact versions its sources have.
func aptIndex(ctx context.Context, pkgs []*Package) (map[string]indexed, error) {
	if len(pkgs) == 0 {
		return nil, nil
	}
	args := []string{"show"}
	for _, p := range pkgs {
		args = append(args, p.Name+":"+p.Architecture+"="+p.Version)
	}
	out, err := apt(ctx, "apt-cache", args...) // a missing version is an exit status
	if err != nil {
		return nil, fmt.Errorf("ask apt for versions: %w", err)
	}
	return parseIndex([]byte(out))
}

// parseIndex reads what apt-cache show prints. Only what apt can download
// counts: the paragraphs of installed packages name no file.
func parseIndex(out []byte) (map[string]indexed, error) {
	found := map[string]indexed{}
	list, err := ParseStatus("apt-cache show", out)
	if err != nil {
		return nil, err
	}
	for _, p := range list {
		ix := indexed{}
		file := ""
		for line := range strings.Lines(string(p.Raw)) {
			if v, ok := strings.CutPrefix(line, "SHA256: "); ok {
				ix.sha256 = strings.TrimSpace(v)
			}
			if v, ok := strings.CutPrefix(line, "Size: "); ok {
				ix.size, _ = strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			}
			if v, ok := strings.CutPrefix(line, "Filename: "); ok {
				file = strings.TrimSpace(v)
			}
		}
		if file != "" && len(ix.sha256) == 64 {
			found[key(p)] = ix
		}
	}
	return found, nil
}

func aptEnv() []string {
	return append(os.Environ(), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
}

func aptDownload(ctx context.Context, dir string, pkgs []*Package) error {
	args := []string{"download", "--quiet=2", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3"}
	for _, p := range pkgs {
		args = append(args, p.Name+":"+p.Architecture+"="+p.Version)
	}
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Dir, cmd.Env = dir, aptEnv()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("apt-get download: %w: %s", err, lastLine(stderr.String()))
	}
	return nil
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// Repack makes a package again from these of its installed files. The result is not the
// maker's archive (changed configuration files are in it as they are), but the
// same installed files give the same bytes.
func Repack(ctx context.Context, db *Database, p *Package, files []string, scratch string) (string, error) {
	dir, err := os.MkdirTemp(scratch, "repack-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	stage, err := tree.Open(dir)
	if err != nil {
		return "", err
	}
	defer stage.Close()
	for _, at := range files {
		if err := restage(db, stage, at); err != nil {
			return "", err
		}
	}
	if err := stage.Mkdir("DEBIAN", 0o755); err != nil {
		return "", err
	}
	members, err := filepath.Glob(filepath.Join(db.root, "var/lib/dpkg/info", p.InfoName()+".*"))
	if err != nil {
		return "", err
	}
	for _, m := range members {
		name := strings.TrimPrefix(filepath.Base(m), p.InfoName()+".")
		if name == "list" || strings.Contains(name, ".") {
			continue // "list" is dpkg's own; a dot is another package's name
		}
		if err := copyFile(m, stage, path.Join("DEBIAN", name)); err != nil {
			return "", err
		}
	}
	if err := stage.Put("DEBIAN/control", controlOf(p), 0o644); err != nil {
		return "", err
	}
	if err := keepConffiles(stage); err != nil {
		return "", err
	}
	out := filepath.Join(scratch, p.FileName())
	cmd := exec.CommandContext(ctx, "dpkg-deb", "-Zgzip", "-z1", "--build", dir, out)
	// One time for all members, so the same files give the same archive.
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=0", "LC_ALL=C.UTF-8")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("dpkg-deb: %w: %s", err, lastLine(string(msg)))
	}
	return out, nil
}

// keepConffiles leaves out configuration files that the administrator removed:
// dpkg-deb builds no package that lacks one it lists.
func keepConffiles(stage *tree.Dir) error {
	const list = "DEBIAN/conffiles"
	data, err := stage.ReadFile(list, 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var kept bytes.Buffer
	for line := range strings.Lines(string(data)) {
		name := strings.TrimSpace(line)
		if _, err := stage.Lstat(strings.TrimLeft(name, "/")); strings.HasPrefix(name, "/") && err != nil {
			continue
		}
		kept.WriteString(line)
	}
	if kept.Len() == 0 {
		return stage.Remove(list)
	}
	return stage.Put(list, kept.Bytes(), 0o644)
}

// controlOf turns a status paragraph back into a control file.
func controlOf(p *Package) []byte {
	var b bytes.Buffer
	skip := false
	for line := range strings.Lines(string(p.Raw)) {
		if line[0] != ' ' && line[0] != '\t' {
			name, _, _ := strings.Cut(line, ":")
			switch strings.ToLower(name) {
			case "status", "conffiles", "config-version", "triggers-pending", "triggers-awaited":
				skip = true
			default:
				skip = false
			}
		}
		if !skip {
			b.WriteString(line)
		}
	}
	return b.Bytes()
}

// restage copies what stands at a path of the machine into the stage, through no
// link that was staged before: users may own directories of a package.
func restage(db *Database, stage *tree.Dir, at string) error {
	from, to := filepath.Join(db.root, at), strings.TrimLeft(at, "/")
	info, err := tree.Lstat(from)
	var theirs *tree.LinkError
	if errors.Is(err, fs.ErrNotExist) || errors.As(err, &theirs) {
		return nil // removed since it was installed (documentation, often), or no file of the package
	}
	if err != nil {
		return err
	}
	if err := stage.MkdirAll(path.Dir(to), 0o755); errors.As(err, &theirs) {
		return nil // somebody made one of its directories a link: what is behind it is not the package's
	} else if err != nil {
		return err
	}
	switch {
	case db.merged[at]:
		// The package ships a directory that this machine has merged into /usr.
		return stage.MkdirAll(to, 0o755)
	case info.IsDir():
		if err := stage.MkdirAll(to, 0o755); err != nil {
			return err
		}
		if err := stage.Lchown(to, info.UID(), info.GID()); err != nil {
			return err
		}
		return stage.Chmod(to, info.Mode())
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := tree.Readlink(from)
		if err != nil {
			return err
		}
		return stage.Symlink(target, to)
	case info.Mode().IsRegular():
		return copyFile(from, stage, to)
	}
	return nil
}

// copyFile copies a regular file with its owner, mode and time.
func copyFile(from string, stage *tree.Dir, to string) error {
	in, err := tree.OpenFile(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := stage.Create(to, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if st, ok := info.Sys().(*syscall.Stat_t); ok && err == nil {
		err = out.Chown(int(st.Uid), int(st.Gid)) // before the mode: it takes setuid away
	}
	if err == nil {
		err = out.Chmod(info.Mode())
	}
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	return stage.Chtimes(to, info.ModTime())
}
