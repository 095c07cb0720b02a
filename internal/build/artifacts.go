package build

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"trysail/blueprint"
	"trysail/internal/tree"
	"trysail/release"
)

// A step hands on what it made as a list of artifacts ([release.Artifact]) and their bytes. What
// a list says of a file is all that there is to it: type, mode, names, attributes, time, and the
// owner where that is not the step's user. Blocks of zeros become holes.

// Artifacts gives what was found in the form of events, sorted by path. Of a directory that has
// something in it, with the usual mode and nothing beside, the files say enough.
func (f *Found) Artifacts(user blueprint.User) []release.Artifact {
	list := make([]release.Artifact, 0, len(f.Files))
	for _, x := range f.Files {
		list = append(list, x.artifact(user))
	}
	for _, x := range f.Dirs {
		a := x.artifact(user)
		if a.Dir = true; x.Empty || a.Mode != "0755" || a.Owner != "" || len(a.Attributes) > 0 {
			list = append(list, a)
		}
	}
	slices.SortFunc(list, func(a, b release.Artifact) int { return strings.Compare(a.Path, b.Path) })
	return list
}

func (f *File) artifact(user blueprint.User) release.Artifact {
	a := release.Artifact{
		Path: f.Path, Digest: f.SHA256, Size: f.Size, Mode: f.Mode, Link: f.Link,
		HardLink: f.First, Attributes: f.Attributes, Modified: f.Modified.UTC(),
	}
	if f.UID != user.UID || f.GID != user.GID {
		a.Owner = fmt.Sprintf("%d:%d", f.UID, f.GID)
	}
	return a
}

// ArtifactWriter lays artifacts into a directory: [ArtifactWriter.Write] each, side by side where none is another
// name of one before, and [ArtifactWriter.Close]. Make one with [NewArtifactWriter].
type ArtifactWriter struct {
	Root *tree.Dir
	// Open reads a file. At the end of other bytes than the digest's it fails.
	Open func(digest string) (io.ReadCloser, error)
	// Replace takes away what is there in an artifact's place.
	Replace bool
	// Owner says whose an artifact is to be. nil: it is the caller's, without set-id bits.
	Owner func(release.Artifact) (uid, gid int)
	// Keep tells whether an attribute is kept.
	Keep func(attribute string) bool

	mu    sync.Mutex
	files map[string]release.Artifact // by path
	dirs  map[string]release.Artifact // by path: of those that the list does not name the time
}

// NewArtifactWriter begins to lay artifacts that become the caller's.
func NewArtifactWriter(root *tree.Dir, open func(digest string) (io.ReadCloser, error)) *ArtifactWriter {
	return &ArtifactWriter{
		Root: root, Open: open,
		Keep:  func(attribute string) bool { return strings.HasPrefix(attribute, "user.") },
		files: map[string]release.Artifact{}, dirs: map[string]release.Artifact{},
	}
}

// Write lays one artifact. A second name of a file comes after the first.
func (l *ArtifactWriter) Write(a release.Artifact) error {
	if err := release.CheckPath(a.Path); err != nil {
		return err
	}
	if err := l.parents(a); err != nil {
		return err
	}
	if a.Dir {
		return l.directory(a)
	}
	if l.Replace {
		if err := l.Root.RemoveAll(a.Path); err != nil {
			return err
		}
	}
	if a.Link != "" {
		if err := l.Root.Symlink(a.Link, a.Path); err != nil {
			return err // what is there is not ours to change
		}
		return l.finish(a)
	}
	l.mu.Lock()
	first, laid := l.files[a.HardLink]
	l.mu.Unlock()
	if laid && first.Digest == a.Digest && first.Mode == a.Mode {
		return l.Root.Link(a.HardLink, a.Path)
	}
	f, err := l.Root.Create(a.Path, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(l.content(f, a.Digest), f.Close()); err != nil {
		return errors.Join(err, l.Root.Remove(a.Path))
	}
	l.mu.Lock()
	l.files[a.Path] = a
	l.mu.Unlock()
	return l.finish(a)
}

func (l *ArtifactWriter) content(f *os.File, digest string) error {
	r, err := l.Open(digest)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = tree.CopySparse(f, r)
	return err
}

// parents makes the directories above an artifact.
func (l *ArtifactWriter) parents(a release.Artifact) error {
	for i := range a.Path {
		if a.Path[i] != '/' {
			continue
		}
		dir := a.Path[:i]
		l.mu.Lock()
		if d := l.dirs[dir]; !d.Dir && d.Modified.Before(a.Modified) {
			l.dirs[dir] = release.Artifact{Path: dir, Modified: a.Modified}
		}
		l.mu.Unlock()
		err := l.Root.Mkdir(dir, 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			err = l.chown(release.Artifact{Path: dir})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// directory makes a directory; what is in it already stays.
func (l *ArtifactWriter) directory(a release.Artifact) error {
	if info, err := l.Root.Lstat(a.Path); l.Replace && err == nil && !info.IsDir() {
		if err := l.Root.RemoveAll(a.Path); err != nil {
			return err
		}
	}
	if err := l.Root.Mkdir(a.Path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dirs[a.Path] = a
	return nil
}

func (l *ArtifactWriter) chown(a release.Artifact) error {
	if l.Owner == nil {
		return nil
	}
	uid, gid := l.Owner(a)
	return l.Root.Lchown(a.Path, uid, gid)
}

// finish gives a file, link or directory what it has beside its bytes.
func (l *ArtifactWriter) finish(a release.Artifact) error {
	if err := l.chown(a); err != nil { // before the mode: it takes set-id bits away, and capabilities
		return err
	}
	if a.Link == "" {
		mode, err := FileMode(a.Mode)
		if err != nil {
			return err
		}
		if l.Owner == nil {
			mode &^= fs.ModeSetuid | fs.ModeSetgid
		}
		if err := l.Root.Chmod(a.Path, mode); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.Attributes)) {
		if !l.Keep(name) {
			continue
		}
		if err := l.Root.SetAttribute(a.Path, name, a.Attributes[name]); err != nil {
			return err
		}
	}
	if a.Modified.IsZero() {
		return nil
	}
	return l.Root.Chtimes(a.Path, a.Modified)
}

// Close gives the directories their modes and times. One that the list does not name has the time
// of the last change of what was laid below it, so that an archive of it is the same each time.
func (l *ArtifactWriter) Close() error {
	for _, dir := range slices.Backward(slices.Sorted(maps.Keys(l.dirs))) {
		a := l.dirs[dir]
		if !a.Dir {
			if err := l.Root.Chtimes(dir, a.Modified); err != nil {
				return err
			}
		} else if err := l.finish(a); err != nil {
			return err
		}
	}
	return nil
}
