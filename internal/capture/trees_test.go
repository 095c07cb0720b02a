package capture

import (
	"crypto/sha256"
	"encoding/base64"
	"path/filepath"
	"testing"

	"trysail/blueprint"
)

// A walk through a directory keeps nothing of it but what was opened; one look
// at one entry, or at some of several, is a use.
func TestPass(t *testing.T) {
	dirs := map[string][]string{
		"/usr/local/bin": {"/usr/local/bin/a", "/usr/local/bin/b", "/usr/local/bin/link"},
		"/opt/some":      {"/opt/some/a", "/opt/some/b"},
		"/opt/one":       {"/opt/one/a"},
	}
	obs := func(p, kind, ops string, c blueprint.Class) blueprint.Observed {
		return blueprint.Observed{Path: p, Type: kind, Ops: ops, Class: c, Item: p}
	}
	list := []blueprint.Observed{
		obs("/opt/one", "dir", "open,stat", blueprint.ClassDirectory),
		obs("/opt/one/a", "file", "stat", blueprint.ClassSoftware),
		obs("/opt/some", "dir", "open", blueprint.ClassDirectory),
		obs("/opt/some/a", "file", "stat", blueprint.ClassSoftware),
		obs("/usr/lib/pg/link", "file", "stat", blueprint.ClassPackage),
		obs("/usr/local/bin", "dir", "open,stat", blueprint.ClassDirectory),
		obs("/usr/local/bin/a", "file", "stat", blueprint.ClassSoftware),
		obs("/usr/local/bin/b", "file", "open,stat", blueprint.ClassSoftware),
		obs("/usr/local/bin/link", "link", "readlink", blueprint.ClassSoftware),
	}
	pass(list, func(dir string) []string { return dirs[dir] }, func(p string) []string {
		if p == "/usr/local/bin/link" {
			return []string{p, "/usr/lib/pg/link"}
		}
		return []string{p}
	})
	ignored := map[string]bool{"/usr/lib/pg/link": true, "/usr/local/bin/a": true, "/usr/local/bin/link": true}
	for _, o := range list {
		if got := o.Class == blueprint.ClassIgnored; got != ignored[o.Path] {
			t.Errorf("%s: %s, item %s", o.Path, o.Class, o.Item)
		}
	}
}

func TestHoldsInstallations(t *testing.T) {
	dir := root(t, map[string]string{
		"pyenv/versions/3.11/bin/python": "x", "pyenv/versions/3.11/lib/os.py": "x", "pyenv/versions/3.12/bin/python": "x", "pyenv/versions/3.12/lib/os.py": "x", "pyenv/libexec/pyenv": "x",
		"node/bin/node": "x", "node/lib/node_modules/npm/bin/npm": "x", "node/lib/node_modules/npm/lib/npm.js": "x", "node/lib/node_modules/yarn/bin/yarn": "x", "node/lib/node_modules/yarn/lib/yarn.js": "x",
		"one/versions/1/bin/x": "x", "one/versions/1/lib/x": "x",
	})
	for name, want := range map[string]bool{"pyenv": true, "pyenv/versions": true, "pyenv/versions/3.11": false, "node": false, "one": false, "none": false} {
		if got := holdsInstallations(filepath.Join(dir, name), func(string) bool { return true }); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if holdsInstallations(filepath.Join(dir, "pyenv"), func(string) bool { return false }) {
		t.Error("a small directory is kept whole")
	}
}

// A file of a Python package is its maker's only as long as it is unchanged.
func TestRecorded(t *testing.T) {
	sum := sha256.Sum256([]byte("key\n"))
	dir := root(t, map[string]string{
		"lib/site-packages/rsa/key.py":               "key\n",
		"lib/site-packages/rsa/own.py":               "mine\n",
		"lib/site-packages/rsa-1.dist-info/RECORD":   "a,sha256=x,1\r\nrsa/key.py,sha256=" + base64.RawURLEncoding.EncodeToString(sum[:]) + ",4\r\nrsa/own.py,sha256=x,1\r\n",
		"lib/site-packages/other-1.dist-info/METADA": "x",
		"lib/elsewhere/rsa/key.py":                   "key\n",
	})
	for name, want := range map[string]bool{"lib/site-packages/rsa/key.py": true, "lib/site-packages/rsa/own.py": false, "lib/elsewhere/rsa/key.py": false, "none": false} {
		if got := recorded(filepath.Join(dir, name)); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
