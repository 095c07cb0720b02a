package capture

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"trysail/blueprint"
	"trysail/internal/build"
	"trysail/internal/depot"
	"trysail/internal/tree"
)

// collect puts what the observation found into the blueprint.
func (c *capture) collect(ctx context.Context) error {
	trees := map[string]bool{}
	refused := map[string][]string{} // by the directory that is closed, or by itself
	for _, o := range c.draft.Observation {
		switch o.Class {
		case blueprint.ClassSoftware:
			trees[o.Item] = true
		case blueprint.ClassRefused:
			refused[o.Item] = append(refused[o.Item], o.Path)
		case blueprint.ClassUnexplained:
			c.draft.Stats.Unexplained++
			c.attention(o.Path, "the build uses this path, and where it comes from is not known: "+o.Why, "own it by a package, put it under /etc, /opt or /usr/local, or name an ignore rule for it in the blueprint")
		}
	}
	for _, at := range sortedKeys(refused) {
		if slices.Equal(refused[at], []string{at}) {
			c.refuse(at)
		} else {
			c.refuseBelow(at, len(refused[at]))
		}
	}
	// The trust store is made anew from the authorities that the machine added.
	if c.uses("trust-store") && statPath(localAuthorities).Type == "dir" {
		trees[localAuthorities] = true
	}
	kept := outermost(trees)
	for _, o := range c.draft.Observation {
		switch o.Class {
		case blueprint.ClassConfig:
			if err := c.file(ctx, o.Path, o.Why); err != nil {
				return err
			}
		case blueprint.ClassGenerated:
			if r := matchRule(generatedRules(), o.Path); r != nil && !r.remade && o.Type == "file" && o.SHA256 != "" {
				if err := c.generated(ctx, o); err != nil {
					return err
				}
			}
		case blueprint.ClassDirectory:
			st := statPath(o.Path)
			inTree := slices.ContainsFunc(kept, func(t string) bool { return below(o.Path, t) })
			if st.Type == "dir" && !inTree {
				c.b.Directories = append(c.b.Directories, blueprint.Directory{Path: o.Path, Mode: modeText(st.Mode), Owner: st.Owner})
			}
		}
	}
	// The user's home is there for every user of a real machine, and a build may
	// write beside its working copy, as dpkg-buildpackage does.
	for _, dir := range append(parents(c.x.Workspace), c.user.Home) {
		if slices.ContainsFunc(c.b.Directories, func(d blueprint.Directory) bool { return d.Path == dir }) {
			continue
		}
		anyway := len(c.db.Owners(dir)) > 0 || matchRule(systemRules(), dir) != nil || below(dir, "/tmp") || below(dir, "/var/tmp")
		st := statPath(dir)
		if st.Type == "link" && dir == c.user.Home {
			if err := c.file(ctx, dir, "a link in place of a directory"); err != nil {
				return err
			}
			real, err := filepath.EvalSymlinks(dir)
			if err != nil {
				return err
			}
			dir, st = real, statPath(real)
		}
		if st.Type == "dir" && dir != "/" && (!anyway || dir == c.user.Home) {
			c.b.Directories = append(c.b.Directories, blueprint.Directory{Path: dir, Mode: modeText(st.Mode), Owner: st.Owner})
		}
	}
	if err := c.around(ctx); err != nil {
		return err
	}
	for _, t := range kept {
		if err := c.software(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// localAuthorities is where update-ca-certificates finds a machine's own.
const localAuthorities = "/usr/local/share/ca-certificates"

// uses tells whether the build used something that a rule of generated files names.
func (c *capture) uses(rule string) bool {
	return slices.ContainsFunc(c.draft.Observation, func(o blueprint.Observed) bool {
		return o.Class == blueprint.ClassGenerated && o.Item == rule
	})
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// around keeps configuration that a machine has whether the build looked at it
// or not: apt's sources, pins and keys, the loader's directories, the locale.
func (c *capture) around(ctx context.Context) error {
	var list []string
	for _, g := range []string{
		"/etc/apt/sources.list", "/etc/apt/sources.list.d/*.list", "/etc/apt/sources.list.d/*.sources", "/etc/apt/preferences", "/etc/apt/preferences.d/*", "/etc/apt/apt.conf", "/etc/apt/apt.conf.d/*",
		"/etc/apt/trusted.gpg", "/etc/apt/trusted.gpg.d/*.gpg", "/etc/apt/trusted.gpg.d/*.asc", "/etc/apt/keyrings/*", "/etc/ld.so.conf", "/etc/ld.so.conf.d/*",
		"/etc/default/locale", "/etc/locale.conf", "/etc/locale.gen", "/etc/timezone", "/etc/localtime",
	} {
		names, err := filepath.Glob(g)
		if err != nil {
			return err
		}
		list = append(list, names...)
	}
	for _, p := range list {
		st := statPath(p)
		if st.Type != "file" && st.Type != "link" {
			continue
		}
		// apt passes over a file of another ending: one that was put aside.
		if dir, ext := path.Base(path.Dir(p)), path.Ext(p); (dir == "apt.conf.d" && ext != "" && ext != ".conf") || (dir == "preferences.d" && ext != "" && ext != ".pref") {
			continue
		}
		why := "unowned"
		if owners := c.db.Owners(p); len(owners) > 0 {
			if st.Type == "link" {
				continue
			}
			md5, _, err := c.sums(p)
			if errors.Is(err, fs.ErrPermission) {
				continue // whether it was changed is not for the build's user to know
			}
			if err != nil {
				return err
			}
			own := owners[len(owners)-1]
			if own.MD5 == "" || own.MD5 == md5 {
				continue
			}
			why = "changed conffile of " + own.Package.Name
		}
		if err := c.file(ctx, p, why); err != nil {
			return err
		}
		i := slices.IndexFunc(c.b.Config, func(f blueprint.File) bool { return f.Path == p })
		if i >= 0 && below(p, "/etc/apt") && st.Type == "file" {
			c.b.Apt.Files = append(c.b.Apt.Files, blueprint.AptFile{Path: p, SHA256: c.b.Config[i].SHA256})
		}
	}
	return nil
}

// file keeps one configuration file or link.
func (c *capture) file(ctx context.Context, p, why string) error {
	if slices.ContainsFunc(c.b.Config, func(f blueprint.File) bool { return f.Path == p }) ||
		slices.ContainsFunc(c.b.Withheld, func(w blueprint.Withheld) bool { return w.Path == p }) {
		return nil
	}
	if errors.Is(c.rights.judge([]string{p})[0], fs.ErrPermission) {
		c.refuse(p)
		return nil
	}
	st := statPath(p)
	f := blueprint.File{Path: p, Owner: st.Owner, Why: why}
	switch st.Type {
	case "":
		if len(c.db.Owners(p)) > 0 {
			c.b.Config = append(c.b.Config, blueprint.File{Path: p, Absent: true, Why: why})
		}
		return nil
	case "link":
		f.Link = st.Link
		c.b.Config = append(c.b.Config, f)
		return nil
	case "file":
	default:
		return nil // gone since the build
	}
	f.Mode, f.Modified = modeText(st.Mode), st.Modified.UTC()
	data, err := c.rights.readFile(p)
	if err != nil {
		return err
	}
	secret, err := c.secretFile(p, data)
	if err != nil {
		return err
	}
	if secret != "" && len(c.b.Recipients) == 0 {
		c.withhold(secret, p)
		return nil
	}
	return c.keepConfig(ctx, f, data, secret != "")
}

// keepConfig keeps a configuration file, encrypted if it is a secret.
func (c *capture) keepConfig(ctx context.Context, f blueprint.File, data []byte, secret bool) (err error) {
	sum := sha256.Sum256(data)
	f.SHA256 = "sha256:" + hex.EncodeToString(sum[:])
	stored := data
	if secret {
		f.Encrypted = true
		if stored, err = c.encrypt(f.Path, data); err != nil {
			return err
		}
	}
	digest, err := c.Depot.PutBytes(ctx, stored)
	if err != nil {
		return err
	}
	c.b.Config = append(c.b.Config, f)
	c.draft.Config[f.ConfigName()] = stored
	c.draft.Sum[f.ConfigName()] = digest
	return nil
}

func (c *capture) generated(ctx context.Context, o blueprint.Observed) error {
	st := statPath(o.Path)
	if c.private(o.Path) {
		c.withhold(onlyRoot, o.Path)
		return nil
	}
	in, err := c.rights.open(o.Path)
	if err != nil {
		return err
	}
	defer in.Close()
	digest, _, err := c.Depot.Put(ctx, in)
	if err != nil {
		return err
	}
	f := blueprint.File{Path: o.Path, Mode: modeText(st.Mode), Owner: st.Owner, SHA256: digest, Why: o.Why}
	c.b.Generated = append(c.b.Generated, f)
	c.draft.Sum[f.GeneratedName()] = digest
	return nil
}

// treeFile names the original of a tree with characters that a shell, a
// registry and blueprint.sum take as they are, and as no other tree.
func treeFile(tree string, others []blueprint.Software) string {
	base := strings.TrimLeft(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune(".+~_@=,-", r):
			return r
		}
		return '-'
	}, tree), ".+~_@=,-")
	if base == "" {
		base = "tree"
	}
	name := base + ".tar.zst"
	for n := 2; slices.ContainsFunc(others, func(x blueprint.Software) bool { return x.File == name }); n++ {
		name = fmt.Sprintf("%s-%d.tar.zst", base, n)
	}
	return name
}

// software keeps one whole tree, whichever of its files were used, but for what
// the build's user may not read and what is secret.
func (c *capture) software(ctx context.Context, top string) error {
	c.Step("keeping " + top)
	t := &softwareTree{
		kept: blueprint.Software{Path: top, File: treeFile(top, c.b.Software)},
		skip: append(build.Caches(c.user.Home, c.x.Environment), c.ws.Root, c.State.Dir), secrets: map[string][]string{}, names: map[inode]string{}, private: c.private,
		seen: func(files int, size int64) { c.Progress(fmt.Sprintf("%d files, %d MB", files, size>>20)) },
	}
	digest, err := PutTree(ctx, c.Depot, func(w io.Writer) error {
		tw := tar.NewWriter(w)
		// Directories above the tree that no package brings.
		for _, dir := range parents(top) {
			if len(c.db.Owners(dir)) > 0 {
				continue
			}
			info, err := tree.Lstat(dir)
			if err != nil {
				return err
			}
			if err := addToTar(tw, dir[1:], info, statPath(dir).Link, nil, nil); err != nil {
				return err
			}
		}
		var err error
		c.rights.do(func() { err = t.write(ctx, tw) })
		return errors.Join(err, tw.Close())
	})
	if err != nil {
		return fmt.Errorf("keep %s: %w", top, err)
	}
	c.b.Software = append(c.b.Software, t.kept)
	c.draft.Sum[t.kept.OriginalName()] = digest
	c.refuse(t.refused...)
	return c.secrets(ctx, t.secrets)
}

func parents(p string) []string {
	var list []string
	for d := path.Dir(p); d != "/"; d = path.Dir(d) {
		list = append([]string{d}, list...)
	}
	return list
}

// PutTree keeps what write produces, compressed with zstd.
func PutTree(ctx context.Context, d *depot.Depot, write func(io.Writer) error) (string, error) {
	pr, pw := io.Pipe()
	wrote := make(chan error, 1)
	go func() {
		zw, err := zstd.NewWriter(pw, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(2), zstd.WithLowerEncoderMem(true))
		if err == nil {
			err = write(zw)
			if closed := zw.Close(); err == nil {
				err = closed
			}
		}
		wrote <- err
		pw.CloseWithError(err)
	}()
	digest, _, err := d.Put(ctx, pr)
	pr.CloseWithError(err)
	if cause := <-wrote; cause != nil && (err == nil || errors.Is(err, cause)) {
		err = cause // without the depot's words
	}
	return digest, err
}
