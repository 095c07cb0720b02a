package trace

import "golang.org/x/sys/unix"

// calls says for each system call of x86-64 which arguments name files.
func calls() map[int][]call {
	p := func(arg, dir int8, op Op) call {
		return call{Path: arg, Dir: dir, Flags: -1, Kind: kindPath, Op: uint32(op)}
	}
	open := func(arg, dir, flags int8) call {
		return call{Path: arg, Dir: dir, Flags: flags, Kind: kindPath, Op: uint32(OpOpen)}
	}
	m := map[int][]call{
		unix.SYS_OPEN:    {open(0, -1, 1)},
		unix.SYS_OPENAT:  {open(1, 0, 2)},
		unix.SYS_OPENAT2: {open(1, 0, -2)},
		unix.SYS_CREAT:   {p(0, -1, OpOpen|OpWrite)},

		unix.SYS_STAT:       {p(0, -1, OpStat)},
		unix.SYS_LSTAT:      {p(0, -1, OpStat)},
		unix.SYS_NEWFSTATAT: {p(1, 0, OpStat)},
		unix.SYS_STATX:      {p(1, 0, OpStat)},
		unix.SYS_STATFS:     {p(0, -1, OpStat)},
		unix.SYS_ACCESS:     {p(0, -1, OpAccess)},
		unix.SYS_FACCESSAT:  {p(1, 0, OpAccess)},
		unix.SYS_FACCESSAT2: {p(1, 0, OpAccess)},
		unix.SYS_READLINK:   {p(0, -1, OpReadlink)},
		unix.SYS_READLINKAT: {p(1, 0, OpReadlink)},

		unix.SYS_EXECVE:   {p(0, -1, OpExec|opMissable)},
		unix.SYS_EXECVEAT: {p(1, 0, OpExec|opMissable)},
		unix.SYS_CHDIR:    {{Path: 0, Dir: -1, Flags: -1, Kind: kindChdir, Op: uint32(OpChdir)}},
		unix.SYS_CHROOT:   {{Path: 0, Dir: -1, Flags: -1, Kind: kindChdir, Op: uint32(OpChdir)}},

		unix.SYS_GETXATTR:          {p(0, -1, OpStat)},
		unix.SYS_LGETXATTR:         {p(0, -1, OpStat)},
		unix.SYS_LISTXATTR:         {p(0, -1, OpStat)},
		unix.SYS_LLISTXATTR:        {p(0, -1, OpStat)},
		unix.SYS_INOTIFY_ADD_WATCH: {p(1, -1, OpStat)},
		unix.SYS_NAME_TO_HANDLE_AT: {p(1, 0, OpStat)},
		unix.SYS_USELIB:            {p(0, -1, OpOpen)},
		unix.SYS_SWAPON:            {p(0, -1, OpOpen)},
		unix.SYS_ACCT:              {p(0, -1, OpWrite)},

		unix.SYS_MKDIR:     {p(0, -1, OpWrite)},
		unix.SYS_MKDIRAT:   {p(1, 0, OpWrite)},
		unix.SYS_MKNOD:     {p(0, -1, OpWrite)},
		unix.SYS_MKNODAT:   {p(1, 0, OpWrite)},
		unix.SYS_TRUNCATE:  {p(0, -1, OpWrite)},
		unix.SYS_CHMOD:     {p(0, -1, OpWrite)},
		unix.SYS_FCHMODAT:  {p(1, 0, OpWrite)},
		unix.SYS_CHOWN:     {p(0, -1, OpWrite)},
		unix.SYS_LCHOWN:    {p(0, -1, OpWrite)},
		unix.SYS_FCHOWNAT:  {p(1, 0, OpWrite)},
		unix.SYS_UTIME:     {p(0, -1, OpWrite)},
		unix.SYS_UTIMES:    {p(0, -1, OpWrite)},
		unix.SYS_FUTIMESAT: {p(1, 0, OpWrite)},
		unix.SYS_UTIMENSAT: {p(1, 0, OpWrite)},
		unix.SYS_SETXATTR:  {p(0, -1, OpWrite)},
		unix.SYS_LSETXATTR: {p(0, -1, OpWrite)},
		unix.SYS_SYMLINK:   {p(1, -1, OpWrite)},
		unix.SYS_SYMLINKAT: {p(2, 1, OpWrite)},
		unix.SYS_UNLINK:    {p(0, -1, OpRemove)},
		unix.SYS_UNLINKAT:  {p(1, 0, OpRemove)},
		unix.SYS_RMDIR:     {p(0, -1, OpRemove)},

		// Two names each. A renamed or linked file was there and is used; the
		// old name of a successful rename is found no more, which Found says.
		unix.SYS_RENAME:    {p(0, -1, OpRemove), p(1, -1, OpWrite)},
		unix.SYS_RENAMEAT:  {p(1, 0, OpRemove), p(3, 2, OpWrite)},
		unix.SYS_RENAMEAT2: {p(1, 0, OpRemove), p(3, 2, OpWrite)},
		unix.SYS_LINK:      {p(0, -1, OpOpen), p(1, -1, OpWrite)},
		unix.SYS_LINKAT:    {p(1, 0, OpOpen), p(3, 2, OpWrite)},

		// What is found below the target of a bind mount is below its source.
		unix.SYS_MOUNT:     {{Path: 0, Dir: -1, Flags: -1, Kind: kindBind, Op: uint32(OpStat | opSource)}, {Path: 1, Dir: -1, Flags: -1, Kind: kindBind, Op: uint32(OpStat | opTarget)}},
		unix.SYS_OPEN_TREE: {p(1, 0, OpStat)},

		unix.SYS_IO_URING_SETUP: {{Path: -1, Dir: -1, Flags: -1, Kind: kindRing}},

		unix.SYS_CONNECT: {{Kind: kindConnect, Op: uint32(OpConnect)}},
	}
	return m
}
