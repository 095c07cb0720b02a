package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/rogpeppe/go-internal/testscript"

	"trysail/blueprint"
)

// cmdSameTree compares two roots: type, mode, owner, link target and content of
// every path, but for those that a list of exceptions explains, each line a
// glob and the reason: same-tree A B EXCEPTIONS.
func cmdSameTree(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: same-tree A B EXCEPTIONS")
	}
	a, err := readTree(ts.MkAbs(args[0]))
	ts.Check(err)
	b, err := readTree(ts.MkAbs(args[1]))
	ts.Check(err)
	var globs []string
	for sc := bufio.NewScanner(strings.NewReader(ts.ReadFile(args[2]))); sc.Scan(); {
		glob, why, ok := strings.Cut(sc.Text(), "  ")
		if !ok || strings.TrimSpace(why) == "" {
			ts.Fatalf("exception without a reason: %q", sc.Text())
		}
		globs = append(globs, glob)
	}
	var wrong []string
	paths := map[string]bool{}
	for p := range a {
		paths[p] = true
	}
	for p := range b {
		paths[p] = true
	}
	for _, p := range slices.Sorted(maps.Keys(paths)) {
		if a[p] == b[p] || slices.ContainsFunc(globs, func(g string) bool { ok, err := doublestar.Match(g, p); return ok && err == nil }) {
			continue
		}
		wrong = append(wrong, fmt.Sprintf("%s: %q, %q", p, a[p], b[p]))
	}
	if len(a) < 1000 || len(b) < 1000 {
		ts.Fatalf("%d and %d paths: these are no roots", len(a), len(b))
	}
	if (len(wrong) > 0) != neg {
		ts.Fatalf("%d paths differ:\n%s", len(wrong), strings.Join(wrong[:min(40, len(wrong))], "\n"))
	}
}

func readTree(root string) (map[string]string, error) {
	m := map[string]string{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		what := fmt.Sprintf("%s %d:%d", info.Mode(), st.Uid, st.Gid)
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			what += " -> " + target
		case info.Mode().IsRegular():
			f, err := os.Open(p)
			if err != nil {
				return err
			}
			defer f.Close()
			h := sha256.New()
			if _, err := io.Copy(h, f); err != nil {
				return err
			}
			what += fmt.Sprintf(" %x", h.Sum(nil)[:8])
		}
		m["/"+strings.TrimPrefix(strings.TrimPrefix(p, root), "/")] = what
		return nil
	})
	return m, err
}

// cmdPackagesOnly copies a blueprint with nothing but its packages and users:
// packages-only FROM TO.
func cmdPackagesOnly(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: packages-only FROM TO")
	}
	from, to := ts.MkAbs(args[0]), ts.MkAbs(args[1])
	data, err := os.ReadFile(filepath.Join(from, "blueprint.yaml"))
	ts.Check(err)
	b, err := blueprint.Parse("blueprint.yaml", data)
	ts.Check(err)
	data, err = b.PackagesOnly().Marshal()
	ts.Check(err)
	ts.Check(os.MkdirAll(to, 0o755))
	ts.Check(os.WriteFile(filepath.Join(to, "blueprint.yaml"), data, 0o644))
	sum, err := os.ReadFile(filepath.Join(from, "blueprint.sum"))
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(to, "blueprint.sum"), sum, 0o644))
}

// cmdCommands takes the shell blocks out of a Markdown document, as a person
// would type them: commands DOCUMENT SCRIPT.
func cmdCommands(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: commands DOCUMENT SCRIPT")
	}
	var out bytes.Buffer
	in := false
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		switch {
		case strings.HasPrefix(line, "```sh"):
			in = true
		case strings.HasPrefix(line, "```"):
			in = false
		case in:
			out.WriteString(line)
		}
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), out.Bytes(), 0o644))
}
