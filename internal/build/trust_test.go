package build

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trysail/internal/tree"
)

func TestJavaStores(t *testing.T) {
	root := t.TempDir()
	for _, p := range []string{"etc/ssl/certs/java/cacerts", "opt/jdk-25/lib/security/cacerts", "usr/lib/jvm/own/jre/lib/security/cacerts", "home/me/.sdkman/candidates/java/21/lib/security/cacerts", "srv/java/lib/security/cacerts"} {
		p = filepath.Join(root, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(root, "usr/lib/jvm/debian/lib/security")
	if err := os.MkdirAll(link, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/ssl/certs/java/cacerts", filepath.Join(link, "cacerts")); err != nil {
		t.Fatal(err)
	}
	d, err := tree.OpenRoot(root)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	got, err := javaStores(d, "/srv/java", "/home/me")
	if err != nil {
		t.Fatal(err)
	}
	want := "/etc/ssl/certs/java/cacerts /home/me/.sdkman/candidates/java/21/lib/security/cacerts /opt/jdk-25/lib/security/cacerts /srv/java/lib/security/cacerts /usr/lib/jvm/own/jre/lib/security/cacerts"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("%s\nwant %s", s, want)
	}
}
