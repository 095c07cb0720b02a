package site

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/rpc"
	"net/rpc/jsonrpc"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"trysail/drill"
	"trysail/internal/lab"
	"trysail/internal/machine"
)

// The messages between the drill and a worker. Errors go as text: what went wrong on a
// host is for people to read.
type (
	// Make makes the machine of a host. It is the first.
	Make struct {
		Place lab.Place
		Spec  lab.HostSpec
		Jump  time.Duration // of the drill's clock
	}
	// Serving makes a service of it instead.
	Serving struct {
		Make
		Of    drill.Service
		Files []lab.File // what it has
	}
	// Give lays a file before the machine.
	Give struct {
		Name string
		Data []byte
	}
	// Wanted is a fault.
	Wanted struct {
		Kind drill.Fault
		Of   string
	}
	// Prepared says that it is ready.
	Prepared struct {
		ID   int
		Undo bool // it can be undone
	}
	// None is nothing.
	None struct{}
)

// Worker does on a host what the drill says.
type Worker struct {
	st  *machine.State
	log *slog.Logger
	ctx context.Context // ends with the worker

	heard atomic.Pointer[time.Time] // when the drill was heard of last, on a clock that only goes forward

	mu     sync.Mutex
	lab    *lab.Lab
	host   *lab.Host
	faults []*lab.Fault
}

// Silence is for how long no heartbeat may come before a worker takes everything away. A
// drill says [Worker.Beat] every [beat].
const (
	Silence = 30 * time.Second
	beat    = 5 * time.Second
)

// Serve is a worker: it answers on a connection until that ends, no heartbeat comes any
// more, or ctx ends; then it takes everything away.
func Serve(ctx context.Context, st *machine.State, log *slog.Logger, c io.ReadWriteCloser) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := &Worker{st: st, log: log, ctx: ctx}
	now := time.Now()
	h.heard.Store(&now)
	s := rpc.NewServer()
	if err := s.RegisterName("Worker", h); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		s.ServeCodec(jsonrpc.NewServerCodec(c))
		close(ended)
	}()
	for over := false; !over; {
		select {
		case <-ended:
			over = true
		case <-ctx.Done():
			over = true
		case <-time.After(time.Second):
			over = time.Since(*h.heard.Load()) > Silence
		}
	}
	cancel()
	return h.Close(None{}, &[]string{})
}

// Beat says that the drill is there.
func (h *Worker) Beat(None, *None) error {
	now := time.Now()
	h.heard.Store(&now)
	return nil
}

// Same refuses a host that is not the one that was asked who it is: the way to it may
// lead elsewhere the next time.
func Same(word, boot string) error {
	f, err := Self()
	if err != nil {
		return err
	}
	marker, err := os.ReadFile(Marker)
	if err != nil || strings.TrimSpace(string(marker)) != word || f.Boot != boot {
		return &HostsError{"this is not the host that was asked who it is", "look where its name leads: each must be one host"}
	}
	return nil
}

// Guarded starts the reaper of this process, with the arguments by which this program
// is one. Its output goes to a file in the drill's directory, until it removes the directory.
func Guarded(dir string, within time.Duration, dead []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	said, err := os.OpenFile(filepath.Join(dir, "reaper.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer said.Close()
	cmd := exec.Command(self, append(dead, strconv.Itoa(os.Getpid()), within.String())...)
	cmd.Stdout, cmd.Stderr = said, said
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // what ends the session of ssh does not end it
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}

// Reap waits until the worker has ended, or for as long as the drill may take, and
// then no longer; it takes away what is in the journals, and dir, the
// drill's directory on this host. It retries what it cannot remove, for a day.
func Reap(worker int, within time.Duration, dir string, log *slog.Logger, open func() (*machine.State, error)) error {
	// The kernel's own handle of the process: its number may be another's later.
	fd, err := unix.PidfdOpen(worker, 0)
	switch {
	case errors.Is(err, unix.ESRCH): // it has ended already
	case err != nil:
		return err
	default:
		defer unix.Close(fd)
		if !ends(fd, within) {
			if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
			ends(fd, time.Hour)
		}
	}
	wait := 100 * time.Millisecond
	for end := time.Now().Add(24 * time.Hour); ; wait = min(2*wait, time.Minute) {
		if err = away(worker, dir, open); err == nil || time.Now().After(end) {
			return err
		}
		log.Warn("what the drill left is not gone yet", "err", err)
		time.Sleep(wait) // what has just been killed holds its mounts for a moment
	}
}

// ends waits until a process has ended, and tells whether it has.
func ends(fd int, within time.Duration) bool {
	for end := time.Now().Add(within); ; {
		left := time.Until(end)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(max(left, 0).Milliseconds()))
		if n > 0 || left <= 0 && err == nil {
			return n > 0
		}
	}
}

// away undoes the worker's journals, and removes its directory.
func away(worker int, dir string, open func() (*machine.State, error)) error {
	st, err := open() // which sweeps
	if err != nil {
		return err
	}
	// A process that nobody has waited for yet is taken for one that lives.
	if held, err := st.Holds(worker); err != nil || held {
		return errors.Join(err, errors.New("its journals are there"))
	}
	return machine.RemoveAll(dir)
}

// Make makes the machine.
func (h *Worker) Make(a Make, _ *None) (err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.begin(a, a.Spec.Disk); err != nil {
		return err
	}
	h.host, err = h.lab.Host(a.Spec)
	return err
}

// Serve makes a service.
func (h *Worker) Serve(a Serving, _ *None) (err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.begin(a.Make, lab.ServiceDisk); err != nil {
		return err
	}
	from := filepath.Join(h.lab.Dir, "given")
	if err := lab.WriteFiles(from, a.Files); err != nil {
		return err
	}
	if a.Of.Kind == drill.Git {
		from = filepath.Join(from, lab.Bundle)
	}
	h.host, err = h.lab.Service(h.ctx, a.Of, from)
	return err
}

// begin makes the lab of this host.
func (h *Worker) begin(a Make, disk int64) error {
	if h.lab != nil {
		return errors.New("this host has its machine")
	}
	free, err := lab.Free(h.st.Dir)
	if err != nil {
		return err
	}
	if free < disk {
		return fmt.Errorf("%s has %d MB free, and the machine's disk may take %d MB", h.st.Dir, free>>20, disk>>20)
	}
	if h.lab, err = lab.Alone(h.st, h.log, a.Place); err != nil {
		return err
	}
	return h.lab.Jump(a.Jump)
}

// Close takes everything away, and lists what is left.
func (h *Worker) Close(_ None, left *[]string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	*left = []string{}
	if h.lab == nil {
		return nil
	}
	l := h.lab
	h.lab, h.host = nil, nil
	err := l.Close()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		list, lerr := lab.Look(h.st)
		if lerr != nil {
			return errors.Join(err, lerr)
		}
		if *left = append([]string{}, l.Own(list)...); len(*left) == 0 || time.Now().After(end) {
			return err
		}
	}
}

// on gives the machine.
func (h *Worker) on() (*lab.Lab, *lab.Host, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.host == nil {
		return nil, nil, errors.New("this host has no machine of the drill")
	}
	return h.lab, h.host, nil
}

// do asks the machine for something.
func (h *Worker) do(f func(m *lab.Host) error) error {
	_, m, err := h.on()
	if err != nil {
		return err
	}
	return f(m)
}

// Start turns the machine on.
func (h *Worker) Start(args []string, _ *None) error {
	return h.do(func(m *lab.Host) error { return m.Start(args...) })
}

// Again says how it is started the next time.
func (h *Worker) Again(args []string, _ *None) error {
	return h.do(func(m *lab.Host) error { return m.Again(args...) })
}

// Give lays a file before it.
func (h *Worker) Give(a Give, path *string) error {
	return h.do(func(m *lab.Host) (err error) { *path, err = m.Give(a.Name, a.Data); return err })
}

// Read gives a file of its state directory.
func (h *Worker) Read(name string, data *[]byte) error {
	return h.do(func(m *lab.Host) (err error) { *data, err = m.Read(name); return err })
}

// Keep keeps a copy of a directory.
func (h *Worker) Keep(dir string, _ *None) error {
	return h.do(func(m *lab.Host) error { return m.Keep(dir) })
}

// Skew sets its clock wrong.
func (h *Worker) Skew(by time.Duration, _ *None) error {
	return h.do(func(m *lab.Host) error { return m.Skew(by) })
}

// Verify reads its depot.
func (h *Worker) Verify(None, *None) error {
	return h.do(func(m *lab.Host) error { return m.Verify(h.ctx) })
}

// Answers asks a service for something.
func (h *Worker) Answers(None, *None) error {
	return h.do(func(m *lab.Host) error { return m.Answers(h.ctx) })
}

// Ledger gives the copy of it that an agent has.
func (h *Worker) Ledger(_ None, list *[]lab.File) error {
	return h.do(func(m *lab.Host) (err error) { *list, err = m.Ledger(); return err })
}

// Begins lays a ledger before control instead of its own.
func (h *Worker) Begins(ledger []lab.File, file *string) error {
	return h.do(func(m *lab.Host) (err error) { *file, err = m.Begins(ledger); return err })
}

// Tail is the end of its log.
func (h *Worker) Tail(bytes int64, text *string) error {
	return h.do(func(m *lab.Host) error { *text = m.Tail(bytes); return nil })
}

// Jump lets time pass on its clock.
func (h *Worker) Jump(d time.Duration, _ *None) error {
	l, _, err := h.on()
	if err != nil {
		return err
	}
	return l.Jump(d)
}

// Prepare makes a fault ready.
func (h *Worker) Prepare(w Wanted, p *Prepared) error {
	return h.do(func(m *lab.Host) error {
		f, err := m.Prepare(w.Kind, w.Of)
		if err != nil {
			return err
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		*p = Prepared{len(h.faults), f.Undo != nil}
		h.faults = append(h.faults, f)
		return nil
	})
}

func (h *Worker) fault(id int) (*lab.Fault, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if id < 0 || id >= len(h.faults) {
		return nil, fmt.Errorf("there is no fault %d", id)
	}
	return h.faults[id], nil
}

// Inject breaks what was prepared.
func (h *Worker) Inject(id int, _ *None) error {
	f, err := h.fault(id)
	if err != nil {
		return err
	}
	return f.Inject()
}

// Probe checks that the fault took effect.
func (h *Worker) Probe(id int, _ *None) error {
	f, err := h.fault(id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(h.ctx, 10*time.Second)
	defer cancel()
	return f.Probe(ctx)
}

// Undo takes it back.
func (h *Worker) Undo(id int, _ *None) error {
	f, err := h.fault(id)
	if err != nil {
		return err
	}
	if f.Undo == nil {
		return errors.New("it is for good")
	}
	return f.Undo()
}
