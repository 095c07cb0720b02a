package capture

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"trysail/blueprint"
	"trysail/internal/build"
	"trysail/internal/debian"
	"trysail/internal/machine"
	"trysail/internal/trace"
	"trysail/internal/tree"
)

// NoOutputError says that a build made nothing that --output names.
type NoOutputError struct {
	Globs []string
	Root  string
	Made  string // what it made instead
}

func (e *NoOutputError) Error() string {
	if len(e.Globs) == 0 {
		return "no --output was given, so there is nothing to prove"
	}
	return fmt.Sprintf("the build succeeded but made no file that matches %s: %s", strings.Join(e.Globs, ", "), e.Made)
}

// Hint says what to do.
func (e *NoOutputError) Hint() string {
	return "give --output a path or glob relative to " + e.Root + ", for instance --output 'dist/**'"
}

// attributeAll classifies everything the tracer saw and collects what the
// classes ask for.
func (c *capture) attributeAll(ctx context.Context) error {
	if c.result.Trace == nil {
		return errors.New("the build was not traced")
	}
	alts, err := debian.ReadAlternatives("/")
	if err != nil {
		return err
	}
	tracked := map[string]bool{}
	for _, t := range c.tracked {
		tracked[t] = true
	}
	asked := map[string]error{}
	may := func(p string) error {
		err, ok := asked[p]
		if !ok {
			err = c.rights.judge([]string{p})[0]
			asked[p] = err
		}
		return err
	}
	a := newAttributor(world{stat: statPath, may: may, made: c.made, sums: c.sums, owners: c.db.Owners, younger: c.younger, large: c.large, several: c.several()},
		layout{
			workspace: c.x.Workspace, home: c.user.Home, tracked: tracked, outputs: c.x.Outputs,
			scratch: []string{"/tmp", "/var/tmp", "/run/lock"}, caches: build.Caches(c.user.Home, c.x.Environment), masked: []string{c.State.Dir, c.State.Run, machine.InitPath, build.TrustDir},
		}, c.b.Ignore, alts)
	readlink := func(p string) (string, bool) {
		real, _ := c.result.Real(p)
		target, err := os.Readlink(real)
		// Where a link leads that the build's user may not see is not followed.
		return target, err == nil && !errors.Is(c.rights.judge([]string{p})[0], fs.ErrPermission)
	}
	accesses := physical(c.result.Trace.Accesses, readlink, func(p string) string {
		real, _ := c.result.Real(p)
		return loader(real)
	})
	paths := make([]string, len(accesses))
	for i, acc := range accesses {
		paths[i] = acc.Path
	}
	for i, err := range c.rights.judge(paths) {
		asked[paths[i]] = err
	}
	for i, acc := range accesses {
		if i%512 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			c.Progress(fmt.Sprintf("%d of %d", i, len(accesses)))
		}
		c.draft.Observation = append(c.draft.Observation, a.attribute(acc))
	}
	pass(c.draft.Observation, func(dir string) []string {
		var list []string
		entries, err := tree.ReadDir(dir)
		if err != nil {
			return nil // gone since, or not a directory any more: nothing is passed by
		}
		for _, e := range entries {
			list = append(list, path.Join(dir, e.Name()))
		}
		return list
	}, func(p string) []string { return trace.Names(p, readlink) })
	gather(c.draft.Observation, func(dir string) int { return len(c.db.Owners(dir)) })
	if err := c.removed(); err != nil {
		return err
	}
	c.draft.Stats.Seconds, c.draft.Stats.Paths = c.x.Seconds, len(accesses)
	c.draft.Stats.Events, c.draft.Stats.LostEvents = c.result.Trace.Events, c.result.Trace.Lost
	return c.changedByBuild()
}

// younger tells that a file or link is younger than what its package was unpacked from.
func (c *capture) younger(p string, by *debian.Package) (bool, error) {
	info, err := tree.Lstat(p)
	if err != nil {
		return false, err
	}
	return info.ModTime().After(c.db.Unpacked(by)), nil
}

// removed adds the files of packages that the administrator removed from the directories that
// the build listed: a list is another one without them.
func (c *capture) removed() error {
	listed, seen := map[string]bool{}, map[string]bool{}
	for _, o := range c.draft.Observation {
		seen[o.Path] = true
		listed[o.Path] = listed[o.Path] || o.Class == blueprint.ClassPackage && o.Type == "dir" && strings.Contains(o.Ops, "open")
	}
	for _, p := range c.db.Installed() {
		for _, f := range c.db.Files(p) {
			if !listed[path.Dir(f)] || seen[f] || matchAny(leftOut(), f) {
				continue
			}
			st := statPath(f)
			if st.Err != nil {
				return st.Err
			}
			if st.Type == "" {
				seen[f] = true
				c.draft.Observation = append(c.draft.Observation, blueprint.Observed{Path: f, Class: blueprint.ClassConfig, Item: f, Why: removed(c.db.Owners(f)), Ops: "list"})
			}
		}
	}
	return nil
}

// statPath looks at the machine itself, never through the overlay.
func statPath(p string) stat {
	info, err := tree.Lstat(p)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return stat{}
	}
	if err != nil {
		return stat{Err: err}
	}
	s := stat{Mode: info.Mode(), Size: info.Size(), Owner: ownerOf(info), Modified: info.ModTime()}
	switch {
	case info.Mode().IsRegular():
		s.Type = "file"
	case info.IsDir():
		s.Type = "dir"
	case info.Mode()&fs.ModeSymlink != 0:
		s.Type = "link"
		if s.Link, err = tree.Readlink(p); err != nil {
			return stat{Err: err}
		}
	default:
		s.Type = "other"
	}
	return s
}

func ownerOf(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "root:root"
	}
	name, group := strconv.Itoa(int(st.Uid)), strconv.Itoa(int(st.Gid))
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	return name + ":" + group
}

// made tells that the build made a path: it is in one of the run's scratch
// directories or upper layers.
func (c *capture) made(p string) bool {
	real, scratch := c.result.Real(p)
	if scratch {
		_, err := os.Lstat(real)
		return err == nil
	}
	_, err := os.Lstat(c.inUpper(p))
	return err == nil
}

func (c *capture) inUpper(p string) string {
	best := "/"
	for mount := range c.uppers {
		if below(p, mount) && len(mount) > len(best) {
			best = mount
		}
	}
	return filepath.Join(c.uppers[best], strings.TrimPrefix(p, best))
}

// mostBytes bounds a file that is read whole: a user can make one of any size on no disk at all.
const mostBytes = 256 << 30

// bounded refuses a file that is larger.
func bounded(f *os.File, p string) error {
	info, err := f.Stat()
	if err == nil && info.Size() > mostBytes {
		err = &tree.LimitError{Path: p, What: "bytes", Limit: mostBytes}
	}
	return err
}

// sums hashes a file of the machine that the build's user may read, once.
func (c *capture) sums(p string) (string, string, error) {
	if h, ok := c.hashes[p]; ok {
		return h[0], h[1], nil
	}
	f, err := c.rights.open(p)
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	m, s := md5.New(), sha256.New()
	if err := bounded(f, p); err != nil {
		return "", "", err
	}
	if _, err := io.Copy(io.MultiWriter(m, s), io.LimitReader(f, mostBytes)); err != nil {
		return "", "", fmt.Errorf("read %s: %w", p, err)
	}
	h := [2]string{hex.EncodeToString(m.Sum(nil)), hex.EncodeToString(s.Sum(nil))}
	c.hashes[p] = h
	return h[0], h[1], nil
}

// large looks at a tree in a home directory: programs, or more than a
// mebibyte, make it software.
func (c *capture) large(dir string) bool { return largerThan(dir, 1<<20, true) }

// several asks each directory once.
func (c *capture) several() func(dir string) bool {
	const most = 256 << 20 // what is smaller is kept whole
	known := map[string]bool{}
	return func(dir string) bool {
		is, ok := known[dir]
		if !ok {
			is = holdsInstallations(dir, func(dir string) bool { return largerThan(dir, most, false) })
			known[dir] = is
		}
		return is
	}
}

func largerThan(dir string, most int64, programs bool) bool {
	var size int64
	stop := errors.New("large")
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // what cannot be read makes it no larger
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		if size += info.Size(); size > most || programs && info.Mode()&0o111 != 0 {
			return stop
		}
		return nil
	})
	return err == stop
}

// changedByBuild names files of the machine that the build would have changed:
// the next build on this machine would not begin where this one did.
func (c *capture) changedByBuild() error {
	for mount, upper := range c.uppers {
		err := filepath.WalkDir(upper, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() {
				return nil
			}
			at := path.Join(mount, strings.TrimPrefix(p, upper))
			st := statPath(at)
			if st.Type == "" || st.Type == "dir" && d.Type()&fs.ModeCharDevice == 0 {
				return nil
			}
			if matchRule(generatedRules(), at) != nil || matchRule(systemRules(), at) != nil || matchRule(ignoredRules(), at) != nil || below(at, "/tmp") || strings.HasSuffix(at, ".pyc") || below(at, c.user.Home) {
				return nil
			}
			c.attention(at, "the build changes this file of the machine", "let the build write into its workspace only; the next build on this machine would begin from other files")
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
