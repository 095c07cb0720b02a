package site

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/rpc"
	"net/rpc/jsonrpc"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"trysail/drill"
	"trysail/internal/clock"
	"trysail/internal/lab"
	"trysail/internal/machine"
)

// Site is real hosts as the place of a drill.
type Site struct {
	hosts  *Hosts
	within time.Duration
	log    *slog.Logger
	n      *machine.Session

	mu       sync.Mutex
	machines map[string]*remote
	order    []*remote
	jump     time.Duration
	left     []string
}

// remote is the machine of one host.
type remote struct {
	site   *Site
	name   string
	target Target
	cmd    *exec.Cmd
	said   *tail
	client *rpc.Client
}

// Open looks at the hosts, and makes a site of those that may be broken: nothing is on
// them yet. within is how long a drill may take: then each host takes everything away
// by itself.
func Open(ctx context.Context, hosts *Hosts, st *machine.State, within time.Duration, log *slog.Logger, progress func(string)) (*Site, error) {
	if _, err := hosts.Look(ctx, progress); err != nil {
		return nil, err
	}
	n, err := st.Begin()
	if err != nil {
		return nil, err
	}
	s := &Site{hosts: hosts, within: within, log: log, n: n, machines: map[string]*remote{}}
	desk := s.desk()
	if err := errors.Join(os.Mkdir(desk, 0o700), os.WriteFile(filepath.Join(desk, clock.Marker), []byte(n.ID+"\n"), 0o600), s.setClock()); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return s, nil
}

func (s *Site) desk() string { return s.n.Path("desk") }

func (s *Site) clockFile() string { return s.n.Path("clock") }

func (s *Site) setClock() error { return clock.Write(s.clockFile(), clock.Set{Jump: s.jump}) }

// tail keeps the end of what a hand says.
type tail struct {
	mu   sync.Mutex
	data []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p...)
	t.data = t.data[max(0, len(t.data)-4096):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.data))
}

// pipe is both ends of a hand's ssh.
type pipe struct {
	io.Reader
	io.WriteCloser
}

// Machine copies this program to its host and makes the machine there.
func (s *Site) Machine(spec lab.HostSpec) (lab.Machine, error) {
	i := slices.IndexFunc(s.hosts.Hosts, func(t Target) bool { return t.Name == spec.Name })
	if i < 0 {
		return nil, fmt.Errorf("no host is named for %s", spec.Name)
	}
	m := &remote{site: s, name: spec.Name, target: s.hosts.Hosts[i], said: &tail{}}
	if err := m.begin(); err != nil {
		return nil, fmt.Errorf("%s: %w", m.target.SSH, err)
	}
	s.mu.Lock()
	s.machines[m.name], s.order = m, append(s.order, m)
	jump := s.jump
	s.mu.Unlock()
	_, _, port, _ := m.target.split()
	place := lab.Place{Address: m.target.Address, SSH: port}
	for _, t := range s.hosts.Hosts {
		if t.Name != m.name {
			place.Peers = append(place.Peers, t.Address)
		}
	}
	return m, m.call("Make", Make{place, spec, jump}, &None{})
}

// begin lays the program before the host and starts a hand.
func (m *remote) begin() error {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	program := Dir + "/trysail"
	// Only the first drill makes the directory.
	copied := m.site.hosts.ssh(context.Background(), m.target, nil, "umask 077 && mkdir "+Dir+" && cat > "+program+" && chmod 700 "+program)
	copied.Stdin = self
	if out, err := copied.CombinedOutput(); err != nil {
		return fmt.Errorf("copy this program there: %w: %s", err, bytes.TrimSpace(out))
	}
	m.cmd = m.site.hosts.ssh(context.Background(), m.target, nil, program+" --state "+Dir+"/state drill hand "+m.site.within.String())
	m.cmd.Stderr = m.said
	in, err := m.cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := m.cmd.Start(); err != nil {
		return err
	}
	m.client = jsonrpc.NewClient(pipe{out, in})
	return nil
}

// patience is how long a host may take for what it is told.
const patience = 2 * time.Minute

// call tells the hand to do something.
func (m *remote) call(what string, args, answer any) error {
	c := m.client.Go("Hand."+what, args, answer, make(chan *rpc.Call, 1))
	select {
	case <-c.Done:
		if c.Error == nil {
			return nil
		}
		if errors.Is(c.Error, rpc.ErrShutdown) || errors.Is(c.Error, io.ErrUnexpectedEOF) {
			return fmt.Errorf("the connection to %s is lost: %s", m.target.SSH, m.said)
		}
		return c.Error
	case <-time.After(patience):
		return fmt.Errorf("%s does not answer: %s", m.target.SSH, what)
	}
}

// Service is no part of a site.
func (s *Site) Service(context.Context, drill.Service, string) (lab.Machine, error) {
	return nil, &HostsError{"a drill on real hosts has no services of its own", "leave world.services out: the release uses those that the team has"}
}

// Get gives a machine by name; nil if there is none.
func (s *Site) Get(name string) lab.Machine {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.machines[name]; m != nil {
		return m
	}
	return nil
}

// Now is the time on clocks that are right.
func (s *Site) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.jump)
}

// Jump lets time pass on the clocks of all machines.
func (s *Site) Jump(d time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jump += d
	errs := []error{s.setClock()}
	for _, m := range s.order {
		errs = append(errs, m.call("Jump", d, &None{}))
	}
	return errors.Join(errs...)
}

// Dial connects from this machine.
func (s *Site) Dial(ctx context.Context, d *net.Dialer, address string) (net.Conn, error) {
	return d.DialContext(ctx, "tcp4", address)
}

// Command is trysail on this machine, with the drill's clock.
func (s *Site) Command(ctx context.Context, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return exec.CommandContext(ctx, self, append([]string{"--state", s.desk(), "--drill-clock", s.clockFile()}, args...)...), nil
}

// Clone is of services.
func (s *Site) Clone(context.Context, string, string) error {
	return errors.New("a drill on real hosts has no services of its own")
}

// Recover would need the ledger of one host on another.
func (s *Site) Recover(string, string) (string, error) {
	return "", errors.New("control recover is not available on real hosts: copy the ledger yourself, as docs/fleet.md says")
}

// Scratch goes with the site.
func (s *Site) Scratch() string { return s.n.Dir }

// Own is what is left on this machine: nothing of a site is ever made here.
func (s *Site) Own([]string) []string { return nil }

// Left is what was left on the hosts when the site was closed.
func (s *Site) Left() []string { return s.left }

// Close turns every machine off, takes everything away, and looks whether each host
// is rid of it.
func (s *Site) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for _, m := range s.order {
		wg.Go(func() {
			left, err := m.end()
			mu.Lock()
			defer mu.Unlock()
			for _, x := range left {
				s.left = append(s.left, x+" on "+m.target.SSH)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", m.target.SSH, err))
			}
		})
	}
	wg.Wait()
	s.machines, s.order = map[string]*remote{}, nil
	return errors.Join(append(errs, s.n.Close())...)
}

// end ends a hand. The dead man takes its directory away: that is waited for.
func (m *remote) end() (left []string, err error) {
	err = m.call("Close", None{}, &left)
	err = errors.Join(err, m.client.Close())
	if werr := m.cmd.Wait(); err == nil && werr != nil {
		err = fmt.Errorf("%w: %s", werr, m.said)
	}
	gone := "for i in $(seq 200); do [ -e " + Dir + " ] || exit 0; sleep 0.1; done; ls -d " + Dir + "/*; exit 1"
	if out, gerr := m.site.hosts.ssh(context.Background(), m.target, nil, gone).CombinedOutput(); gerr != nil {
		left = append(left, "directory "+strings.Join(strings.Fields(string(out)), ", "))
	}
	return left, err
}

// Start turns the machine on.
func (m *remote) Start(args ...string) error { return m.call("Start", args, &None{}) }

// Again says how it is started the next time.
func (m *remote) Again(args ...string) error { return m.call("Again", args, &None{}) }

// Address is its host's, with a port.
func (m *remote) Address(port int) string {
	return net.JoinHostPort(m.target.Address, fmt.Sprint(port))
}

// Give lays a file before it.
func (m *remote) Give(name string, data []byte) (path string, err error) {
	err = m.call("Give", Give{name, data}, &path)
	return path, err
}

// Read gives a file of its state directory.
func (m *remote) Read(name string) (data []byte, err error) {
	err = m.call("Read", name, &data)
	return data, err
}

// Prepare makes a fault ready.
func (m *remote) Prepare(kind drill.Fault, of string) (*lab.Fault, error) {
	var p Prepared
	if err := m.call("Prepare", Wanted{kind, of}, &p); err != nil {
		return nil, err
	}
	f := &lab.Fault{
		Inject: func() error { return m.call("Inject", p.ID, &None{}) },
		Probe:  func(context.Context) error { return m.call("Probe", p.ID, &None{}) },
	}
	if p.Undo {
		f.Undo = func() error { return m.call("Undo", p.ID, &None{}) }
	}
	return f, nil
}

// Skew sets its clock wrong.
func (m *remote) Skew(by time.Duration) error { return m.call("Skew", by, &None{}) }

// Keep keeps a copy of a directory of its state.
func (m *remote) Keep(dir string) error { return m.call("Keep", dir, &None{}) }

// Verify reads its depot.
func (m *remote) Verify(context.Context) error { return m.call("Verify", None{}, &None{}) }

// Answers is of services.
func (m *remote) Answers(context.Context) error { return errors.New(m.name + " is no service") }

// Tail is the end of its log.
func (m *remote) Tail(bytes int64) string {
	var text string
	if err := m.call("Tail", bytes, &text); err != nil {
		return err.Error()
	}
	return text
}
