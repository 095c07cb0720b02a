package debian

import (
	"io/fs"
	"os"
	"syscall"
)

func copyOwner(info fs.FileInfo, to string) error {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	// After the owner: changing it clears setuid.
	return os.Chmod(to, info.Mode()&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky))
}
