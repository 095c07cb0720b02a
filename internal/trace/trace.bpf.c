//go:build ignore

// Watches the calls by which processes of one cgroup name files and peers.
//
// One program runs at the end of every system call, when the page with the
// path is resident and the result is known; a successful exec has lost its
// arguments by then and is seen at sched_process_exec instead. A call that
// changes the directory names one relative to where the process was before,
// which is kept at its beginning. Which calls name what is a table filled by
// the loader, so this file knows no numbers.
//
// The kernel structures hold only the fields that are read; their offsets are
// relocated when the program is loaded (CO-RE).

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define AT_FDCWD (-100)
#define NAME_MAX_ 256
#define PATH_MAX_ 4096
#define DEPTH_MAX 400
#define TS_COMPAT 2
#define EFAULT_ 14
#define EBADF_ 9
#define MS_REMOUNT_ 32
#define MS_BIND_ 4096
#define MS_MOVE_ 8192
#define PROC_MAGIC 0x9fa0
#define ABI_BITS 0xC0000000
#define X32_BIT 0x40000000

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct qstr { __u64 hash_len; const unsigned char *name; };
struct super_block { unsigned long s_magic; };
struct inode { unsigned long i_ino; struct super_block *i_sb; };
struct dentry { struct dentry *d_parent; struct qstr d_name; struct inode *d_inode; };
struct vfsmount { struct dentry *mnt_root; };
struct mount { struct mount *mnt_parent; struct dentry *mnt_mountpoint; struct vfsmount mnt; };
struct path { struct vfsmount *mnt; struct dentry *dentry; };
struct file { struct path f_path; };
struct fdtable { unsigned int max_fds; struct file **fd; };
struct files_struct { struct fdtable *fdt; };
struct fs_struct { struct path root; struct path pwd; };
struct thread_info { __u32 status; };
struct task_struct { struct thread_info thread_info; struct fs_struct *fs; struct files_struct *files; };
struct linux_binprm { struct file *file; const char *filename; const char *interp; };
struct pt_regs___x86 { unsigned long r10, dx, si, di, orig_ax; };
#pragma clang attribute pop

// How one system call names files; filled by the loader.
struct call {
	__s8 path;   // index of the argument that is a path, -1: none
	__s8 dir;    // index of the argument that is its directory, -1: the working directory
	__s8 flags;  // index of the argument with open flags, -1: none, -2: behind a pointer (openat2)
	__u8 kind;   // KIND_…
	__u32 op;    // bits for user space
};
enum { KIND_NONE, KIND_PATH, KIND_CONNECT, KIND_CHDIR, KIND_BIND, KIND_RING };

struct event {
	__u32 op;
	__s32 ret;
	__u32 flags;
	__u32 name_len; // with the terminating zero; for connect the length of the address
	__u32 base_len; // names of the base directory, innermost first, each with its zero
	__u32 task; // of the two names of a bind mount, which belong together
	char data[PATH_MAX_ + NAME_MAX_ + PATH_MAX_ + NAME_MAX_];
};

struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 16 << 20); } events SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_CGROUP_ARRAY); __uint(max_entries, 1); __uint(key_size, 4); __uint(value_size, 4); } cgroup SEC(".maps");
// Two rows for each call: some name two files.
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1024 * 2); __type(key, __u32); __type(value, struct call); } calls SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_LRU_HASH); __uint(max_entries, 1 << 18); __type(key, __u64); __type(value, __u8); } seen SEC(".maps");
// Each program its own scratch, so that one cannot interrupt the other's work.
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 2); __type(key, __u32); __type(value, struct event); } scratch SEC(".maps");
// Where a task was before a call that changes it.
struct place { __u64 pwd_dentry, pwd_mnt, root_dentry, root_mnt; };
struct { __uint(type, BPF_MAP_TYPE_LRU_HASH); __uint(max_entries, 1 << 13); __type(key, __u32); __type(value, struct place); } before SEC(".maps");
// 0: calls seen, 1: events lost, 2: calls of another ABI that were not followed, 3: io_uring rings,
// 4: calls in directories too deep to be named
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 5); __type(key, __u32); __type(value, __u64); } counts SEC(".maps");

static __always_inline void count(__u32 which)
{
	__u64 *n = bpf_map_lookup_elem(&counts, &which);
	if (n)
		*n += 1;
}

static __always_inline __u64 mix(__u64 h, __u64 w)
{
	h ^= w;
	h *= 0x9E3779B97F4A7C15ULL;
	return h ^ (h >> 29);
}

// hash_name is verified once, apart from its callers: its loop is long.
__noinline __u64 hash_name(__u32 slot, __u64 h)
{
	struct event *e = bpf_map_lookup_elem(&scratch, &slot);
	if (!e)
		return h;
	__u32 len = e->name_len;
	for (__u32 i = 0; i < PATH_MAX_ / 8; i++) {
		__u32 at = i * 8;
		if (at >= len)
			break;
		__u64 w = *(__u64 *)(e->data + at);
		if (len - at < 8)
			w &= (1ULL << ((len - at) * 8)) - 1;
		h = mix(h, w);
	}
	return h;
}

// walk writes the names from a directory up to the root of its mount
// namespace behind the event's name. A directory deeper than the limit, or with a longer
// name than an event holds, is counted apart rather than cut: it gives 4, what else is lost 1.
__noinline int walk(__u32 slot, __u64 dentry_, __u64 mnt_)
{
	struct event *e = bpf_map_lookup_elem(&scratch, &slot);
	if (!e)
		return 1;
	struct dentry *d = (struct dentry *)dentry_;
	struct mount *m = (struct mount *)(mnt_ - bpf_core_field_offset(struct mount, mnt));
	// The length so far is kept in memory, not in a register: its range would
	// give the verifier a new state to look at in every round.
	e->base_len = 0;
	for (int i = 0; i < DEPTH_MAX; i++) {
		struct dentry *root = BPF_CORE_READ(m, mnt.mnt_root);
		struct dentry *parent = BPF_CORE_READ(d, d_parent);
		if (d == root || d == parent) {
			struct mount *up = BPF_CORE_READ(m, mnt_parent);
			if (up == m || !up)
				return 0;
			d = BPF_CORE_READ(m, mnt_mountpoint);
			m = up;
			continue;
		}
		const unsigned char *name = BPF_CORE_READ(d, d_name.name);
		__u32 at = e->name_len + e->base_len;
		if (at > PATH_MAX_ + PATH_MAX_)
			return 4;
		int n = bpf_probe_read_kernel_str(e->data + at, NAME_MAX_, name);
		if (n <= 1)
			return 1;
		e->base_len += n;
		d = parent;
	}
	return 4;
}

// emit hands the event over with the names of its base directory, unless the
// same was handed over before. It is verified once, apart from its callers.
//
// What is the same is told by the base directory's identity, and by its name
// and parent too: directories are renamed, and made anew at the same address.
__noinline int emit(__u32 slot, __u64 dentry_, __u64 mnt_)
{
	struct event *e = bpf_map_lookup_elem(&scratch, &slot);
	if (!e)
		return 0;
	__u64 h = mix(0x7472617973616c00ULL, ((__u64)e->op << 32) | (__u32)e->flags);
	h = mix(h, e->ret < 0 ? (__u64)-e->ret : 0);
	if (dentry_) {
		struct dentry *d = (struct dentry *)dentry_;
		struct dentry *parent = BPF_CORE_READ(d, d_parent);
		struct inode *in = BPF_CORE_READ(d, d_inode);
		h = mix(h, dentry_);
		h = mix(h, mnt_);
		h = mix(h, in ? BPF_CORE_READ(in, i_ino) : 0);
		h = mix(h, BPF_CORE_READ(d, d_name.hash_len));
		h = mix(h, (__u64)parent);
		h = mix(h, BPF_CORE_READ(parent, d_name.hash_len));
	}
	h = hash_name(slot, h);
	if (!e->task && bpf_map_lookup_elem(&seen, &h))
		return 0;
	e->base_len = 0;
	int lost = dentry_ ? walk(slot, dentry_, mnt_) : 0;
	if (lost) {
		count(lost);
		return 0;
	}
	__u32 size = __builtin_offsetof(struct event, data) + e->name_len + e->base_len;
	if (size > sizeof(*e)) {
		count(1);
		return 0;
	}
	if (bpf_ringbuf_output(&events, e, size, 0) != 0) {
		count(1);
		return 0;
	}
	__u8 one = 1;
	bpf_map_update_elem(&seen, &h, &one, BPF_ANY);
	return 0;
}

static __always_inline unsigned long argument(struct pt_regs___x86 *r, __s8 i)
{
	switch (i) {
	case 0: return BPF_CORE_READ(r, di);
	case 1: return BPF_CORE_READ(r, si);
	case 2: return BPF_CORE_READ(r, dx);
	default: return BPF_CORE_READ(r, r10);
	}
}

// opened finds the file behind a descriptor.
static __always_inline struct file *opened(struct task_struct *task, int fd)
{
	struct fdtable *fdt = BPF_CORE_READ(task, files, fdt);
	unsigned int max = BPF_CORE_READ(fdt, max_fds);
	if (fd < 0 || (unsigned int)fd >= max)
		return 0;
	struct file **fds = BPF_CORE_READ(fdt, fd);
	struct file *f = 0;
	bpf_probe_read_kernel(&f, sizeof(f), fds + fd);
	return f;
}

// base_of finds the directory that a relative name starts at, or the task's
// root for an absolute one (a chroot's names are not the machine's).
static __always_inline int base_of(struct task_struct *task, const char *name, int dirfd, struct path *out)
{
	struct fs_struct *fs = BPF_CORE_READ(task, fs);
	if (!fs)
		return -1;
	if (name[0] == '/') {
		BPF_CORE_READ_INTO(out, fs, root);
		return 0;
	}
	if (dirfd == AT_FDCWD) {
		BPF_CORE_READ_INTO(out, fs, pwd);
		return 0;
	}
	struct file *f = opened(task, dirfd);
	if (!f)
		return -1;
	BPF_CORE_READ_INTO(out, f, f_path);
	return 0;
}

// magic tells names below /proc and /dev/fd: they lead through descriptors to
// files that are elsewhere, and nobody can follow them later.
static __always_inline int magic(const char *name)
{
	return name[0] == '/' && ((name[1] == 'p' && name[2] == 'r' && name[3] == 'o' && name[4] == 'c' && name[5] == '/') ||
		(name[1] == 'd' && name[2] == 'e' && name[3] == 'v' && name[4] == '/' && name[5] == 'f' && name[6] == 'd' && name[7] == '/'));
}

// really emits an event again with the place where its file really is.
static __always_inline void really(struct event *e, __u32 slot, struct file *f)
{
	if (!f)
		return;
	struct path at = {};
	BPF_CORE_READ_INTO(&at, f, f_path);
	if (BPF_CORE_READ(at.dentry, d_inode, i_sb, s_magic) == PROC_MAGIC)
		return;
	e->data[0] = 0;
	e->name_len = 1;
	emit(slot, (__u64)at.dentry, (__u64)at.mnt);
}

static __always_inline void one_call(struct pt_regs___x86 *regs, struct call *c, long ret)
{
	__u32 slot = 0;
	struct event *e = bpf_map_lookup_elem(&scratch, &slot);
	if (!e)
		return;
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	e->op = c->op;
	e->ret = ret < 0 ? ret : 0;
	e->flags = 0;
	e->task = 0;
	e->base_len = 0;
	struct path base = {};
	if (c->kind == KIND_RING) {
		if (ret >= 0)
			count(3);
		return;
	}
	if (c->kind == KIND_CONNECT) {
		__u32 len = BPF_CORE_READ(regs, dx);
		if (len > 127)
			len = 127; // the largest, a local socket's, has 110
		asm volatile("" : "+r"(len)); // keep the mask below, for the verifier
		len &= 127;
		if (len < 2 || bpf_probe_read_user(e->data, len, (void *)argument(regs, 1)) != 0)
			return;
		e->name_len = len;
		// A local socket's name may begin at the working directory.
		if (e->data[0] == 1 && e->data[1] == 0 && e->data[2] != 0 && e->data[2] != '/' && base_of(task, "", AT_FDCWD, &base) != 0) {
			count(1);
			return;
		}
		emit(slot, (__u64)base.dentry, (__u64)base.mnt);
		return;
	}
	if (c->kind == KIND_BIND) {
		unsigned long flags = argument(regs, 3);
		if (ret != 0 || !(flags & (MS_BIND_ | MS_MOVE_)) || (flags & MS_REMOUNT_))
			return;
		e->task = bpf_get_current_pid_tgid();
	}
	long n = bpf_probe_read_user_str(e->data, PATH_MAX_, (void *)argument(regs, c->path));
	if (n < 0) {
		if (ret != -EFAULT_ && argument(regs, c->path) != 0)
			count(1);
		return;
	}
	if (n <= 1)
		return; // an empty name: the open file itself, seen when it was opened
	e->name_len = n;
	if (c->flags >= 0) {
		e->flags = argument(regs, c->flags);
	} else if (c->flags == -2) {
		__u64 flags = 0;
		bpf_probe_read_user(&flags, sizeof(flags), (void *)argument(regs, 2));
		e->flags = flags;
	}
	e->flags &= 01103; // access mode, O_CREAT, O_TRUNC
	if (c->kind == KIND_CHDIR) {
		__u32 id = bpf_get_current_pid_tgid();
		struct place *was = bpf_map_lookup_elem(&before, &id);
		if (!was) {
			count(1);
			return;
		}
		if (e->data[0] == '/')
			emit(slot, was->root_dentry, was->root_mnt);
		else
			emit(slot, was->pwd_dentry, was->pwd_mnt);
		bpf_map_delete_elem(&before, &id);
		return;
	}
	int dirfd = c->dir >= 0 ? (int)argument(regs, c->dir) : AT_FDCWD;
	if (base_of(task, e->data, dirfd, &base) != 0) {
		if (ret != -EBADF_)
			count(1);
		return;
	}
	emit(slot, (__u64)base.dentry, (__u64)base.mnt);
	if (c->flags != -1 && ret >= 0 && magic(e->data))
		really(e, slot, opened(task, ret));
}

// The operation bit of an exec and the calls that change a task's place, set
// by the loader.
const volatile __u32 op_exec = 0, nr_chdir = 0, nr_chroot = 0;

SEC("raw_tp/sys_enter")
int sys_enter(struct bpf_raw_tracepoint_args *ctx)
{
	long nr = ctx->args[1];
	if ((nr != nr_chdir && nr != nr_chroot) || bpf_current_task_under_cgroup(&cgroup, 0) != 1)
		return 0;
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct fs_struct *fs = BPF_CORE_READ(task, fs);
	if (!fs)
		return 0;
	struct place p = {
		.pwd_dentry = (__u64)BPF_CORE_READ(fs, pwd.dentry), .pwd_mnt = (__u64)BPF_CORE_READ(fs, pwd.mnt),
		.root_dentry = (__u64)BPF_CORE_READ(fs, root.dentry), .root_mnt = (__u64)BPF_CORE_READ(fs, root.mnt),
	};
	__u32 id = bpf_get_current_pid_tgid();
	bpf_map_update_elem(&before, &id, &p, BPF_ANY);
	return 0;
}

SEC("raw_tp/sys_exit")
int sys_exit(struct bpf_raw_tracepoint_args *ctx)
{
	if (bpf_current_task_under_cgroup(&cgroup, 0) != 1)
		return 0;
	struct pt_regs___x86 *regs = (struct pt_regs___x86 *)ctx->args[0];
	long ret = ctx->args[1];
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	if (BPF_CORE_READ(task, thread_info.status) & TS_COMPAT) {
		count(2);
		return 0;
	}
	__u32 nr = BPF_CORE_READ(regs, orig_ax);
	if (nr >= 1024) {
		if ((nr & ABI_BITS) == X32_BIT)
			count(2);
		return 0;
	}
	__u32 row = nr * 2;
	struct call *c = bpf_map_lookup_elem(&calls, &row);
	if (!c || c->kind == KIND_NONE)
		return 0;
	count(0);
	one_call(regs, c, ret);
	row++;
	c = bpf_map_lookup_elem(&calls, &row);
	if (c && c->kind != KIND_NONE)
		one_call(regs, c, ret);
	return 0;
}

static __always_inline void executed(struct task_struct *task, const char *name, struct file *file)
{
	__u32 slot = 1;
	struct event *e = bpf_map_lookup_elem(&scratch, &slot);
	if (!e)
		return;
	e->op = op_exec;
	e->ret = 0;
	e->flags = 0;
	e->task = 0;
	e->base_len = 0;
	long n = bpf_probe_read_kernel_str(e->data, PATH_MAX_, name);
	if (n <= 1) {
		count(1);
		return;
	}
	e->name_len = n;
	struct path base = {};
	if (base_of(task, e->data, AT_FDCWD, &base) != 0) {
		count(1);
		return;
	}
	emit(slot, (__u64)base.dentry, (__u64)base.mnt);
	if (file && magic(e->data))
		really(e, slot, file);
}

SEC("raw_tp/sched_process_exec")
int process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	if (bpf_current_task_under_cgroup(&cgroup, 0) != 1)
		return 0;
	count(0);
	struct task_struct *task = (struct task_struct *)ctx->args[0];
	struct linux_binprm *bprm = (struct linux_binprm *)ctx->args[2];
	const char *name = BPF_CORE_READ(bprm, filename), *interp = BPF_CORE_READ(bprm, interp);
	// The file is the last one loaded: the program, or a script's interpreter.
	struct file *file = BPF_CORE_READ(bprm, file);
	executed(task, name, name == interp ? file : 0);
	if (name != interp)
		executed(task, interp, file);
	return 0;
}
