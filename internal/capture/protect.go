package capture

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"trysail/blueprint"
	"trysail/internal/secret"
	"trysail/internal/tree"
)

// secretFile says why a configuration file is a secret, "" where it is none. A
// secret is encrypted to the blueprint's recipients, or withheld and named.
func (c *capture) secretFile(p string, data []byte) (why string, err error) {
	found, err := secret.Scan(p, bytes.NewReader(data))
	if err != nil {
		return "", err
	}
	switch {
	case len(found) > 0 && found[0].Line > 0:
		return fmt.Sprintf("it holds %s in line %d", found[0].What, found[0].Line), nil
	case len(found) > 0:
		return "it holds " + found[0].What, nil
	case c.private(p):
		return onlyRoot, nil
	}
	return "", nil
}

// encrypt encrypts a file to the blueprint's recipients.
func (c *capture) encrypt(p string, data []byte) ([]byte, error) {
	to, err := secret.Recipients(c.b.Recipients)
	if err != nil {
		return nil, err
	}
	stored, err := secret.Encrypt(data, to)
	if err != nil {
		return nil, fmt.Errorf("encrypt %s: %w", p, err)
	}
	return stored, nil
}

// Why a file is left out.
const (
	onlyRoot   = "only root may read it"
	notForUser = "the build's user may not read it"
)

// private tells a file that a build as root reads and that no ordinary user of
// this machine may read. The mode of root's own home directory does not count:
// it says nothing about each file in it, and a build that runs as root has its
// settings and tools there.
func (c *capture) private(p string) bool {
	if c.user.UID != 0 {
		return false
	}
	home := path.Clean(c.user.Home)
	if home == "/" || !path.IsAbs(home) || !below(p, home) {
		return errors.Is(c.anyone.judge([]string{p})[0], fs.ErrPermission)
	}
	need := fs.FileMode(0o004) // to read the file, and then to pass through what is above it
	for ; p != home; p = path.Dir(p) {
		if st := statPath(p); st.Type == "" || st.Mode&need == 0 {
			return st.Type != ""
		}
		need = 0o001
	}
	return false
}

// withhold leaves secrets out of the blueprint and names them.
func (c *capture) withhold(why string, paths ...string) {
	c.leaveOut(blueprint.ClassSecret, "withheld, because "+why, "give --recipient (an age or SSH public key) to keep it encrypted, or see that the build does without", why, paths)
}

// refuse leaves out what the build's user may not read, and names it.
func (c *capture) refuse(paths ...string) {
	c.leaveOut(blueprint.ClassRefused, "neither kept nor hashed, because "+notForUser, "if the build needs it, let user "+c.user.Name+" read it and capture again; else nothing is to be done", notForUser, paths)
}

// refuseBelow names a directory that the build's user may not enter, and in which
// the build asked for n paths.
func (c *capture) refuseBelow(dir string, n int) {
	const why = "the build's user may not enter it"
	c.nameLeftOut(dir, why)
	c.attention(dir, fmt.Sprintf("the build asked for %d path(s) in it: neither kept nor hashed, because %s", n, why), "if the build needs them, let user "+c.user.Name+" enter it and capture again; else nothing is to be done")
}

// nameLeftOut lists a path in the blueprint as left out.
func (c *capture) nameLeftOut(p, why string) {
	// A name that is no text has no place in a blueprint.
	text := utf8.ValidString(p) && !strings.ContainsFunc(p, unicode.IsControl)
	if text && !slices.ContainsFunc(c.b.Withheld, func(w blueprint.Withheld) bool { return w.Path == p }) {
		c.b.Withheld = append(c.b.Withheld, blueprint.Withheld{Path: p, Why: why})
	}
}

func (c *capture) leaveOut(class blueprint.Class, text, remedy, why string, paths []string) {
	left := map[string]bool{}
	for _, p := range paths {
		left[p] = true
		c.nameLeftOut(p, why)
	}
	for i := range c.draft.Observation {
		if o := &c.draft.Observation[i]; left[o.Path] {
			*o = blueprint.Observed{Path: o.Path, Class: class, Why: why, Ops: o.Ops}
		}
	}
	switch len(paths) {
	case 0:
	case 1:
		c.attention(paths[0], text, remedy)
	default:
		c.attention(paths[0], fmt.Sprintf("%s; the same is true of %d more files of its tree, which the blueprint lists as withheld", text, len(paths)-1), remedy)
	}
}

const (
	mostScreened = 256 << 10 // bytes of a file that is looked at for secrets
	mostRecord   = 64 << 20  // bytes of the list of a Python package's files
)

// screen says why a file of a software tree is a secret, "" where it is none.
// Only text of moderate size is looked at: programs hold the patterns of keys,
// not keys.
func screen(p string, f io.Reader, size int64) (why string, err error) {
	if size > mostScreened || size == 0 || fixture(p) {
		return "", nil
	}
	head := make([]byte, 512)
	n, err := io.ReadFull(f, head)
	if err != nil && n == 0 {
		return "", err
	}
	if bytes.IndexByte(head[:n], 0) >= 0 {
		return "", nil
	}
	found, err := secret.Scan(p, io.MultiReader(bytes.NewReader(head[:n]), f))
	if err != nil {
		return "", err
	}
	if len(found) > 0 && recorded(p) {
		return "", nil
	}
	for _, x := range found {
		// In a tree of other people's files a line with a password is a document
		// or an example, unless the file is one that settings are kept in; keys
		// and tokens with a maker's mark never are.
		if settingsFile(p) || x.Rule != "password" && x.Rule != "url-password" && x.Rule != "netrc" && x.Rule != "docker-auth" && x.Rule != "npm-auth" {
			return "it holds " + x.What, nil
		}
	}
	return "", nil
}

// recorded tells a file of a Python package that is as its maker packed it: the
// installed package's RECORD has its digest. Libraries of cryptography are full
// of what looks like keys, and do not run without.
func recorded(p string) bool {
	data, err := tree.ReadFile(p, mostScreened)
	if err != nil {
		return false
	}
	sum := sha256.Sum256(data)
	for dir := path.Dir(p); dir != "/"; dir = path.Dir(dir) {
		if base := path.Base(dir); base != "site-packages" && base != "dist-packages" {
			continue
		}
		line := "\n" + strings.TrimPrefix(p, dir+"/") + ",sha256=" + base64.RawURLEncoding.EncodeToString(sum[:]) + ","
		entries, err := tree.ReadDir(dir)
		if err != nil {
			return false
		}
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".dist-info") {
				continue
			}
			record, err := tree.ReadFile(path.Join(dir, e.Name(), "RECORD"), mostRecord)
			if err == nil && strings.Contains("\n"+strings.ReplaceAll(string(record), "\r", ""), line) {
				return true
			}
		}
	}
	return false
}

// settingsFile tells files in which people keep settings, passwords among them.
func settingsFile(p string) bool {
	return matchAny([]string{"/**/{.netrc,_netrc,.npmrc,.pypirc,.pgpass,.my.cnf,.env,.dockercfg,.git-credentials,credentials}", "/**/.docker/config.json", "/**/*.{conf,cfg,ini,properties,cnf,env}", "/**/etc/**"}, p)
}

// fixture tells published examples by where they stand.
func fixture(p string) bool {
	return matchAny([]string{"/**/{test,tests,testdata,testing,example,examples,doc,docs,fixtures,sample,samples,spec}/**", "/**/*_test.{go,py,js}", "/**/*.{go,md,rst,html}", "/**/node_modules/**"}, p)
}
