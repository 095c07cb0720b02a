package rebuild

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/renameio/v2"

	"trysail/blueprint"
	"trysail/internal/machine"
)

// mounted runs f with the root mounted, so that what f reads is the root alone
// and none of the overlay's own marks.
func (s *Server) mounted(st *machine.State, f func(n *machine.Session, root string) error) (err error) {
	n, err := st.Begin()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	root, err := s.Mount(n, "root")
	if err != nil {
		return err
	}
	return f(n, root)
}

// CopyTo copies the root file system to a directory that is empty or not there.
func (s *Server) CopyTo(ctx context.Context, st *machine.State, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return s.mounted(st, func(_ *machine.Session, root string) error {
		out, err := exec.CommandContext(ctx, "cp", "--archive", "--reflink=auto", root+"/.", dir).CombinedOutput()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("copy the root to %s: %w: %s", dir, err, out)
		}
		return nil
	})
}

// WriteOCI writes the root file system as an archive of an OCI image layout.
func (s *Server) WriteOCI(ctx context.Context, st *machine.State, b *blueprint.Blueprint, file string) error {
	return s.mounted(st, func(n *machine.Session, root string) error {
		flat := n.Path("layer.tar")
		f, err := os.Create(flat)
		if err != nil {
			return err
		}
		// tar writes what Go's archive/tar cannot read back from a file system:
		// hard links, devices and extended attributes.
		cmd := exec.CommandContext(ctx, "tar", "--create", "--directory", root, "--numeric-owner", "--sort=name", "--xattrs", "--exclude=./proc/*", "--exclude=./sys/*", "--exclude=./dev/*", ".")
		cmd.Stdout = f
		err = errors.Join(cmd.Run(), f.Close())
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("read the root: %w", err)
		}
		layer, err := tarball.LayerFromFile(flat)
		if err != nil {
			return err
		}
		img, err := mutate.AppendLayers(empty.Image, layer)
		if err != nil {
			return err
		}
		cfg, err := img.ConfigFile()
		if err != nil {
			return err
		}
		cfg = cfg.DeepCopy()
		cfg.OS, cfg.Architecture = "linux", b.Machine.Architecture
		cfg.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
		cfg.Config.Cmd = []string{"/bin/sh"}
		cfg.Config.Labels = map[string]string{"org.opencontainers.image.title": b.Name, "trysail.digest": s.Digest}
		if img, err = mutate.ConfigFile(img, cfg); err != nil {
			return err
		}
		dir := n.Path("oci")
		l, err := layout.Write(dir, empty.Index)
		if err != nil {
			return err
		}
		if err := l.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": b.Name})); err != nil {
			return err
		}
		return archive(dir, file)
	})
}

// archive writes the files below dir as a tar file, whole or not at all.
func archive(dir, file string) error {
	p, err := renameio.NewPendingFile(file, renameio.WithPermissions(0o644))
	if err != nil {
		return err
	}
	defer p.Cleanup() //nolint:errcheck // a no-op after success
	tw := tar.NewWriter(p)
	err = filepath.Walk(dir, func(name string, info os.FileInfo, err error) error {
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		if err := tw.WriteHeader(&tar.Header{Name: rel, Mode: 0o644, Size: info.Size(), Format: tar.FormatPAX}); err != nil {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(tw, f)
		return err
	})
	if err := errors.Join(err, tw.Close()); err != nil {
		return err
	}
	return p.CloseAtomicallyReplace()
}
