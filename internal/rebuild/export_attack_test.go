package rebuild

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"trysail/internal/machine"
)

// A user makes the directory that a rebuilt root is copied to a link to a directory
// of root, or owns it and changes it while root copies.
func TestAttackARootIsCopiedIntoADirectoryOfAUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	top := t.TempDir()
	st, err := machine.OpenState(context.Background(), filepath.Join(top, "state"), filepath.Join(top, "run"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	layer, victim, home := filepath.Join(top, "layer"), filepath.Join(top, "victim"), filepath.Join(top, "home")
	if err := errors.Join(
		os.MkdirAll(layer+"/etc", 0o755), os.WriteFile(layer+"/etc/file", []byte("x"), 0o644), os.Mkdir(victim, 0o755), os.Mkdir(home, 0o755),
		os.Mkdir(home+"/own", 0o777), os.Chown(home+"/own", 4242, 4242), os.Symlink(victim, home+"/link"), os.Lchown(home+"/link", 4242, 4242), os.Chown(home, 4242, 4242),
	); err != nil {
		t.Fatal(err)
	}
	s := &Server{Layers: []string{layer}}
	for _, dir := range []string{"link", "link/new", "own"} {
		if err := s.CopyTo(context.Background(), st, filepath.Join(home, dir)); err == nil {
			t.Errorf("the root is copied to %s", dir)
		}
	}
	if list, err := os.ReadDir(victim); err != nil || len(list) > 0 {
		t.Errorf("in the directory of root: %v %v", list, err)
	}
	if err := s.CopyTo(context.Background(), st, filepath.Join(home, "new/deep")); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(home + "/new/deep/etc/file"); err != nil || string(data) != "x" {
		t.Error(string(data), err)
	}
	// A blueprint brings a set-user-ID program, which a user of this machine is to start.
	if info, err := os.Stat(home + "/new/deep"); err != nil || info.Mode().Perm() != 0o700 {
		t.Error(info, err)
	}
}

// A user of the machine waits for the image of a server, and reads there what only root may
// read in the server.
func TestAttackAnImageIsReadable(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(dir+"/oci", 0o700), os.WriteFile(dir+"/oci/layer", []byte("secret"), 0o600), archive(dir+"/oci", dir+"/image.tar")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir + "/image.tar"); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("the image has mode %s (%v)", info.Mode(), err)
	}
}
