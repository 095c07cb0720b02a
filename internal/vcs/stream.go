package vcs

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"
)

// headingRecord is the record of the stream's first header that holds its [heading], as JSON.
const headingRecord = "TRYSAIL.heading"

// heading is what a stream says of the checkout in it.
type heading struct {
	Inner   []string // directories that have a repository of their own: submodules and externals
	Changed []string // files that are otherwise in the copy, or not there
	More    int      // and as many more
}

// bounds keep a worker from filling a disk.
type bounds struct {
	files, inner int
	bytes        int64
}

func limits() bounds { return bounds{files: 4 << 20, inner: 10000, bytes: 256 << 30} }

// entries are the rules of a stream: root passes on nothing else.
type entries struct {
	uid, gid int
	time     time.Time
	bare     bool // a bare repository, without a working tree
	most     bounds
	head     heading // its directories are sorted
	headed   bool
	last     string   // the name before
	dirs     []string // the directories around it, outermost first
}

// StreamError says what in a checkout is not as it should be.
type StreamError struct{ Name, Why string }

func (e *StreamError) Error() string {
	return fmt.Sprintf("the checkout holds %q: %s", e.Name, e.Why)
}

// check copies a tar stream that another user wrote. Each entry is a file, directory or
// symbolic link with a local name below a directory that came before it. The order is that of a
// walk, so no name comes twice and none is below a link.
func (e *entries) check(r io.Reader, w io.Writer) error {
	tr, tw := tar.NewReader(r), tar.NewWriter(w)
	var files int
	var size int64
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the checkout: %w", err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			if files > 0 || e.headed {
				return &StreamError{h.Name, "a header in the wrong place"}
			}
			if err := e.list(h.PAXRecords[headingRecord]); err != nil {
				return err
			}
			continue
		}
		if files++; files > e.most.files {
			return &StreamError{h.Name, fmt.Sprintf("there are more than %d files", e.most.files)}
		}
		if size += h.Size; h.Size < 0 || size > e.most.bytes {
			return &StreamError{h.Name, fmt.Sprintf("there are more than %d bytes", e.most.bytes)}
		}
		out, err := e.entry(h)
		if err != nil {
			return err
		}
		if err := tw.WriteHeader(out); err != nil {
			return err
		}
		if _, err := io.Copy(tw, tr); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	// The end of a stream is two blocks; whatever follows keeps the worker waiting.
	if _, err := io.CopyN(io.Discard, r, 1<<20); !errors.Is(err, io.EOF) {
		return errors.Join(&StreamError{"", "bytes after the end"}, err)
	}
	return tw.Close()
}

// list takes the heading.
func (e *entries) list(text string) error {
	if err := json.Unmarshal([]byte(text), &e.head); err != nil {
		return &StreamError{headingRecord, "it cannot be read"}
	}
	e.headed = true
	if e.head.More < 0 || e.head.More > 0 && len(e.head.Changed) == 0 {
		return &StreamError{headingRecord, "it counts files that it does not name"}
	}
	if len(e.head.Inner) > e.most.inner {
		return &StreamError{headingRecord, fmt.Sprintf("there are more than %d submodules", e.most.inner)}
	}
	for _, p := range e.head.Inner {
		if err := checkPath(p); err != nil {
			return err
		}
		for part := range strings.SplitSeq(p, "/") {
			if isDotGit(part) || strings.EqualFold(part, ".svn") {
				return &StreamError{p, "a submodule cannot have this name"}
			}
		}
	}
	slices.Sort(e.head.Inner)
	return nil
}

// entry gives the header of an entry as it is passed on.
func (e *entries) entry(h *tar.Header) (*tar.Header, error) {
	name := h.Name
	if h.Typeflag == tar.TypeDir {
		name = strings.TrimSuffix(name, "/")
	}
	if err := checkPath(name); err != nil {
		return nil, err
	}
	if e.last != "" && !before(e.last, name) {
		return nil, &StreamError{name, "it is twice there, or out of order"}
	}
	e.last = name
	for len(e.dirs) > 0 && !strings.HasPrefix(name, e.dirs[len(e.dirs)-1]+"/") {
		e.dirs = e.dirs[:len(e.dirs)-1]
	}
	if dir := path.Dir(name); dir != "." && (len(e.dirs) == 0 || e.dirs[len(e.dirs)-1] != dir) {
		return nil, &StreamError{name, dir + " is not a directory of the checkout"}
	}
	if h.Typeflag == tar.TypeDir {
		e.dirs = append(e.dirs, name)
	}
	if err := e.allowed(name, h.Typeflag); err != nil {
		return nil, err
	}
	if h.Mode&^0o777 != 0 {
		return nil, &StreamError{name, fmt.Sprintf("mode %#o has more than permissions", h.Mode)}
	}
	out := &tar.Header{Typeflag: h.Typeflag, Name: name, Mode: h.Mode & 0o777, Uid: e.uid, Gid: e.gid, ModTime: e.time.UTC().Truncate(time.Second), Format: tar.FormatPAX}
	switch h.Typeflag {
	case tar.TypeReg:
		out.Size = h.Size
	case tar.TypeDir:
		out.Name += "/"
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) > 4095 || strings.ContainsRune(h.Linkname, 0) {
			return nil, &StreamError{name, "its target is not a path"}
		}
		out.Linkname = h.Linkname
	default:
		return nil, &StreamError{name, fmt.Sprintf("its type %q is not file, directory or link", h.Typeflag)}
	}
	return out, nil
}

// allowed refuses what only a repository has, but where one belongs.
func (e *entries) allowed(name string, kind byte) error {
	if e.bare {
		return admin(name, name, kind)
	}
	parts := strings.Split(name, "/")
	for i, part := range parts {
		if !isDotGit(part) {
			continue
		}
		around := strings.Join(parts[:i], "/")
		_, listed := slices.BinarySearch(e.head.Inner, around)
		if part != ".git" || (around != "" && !listed) {
			return &StreamError{name, "a repository cannot be here"}
		}
		if i == len(parts)-1 {
			if kind != tar.TypeDir {
				return &StreamError{name, "it is not a directory"}
			}
			return nil
		}
		return admin(name, strings.Join(parts[i+1:], "/"), kind)
	}
	return nil
}

// admin refuses what git would execute or follow in a repository's own directory.
func admin(name, inside string, kind byte) error {
	first, _, _ := strings.Cut(inside, "/")
	switch {
	case strings.EqualFold(first, "hooks"):
		return &StreamError{name, "a checkout has no hooks"}
	case kind == tar.TypeSymlink:
		return &StreamError{name, "a link in the repository"}
	case slices.ContainsFunc(strings.Split(inside, "/"), isDotGit):
		return &StreamError{name, "a repository cannot be here"}
	}
	return nil
}

// checkPath refuses names that are not local, clean and of usual length.
func checkPath(name string) error {
	switch {
	case !local(name):
		return &StreamError{name, "it is not a local path"}
	case strings.ContainsRune(name, 0):
		return &StreamError{name, "it holds a zero byte"}
	case len(name) > 4095:
		return &StreamError{name[:100], "its name is too long"}
	}
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > 255 {
			return &StreamError{name, "its name is too long"}
		}
	}
	return nil
}

// local is [fs.ValidPath] of a file below, for names that need not be UTF-8.
func local(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." {
			return false
		}
	}
	return true
}

// before is the order of a walk: by components, not by bytes.
func before(a, b string) bool {
	return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/")) < 0
}

// isDotGit tells every spelling of .git that git refuses, as some file system takes it
// for .git: other case, trailing dots and spaces, the short name git~1 and streams of NTFS, the code
// points that HFS+ ignores.
func isDotGit(part string) bool {
	visible := strings.Map(func(r rune) rune {
		switch {
		case r >= 0x200c && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x206a && r <= 0x206f, r == 0xfeff:
			return -1
		}
		return r
	}, part)
	for piece := range strings.SplitSeq(visible, `\`) {
		piece, _, _ = strings.Cut(piece, ":")
		piece = strings.ToLower(strings.TrimRight(piece, ". "))
		if piece == ".git" || piece == "git~1" {
			return true
		}
	}
	return false
}
