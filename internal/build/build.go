// Package build runs one recorded build in a root file system.
//
// Capture and proof must differ in one thing only: where the root's files come
// from. So both call [Run], which gives the command what the blueprint says and
// nothing else: a clean checkout at the recorded path, the recorded user,
// environment, umask and limits, empty caches and temporary directories, and a
// network that is a recorder, a replay of one, or nothing.
//
// Nothing that the command writes reaches the machine: the workspace, caches
// and temporary directories are scratch directories of the session, everything
// else is the overlay that the caller mounted.
package build

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"trysail/blueprint"
	"trysail/internal/machine"
	"trysail/internal/trace"
)

// Network is where a build's connections end: a recorder, or a replay.
type Network interface {
	NetNS() string      // path of the network namespace
	CA() []byte         // PEM certificate of the authority that signs for it; nil: none does
	ResolvConf() []byte // resolv.conf(5) for the build
}

// Options say what to run and where.
type Options struct {
	Session  *machine.Session
	Name     string // of this run's scratch directories
	Root     string // a mounted, writable root
	Hostname string
	Build    blueprint.Build
	User     blueprint.User
	Groups   []uint32
	// Checkout is the clean source; the build may change it.
	Checkout string
	Network  Network // nil: none at all
	// HostNetwork gives the command this machine's own network instead.
	HostNetwork bool
	Live        []blueprint.LiveDependency
	Permits     Permits // of this machine, for what Live asks
	// Host is true when the root is the machine's own: its devices and sockets
	// are then reachable, so that a capture sees what the build wants of them.
	Host   bool
	Mask   []string // directories that are empty for the build
	Mounts []machine.Mount
	Trace  bool
	Output io.Writer
	// Ready is called with the number of process 1 before the command starts.
	Ready func(pid int) error
	// Progress is called with the tracer while the build runs.
	Progress func(t *trace.Tracer)
}

// Result is what a build did.
type Result struct {
	Exit    *machine.Exit
	Trace   *trace.Result // nil if it was not asked for
	Outputs []blueprint.Output
	// Unmatched lists output globs that matched nothing.
	Unmatched []string
	// Lowered says which resource limits are lower than the build asks for.
	Lowered []string
	view    view
}

// view finds where a path of the build's root really is on this machine.
type view []machine.Mount

// Real gives the host's path for a path in the build's root, and whether it is
// in one of the run's own scratch directories.
func (r *Result) Real(p string) (real string, scratch bool) {
	for _, m := range r.view { // longest target first
		if p == m.Target || strings.HasPrefix(p, m.Target+"/") {
			return m.Source + p[len(m.Target):], m.Target != ""
		}
	}
	return p, false
}

// Caches lists the user's download caches below home, where they stand by
// default and where the environment puts them. They are empty when a build begins.
func Caches(home string, env map[string]string) []string {
	list := []string{}
	for _, rel := range []string{
		".cache", ".npm", ".yarn/cache", ".yarn/berry", ".pnpm-store", ".local/share/pnpm/store", ".cargo/registry", ".cargo/git",
		".m2/repository", ".gradle/caches", ".ivy2/cache", ".sbt/boot", ".nuget/packages", ".cpan", ".cpanm", ".bundle/cache", ".conan/data", ".conan2/p", ".stack/snapshots", ".cabal/packages",
		".node-gyp", ".electron", ".ccache", ".sccache",
	} {
		list = append(list, path.Join(home, rel))
	}
	for _, v := range []struct{ name, rel, otherwise string }{
		{"GOPATH", "pkg/mod", path.Join(home, "go/pkg/mod")},
		{"GOMODCACHE", "", ""},
		{"GOCACHE", "", ""},
		{"XDG_CACHE_HOME", "", ""},
		{"PIP_CACHE_DIR", "", ""},
		{"npm_config_cache", "", ""},
		{"YARN_CACHE_FOLDER", "", ""},
		{"CARGO_HOME", "registry", ""},
		{"GRADLE_USER_HOME", "caches", ""},
		{"CCACHE_DIR", "", ""},
	} {
		dir := env[v.name]
		if v.name == "GOPATH" {
			dir, _, _ = strings.Cut(dir, ":")
		}
		switch {
		case path.IsAbs(dir):
			list = append(list, path.Join(dir, v.rel))
		case v.otherwise != "":
			list = append(list, v.otherwise)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Run runs the build to its end. A failing command is a result, not an error.
func Run(ctx context.Context, o Options) (*Result, error) {
	mounts, err := o.mounts()
	if err != nil {
		return nil, err
	}
	sp := machine.Spec{
		Root: o.Root, Hostname: o.Hostname, Args: o.Build.Command, Dir: o.Build.WorkDirectory(),
		UID: uint32(o.User.UID), GID: uint32(o.User.GID), Groups: o.Groups,
		Mounts: mounts, HostDevices: o.Host, NoNewPrivileges: o.Build.NoNewPrivileges && !o.Host, Stdout: o.Output, Stderr: o.Output,
	}
	env := map[string]string{}
	for k, v := range o.Build.Environment {
		env[k] = v
	}
	if o.Network != nil {
		sp.NetNS = o.Network.NetNS()
		extra, err := o.names()
		if err != nil {
			return nil, err
		}
		sp.Mounts = append(sp.Mounts, extra...)
		if o.Network.CA() != nil {
			if extra, err = o.trust(env); err != nil {
				return nil, err
			}
			sp.Mounts = append(sp.Mounts, extra...)
		}
	}
	if o.HostNetwork {
		sp.NetNS = "/proc/self/ns/net"
		for _, f := range []string{"/etc/resolv.conf", "/etc/hosts"} {
			real, err := filepath.EvalSymlinks(f)
			if err != nil {
				continue // this machine does without it
			}
			sp.Mounts = append(sp.Mounts, machine.Mount{Source: real, Target: f, ReadOnly: true})
		}
	}
	for k, v := range env {
		sp.Env = append(sp.Env, k+"="+v)
	}
	slices.Sort(sp.Env)
	umask, err := strconv.ParseUint(o.Build.Umask, 8, 32)
	if err != nil {
		return nil, fmt.Errorf("build %s: umask %q: %w", o.Build.Name, o.Build.Umask, err)
	}
	sp.Umask = uint32(umask)
	r := &Result{}
	if sp.Limits, r.Lowered, err = limits(o.Build.Limits, hostLimit); err != nil {
		return nil, err
	}
	if err := o.live(&sp); err != nil {
		return nil, err
	}
	for _, m := range sp.Mounts {
		r.view = append(r.view, machine.Mount{Source: m.Source, Target: m.Target})
	}
	r.view = append(r.view, machine.Mount{Source: o.Root, Target: "/"})
	slices.SortStableFunc(r.view, func(a, b machine.Mount) int { return len(b.Target) - len(a.Target) })
	r.view[len(r.view)-1].Target = "" // every path begins with it
	var tr *trace.Tracer
	if o.Trace {
		top, err := trace.CgroupRoot()
		if err != nil {
			return nil, err
		}
		cg, err := o.Session.Cgroup(top)
		if err != nil {
			return nil, err
		}
		if tr, err = trace.Start(ctx, cg); err != nil {
			return nil, err
		}
		sp.Ready = func(pid int) error {
			if err := os.WriteFile(filepath.Join(cg, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
				return fmt.Errorf("put the build into its cgroup: %w", err)
			}
			if o.Progress != nil {
				o.Progress(tr)
			}
			return nil
		}
	}
	if ready := sp.Ready; o.Ready != nil {
		sp.Ready = func(pid int) error {
			if err := o.Ready(pid); err != nil || ready == nil {
				return err
			}
			return ready(pid)
		}
	}
	exit, err := o.Session.Run(ctx, sp)
	if tr != nil {
		seen, terr := tr.Stop()
		r.Trace = seen
		if err == nil {
			err = terr
		}
	}
	if err != nil {
		return nil, err
	}
	r.Exit = exit
	if exit.Code == 0 {
		r.Outputs, r.Unmatched, err = Outputs(o.Checkout, o.Build.Outputs)
	}
	return r, err
}

// mounts lists the scratch directories of the run, outermost first.
func (o *Options) mounts() ([]machine.Mount, error) {
	var list []machine.Mount
	scratch := func(target string, mode fs.FileMode, uid, gid int) error {
		dir, err := o.Session.MkdirAll(mode, o.Name, strconv.Itoa(len(list)))
		if err != nil {
			return err
		}
		if err := os.Chown(dir, uid, gid); err != nil {
			return err
		}
		list = append(list, machine.Mount{Source: dir, Target: target})
		return nil
	}
	for _, p := range []string{"/tmp", "/var/tmp"} {
		if err := scratch(p, 0o777|fs.ModeSticky, 0, 0); err != nil {
			return nil, err
		}
	}
	if o.Host {
		list = append(list, machine.Mount{Source: "/run", Target: "/run", ReadOnly: true})
		if st, err := os.Stat("/run/lock"); err == nil && st.IsDir() {
			if err := scratch("/run/lock", 0o777|fs.ModeSticky, 0, 0); err != nil {
				return nil, err
			}
		}
	}
	list = append(list, o.Mounts...)
	for _, p := range o.Mask {
		if err := scratch(p, 0o755, 0, 0); err != nil {
			return nil, err
		}
	}
	for _, p := range Caches(o.User.Home, o.Build.Environment) {
		// Only where a cache is: making its parents would change what tools find.
		if st, err := os.Lstat(filepath.Join(o.Root, p)); (err == nil && st.IsDir()) || p == path.Join(o.User.Home, ".cache") {
			if err := scratch(p, 0o755, o.User.UID, o.User.GID); err != nil {
				return nil, err
			}
		}
	}
	list = append(list, machine.Mount{Source: o.Checkout, Target: o.Build.Workspace})
	slices.SortStableFunc(list, func(a, b machine.Mount) int { return strings.Count(a.Target, "/") - strings.Count(b.Target, "/") })
	return list, nil
}

// LiveError says that a confirmed live dependency is not on this machine.
type LiveError struct {
	Dependency blueprint.LiveDependency
	Err        error
}

func (e *LiveError) Error() string {
	return fmt.Sprintf("live dependency %s is not on this machine: %s %s: %v", e.Dependency.Name, e.Dependency.Kind, e.Dependency.Address, e.Err)
}

func (e *LiveError) Unwrap() error { return e.Err }

// Hint says what to do.
func (e *LiveError) Hint() string {
	if e.Dependency.Fallback != "" {
		return "connect it to this machine; else: " + e.Dependency.Fallback
	}
	return "connect it to this machine"
}

// NoUserError says that the blueprint lacks the user that a build runs as.
type NoUserError struct{ Build, User string }

func (e *NoUserError) Error() string {
	return fmt.Sprintf("build %s runs as user %s, who is not in the blueprint", e.Build, e.User)
}

// Hint says what to do.
func (e *NoUserError) Hint() string {
	return "restore the user's entry under users, or capture the build again"
}

// Identity finds the build's user and groups in the blueprint.
func Identity(b *blueprint.Blueprint, x *blueprint.Build) (blueprint.User, []uint32, error) {
	i := slices.IndexFunc(b.Users, func(u blueprint.User) bool { return u.Name == x.User })
	if i < 0 {
		return blueprint.User{}, nil, &NoUserError{x.Name, x.User}
	}
	var groups []uint32
	for _, g := range b.Groups {
		if slices.Contains(g.Members, x.User) {
			groups = append(groups, uint32(g.GID))
		}
	}
	return b.Users[i], groups, nil
}

// FailedError says that the build's own command failed.
type FailedError struct {
	Command []string
	Exit    machine.Exit
	Where   string // "on the captured machine", "on the rebuilt machine"
	// Network says what of the build's network may be why, and what to do about it.
	Network, Remedy string
}

func (e *FailedError) Error() string {
	what := "exit status " + strconv.Itoa(e.Exit.Code)
	if e.Exit.Signal != "" {
		what = e.Exit.Signal
	}
	if e.Network != "" {
		what += "; " + e.Network
	}
	return fmt.Sprintf("the build failed %s: %s: %s", e.Where, strings.Join(e.Command, " "), what)
}

// Hint says what to do; "" if only the build's own output tells.
func (e *FailedError) Hint() string { return e.Remedy }
