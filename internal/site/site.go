package site

import (
	"context"
	"encoding/json"
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
	"syscall"
	"time"

	"trysail/drill"
	"trysail/internal/clock"
	"trysail/internal/lab"
	"trysail/internal/machine"
	"trysail/internal/strict"
	"trysail/internal/vcs"
)

// Site is real hosts as the place of a drill.
type Site struct {
	hosts   *Hosts
	found   []Found
	within  time.Duration
	answers int
	log     *slog.Logger
	n       *machine.Session

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
	stop   context.CancelFunc // ends the beats, and in the end ssh
}

// Open makes a site of hosts that were found to be those that may be broken
// ([Hosts.Look]): nothing is on them yet. within is how long a drill may take: then each
// host takes everything away by itself. answers is a port on which control does.
func Open(hosts *Hosts, found []Found, st *machine.State, within time.Duration, answers int, log *slog.Logger) (*Site, error) {
	n, err := st.Begin()
	if err != nil {
		return nil, err
	}
	s := &Site{hosts: hosts, found: found, within: within, answers: answers, log: log, n: n, machines: map[string]*remote{}}
	desk := s.desk()
	if err := errors.Join(os.Mkdir(desk, 0o700), os.WriteFile(filepath.Join(desk, clock.Marker), []byte(n.ID+"\n"), 0o600), s.setClock()); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return s, nil
}

func (s *Site) desk() string { return s.n.Path("desk") }

func (s *Site) clockFile() string { return s.n.Path("clock") }

func (s *Site) setClock() error { return clock.Write(s.clockFile(), clock.Set{Jump: s.jump}) }

// pipe is both ends of a worker's ssh.
type pipe struct {
	io.Reader
	io.WriteCloser
}

// Machine copies this program to its host and makes the machine there.
func (s *Site) Machine(spec lab.HostSpec) (lab.Machine, error) {
	m, make, err := s.host(spec.Name)
	if err != nil {
		return nil, err
	}
	make.Spec = spec
	return m, m.call("Make", make, &None{})
}

// host copies this program to the host of a machine, and says how it is to be made.
func (s *Site) host(name string) (*remote, Make, error) {
	i := slices.IndexFunc(s.hosts.Hosts, func(t Target) bool { return t.Name == name })
	if i < 0 {
		return nil, Make{}, fmt.Errorf("no host is named for %s", name)
	}
	m := &remote{site: s, name: name, target: s.hosts.Hosts[i], said: &tail{most: 4096}}
	if err := m.begin(); err != nil {
		return nil, Make{}, fmt.Errorf("%s: %w", m.target.SSH, err)
	}
	s.mu.Lock()
	s.machines[m.name], s.order = m, append(s.order, m)
	jump := s.jump
	s.mu.Unlock()
	_, _, port, _ := m.target.split()
	place := lab.Place{Address: m.target.Address, SSH: port, Answers: s.answers}
	for _, t := range s.hosts.Hosts {
		if t.Name != m.name {
			place.Peers = append(place.Peers, lab.Peer{Name: t.Name, Address: t.Address})
		}
	}
	return m, Make{Place: place, Jump: jump}, nil
}

// laying puts the program on a host, which is asked once more who it is: by marker, run
// of the kernel and process namespace. What is not whole, or does not run there, goes
// again at once, whatever ends the shell.
const laying = `umask 077
[ "$(head -c 100 %[1]s)" = '%[2]s' ] && [ "$(cat /proc/sys/kernel/random/boot_id)" = '%[3]s' ] && [ "$(readlink /proc/self/ns/pid)" = '%[4]s' ] ||
	{ echo 'this is not the host that was asked who it is' >&2; exit 1; }
mkdir %[5]s || exit 1
trap 'rm -rf %[5]s' EXIT
trap 'exit 1' HUP INT TERM PIPE
echo '%[3]s' >%[5]s/boot && cat >%[5]s/trysail || exit 1
[ "$(wc -c <%[5]s/trysail)" -eq %[6]d ] || { echo 'not all of the program came' >&2; exit 1; }
chmod 700 %[5]s/trysail && %[5]s/trysail drill faults >/dev/null || exit 1
trap - EXIT`

// begin lays the program before the host and starts a worker.
func (m *remote) begin() error {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	info, err := self.Stat()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(m.site.found, func(f Found) bool { return f.Name == m.name })
	if i < 0 {
		return errors.New("nobody has asked it who it is")
	}
	f := m.site.found[i]
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	said := &tail{most: 4096}
	copied := m.site.hosts.ssh(ctx, m.target, nil, fmt.Sprintf(laying, Marker, m.site.hosts.Nonce, f.Boot, f.Space, Dir, info.Size()))
	copied.Stdin, copied.Stderr = self, said
	// Ctrl-C is for the drill, and not for what it needs to clean up with.
	copied.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := copied.Run(); err != nil {
		stop()
		return fmt.Errorf("lay this program there: %w: %s", err, said)
	}
	m.cmd = m.site.hosts.ssh(ctx, m.target, nil, fmt.Sprintf("%s/trysail --state %s/state drill worker %s %s %s", Dir, Dir, m.site.within, m.site.hosts.Nonce, f.Boot))
	m.cmd.Stderr = m.said
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, ierr := m.cmd.StdinPipe()
	out, err := m.cmd.StdoutPipe()
	if err = errors.Join(ierr, err); err == nil {
		err = m.cmd.Start()
	}
	if err != nil {
		stop()
		m.leaves(m.gone(f.unused(m.site.hosts.Nonce)))
		return err
	}
	m.client = jsonrpc.NewClient(pipe{io.LimitReader(out, mostAnswers), in})
	go m.beats(ctx)
	if err := m.call("Beat", None{}, &None{}); err != nil {
		left, eerr := m.end(f.unused(m.site.hosts.Nonce))
		m.leaves(left)
		return errors.Join(fmt.Errorf("no worker answers: %w", err), eerr)
	}
	return nil
}

// leaves notes what is left on the host of a machine that there is not.
func (m *remote) leaves(left []string) {
	m.site.mu.Lock()
	defer m.site.mu.Unlock()
	m.site.leftOn(m.target, left)
}

// leftOn notes what is left on a host. The lock is held.
func (s *Site) leftOn(t Target, left []string) {
	for _, x := range left {
		s.left = append(s.left, x+" on "+t.SSH)
	}
}

// unused takes the drill's directory away again where no worker has begun: then no reaper
// does. It is asked once more whether it is the host that was found.
func (f Found) unused(nonce string) string {
	return fmt.Sprintf(`[ "$(head -c 100 %[1]s)" = '%[2]s' ] && [ "$(cat /proc/sys/kernel/random/boot_id)" = '%[3]s' ] && [ "$(readlink /proc/self/ns/pid)" = '%[4]s' ] &&
	[ "$(cat %[5]s/boot)" = '%[3]s' ] && [ ! -e %[5]s/reaper.log ] && rm -rf %[5]s
`, Marker, nonce, f.Boot, f.Space, Dir)
}

// mostAnswers bounds what a worker answers in a drill, in bytes.
const mostAnswers = 256 << 20

// beats says that the drill is there, until ctx ends.
func (m *remote) beats(ctx context.Context) {
	t := time.NewTicker(beat)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if err := m.call("Beat", None{}, &None{}); err != nil && ctx.Err() == nil {
			m.site.log.Warn("a host of the drill", "host", m.target.SSH, "err", err)
		}
	}
}

// patience is how long a host may take for what it is told.
const patience = 2 * time.Minute

// call tells the worker to do something.
func (m *remote) call(what string, args, answer any) error {
	return m.callFor(patience, what, args, answer)
}

func (m *remote) callFor(patience time.Duration, what string, args, answer any) error {
	var text json.RawMessage // a host may answer with more than its values have room for here
	c := m.client.Go("Worker."+what, args, &text, make(chan *rpc.Call, 1))
	select {
	case <-c.Done:
		if c.Error == nil {
			err := strict.Dense(text)
			if err == nil {
				err = json.Unmarshal(text, answer)
			}
			if err != nil {
				return fmt.Errorf("the answer of %s to %s cannot be read: %w", m.target.SSH, what, err)
			}
			return nil
		}
		if errors.Is(c.Error, rpc.ErrShutdown) || errors.Is(c.Error, io.ErrUnexpectedEOF) {
			return fmt.Errorf("the connection to %s is lost: %s", m.target.SSH, m.said)
		}
		return errors.New(readable(c.Error.Error()))
	case <-time.After(patience):
		return fmt.Errorf("%s does not answer: %s", m.target.SSH, what)
	}
}

// Service copies what the service has to its host, and starts it there.
func (s *Site) Service(ctx context.Context, of drill.Service, from string) (lab.Machine, error) {
	if of.Kind == drill.Git {
		dir := filepath.Join(s.n.Dir, of.Name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(filepath.Join(dir, lab.Bundle), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(lab.WriteBundle(ctx, from, s.n.Dir, f), f.Close()); err != nil {
			return nil, fmt.Errorf("the repository of %s: %w", of.Name, err)
		}
		from = dir
	}
	files, err := lab.ReadFiles(from)
	if err != nil {
		return nil, fmt.Errorf("what %s has: %w", of.Name, err)
	}
	m, make, err := s.host(of.Name)
	if err != nil {
		return nil, err
	}
	return m, m.call("Serve", Serving{make, of, files}, &None{})
}

// Get gives a machine by name; nil if there is none.
func (s *Site) Get(name string) lab.Machine {
	if m := s.get(name); m != nil {
		return m
	}
	return nil
}

func (s *Site) get(name string) *remote {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.machines[name]
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
	s.jump += d
	err := s.setClock()
	order := slices.Clone(s.order)
	s.mu.Unlock()
	errs := make([]error, len(order))
	var wg sync.WaitGroup
	for i, m := range order { // at once, or their clocks would differ
		wg.Go(func() { errs[i] = m.call("Jump", d, &None{}) })
	}
	wg.Wait()
	return errors.Join(append(errs, err)...)
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

// Clone gives the repository of a git host.
func (s *Site) Clone(ctx context.Context, host, dir string) error {
	m := s.get(host)
	if m == nil {
		return fmt.Errorf("there is no machine %s", host)
	}
	return vcs.Clone(ctx, "git://"+m.target.Address+"/release", dir, "")
}

// Recover lays the ledger that an agent has a copy of before control.
func (s *Site) Recover(control, from string) (file string, err error) {
	c, f := s.get(control), s.get(from)
	if c == nil || f == nil {
		return "", fmt.Errorf("there is no machine %s, or no %s", control, from)
	}
	var ledger []lab.File
	if err := f.call("Ledger", None{}, &ledger); err != nil {
		return "", err
	}
	err = c.call("Begins", ledger, &file)
	return file, err
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
			left, err := m.end("")
			mu.Lock()
			defer mu.Unlock()
			s.leftOn(m.target, left)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", m.target.SSH, err))
			}
		})
	}
	wg.Wait()
	s.machines, s.order = map[string]*remote{}, nil
	return errors.Join(append(errs, s.n.Close())...)
}

// end ends a worker. The reaper takes its directory away, or what is done first does:
// that is waited for.
func (m *remote) end(first string) (left []string, err error) {
	err = m.call("Close", None{}, &left)
	err = errors.Join(err, m.client.Close())
	// ssh ends with its host's side of it, or is ended.
	late := time.AfterFunc(Silence, m.stop)
	if werr := m.cmd.Wait(); err == nil && werr != nil {
		err = fmt.Errorf("%w: %s", werr, m.said)
	}
	late.Stop()
	m.stop()
	return append(left, m.gone(first)...), err
}

// gone waits until the drill's directory is not there any more, and gives what is left.
func (m *remote) gone(first string) (left []string) {
	ctx, cancel := context.WithTimeout(context.Background(), Silence+asking)
	defer cancel()
	gone := first + "i=0; while [ $i -lt 300 ]; do [ -e " + Dir + " ] || exit 0; i=$((i+1)); sleep 0.1; done; echo " + Dir + "; cat " + Dir + "/reaper.log; exit 1"
	out := &tail{most: 4096}
	cmd := m.site.hosts.ssh(ctx, m.target, nil, gone)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		left = append(left, "directory "+strings.Join(strings.Fields(out.String()), " "))
	}
	return left
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
func (m *remote) Verify(context.Context) error {
	return m.callFor(time.Hour, "Verify", None{}, &None{}) // a depot may be large
}

// Answers asks a service for something.
func (m *remote) Answers(context.Context) error { return m.call("Answers", None{}, &None{}) }

// Tail is the end of its log.
func (m *remote) Tail(bytes int64) string {
	var text string
	if err := m.call("Tail", bytes, &text); err != nil {
		return err.Error()
	}
	return text
}
