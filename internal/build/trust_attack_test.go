package build

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"trysail/internal/machine"
)

type noNetwork struct{}

func (noNetwork) NetNS() string      { return "" }
func (noNetwork) CA() []byte         { return []byte("recorder\n") }
func (noNetwork) ResolvConf() []byte { return nil }

// A blueprint makes the root's bundle of authorities a link. Trysail hands the
// bundle to the build, so the build would print a file of the host.
func TestAttackTheBundleOfAuthoritiesIsALink(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	top := t.TempDir()
	secret := filepath.Join(top, "secret")
	st, err := machine.OpenState(context.Background(), filepath.Join(top, "state"), filepath.Join(top, "run"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"absolute": secret, "relative": "../../../../secret", "FIFO": "/etc/fifo"} {
		t.Run(name, func(t *testing.T) {
			root := filepath.Join(top, "root-"+name)
			if err := errors.Join(
				os.WriteFile(secret, []byte("of the host\n"), 0o600), os.MkdirAll(root+"/etc/ssl/certs", 0o755),
				os.Symlink(target, root+systemBundle), unix.Mkfifo(root+"/etc/fifo", 0o600),
				os.MkdirAll(root+"/usr/lib", 0o755), os.Symlink(top, root+"/usr/lib/jvm"),
				os.MkdirAll(top+"/java/lib/security", 0o755), os.WriteFile(top+"/java/lib/security/cacerts", nil, 0o644),
			); err != nil {
				t.Fatal(err)
			}
			n, err := st.Begin()
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			within(t, "reading the bundle", func() {
				o := Options{Session: n, Name: "b", Root: root, Network: noNetwork{}}
				mounts, err := o.trust(map[string]string{})
				data, _ := os.ReadFile(n.Path("b", "trust", "ca.pem"))
				if strings.Contains(string(data), "of the host") {
					t.Errorf("the build gets the host's file (%v)", err)
				}
				for _, m := range mounts {
					if strings.Contains(m.Target, "/jvm/") {
						t.Errorf("a store of the host is found in the root: %s", m.Target)
					}
				}
			})
		})
	}
}
