package site

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// Found is what a host says of itself, and ssh of the way there.
type Found struct {
	Name string
	// Where ssh goes, after its own configuration: it must be what the file says.
	Host, User, KeyAlias string
	Port                 int

	Marker string // what stands in it
	Safe   bool   // it is root's, and nobody else may write it
	Boot   string // the kernel's own name for this run of it
	Space  string // its process namespace: containers of one kernel are machines too
	Fleet  bool   // it works for a fleet, or is control of one
	Busy   bool   // another drill has its things there
}

// Guard refuses a host that may not be broken, or is not the one that is meant. self
// is the machine from which the drill is run, and before are those found good already.
func Guard(t Target, word string, f, self Found, before []Found) error {
	_, host, port, err := t.split()
	if err != nil {
		return err
	}
	refuse := func(remedy, format string, args ...any) error {
		return &HostsError{t.Name + ": " + fmt.Sprintf(format, args...), remedy}
	}
	switch {
	case f.Host != host || f.Port != port || f.User != "root" || f.KeyAlias != "":
		return refuse(fmt.Sprintf("write where it really is: ssh: %s@%s:%d", f.User, f.Host, f.Port),
			"%s is an alias: ssh goes to %s@%s:%d", t.SSH, f.User, f.Host, f.Port)
	case f.Boot == "" || f.Space == "":
		return refuse("log in there and look: is it Linux, with /proc?", "the host does not say who it is")
	case f.Boot == self.Boot && f.Space == self.Space:
		return refuse("run the drill from a machine that takes no part in it", "%s is this machine, from which the drill is run", t.SSH)
	case f.Marker == "":
		return refuse("on that host, as root, if it may be broken: echo "+word+" > "+Marker, "%s carries no marker (%s)", t.SSH, Marker)
	case f.Marker != word:
		return refuse("on that host, as root, if it may be broken in this drill: echo "+word+" > "+Marker, "the marker of %s is of another drill", t.SSH)
	case !f.Safe:
		return refuse("on that host: chown root:root "+Marker+"; chmod 644 "+Marker, "the marker of %s could have been written by anybody", t.SSH)
	case f.Fleet:
		return refuse("take a machine that builds for nobody, or retire it first: trysail fleet retire", "%s works for a fleet", t.SSH)
	case f.Busy:
		return refuse("wait for the other drill; what it left goes by itself once its time is up", "another drill has its things on %s (%s)", t.SSH, Dir)
	}
	for _, o := range before {
		if f.Boot == o.Boot && f.Space == o.Space {
			return refuse("each machine on a host of its own", "%s and %s are one machine", o.Name, t.Name)
		}
	}
	return nil
}

// question is what a host is asked. It changes nothing there.
const question = `
echo "marker $(head -c 100 ` + Marker + ` 2>/dev/null)"
echo "safe $(stat -L -c '%u %a %F' ` + Marker + ` 2>/dev/null)"
echo "boot $(cat /proc/sys/kernel/random/boot_id)"
echo "space $(readlink /proc/self/ns/pid)"
for f in /var/lib/trysail/agent/identity.json /var/lib/trysail/control/authority.key; do [ ! -e $f ] || echo fleet; done
[ ! -e ` + Dir + ` ] || echo busy
`

func (f *Found) read(answer string) {
	for line := range strings.Lines(answer) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch key {
		case "marker":
			f.Marker = strings.TrimSpace(value)
		case "safe":
			owner, rest, _ := strings.Cut(value, " ")
			mode, kind, _ := strings.Cut(rest, " ")
			bits, err := strconv.ParseUint(mode, 8, 32)
			f.Safe = err == nil && owner == "0" && bits&0o022 == 0 && strings.HasPrefix(kind, "regular")
		case "boot":
			f.Boot = value
		case "space":
			f.Space = value
		case "fleet":
			f.Fleet = true
		case "busy":
			f.Busy = true
		}
	}
}

// Self is this machine.
func Self() (Found, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Found{}, err
	}
	space, err := os.Readlink("/proc/self/ns/pid")
	return Found{Boot: strings.TrimSpace(string(boot)), Space: space}, err
}

// Look asks each host who it is, and refuses the first that may not be broken. It
// changes nothing anywhere.
func (h *Hosts) Look(ctx context.Context, progress func(string)) ([]Found, error) {
	self, err := Self()
	if err != nil {
		return nil, err
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var good []Found
	for _, t := range h.Hosts {
		progress("asking " + t.SSH + " who it is")
		for _, a := range own {
			if n, ok := a.(*net.IPNet); ok && n.IP.String() == t.Address {
				return nil, &HostsError{t.Name + ": " + t.Address + " is an address of this machine, from which the drill is run", "run the drill from a machine that takes no part in it"}
			}
		}
		f, err := h.found(ctx, t)
		if err != nil {
			return nil, err
		}
		if err := Guard(t, h.Nonce, f, self, good); err != nil {
			return nil, err
		}
		good = append(good, f)
	}
	return good, nil
}

func (h *Hosts) found(ctx context.Context, t Target) (Found, error) {
	f := Found{Name: t.Name}
	out, err := h.run(ctx, h.ssh(ctx, t, []string{"-G"}), nil)
	if err != nil {
		return f, err
	}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch key {
		case "hostname":
			f.Host = value
		case "user":
			f.User = value
		case "port":
			if f.Port, err = strconv.Atoi(value); err != nil {
				return f, fmt.Errorf("ssh -G says port %q", value)
			}
		case "hostkeyalias":
			f.KeyAlias = value
		}
	}
	answer, err := h.run(ctx, h.ssh(ctx, t, nil, "sh"), strings.NewReader(question))
	if err != nil {
		return f, &HostsError{t.Name + ": " + err.Error(), "ssh " + t.SSH + " must work by itself: without a password, its host key known"}
	}
	f.read(answer)
	return f, nil
}

// ssh is the command that reaches a host. What it is to run there is no word of the
// outside.
func (h *Hosts) ssh(ctx context.Context, t Target, flags []string, command ...string) *exec.Cmd {
	user, host, port, _ := t.split() // it was parsed before
	args := append([]string{}, flags...)
	if h.Config != "" {
		args = append(args, "-F", h.Config)
	}
	args = append(args, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=10",
		"-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3", "-o", "ControlPath=none")
	if port != 22 {
		args = append(args, "-p", strconv.Itoa(port))
	}
	args = append(args, "-l", user, "--", host)
	return exec.CommandContext(ctx, "ssh", append(args, command...)...)
}

func (h *Hosts) run(_ context.Context, cmd *exec.Cmd, in *strings.Reader) (string, error) {
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if in != nil {
		cmd.Stdin = in
	}
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	return out.String(), nil
}
