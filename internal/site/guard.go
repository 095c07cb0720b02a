package site

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
)

// Found is what a host says of itself, and ssh of the way there.
type Found struct {
	Name string
	// Where ssh goes, after its own configuration: it must be what the file says.
	Host, User, KeyAlias string
	Port                 int

	Marker    string   // what stands in it
	Safe      bool     // it is root's, and nobody else may write it
	Boot      string   // the kernel's own name for this run of it
	Space     string   // its process namespace: containers of one kernel are machines too
	Addresses []string // IPv4
	Fleet     bool     // it works for a fleet, or is control of one
	Busy      string   // another drill has its things there: since which run of the kernel
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
	case !bootID.MatchString(f.Boot) || !spaceID.MatchString(f.Space):
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
		return refuse("take a machine that builds for nobody; of one that was retired, remove "+identity+" once its agent has ended", "%s works for a fleet", t.SSH)
	case f.Busy == f.Boot:
		return refuse("wait for the other drill; what it left goes by itself once its time is up", "another drill has its things on %s (%s)", t.SSH, Dir)
	case f.Busy != "":
		return refuse("on that host, as root: rm -r "+Dir, "a drill was on %s when that host went down, and its things are there (%s)", t.SSH, Dir)
	}
	for _, o := range before {
		if f.Boot == o.Boot && f.Space == o.Space {
			return refuse("each machine on a host of its own", "%s and %s are one machine", o.Name, t.Name)
		}
	}
	if !slices.Contains(f.Addresses, t.Address) {
		return refuse("address: one of "+strings.Join(f.Addresses, ", "), "%s is no address of %s", t.Address, t.SSH)
	}
	return nil
}

// What a kernel says of itself; nothing else goes into a command.
var (
	bootID  = regexp.MustCompile(`^[0-9a-f-]{36}$`)
	spaceID = regexp.MustCompile(`^pid:\[[0-9]+\]$`)
)

// identity is where an agent has its own, if nobody told it otherwise.
const identity = "/var/lib/trysail/agent/identity.json"

// question is what a host is asked. It changes nothing there.
const question = `
export LC_ALL=C
echo "marker $(head -c 100 ` + Marker + ` 2>/dev/null)"
echo "safe $(stat -L -c '%u %a %F' ` + Marker + ` 2>/dev/null)"
echo "boot $(cat /proc/sys/kernel/random/boot_id)"
echo "space $(readlink /proc/self/ns/pid)"
for f in ` + identity + ` /var/lib/trysail/control/authority.key; do [ ! -e $f ] || echo fleet; done
for c in /proc/[0-9]*/cmdline; do
	case "$(tr '\0' ' ' 2>/dev/null <$c)" in
	*trysail*' agent '* | *trysail*' serve '*) echo fleet ;;
	esac
done
[ ! -e ` + Dir + ` ] || echo "busy $(cat ` + Dir + `/boot 2>/dev/null || echo unknown)"
last=
while read -r a b c; do
	case "$a" in
	'|--') last=$b ;;
	/32) [ "$b $c" != "host LOCAL" ] || echo "address $last" ;;
	esac
done </proc/net/fib_trie
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
			f.Busy = cmp.Or(value, "unknown")
		case "address":
			if ip := address(value); ip.IsValid() && !ip.IsLoopback() && !slices.Contains(f.Addresses, value) {
				f.Addresses = append(f.Addresses, value)
			}
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
	ctx, cancel := context.WithTimeout(ctx, asking)
	defer cancel()
	out, err := h.run(h.ssh(ctx, t, []string{"-G"}), nil)
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
	answer, err := h.run(h.ssh(ctx, t, nil, "sh"), strings.NewReader(question))
	if err != nil {
		return f, &HostsError{t.Name + ": " + err.Error(), "ssh " + t.SSH + " must work by itself: without a password, its host key known"}
	}
	f.read(answer)
	return f, nil
}

// asking is how long a host may take to say who it is.
const asking = 30 * time.Second

// ssh is the command that reaches a host. What it is to run there is no word of the
// outside.
func (h *Hosts) ssh(ctx context.Context, t Target, flags []string, command ...string) *exec.Cmd {
	user, host, port, _ := t.split() // it was parsed before
	args := append([]string{}, flags...)
	if h.Config != "" {
		args = append(args, "-F", h.Config)
	}
	// Whoever is root on a host of a drill is to reach nothing here: neither the keys in
	// the caller's SSH agent nor what the caller forwards to other hosts.
	args = append(args, "-o", "ForwardAgent=no", "-o", "ForwardX11=no", "-o", "ClearAllForwardings=yes", "-o", "PermitLocalCommand=no")
	args = append(args, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=10",
		"-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3", "-o", "ControlPath=none")
	if port != 22 {
		args = append(args, "-p", strconv.Itoa(port))
	}
	args = append(args, "-l", user, "--", host)
	return exec.CommandContext(ctx, "ssh", append(args, command...)...)
}

func (h *Hosts) run(cmd *exec.Cmd, in *strings.Reader) (string, error) {
	out, said := &tail{most: mostSaid}, &tail{most: 4096}
	cmd.Stdout, cmd.Stderr = out, said
	if in != nil {
		cmd.Stdin = in
	}
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: %s", err, said)
	}
	return string(out.data), nil
}

// mostSaid bounds what a host says of itself, in bytes.
const mostSaid = 1 << 20

// tail keeps the end of what a host says, of which nobody knows how much it is or what
// it does to a terminal.
type tail struct {
	most int
	mu   sync.Mutex
	data []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p...)
	t.data = t.data[max(0, len(t.data)-t.most):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return readable(string(t.data))
}

// readable leaves nothing in a text that a terminal would obey.
func readable(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s))
}
