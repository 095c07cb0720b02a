package cli

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestAttackFilesThatNameProgramsAndSecrets: a user writes the files with which root runs
// a drill in the user's working copy. The hosts' ssh_config names a program, which ssh
// would run as root; the notices name a file that only root may read as a password, and
// the user's own mail server.
func TestAttackFilesThatNameProgramsAndSecrets(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	called := make(chan struct{}, 1)
	go func() {
		if c, err := server.Accept(); err == nil {
			called <- struct{}{}
			c.Close()
		}
	}()
	dir := t.TempDir()
	copy, mark := filepath.Join(dir, "copy"), filepath.Join(dir, "mark")
	config := filepath.Join(copy, "config")
	hosts := "nonce: fathom-2026\nhosts: [{name: control, ssh: root@198.51.100.7}]\nssh_config: "
	for name, text := range map[string]string{
		filepath.Join(dir, "secret"):          "of root alone",
		filepath.Join(dir, "hosts.yaml"):      hosts + config + "\n",
		config:                                "Host *\n\tProxyCommand sh -c 'id -u >" + mark + "; false'\n",
		filepath.Join(copy, "hosts.yaml"):     hosts + config + "\n",
		filepath.Join(copy, "notices.yaml"):   "email: {smtp: '" + server.Addr().String() + "', from: a@example.com, tls: none, user: x, password_file: " + filepath.Join(dir, "secret") + ", always: [b@example.com]}\n",
		filepath.Join(copy, "drill/scenario"): "none",
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := filepath.WalkDir(copy, func(p string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(p, 4242, 4242))
	}); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"drill", "hosts", filepath.Join(copy, "hosts.yaml")},
		{"drill", "hosts", filepath.Join(dir, "hosts.yaml")}, // root's, and names the user's
		{"drill", "run", filepath.Join(copy, "drill/scenario"), "--notify", filepath.Join(copy, "notices.yaml")},
		{"serve", "--notify", filepath.Join(copy, "notices.yaml")},
	} {
		if code, out := trysail(t, args...); code == 0 || !strings.Contains(out, "belongs to user 4242") {
			t.Errorf("trysail %s: %d %s", strings.Join(args, " "), code, out)
		}
	}
	if data, err := os.ReadFile(mark); err == nil {
		t.Errorf("the user's program ran as user %s", data)
	}
	select {
	case <-called:
		t.Error("root's file went to the user's server as a password")
	case <-time.After(100 * time.Millisecond):
	}
}
