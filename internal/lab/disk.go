package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// mounted refuses where the machine's disk is not at its place: what is there then is
// the file system of the host on which the lab is, and nobody's to break.
func (h *Host) mounted() error {
	var around, disk unix.Stat_t
	if err := unix.Stat(h.dir, &around); err != nil {
		return fmt.Errorf("%s: %w", h.dir, err)
	}
	if err := unix.Stat(h.Disk(), &disk); err != nil {
		return fmt.Errorf("%s: %w", h.Disk(), err)
	}
	if around.Dev == disk.Dev {
		return fmt.Errorf("%s has no disk any more: what is in its place is this host's own file system", h.Name)
	}
	return nil
}

// onDisk makes a fault ready that touches the machine's disk, and injects it there or
// nowhere: the disk may go between.
func (h *Host) onDisk(prepare func(*Host, string) (*Fault, error), of string) (*Fault, error) {
	if err := h.mounted(); err != nil {
		return nil, err
	}
	f, err := prepare(h, of)
	if err != nil {
		return nil, err
	}
	inject := f.Inject
	f.Inject = func() error {
		if err := h.mounted(); err != nil {
			return err
		}
		return inject()
	}
	return f, nil
}

// refuses is a probe that writes a file and expects an error.
func (h *Host) refuses(want error, bytes int) func(context.Context) error {
	return func(context.Context) error {
		if err := h.mounted(); err != nil {
			return err
		}
		file := filepath.Join(h.Disk(), ".probe")
		err := os.WriteFile(file, make([]byte, bytes), 0o600)
		if rerr := os.Remove(file); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) && !errors.Is(rerr, want) {
			return rerr
		}
		if !errors.Is(err, want) {
			return fmt.Errorf("a write gives %v, not %w", err, want)
		}
		return nil
	}
}

// corrupt changes a byte of a blob in the machine's depot: of is its digest. What a build
// left there for a blob leads nowhere else.
func (h *Host) corrupt(of string) (*Fault, error) {
	hash, ok := strings.CutPrefix(of, "sha256:")
	if sum, err := hex.DecodeString(hash); !ok || err != nil || len(sum) != sha256.Size || hash != strings.ToLower(hash) {
		return nil, fmt.Errorf("%q is neither an artifact of the release nor the digest of a blob: sha256:…, with 64 digits", of)
	}
	in := func(f func(blobs *os.Root, file string) error) error {
		blobs, err := os.OpenRoot(filepath.Join(h.Disk(), "depot", "blobs"))
		if err != nil {
			return err
		}
		return errors.Join(f(blobs, "sha256/"+hash), blobs.Close())
	}
	var data []byte
	if err := in(func(blobs *os.Root, file string) (err error) {
		data, err = blobs.ReadFile(file)
		return err
	}); err != nil {
		return nil, err
	}
	if len(data) == 0 {
		return nil, fmt.Errorf("%s is empty", of)
	}
	change := func(blobs *os.Root, file string) error {
		info, err := blobs.Stat(file)
		if err != nil {
			return err
		}
		f, err := blobs.OpenFile(file, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt([]byte{data[len(data)/2] ^ 1}, int64(len(data)/2))
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		return blobs.Chtimes(file, info.ModTime(), info.ModTime()) // silent: nothing tells that it was written
	}
	return &Fault{Inject: func() error { return in(change) }, Probe: func(context.Context) error {
		var now []byte
		err := in(func(blobs *os.Root, file string) (err error) {
			now, err = blobs.ReadFile(file)
			return err
		})
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was found, and set aside
		}
		if err == nil && bytes.Equal(now, data) {
			err = errors.New("the bytes are as they were")
		}
		return err
	}}, nil
}
