package machine

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestStartTime(t *testing.T) {
	a, err := startTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if n, err := strconv.ParseUint(a, 10, 64); err != nil || n == 0 {
		t.Errorf("start time %q", a)
	}
	if b, err := startTime(os.Getpid()); err != nil || a != b {
		t.Errorf("now it is %q (%v), was %q", b, err, a)
	}
	// A name with spaces and parentheses, as anyone may have.
	dir := t.TempDir()
	name := filepath.Join(dir, "a) R 1 (b")
	data, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Skip("no /bin/sleep to copy")
	}
	if err := os.WriteFile(name, data, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c, err := startTime(cmd.Process.Pid)
	if err := errors.Join(cmd.Process.Kill(), err); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // killed: its status says nothing
	mine, _ := strconv.ParseUint(a, 10, 64)
	if theirs, err := strconv.ParseUint(c, 10, 64); err != nil || theirs < mine {
		t.Errorf("a child started at %q, before its parent at %q", c, a)
	}
	if _, err := startTime(cmd.Process.Pid); err == nil {
		t.Error("a process that is gone has a start time")
	}
}

func TestLookPath(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("PATH", "/nowhere")
	dir := t.TempDir()
	for _, n := range []string{"tool", "text"} {
		mode := os.FileMode(0o755)
		if n == "text" {
			mode = 0o644
		}
		if err := os.WriteFile(filepath.Join(dir, n), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"HOME=/", "PATH=/none:" + dir, "OTHER=PATH=/x"}
	for name, want := range map[string]string{"tool": filepath.Join(dir, "tool"), "./tool": "./tool", "/bin/x": "/bin/x", "text": "", "none": ""} {
		got, err := lookPath(name, env, dir)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s is %q (%v), want %q", name, got, err, want)
		}
	}
	if _, err := lookPath("tool", env, filepath.Join(dir, "none")); err == nil {
		t.Error("a command runs in a directory that is not there")
	}
}

func TestLastLog(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{
		"": "", "plain words\n": "plain words", `{"level":"error","msg":"first"}` + "\n" + `{"level":"error","msg":"no such file"}` + "\n": "no such file", `time="x" level=error msg="exec failed"` + "\n": "exec failed", `{"level":"error"}`: `{"level":"error"}`,
	} {
		file := filepath.Join(dir, "log")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := lastLog(file); got != want {
			t.Errorf("%q ends with %q, want %q", text, got, want)
		}
	}
	if got := lastLog(filepath.Join(dir, "none")); got != "" {
		t.Errorf("no log says %q", got)
	}
}

func TestErrors(t *testing.T) {
	e := &RuncError{What: "start", Err: exec.ErrNotFound, Output: " no \n"}
	if got := e.Error(); got != "runc: start: executable file not found in $PATH: no" || !strings.Contains(e.Hint(), "apt-get install runc") || !errors.Is(e, exec.ErrNotFound) {
		t.Errorf("%q, %q", got, e.Hint())
	}
	if (&RuncError{What: "x"}).Hint() == e.Hint() {
		t.Error("every failure of runc asks to install it")
	}
	c := &CommandError{Args: []string{"make", "dist"}, What: "not found"}
	if got := c.Error(); got != `cannot start "make": not found` || c.Hint() == "" {
		t.Errorf("%q", got)
	}
}

// TestSpec: what a container is given, and what it is not.
func TestSpec(t *testing.T) {
	sp := Spec{
		Root: "/r", Hostname: "h", Args: []string{"make"}, UID: 1000, GID: 1001, Groups: []uint32{27}, Umask: 0o27, Limits: []Limit{{"RLIMIT_NOFILE", 1, 2}},
		Mounts: []Mount{{Source: "/a", Target: "/b", ReadOnly: true}, {Source: "/c", Target: "/d"}}, Devices: []Mount{{Source: "/dev/null", Target: "/dev/null"}, {Source: "/dev/none", Target: "/dev/none"}},
	}
	s, err := sp.oci("/self", "trysail-1", nil, false)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.Process.Args, []string{InitPath}) || s.Root.Path != "/r" || s.Hostname != "h" || s.Process.User.UID != 1000 || s.Process.User.GID != 1001 || *s.Process.User.Umask != 0o27 || s.Process.Rlimits[0].Hard != 2 {
		t.Errorf("process %+v", s.Process)
	}
	if c := s.Process.Capabilities; len(c.Effective) != 0 || len(c.Permitted) != 0 || len(c.Inheritable) != 0 || len(c.Ambient) != 0 {
		t.Errorf("a user who is not root has capabilities: %+v", c)
	}
	for _, bad := range []string{"CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_BOOT", "CAP_SYS_TIME", "CAP_SYSLOG", "CAP_BPF", "CAP_NET_ADMIN"} {
		if slices.Contains(s.Process.Capabilities.Bounding, bad) {
			t.Errorf("a container may have %s, which reaches the machine outside", bad)
		}
	}
	var kinds []string
	for _, n := range s.Linux.Namespaces {
		kinds = append(kinds, string(n.Type))
		if n.Path != "" {
			t.Errorf("namespace %s of somebody else: %s", n.Type, n.Path)
		}
	}
	slices.Sort(kinds)
	if !slices.Equal(kinds, []string{"ipc", "mount", "network", "pid", "uts"}) {
		t.Errorf("namespaces %q", kinds)
	}
	mounts := map[string]specs.Mount{}
	for _, m := range s.Mounts {
		mounts[m.Destination] = m
	}
	for at, opts := range map[string][]string{"/b": {"bind", "ro"}, "/d": {"bind", "rw"}, InitPath: {"bind", "ro"}, "/sys": {"ro"}, "/dev/null": {"bind", "ro"}} {
		for _, o := range opts {
			if !slices.Contains(mounts[at].Options, o) {
				t.Errorf("%s is mounted with %q, want %q", at, mounts[at].Options, opts)
			}
		}
	}
	if last := s.Mounts[len(s.Mounts)-1]; last.Destination != InitPath {
		t.Errorf("%s is mounted over process 1", last.Destination)
	}
	rules := s.Linux.Resources.Devices
	if rules[0].Allow || rules[0].Access != "rwm" {
		t.Errorf("devices are allowed before they are refused: %+v", rules[0])
	}
	var open []string
	for _, r := range rules[1:] {
		if r.Allow && strings.ContainsAny(r.Access, "rw") {
			open = append(open, r.Type+itoa(int(*r.Major))+":"+itoa(int(*r.Minor)))
		}
	}
	if !slices.Equal(open, []string{"c1:3"}) {
		t.Errorf("opened devices %q, want /dev/null alone", open)
	}
	if len(s.Linux.MaskedPaths) == 0 || len(s.Linux.ReadonlyPaths) == 0 || s.Linux.Seccomp == nil || s.Linux.Seccomp.DefaultAction == specs.ActAllow {
		t.Errorf("nothing keeps it from the kernel's interfaces: %+v", s.Linux)
	}
	host, err := Spec{HostDevices: true, NetNS: "/run/netns/x"}.oci("/self", "x", nil, false)
	if err != nil {
		t.Fatal(err)
	}
	if c := host.Process.Capabilities; len(c.Effective) != len(c.Bounding) {
		t.Errorf("root has %q of %q", c.Effective, c.Bounding)
	}
	if i := slices.IndexFunc(host.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace }); host.Linux.Namespaces[i].Path != "/run/netns/x" {
		t.Errorf("the network is another: %+v", host.Linux.Namespaces[i])
	}
}

// TestUserNamespaceSpec: root in a user namespace is nobody on this machine.
func TestUserNamespaceSpec(t *testing.T) {
	m, err := mapIDs(7, []uint32{0, 5, 70000, 1234567, 70000}, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := &view{ids: m, root: "/view/root", mounts: []Mount{{Source: "/view/mount-0", Target: "/b"}}}
	s, err := Spec{Root: "/r", NoNewPrivileges: true}.oci("/self", "x", v, false)
	if err != nil {
		t.Fatal(err)
	}
	want := []specs.LinuxIDMapping{{ContainerID: 0, HostID: m.base, Size: 65536}, {ContainerID: 70000, HostID: m.base + 65536, Size: 1}, {ContainerID: 1234567, HostID: m.base + 65537, Size: 1}}
	if !slices.Equal(s.Linux.UIDMappings, want) || !slices.Equal(s.Linux.GIDMappings, want) {
		t.Errorf("maps %v and %v, want %v", s.Linux.UIDMappings, s.Linux.GIDMappings, want)
	}
	if !slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace }) || s.Root.Path != "/view/root" || !s.Process.NoNewPrivileges {
		t.Errorf("%+v in %+v", s.Process, s.Root)
	}
}

func TestMapIDs(t *testing.T) {
	seen := map[uint32]bool{}
	for n := range uint32(100) {
		m, err := mapIDs(n, nil, [][2]uint64{{firstID, 40 * idsPerContainer}, {lastID, 1 << 20}})
		if err != nil || m.base < firstID+40*idsPerContainer || uint64(m.base)+idsPerContainer > lastID {
			t.Errorf("session %d: base %#x, %v", n, m.base, err)
		}
		seen[m.base] = true
	}
	if len(seen) < 60 {
		t.Errorf("100 sessions share %d ranges", len(seen))
	}
	if _, err := mapIDs(1, nil, [][2]uint64{{0, 1 << 32}}); err == nil {
		t.Error("a range that somebody has was given away")
	}
	many := make([]uint32, 301)
	for i := range many {
		many[i] = 100000 + 2*uint32(i)
	}
	if _, err := mapIDs(1, many, nil); err == nil {
		t.Error("more users than the kernel maps")
	}
}

func TestAtLeast(t *testing.T) {
	for release, want := range map[string]bool{"6.1.0-28-amd64": true, "6.18.44": true, "7.0": true, "6.0.9": false, "5.19.1": false, "6": false, "": false} {
		if got := atLeast(release, 6, 1); got != want {
			t.Errorf("%q: %v, want %v", release, got, want)
		}
	}
}

func TestParseSubIDs(t *testing.T) {
	got := parseSubIDs([]byte("ann:100000:65536\n# no\nbob:x:1\n\n4242:4294967295:1\nx:1\ny:99999999999:1\n"))
	if want := [][2]uint64{{100000, 65536}, {4294967295, 1}}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestStaticSelf(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	got, err := staticSelf()
	if err == nil && got != self {
		t.Errorf("it is %s, not %s", got, self)
	}
	if err != nil && !strings.Contains(err.Error(), "CGO_ENABLED=0") {
		t.Errorf("the error says nothing of what to do: %v", err)
	}
}
