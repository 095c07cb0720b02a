package capture

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"trysail/blueprint"
	"trysail/internal/debian"
)

// Inspect drafts a blueprint of the machine without watching a build: all
// installed packages, every configuration file that was changed or that no
// package owns, every tree of software beside the packages. It changes nothing
// and keeps no original. limits says what could not be seen. Files are read with the
// rights of who asks, as [FindDrift] does.
func Inspect(ctx context.Context, name string, now time.Time, progress func(string)) (b *blueprint.Blueprint, limits []string, err error) {
	db, err := debian.ReadDatabase("/")
	if err != nil {
		return nil, nil, err
	}
	b = &blueprint.Blueprint{Trysail: blueprint.Version, Name: name, Captured: now.UTC().Truncate(time.Second), Unobserved: true}
	if b.Machine, err = ReadMachine(db); err != nil {
		return nil, nil, err
	}
	if b.Name == "" {
		b.Name = safeName(b.Machine.Hostname)
	}
	if b.Users, b.Groups, err = ReadUsers("/"); err != nil {
		return nil, nil, err
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
	b.Apt = &blueprint.Apt{Sources: readSources("/", asker.readFile)}
	var unreadable int
	asker.do(func() { unreadable, err = inspectFiles(ctx, db, b, progress) })
	if err != nil {
		return nil, nil, err
	}
	alts, err := debian.ReadAlternatives("/")
	if err != nil {
		return nil, nil, err
	}
	for _, alt := range alts {
		if alt.Manual {
			b.Alternatives = append(b.Alternatives, blueprint.Alternative{Name: alt.Name, Link: alt.Link, Value: alt.Value, Manual: true})
		}
	}
	for _, d := range db.Diversions() {
		if d.By == ":" {
			b.Diversions = append(b.Diversions, blueprint.Diversion{From: d.From, To: d.To})
		}
	}
	b.Sort()
	limits = append(limits, "no build was watched: what of this a release needs is not known; trysail capture finds out")
	if unreadable > 0 {
		limits = append(limits, "files or directories that this user may not read were passed over; as root they are seen")
	}
	return b, limits, nil
}

// inspectFiles adds what stands beside the packages, with the rights of the calling thread.
func inspectFiles(ctx context.Context, db *debian.Database, b *blueprint.Blueprint, progress func(string)) (unreadable int, err error) {
	for _, p := range db.Installed() {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		b.Packages = append(b.Packages, blueprint.Package{Name: p.Name, Version: p.Version, Architecture: p.Architecture, File: fileName(p.FileName()), Essential: p.Essential, Why: "kept"})
		for path, want := range p.Conffiles {
			have, err := md5Of(path)
			switch {
			case errors.Is(err, fs.ErrNotExist):
			case errors.Is(err, fs.ErrPermission):
				unreadable++
			case err != nil:
				return 0, err
			case have != want:
				b.Config = append(b.Config, fileFacts(path, "changed conffile of "+p.Name))
			}
		}
	}
	progress("configuration that no package owns")
	gen, sys := generatedRules(), systemRules()
	err = filepath.WalkDir("/etc", func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrPermission) {
			unreadable++
			return nil
		}
		if err != nil || d.IsDir() || len(db.Owners(p)) > 0 || matchRule(gen, p) != nil || matchRule(sys, p) != nil || below(p, "/etc/alternatives") || !(d.Type().IsRegular() || d.Type()&fs.ModeSymlink != 0) {
			return err
		}
		f := fileFacts(p, "unowned")
		if f.SHA256 == "" && f.Link == "" {
			unreadable++
			return nil
		}
		b.Config = append(b.Config, f)
		return ctx.Err()
	})
	if err != nil {
		return 0, err
	}
	progress("software that no package owns")
	a := newAttributor(world{owners: db.Owners, several: func(string) bool { return false }}, layout{home: "/nonexistent", workspace: "/nonexistent"}, nil, nil)
	for _, dir := range []string{"/usr/local", "/opt"} {
		err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || p == dir || a.standing(p) {
				return err
			}
			s := blueprint.Software{Path: p, File: treeFile(p, b.Software)}
			s.Files, s.Size = treeSize(p)
			b.Software = append(b.Software, s)
			if d.IsDir() {
				return fs.SkipDir
			}
			return ctx.Err()
		})
		if err != nil {
			return 0, err
		}
	}
	return unreadable, nil
}

func md5Of(p string) (string, error) {
	f, err := openRegular(p)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := md5.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// fileFacts describes a file of the machine; the digest is empty where it may
// not be read.
func fileFacts(p, why string) blueprint.File {
	st := statPath(p)
	f := blueprint.File{Path: p, Owner: st.Owner, Why: why, Link: st.Link}
	if st.Type == "file" {
		f.Mode = modeText(st.Mode)
		if _, have, err := compareFile(blueprint.File{Path: p}); err == nil {
			f.SHA256 = have[strings.LastIndexByte(have, ' ')+1:]
		}
	}
	return f
}

func treeSize(dir string) (files int, size int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				files++
				size += info.Size()
			}
		}
		return nil // what cannot be read is not counted
	})
	return files, size
}
