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
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"trysail/blueprint"
	"trysail/internal/debian"
	"trysail/internal/depot"
)

// Drift is one item in which a live machine and its blueprint differ.
type Drift struct {
	Item      string `json:"item"` // "package gcc:amd64", "config /etc/foo" …
	Blueprint string `json:"blueprint"`
	Machine   string `json:"machine"`
}

// FindDrift compares the live machine with a blueprint, item by item. What
// cannot be compared, for want of rights or originals, is in unknown. A
// blueprint names any path, so files are read with the rights of who asks: of
// the user who called sudo, where root was asked through it.
func FindDrift(ctx context.Context, b *blueprint.Blueprint, sum blueprint.Sum, d *depot.Depot, progress func(string)) (drift []Drift, unknown []string, err error) {
	db, err := debian.ReadDatabase("/")
	if err != nil {
		return nil, nil, err
	}
	add := func(item, want, have string) { drift = append(drift, Drift{item, want, have}) }
	m, err := ReadMachine(db)
	if err != nil {
		return nil, nil, err
	}
	for _, x := range []struct{ item, want, have string }{
		{"distribution", b.Machine.Distribution + " " + b.Machine.Release, m.Distribution + " " + m.Release},
		{"architecture", b.Machine.Architecture, m.Architecture},
		{"time zone", b.Machine.Timezone, m.Timezone},
		{"locale", b.Machine.Locale, m.Locale},
	} {
		if x.want != x.have {
			add(x.item, x.want, x.have)
		}
	}
	for _, p := range b.Packages {
		switch have := db.Package(p.Key()); {
		case have == nil:
			add("package "+p.Key(), p.Version, "not installed")
		case have.Version != p.Version:
			add("package "+p.Key(), p.Version, have.Version)
		case strings.HasPrefix(have.Status, "hold ") != p.Held:
			words := map[bool]string{true: "held", false: "not held"}
			add("package "+p.Key(), words[p.Held], words[!p.Held])
		}
	}
	who, err := asking()
	if err != nil {
		return nil, nil, err
	}
	asker, err := rightsOf(who.UID, who.GID, who.Groups)
	if err != nil {
		return nil, nil, err
	}
	defer asker.close()
	for _, list := range []struct {
		kind  string
		files []blueprint.File
	}{{"config", b.Config}, {"generated", b.Generated}} {
		for _, f := range list.files {
			var want, have string
			var err error
			asker.do(func() { want, have, err = compareFile(f) })
			switch {
			case errors.Is(err, fs.ErrPermission):
				unknown = append(unknown, list.kind+" "+f.Path+": user "+who.Name+" may not read it")
			case err != nil:
				return nil, nil, err
			case want != have:
				add(list.kind+" "+f.Path, want, have)
			}
		}
	}
	alts, err := debian.ReadAlternatives("/")
	if err != nil {
		return nil, nil, err
	}
	for _, a := range b.Alternatives {
		i := slices.IndexFunc(alts, func(x debian.Alternative) bool { return x.Name == a.Name })
		switch {
		case i < 0:
			add("alternative "+a.Name, a.Value, "not there")
		case alts[i].Value != a.Value:
			add("alternative "+a.Name, a.Value, alts[i].Value)
		}
	}
	for _, dir := range b.Directories {
		var st stat
		asker.do(func() { st = statPath(dir.Path) })
		if errors.Is(st.Err, fs.ErrPermission) {
			unknown = append(unknown, "directory "+dir.Path+": user "+who.Name+" may not look at it")
		} else if st.Type != "dir" {
			add("directory "+dir.Path, "a directory", "not there")
		} else if mode := modeText(st.Mode); mode != dir.Mode || st.Owner != dir.Owner {
			add("directory "+dir.Path, dir.Mode+" "+dir.Owner, mode+" "+st.Owner)
		}
	}
	for _, o := range b.Overrides {
		var have blueprint.Override
		var err error
		asker.do(func() { have, _, err = readOverride(o.Path) })
		switch {
		case errors.Is(err, fs.ErrPermission):
			unknown = append(unknown, "override "+o.Path+": user "+who.Name+" may not look at it")
		case errors.Is(err, fs.ErrNotExist):
			add("override "+o.Path, describeOverride(o), "not there")
		case err != nil:
			unknown = append(unknown, "override "+o.Path+": "+err.Error())
		case describeOverride(have) != describeOverride(o):
			add("override "+o.Path, describeOverride(o), describeOverride(have))
		}
	}
	users, groups, err := ReadUsers("/")
	if err != nil {
		return nil, nil, err
	}
	drift = append(drift, comparePeople(b, users, groups)...)
	for _, s := range b.Software {
		progress(s.Path)
		what, err := compareTree(ctx, b, s, sum[s.OriginalName()], d, asker)
		var missing *depot.NotFoundError
		switch {
		case errors.As(err, &missing), errors.Is(err, fs.ErrPermission):
			unknown = append(unknown, "software "+s.Path+": "+err.Error())
		case err != nil:
			return nil, nil, err
		case what != "":
			add("software "+s.Path, "as captured", what)
		}
	}
	for _, x := range b.Builds {
		if x.Observation == "" {
			continue
		}
		data, err := d.ReadAll(ctx, x.Observation, 1<<30)
		if err != nil {
			unknown = append(unknown, "build "+x.Name+": what it used: "+err.Error())
			continue
		}
		obs, err := blueprint.ParseObservation(data)
		if err != nil {
			return nil, nil, err
		}
		for _, o := range b.Uncovered(obs) {
			if !slices.ContainsFunc(b.Withheld, func(w blueprint.Withheld) bool { return w.Path == o.Path }) {
				add(o.Item, "not in the blueprint", "build "+x.Name+" uses "+o.Path)
			}
		}
	}
	return drift, unknown, nil
}

func compareFile(f blueprint.File) (want, have string, err error) {
	st := statPath(f.Path)
	if f.Absent {
		return orMissing(""), orMissing(st.Type), st.Err
	}
	if f.Link != "" {
		if st.Type == "link" {
			return "-> " + f.Link, "-> " + st.Link, nil
		}
		return "-> " + f.Link, orMissing(st.Type), nil
	}
	want = f.Mode + " " + f.Owner + " " + f.SHA256
	if st.Type != "file" {
		return want, orMissing(st.Type), nil
	}
	r, err := openRegular(f.Path)
	if err != nil {
		return "", "", err
	}
	defer r.Close()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", "", err
	}
	return want, modeText(st.Mode) + " " + st.Owner + " sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

func orMissing(kind string) string {
	if kind == "" {
		return "not there"
	}
	return "a " + kind
}

func comparePeople(b *blueprint.Blueprint, users []blueprint.User, groups []blueprint.Group) []Drift {
	var list []Drift
	text := func(u blueprint.User) string { return fmt.Sprintf("%d:%d:%s:%s", u.UID, u.GID, u.Home, u.Shell) }
	want, have := map[string]string{}, map[string]string{}
	for _, u := range b.Users {
		want["user "+u.Name] = text(u)
	}
	for _, u := range users {
		have["user "+u.Name] = text(u)
	}
	for _, g := range b.Groups {
		want["group "+g.Name] = fmt.Sprintf("%d:%s", g.GID, strings.Join(g.Members, ","))
	}
	for _, g := range groups {
		have["group "+g.Name] = fmt.Sprintf("%d:%s", g.GID, strings.Join(g.Members, ","))
	}
	names := map[string]bool{}
	for k := range want {
		names[k] = true
	}
	for k := range have {
		names[k] = true
	}
	for _, k := range sortedKeys(names) {
		w, h := want[k], have[k]
		if w == h {
			continue
		}
		if w == "" {
			w = "not in the blueprint"
		}
		if h == "" {
			h = "not there"
		}
		list = append(list, Drift{k, w, h})
	}
	return list
}

// compareTree compares a software tree with its original and names the first
// file that differs.
func compareTree(ctx context.Context, b *blueprint.Blueprint, s blueprint.Software, digest string, d *depot.Depot, asker *rights) (what string, err error) {
	r, err := d.Get(ctx, digest)
	if err != nil {
		return "", err
	}
	defer r.Close()
	zr, err := zstd.NewReader(r)
	if err != nil {
		return "", err
	}
	defer zr.Close()
	asker.do(func() { what, err = compareMembers(ctx, b, s, tar.NewReader(zr)) })
	return what, err
}

// compareMembers compares with the rights of the calling thread.
func compareMembers(ctx context.Context, b *blueprint.Blueprint, s blueprint.Software, tr *tar.Reader) (string, error) {
	seen := map[string]bool{}
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", fmt.Errorf("original of %s: %w", s.Path, err)
		}
		p := "/" + path.Clean(h.Name)
		seen[p] = true
		what, err := compareMember(p, h, tr)
		if err != nil || what != "" {
			return what, err
		}
	}
	// What was left out of the tree when it was captured is not new.
	for _, w := range b.Withheld {
		seen[w.Path] = true
	}
	for _, f := range b.Config {
		seen[f.Path] = true
	}
	extra := ""
	err := filepath.WalkDir(s.Path, func(p string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrPermission) && p != s.Path {
			return nil // nor did the capture see it
		}
		if err != nil {
			return err
		}
		if !seen[p] && extra == "" && !e.IsDir() && (e.Type().IsRegular() || e.Type()&fs.ModeSymlink != 0) {
			extra = p + " is new"
		}
		if e.IsDir() && slices.ContainsFunc(b.Withheld, func(w blueprint.Withheld) bool { return w.Path == p }) {
			return fs.SkipDir
		}
		return nil
	})
	return extra, err
}

func compareMember(p string, h *tar.Header, r io.Reader) (string, error) {
	st := statPath(p)
	switch h.Typeflag {
	case tar.TypeDir:
		if st.Type != "dir" {
			return p + " is " + orMissing(st.Type), nil
		}
	case tar.TypeSymlink:
		if st.Link != h.Linkname {
			return p + " leads elsewhere", nil
		}
	case tar.TypeLink:
		a, err := os.Lstat(p)
		if err != nil {
			return p + " is not there", nil
		}
		b, err := os.Lstat("/" + path.Clean(h.Linkname))
		if err != nil || !os.SameFile(a, b) {
			return p + " is no name of /" + path.Clean(h.Linkname), nil
		}
	case tar.TypeReg:
		if st.Type != "file" {
			return p + " is " + orMissing(st.Type), nil
		}
		if st.Size != h.Size || modeText(st.Mode) != fmt.Sprintf("%04o", h.Mode&0o7777) {
			return p + " has another size or mode", nil
		}
		f, err := openRegular(p)
		if err != nil {
			return "", err
		}
		defer f.Close()
		a, b := sha256.New(), sha256.New()
		if _, err := io.Copy(a, r); err != nil {
			return "", err
		}
		if _, err := io.Copy(b, f); err != nil {
			return "", err
		}
		if string(a.Sum(nil)) != string(b.Sum(nil)) {
			return p + " has other content", nil
		}
	}
	return "", nil
}
