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

	"trysail/blueprint"
	"trysail/internal/machine"
	"trysail/internal/tree"
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

// CopyTo copies the root file system to a directory that is empty or not there. Nobody
// but its owner may enter that: the root's set-user-ID programs are a blueprint's, and
// would make any user of this machine root.
func (s *Server) CopyTo(ctx context.Context, st *machine.State, dir string) error {
	to, err := emptyDirectory(dir)
	if err != nil {
		return err
	}
	defer to.Close()
	return s.mounted(st, func(_ *machine.Session, root string) error {
		list, err := tree.ReadDir(root)
		if err != nil {
			return err
		}
		args := []string{"--archive", "--reflink=auto", "--target-directory=/proc/self/fd/3/.", "--"}
		for _, e := range list {
			args = append(args, filepath.Join(root, e.Name()))
		}
		cmd := exec.CommandContext(ctx, "cp", args...)
		cmd.ExtraFiles = []*os.File{to.File()} // whatever becomes of its name
		out, err := cmd.CombinedOutput()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("copy the root to %s: %w: %s", dir, err, out)
		}
		return nil
	})
}

// emptyDirectory makes a directory, or takes one that is empty and the caller's.
// Nobody else can change anything below it.
func emptyDirectory(dir string) (_ *tree.Dir, err error) {
	if err := tree.MakeDir(filepath.Dir(filepath.Clean(dir)), 0o755); err != nil {
		return nil, err
	}
	d, err := tree.MkdirAll(dir, 0o700)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	info, err := d.Stat()
	if err != nil {
		return nil, err
	}
	if info.UID() != os.Geteuid() {
		return nil, fmt.Errorf("%s belongs to user %d, who could change it while the root is copied: name a directory that is not there", dir, info.UID())
	}
	if err := d.Chmod(".", 0o700); err != nil {
		return nil, err
	}
	list, err := d.ReadDir(".")
	if err == nil && len(list) > 0 {
		err = fmt.Errorf("%s is not empty", dir)
	}
	return d, err
}

// WriteOCI writes the root file system as an archive of an OCI image layout. Nobody but its
// owner may read that: it holds files of the root that not everybody may read.
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

// archive writes the files below dir as a tar file, complete or not at all.
func archive(dir, file string) error {
	from, err := tree.Open(dir)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := tree.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	defer to.Close()
	return to.Replace(filepath.Base(file), 0o600, func(out *os.File) error {
		tw := tar.NewWriter(out)
		err := from.Walk(".", func(e *tree.Entry) error {
			if !e.Mode().IsRegular() {
				return nil
			}
			if err := tw.WriteHeader(&tar.Header{Name: e.Path, Mode: 0o644, Size: e.Size(), Format: tar.FormatPAX}); err != nil {
				return err
			}
			f, err := e.Open()
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.Copy(tw, f)
			return err
		})
		return errors.Join(err, tw.Close())
	})
}
