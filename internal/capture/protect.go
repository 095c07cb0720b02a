package capture

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"trysail/blueprint"
	"trysail/internal/secret"
)

// protect decides how a configuration file may be kept: as it is, encrypted to
// the blueprint's recipients, or not at all and named.
func (c *capture) protect(f *blueprint.File, data []byte) (stored []byte, keep bool, err error) {
	found, err := secret.Scan(f.Path, bytes.NewReader(data))
	if err != nil {
		return nil, false, err
	}
	if len(found) == 0 {
		return data, true, nil
	}
	what := found[0].What
	if found[0].Line > 0 {
		what = fmt.Sprintf("%s in line %d", what, found[0].Line)
	}
	if len(c.b.Recipients) == 0 {
		c.withhold(f.Path, what)
		return nil, false, nil
	}
	to, err := secret.Recipients(c.b.Recipients)
	if err != nil {
		return nil, false, err
	}
	if stored, err = secret.Encrypt(data, to); err != nil {
		return nil, false, fmt.Errorf("encrypt %s: %w", f.Path, err)
	}
	f.Encrypted = true
	return stored, true, nil
}

func (c *capture) withhold(p, what string) {
	c.b.Withheld = append(c.b.Withheld, blueprint.Withheld{Path: p, Why: what})
	for i := range c.draft.Observation {
		if o := &c.draft.Observation[i]; o.Path == p {
			o.Class, o.Why = blueprint.ClassSecret, "withheld: "+what
			o.SHA256 = ""
		}
	}
	c.attention(p, "withheld, because it holds "+what, "give --recipient (an age or SSH public key) to keep it encrypted, or see that the build does without")
}

// screen decides whether a file of a software tree may be kept. Only text of
// moderate size is looked at: programs hold the patterns of keys, not keys.
func (c *capture) screen(p string, info fs.FileInfo) (bool, error) {
	if info.Size() > 256<<10 || info.Size() == 0 || fixture(p) {
		return true, nil
	}
	f, err := os.Open(p)
	if err != nil {
		return false, err
	}
	defer f.Close()
	head := make([]byte, 512)
	n, err := io.ReadFull(f, head)
	if err != nil && n == 0 {
		return false, err
	}
	if bytes.IndexByte(head[:n], 0) >= 0 {
		return true, nil
	}
	found, err := secret.Scan(p, io.MultiReader(bytes.NewReader(head[:n]), f))
	if err != nil {
		return false, err
	}
	if len(found) > 0 && recorded(p) {
		return true, nil
	}
	for _, x := range found {
		// In a tree of other people's files a line with a password is a document
		// or an example, unless the file is one that settings are kept in; keys
		// and tokens with a maker's mark never are.
		if settingsFile(p) {
			c.withhold(p, x.What)
			return false, nil
		}
		if x.Rule != "password" && x.Rule != "url-password" && x.Rule != "netrc" && x.Rule != "docker-auth" && x.Rule != "npm-auth" {
			c.withhold(p, x.What)
			return false, nil
		}
	}
	return true, nil
}

// recorded tells a file of a Python package that is as its maker packed it: the
// installed package's RECORD has its digest. Libraries of cryptography are full
// of what looks like keys, and do not run without.
func recorded(p string) bool {
	data, err := os.ReadFile(p)
	if err != nil {
		return false
	}
	sum := sha256.Sum256(data)
	for dir := path.Dir(p); dir != "/"; dir = path.Dir(dir) {
		if base := path.Base(dir); base != "site-packages" && base != "dist-packages" {
			continue
		}
		line := "\n" + strings.TrimPrefix(p, dir+"/") + ",sha256=" + base64.RawURLEncoding.EncodeToString(sum[:]) + ","
		entries, err := os.ReadDir(dir)
		if err != nil {
			return false
		}
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".dist-info") {
				continue
			}
			record, err := os.ReadFile(path.Join(dir, e.Name(), "RECORD"))
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
