package machine

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"trysail/internal/tree"
)

// seal gives a container without a user namespace of its own what it cannot change:
// root in there is who called this program, and makes every mount writable. Of files
// it gets copies, and of directories an overlay that nothing can be written to.
func (n *Session) seal(self string, mounts []Mount) (string, []Mount, error) {
	self, err := n.sealed(self)
	if err != nil {
		return "", nil, err
	}
	mounts = slices.Clone(mounts)
	for i, m := range mounts {
		if !m.ReadOnly {
			continue
		}
		if mounts[i].Source, err = n.sealed(m.Source); err != nil {
			return "", nil, err
		}
	}
	return self, mounts, nil
}

func (n *Session) sealed(source string) (string, error) {
	info, err := os.Stat(source)
	if err != nil {
		return "", err
	}
	if at, ok := n.seals[source]; ok {
		return at, nil
	}
	at := n.Path("sealed-" + strconv.Itoa(len(n.seals)))
	switch {
	case info.IsDir():
		empty, err := n.MkdirAll(0o755, "empty")
		if err != nil {
			return "", err
		}
		if err := os.Mkdir(at, 0o700); err != nil {
			return "", err
		}
		if err := n.Mount("overlay", at, "overlay", unix.MS_RDONLY, "userxattr,lowerdir="+source+":"+empty); err != nil {
			return "", err
		}
	case !info.Mode().IsRegular(), unix.Access(source, unix.W_OK) != nil: // somebody else's: root in there is nobody for it
		return source, nil
	default:
		if err := copyFile(source, at, info.Mode().Perm()); err != nil {
			return "", fmt.Errorf("copy %s for the container: %w", filepath.Base(source), err)
		}
	}
	if n.seals == nil {
		n.seals = map[string]string{}
	}
	n.seals[source] = at
	return at, nil
}

func copyFile(from, to string, mode os.FileMode) error {
	in, err := tree.OpenFile(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
