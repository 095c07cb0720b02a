// Package site plays a drill on real hosts, over SSH, where package lab plays it on
// one.
//
// A host is touched only if it carries a marker: a file that its people put there, with
// the word that the drill was given. Before anything is copied to any host, each is
// asked who it is ([Guard]): one without the marker is refused, and so are the machine
// that the drill is run from, a name that leads elsewhere than it says, two names of
// one machine, and a machine that works for a fleet.
//
// What is copied and started there asks once more whether it is that host.
//
// On each host runs this program, as a worker ([Serve]): a lab of one machine, in the
// host's own network (lab.Alone), which does what it is told over the standard input
// and output of ssh. What breaks is that machine, with its own disk and its own
// processes, and what goes between it and the others; the host's own power and disks
// are nobody's to break. Beside the worker stands a reaper ([Reap]): if the worker
// ends, however it ends, or is there for longer than the drill may take, it takes
// everything away by the journal that every undo was written to before, and itself. The
// worker ends too when no heartbeat comes for [Silence].
package site

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"trysail/internal/strict"
)

// Marker is the file that lets a host be broken.
const Marker = "/etc/trysail-drill"

// Dir is where a drill has its things on a host.
const Dir = "/var/lib/trysail-drill"

// Hosts says which real hosts a drill is played on.
type Hosts struct {
	Nonce string `yaml:"nonce"`
	// Config is a file for ssh -F; without it ssh reads its own.
	Config string   `yaml:"ssh_config"`
	Hosts  []Target `yaml:"hosts"`
}

// Target is one of them.
type Target struct {
	Name    string `yaml:"name"`    // in the scenario: of a build machine, control, control2, control3
	SSH     string `yaml:"ssh"`     // root@build1.example.org, root@10.0.0.7:2222
	Address string `yaml:"address"` // IPv4, by which the others reach it; without it, what ssh names
}

const (
	maxHosts = 64 << 10 // bytes of the file
	seeDocs  = "docs/drills.md has an example, under Real hosts"
)

var nonce = regexp.MustCompile(`^[A-Za-z0-9_-]{8,64}$`)

// ParseHosts reads the file strictly.
func ParseHosts(file string, data []byte) (*Hosts, error) {
	if err := strict.Text(file, data, maxHosts, seeDocs); err != nil {
		return nil, err
	}
	h := &Hosts{}
	if err := strict.YAML(file, data, h, seeDocs); err != nil {
		return nil, err
	}
	fail := func(at, remedy, format string, args ...any) error {
		return &strict.Error{File: file, Line: strict.Line(data, at), What: fmt.Sprintf(format, args...), Remedy: remedy}
	}
	if !nonce.MatchString(h.Nonce) {
		return nil, fail("nonce", "8 to 64 letters and digits that you think of for this drill", "%q is no nonce", h.Nonce)
	}
	if len(h.Hosts) == 0 {
		return nil, fail("hosts", "hosts: [{name: control, ssh: root@10.0.0.5}]", "no hosts")
	}
	names, addresses := map[string]bool{}, map[string]string{}
	for i := range h.Hosts {
		t := &h.Hosts[i]
		at := fmt.Sprintf("hosts[%d]", i)
		_, host, _, err := t.split()
		switch {
		case t.Name == "" || names[t.Name]:
			return nil, fail(at+".name", "name each machine of the scenario once", "%q", t.Name)
		case err != nil:
			return nil, fail(at+".ssh", "ssh: root@10.0.0.7, or root@build1.example.org:2222", "%s", err)
		}
		if t.Address == "" {
			t.Address = host
		}
		switch other, ip := addresses[t.Address], address(t.Address); {
		case !ip.IsValid():
			return nil, fail(at+".address", "address: 10.0.0.7 (IPv4), by which the other hosts reach it", "%q is no address", t.Address)
		case ip.IsLoopback():
			return nil, fail(at+".address", "the address by which the other hosts reach it", "%s is every host's own", t.Address)
		case other != "":
			return nil, fail(at+".address", "each machine on a host of its own", "%s and %s are one host", other, t.Name)
		}
		names[t.Name], addresses[t.Address] = true, t.Name
	}
	return h, nil
}

// address reads an IPv4 address; it is not valid if it is none. There is one way to
// write one, so that two that are equal look so.
func address(s string) netip.Addr {
	ip, err := netip.ParseAddr(s)
	if err != nil || !ip.Is4() || ip.String() != s {
		return netip.Addr{}
	}
	return ip
}

// split takes what ssh is told apart: a user, a host as people write it, a port.
func (t Target) split() (user, host string, port int, err error) {
	user, rest, ok := strings.Cut(t.SSH, "@")
	host, text, two := strings.Cut(rest, ":")
	port = 22
	if two {
		port, err = strconv.Atoi(text)
	}
	switch {
	case !ok || user != "root":
		return "", "", 0, fmt.Errorf("%q does not begin with root@: a drill makes namespaces and mounts", t.SSH)
	case host == "" || strings.HasPrefix(host, "-") || strings.ContainsAny(host, " \t/@"):
		return "", "", 0, fmt.Errorf("%q names no host", t.SSH)
	case err != nil || port < 1 || port > 65535:
		return "", "", 0, fmt.Errorf("%q is no port", text)
	}
	return user, host, port, nil
}

// Names are those of the machines, in the file's order.
func (h *Hosts) Names() []string {
	var list []string
	for _, t := range h.Hosts {
		list = append(list, t.Name)
	}
	return list
}

// Covers refuses hosts that are not those of a scenario: each of its machines needs
// one, and one too many would be broken for nothing.
func (h *Hosts) Covers(machines []string) error {
	have := map[string]bool{}
	for _, t := range h.Hosts {
		have[t.Name] = true
	}
	for _, m := range machines {
		if !have[m] {
			return &HostsError{"the scenario has a machine " + m + ", and no host is named for it", "add {name: " + m + ", ssh: root@…} to hosts"}
		}
		delete(have, m)
	}
	for name := range have {
		return &HostsError{"a host is named for " + name + ", and the scenario has no such machine", "take it out of hosts"}
	}
	return nil
}

// HostsError says what is wrong with hosts for this drill.
type HostsError struct{ What, Remedy string }

func (e *HostsError) Error() string { return e.What }

// Hint says what to do.
func (e *HostsError) Hint() string { return e.Remedy }
