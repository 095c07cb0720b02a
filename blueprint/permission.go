package blueprint

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Permission names one live dependency that a machine opens to builds. Whoever
// administers the machine gives it; a blueprint cannot.
type Permission struct {
	Kind    string // tcp, udp, unix, device or file
	Address string
}

// Permissions are all that a machine gives.
type Permissions []Permission

// ParsePermission reads KIND=ADDRESS, such as device=/dev/bus/usb/001/004 or
// tcp=licence.example.com:27000. The error says what is wrong with it.
func ParsePermission(text string) (Permission, error) {
	kind, address, ok := strings.Cut(text, "=")
	if !ok {
		return Permission{}, fmt.Errorf("%q is not KIND=ADDRESS, such as device=/dev/bus/usb/001/004", text)
	}
	var err error
	switch kind {
	case "tcp", "udp":
		if i := strings.LastIndexByte(address, ':'); i < 1 || i == len(address)-1 {
			err = errors.New("name a host and a port, HOST:PORT")
		}
	case "unix", "device", "file":
		if !path.IsAbs(address) || path.Clean(address) != address || address == "/" {
			err = errors.New("name an absolute path without . and .. in it")
		}
	default:
		err = errors.New("the kind is tcp, udp, unix, device or file")
	}
	if err == nil && !plain(address) {
		err = errors.New("the address is not one line of text")
	}
	if err != nil {
		return Permission{}, fmt.Errorf("permission %q: %w", text, err)
	}
	return Permission{kind, address}, nil
}

// String is the form that [ParsePermission] reads.
func (p Permission) String() string { return p.Kind + "=" + p.Address }

// Permission is the one that this dependency needs.
func (l *LiveDependency) Permission() Permission { return Permission{l.Kind, l.Address} }

// Remote tells whether the dependency is reached over a network.
func (l *LiveDependency) Remote() bool { return l.Kind == "tcp" || l.Kind == "udp" }

// Allow tells whether a dependency is among what the machine gives. Host names
// have no case; everything else is compared as it is written.
func (p Permissions) Allow(l LiveDependency) bool {
	return slices.ContainsFunc(p, func(x Permission) bool {
		return x.Kind == l.Kind && (x.Address == l.Address || l.Remote() && strings.EqualFold(x.Address, l.Address))
	})
}

// Remote sorts confirmed dependencies on a network into those that the machine
// gives to builds and those that it does not.
func (p Permissions) Remote(list []LiveDependency) (open, closed []LiveDependency) {
	for _, l := range list {
		switch {
		case !l.Remote() || l.Proposed:
		case p.Allow(l):
			open = append(open, l)
		default:
			closed = append(closed, l)
		}
	}
	return open, closed
}

// Flags are what to type to give permission for these dependencies.
func Flags(list ...LiveDependency) string {
	var flags []string
	for _, l := range list {
		flags = append(flags, "--allow "+l.Kind+"="+quote(l.Address))
	}
	return strings.Join(flags, " ")
}
