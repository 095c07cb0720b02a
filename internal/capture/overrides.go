package capture

import (
	"archive/tar"
	"cmp"
	"context"
	"encoding/base64"
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

	"trysail/blueprint"
	"trysail/internal/debian"
	"trysail/internal/tree"
)

// dpkg does not write down which mode and owner a package's file had. They are in the package's
// archive, which takes long to read for all packages, so only those are read of which the build
// used a file that may have been changed: its status is younger than the package, or it is not
// as nearly all files of packages are.

// overrides keeps the mode, the owner and the attributes of what the build used, where its package
// gives it others, and the attributes of configuration.
func (c *capture) overrides(ctx context.Context) error {
	suspects := map[string]map[string]blueprint.Override{} // by package and path
	for _, o := range c.draft.Observation {
		p := c.db.Package(o.Item)
		if o.Class != blueprint.ClassPackage || p == nil || o.Type != "file" && o.Type != "dir" {
			continue
		}
		is, changed, err := c.readOverride(o.Path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue // gone since the build, or closed
		}
		if err != nil {
			return err
		}
		if !hasUsualMode(is) || o.Type == "file" && changed.After(c.db.Listed(p)) {
			if suspects[o.Item] == nil {
				suspects[o.Item] = map[string]blueprint.Override{}
			}
			suspects[o.Item][o.Path] = is
		}
	}
	for _, p := range c.b.Packages {
		if p.Repacked != "" { // of the files as they are
			continue
		}
		if err := c.override(ctx, p, suspects[p.Key()]); err != nil {
			return err
		}
	}
	for _, f := range c.b.Config {
		if !f.HasContent() {
			continue
		}
		is, _, err := c.readOverride(f.Path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return err
		}
		if is.Why = "attributes of configuration"; len(is.Attributes) > 0 {
			c.b.Overrides = append(c.b.Overrides, is)
		}
	}
	return nil
}

// override keeps which of some paths are not as a package gives them.
func (c *capture) override(ctx context.Context, p blueprint.Package, paths map[string]blueprint.Override) error {
	if len(paths) == 0 {
		return nil
	}
	r, err := c.Depot.Get(ctx, c.draft.Sum[p.DebName()])
	if err != nil {
		return err
	}
	defer r.Close()
	d, err := debian.ReadDeb(ctx, p.Name, r)
	if err != nil {
		return err
	}
	given := map[string]blueprint.Override{}
	err = d.Members(ctx, func(h *tar.Header, _ io.Reader) error {
		at := c.db.Canonical(path.Clean("/" + h.Name))
		g := blueprint.Override{Path: at, Mode: modeText(debian.FileMode(h.Mode)), Owner: cmp.Or(h.Uname, strconv.Itoa(h.Uid)) + ":" + cmp.Or(h.Gname, strconv.Itoa(h.Gid))}
		if h.Typeflag == tar.TypeLink {
			g = given[c.db.Canonical(path.Clean("/"+h.Linkname))]
		}
		given[at] = g
		return nil
	})
	if err != nil {
		return err
	}
	for _, at := range slices.Sorted(maps.Keys(paths)) {
		is := paths[at]
		g, ok := given[at]
		if !ok || g.Mode == is.Mode && g.Owner == is.Owner && len(is.Attributes) == 0 {
			continue
		}
		is.Why = fmt.Sprintf("%s ships it as %s %s", p.Name, g.Mode, g.Owner)
		if g.Mode == is.Mode && g.Owner == is.Owner {
			is.Why = p.Name + " ships it without attributes"
		}
		c.b.Overrides = append(c.b.Overrides, is)
	}
	return nil
}

// readOverride is [readOverride] with the rights of the build's user.
func (c *capture) readOverride(p string) (o blueprint.Override, changed time.Time, err error) {
	c.rights.do(func() { o, changed, err = readOverride(p) })
	return o, changed, err
}

// readOverride says what mode, owner and attributes a file or directory of the machine has, and when
// these or its content changed last.
func readOverride(p string) (o blueprint.Override, changed time.Time, err error) {
	dir, err := tree.Open(path.Dir(p))
	if err != nil {
		return o, changed, err
	}
	defer dir.Close()
	info, err := dir.Lstat(path.Base(p))
	if err != nil {
		return o, changed, err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		changed = time.Unix(st.Ctim.Unix())
	}
	o = blueprint.Override{Path: p, Mode: modeText(info.Mode()), Owner: ownerOf(info)}
	if info.Mode()&fs.ModeSymlink != 0 {
		return o, changed, nil
	}
	attributes, err := dir.Attributes(path.Base(p))
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		o.Attributes = append(o.Attributes, blueprint.Attribute{Name: name, Value: base64.StdEncoding.EncodeToString(attributes[name])})
	}
	return o, changed, err
}

// hasUsualMode tells the mode and owner that nearly all files of packages have.
func hasUsualMode(o blueprint.Override) bool {
	return (o.Mode == "0644" || o.Mode == "0755") && o.Owner == "root:root" && len(o.Attributes) == 0
}

func describeOverride(o blueprint.Override) string {
	list := []string{o.Mode, o.Owner}
	for _, a := range o.Attributes {
		list = append(list, fmt.Sprintf("%s=%s", a.Name, a.Value))
	}
	return strings.Join(list, " ")
}
