package build

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"trysail/blueprint"
	"trysail/internal/machine"
	"trysail/internal/tree"
)

// Permits is what this machine lets builds reach of it. A blueprint names what it
// wants; the machine decides. Without Allow a build gets harmless devices only.
type Permits struct {
	Allow blueprint.Permissions
	// Private are files and directories of this machine that no permission opens:
	// the state directory, the depot.
	Private []string
}

// Refusal is one live dependency that this machine does not open to builds.
type Refusal struct {
	Dependency blueprint.LiveDependency
	Why        string
	Never      bool // no permission opens it
}

// RefusedError says what a blueprint asks for and this machine does not open to builds.
type RefusedError struct{ List []Refusal }

func (e *RefusedError) Error() string {
	var list []string
	for _, r := range e.List {
		list = append(list, fmt.Sprintf("live dependency %s, %s %s (%s)", r.Dependency.Name, r.Dependency.Kind, r.Dependency.Address, r.Why))
	}
	return "this machine does not open to builds: " + strings.Join(list, "; ")
}

// Hint says what to type, or that nothing helps.
func (e *RefusedError) Hint() string {
	var ask []blueprint.LiveDependency
	var no []string
	for _, r := range e.List {
		if r.Never {
			no = append(no, r.Dependency.Name)
		} else {
			ask = append(ask, r.Dependency)
		}
	}
	var hints []string
	if len(no) > 0 {
		hints = append(hints, "remove "+strings.Join(no, ", ")+" from live_dependencies: no permission opens it")
	}
	if len(ask) > 0 {
		hints = append(hints, "look at what it is; to open it to builds on this machine, add "+blueprint.Flags(ask...))
	}
	return strings.Join(hints, "; ")
}

// Never tells whether no permission of any machine would open one of them.
func (e *RefusedError) Never() bool {
	return slices.ContainsFunc(e.List, func(r Refusal) bool { return r.Never })
}

// Check refuses, before anything is made, what this machine does not open. What is
// not there is no refusal: [Run] names it.
func (p Permits) Check(list []blueprint.LiveDependency) error {
	_, err := p.open(list, true)
	var gone *LiveError
	if errors.As(err, &gone) {
		return nil
	}
	return err
}

// opened is a live dependency that was checked. The descriptor is what was checked,
// and what is mounted: a path could lead somewhere else a moment later.
type opened struct {
	blueprint.LiveDependency
	file *os.File // O_PATH
	info *tree.Info
}

func closeAll(list []opened) {
	for _, o := range list {
		o.file.Close()
	}
}

// open opens confirmed dependencies that are files of this machine, or refuses.
// With only they are closed again.
func (p Permits) open(list []blueprint.LiveDependency, only bool) (found []opened, err error) {
	root, err := tree.Open("/") // below it no link is followed
	if err != nil {
		return nil, err
	}
	defer root.Close()
	defer func() {
		if only || err != nil {
			closeAll(found)
			found = nil
		}
	}()
	refused := &RefusedError{}
	var missing error
	for _, l := range list {
		if l.Proposed || !slices.Contains([]string{"device", "unix", "file"}, l.Kind) || strings.HasPrefix(l.Address, "@") { // an abstract socket is no file
			continue
		}
		if why := p.private(l); why != "" {
			refused.List = append(refused.List, Refusal{l, why, true})
			continue
		}
		f, info, err := root.Handle(strings.TrimPrefix(l.Address, "/"))
		if err != nil {
			var link *tree.LinkError
			switch {
			case errors.As(err, &link):
				refused.List = append(refused.List, Refusal{l, "it is reached through a link, " + link.Path + " to " + link.Target + ": name what it leads to", true})
			case errors.Is(err, fs.ErrNotExist) && l.Kind != "device" && !p.Allow.Allow(l):
				refused.List = append(refused.List, Refusal{l, "files and sockets belong to this machine", false})
			default:
				if missing == nil {
					missing = &LiveError{l, err}
				}
			}
			continue
		}
		found = append(found, opened{l, f, info})
		switch g, why := gradeFile(l.Kind, info); {
		case g == never:
			refused.List = append(refused.List, Refusal{l, why, true})
		case g == needsPermission && !p.Allow.Allow(l):
			refused.List = append(refused.List, Refusal{l, why, false})
		}
	}
	if len(refused.List) > 0 {
		return found, refused
	}
	return found, missing
}

// gradeFile decides on what was opened.
func gradeFile(kind string, info *tree.Info) (grade, string) {
	st := info.Sys().(*syscall.Stat_t)
	switch mode := info.Mode(); {
	case kind == "device" && mode&fs.ModeDevice == 0, kind == "unix" && mode&fs.ModeSocket == 0, kind == "file" && !mode.IsRegular() && !mode.IsDir():
		return never, "it is a " + tree.Kind(mode) + ", and the blueprint says " + kind
	case kind == "device":
		return readDevice(st.Mode, st.Rdev).grade()
	case kind == "unix":
		return needsPermission, "a socket speaks to a service of this machine; a build that reaches the socket of a container engine can become root"
	}
	return needsPermission, "files belong to this machine"
}

// private says why no permission opens a path; "" if one may. What holds such a path is
// as private as what is below it.
func (p Permits) private(l blueprint.LiveDependency) string {
	touches := func(dir string) bool { return below(l.Address, dir) || below(dir, l.Address) }
	for _, dir := range p.Private {
		real, err := filepath.EvalSymlinks(dir)
		if touches(dir) || err == nil && touches(real) {
			return "Trysail's keys, secrets and artifacts are there"
		}
	}
	if l.Kind != "device" && (touches("/dev") || touches("/proc") || touches("/sys")) {
		return "it is an interface of this machine's kernel"
	}
	for _, secret := range secretPlaces() {
		if touches(secret) {
			return "this machine and its people have their passwords, keys and sessions there"
		}
	}
	for _, part := range strings.Split(l.Address, "/") {
		if slices.Contains([]string{".ssh", ".gnupg", ".aws", ".kube", ".docker"}, part) || strings.HasPrefix(part, "ssh-") && l.Kind == "unix" || strings.HasPrefix(part, "S.gpg-agent") {
			return "people have their keys there"
		}
	}
	return ""
}

// secretPlaces are where every Linux machine has what makes somebody root or another.
func secretPlaces() []string {
	return []string{
		"/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/security/opasswd", "/etc/sudoers", "/etc/sudoers.d", "/etc/ssh", "/etc/ssl/private", "/etc/krb5.keytab",
		"/root", "/run/user", "/run/systemd", "/run/dbus", "/run/udev", "/run/runc", "/run/credentials", "/var/lib/dbus", "/var/spool/cron",
	}
}

// below tells whether a path is a directory or below it. Both are clean.
func below(p, dir string) bool {
	dir = path.Clean(dir)
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}

// live opens to the build what the blueprint declares, somebody confirmed and this
// machine permits.
func (o *Options) live(sp *machine.Spec) error {
	if o.Host {
		return nil
	}
	found, err := o.Permits.open(o.Live, false)
	if err != nil {
		return err
	}
	defer closeAll(found)
	for i, l := range found {
		// Mounted from the descriptor, in a directory that only root may enter: the
		// container's own mount is made later, by a path.
		at, err := o.Session.MkdirAll(0o700, o.Name, "live", fmt.Sprint(i))
		if err != nil {
			return err
		}
		at = filepath.Join(at, "it")
		if l.info.IsDir() {
			err = os.Mkdir(at, 0o700)
		} else {
			err = os.WriteFile(at, nil, 0o600)
		}
		if err != nil {
			return err
		}
		if err := o.Session.Mount(fmt.Sprintf("/proc/self/fd/%d", l.file.Fd()), at, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		now, err := tree.Lstat(at)
		if err != nil {
			return err
		}
		if !now.Same(l.info) {
			return fmt.Errorf("live dependency %s: something else than %s was mounted", l.Name, l.Address)
		}
		m := machine.Mount{Source: at, Target: l.Address, ReadOnly: true}
		if l.Kind == "device" {
			sp.Devices = append(sp.Devices, m)
		} else {
			sp.Mounts = append(sp.Mounts, m)
		}
	}
	return nil
}
