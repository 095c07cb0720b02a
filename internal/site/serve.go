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
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"trysail/drill"
	"trysail/internal/lab"
	"trysail/internal/machine"
)

// The messages between the drill and a hand. Errors go as text: what went wrong on a
// host is for people to read.
type (
	// Make makes the machine of a host. It is the first.
	Make struct {
		Place lab.Place
		Spec  lab.HostSpec
		Jump  time.Duration // of the drill's clock
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

// Hand does on a host what the drill says.
type Hand struct {
	st  *machine.State
	log *slog.Logger

	mu     sync.Mutex
	lab    *lab.Lab
	host   *lab.Host
	faults []*lab.Fault
}

// Serve is a hand: it answers on a connection until that ends, and takes everything
// away then. dead are the arguments with which this program is a dead man.
func Serve(st *machine.State, log *slog.Logger, c io.ReadWriteCloser, within time.Duration, dead []string) error {
	alive, err := guarded(within, dead)
	if err != nil {
		return err
	}
	h := &Hand{st: st, log: log}
	s := rpc.NewServer()
	if err := s.RegisterName("Hand", h); err != nil {
		return err
	}
	s.ServeCodec(jsonrpc.NewServerCodec(c))
	err = h.Close(None{}, &[]string{})
	return errors.Join(err, alive.Close()) // the dead man goes on from here
}

// guarded starts the dead man, and gives what he listens to: it closes when this
// process ends, however it ends.
func guarded(within time.Duration, dead []string) (io.Closer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.Command(self, append(dead, strconv.Itoa(os.Getpid()), within.String())...)
	cmd.Stdin = r
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // what ends the session of ssh does not end him
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, cmd.Process.Release()
}

// DeadMan waits until the hand has ended, or for as long as the drill may take, and
// then for the hand no more; he takes away what is in the journals, and dir, the
// drill's directory on this host.
func DeadMan(alive io.Reader, hand int, within time.Duration, dir string, open func() (*machine.State, error)) error {
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, alive)
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(within):
		// The pipe is open, so the number is still the hand's.
		if err := unix.Kill(hand, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
		<-ended
	}
	var err error
	for range 30 { // what has just been killed holds its mounts for a moment
		if _, err = open(); err == nil { // which sweeps
			if err = machine.RemoveAll(dir); err == nil {
				return nil
			}
		}
		time.Sleep(time.Second)
	}
	return fmt.Errorf("what the drill left is not gone: %w", err)
}

// Make makes the machine.
func (h *Hand) Make(a Make, _ *None) (err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lab != nil {
		return errors.New("this host has its machine")
	}
	if h.lab, err = lab.Alone(h.st, h.log, a.Place); err != nil {
		return err
	}
	if err := h.lab.Jump(a.Jump); err != nil {
		return err
	}
	h.host, err = h.lab.Host(a.Spec)
	return err
}

// Close takes everything away, and lists what is left.
func (h *Hand) Close(_ None, left *[]string) error {
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
func (h *Hand) on() (*lab.Lab, *lab.Host, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.host == nil {
		return nil, nil, errors.New("this host has no machine of the drill")
	}
	return h.lab, h.host, nil
}

// do asks the machine for something.
func (h *Hand) do(f func(m *lab.Host) error) error {
	_, m, err := h.on()
	if err != nil {
		return err
	}
	return f(m)
}

// Start turns the machine on.
func (h *Hand) Start(args []string, _ *None) error {
	return h.do(func(m *lab.Host) error { return m.Start(args...) })
}

// Again says how it is started the next time.
func (h *Hand) Again(args []string, _ *None) error {
	return h.do(func(m *lab.Host) error { return m.Again(args...) })
}

// Give lays a file before it.
func (h *Hand) Give(a Give, path *string) error {
	return h.do(func(m *lab.Host) (err error) { *path, err = m.Give(a.Name, a.Data); return err })
}

// Read gives a file of its state directory.
func (h *Hand) Read(name string, data *[]byte) error {
	return h.do(func(m *lab.Host) (err error) { *data, err = m.Read(name); return err })
}

// Keep keeps a copy of a directory.
func (h *Hand) Keep(dir string, _ *None) error {
	return h.do(func(m *lab.Host) error { return m.Keep(dir) })
}

// Skew sets its clock wrong.
func (h *Hand) Skew(by time.Duration, _ *None) error {
	return h.do(func(m *lab.Host) error { return m.Skew(by) })
}

// Verify reads its depot.
func (h *Hand) Verify(None, *None) error {
	return h.do(func(m *lab.Host) error { return m.Verify(context.Background()) })
}

// Tail is the end of its log.
func (h *Hand) Tail(bytes int64, text *string) error {
	return h.do(func(m *lab.Host) error { *text = m.Tail(bytes); return nil })
}

// Jump lets time pass on its clock.
func (h *Hand) Jump(d time.Duration, _ *None) error {
	l, _, err := h.on()
	if err != nil {
		return err
	}
	return l.Jump(d)
}

// Prepare makes a fault ready.
func (h *Hand) Prepare(w Wanted, p *Prepared) error {
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

func (h *Hand) fault(id int) (*lab.Fault, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if id < 0 || id >= len(h.faults) {
		return nil, fmt.Errorf("there is no fault %d", id)
	}
	return h.faults[id], nil
}

// Inject breaks what was prepared.
func (h *Hand) Inject(id int, _ *None) error {
	f, err := h.fault(id)
	if err != nil {
		return err
	}
	return f.Inject()
}

// Probe looks whether it bites.
func (h *Hand) Probe(id int, _ *None) error {
	f, err := h.fault(id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return f.Probe(ctx)
}

// Undo takes it back.
func (h *Hand) Undo(id int, _ *None) error {
	f, err := h.fault(id)
	if err != nil {
		return err
	}
	if f.Undo == nil {
		return errors.New("it is for good")
	}
	return f.Undo()
}
