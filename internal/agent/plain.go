package agent

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"trysail/blueprint"
	"trysail/internal/machine"
	"trysail/internal/trace"
)

// PlainError says that control wants to be root of a machine that does not allow it.
type PlainError struct{}

func (*PlainError) Error() string {
	return "this machine runs no step outside of a rebuilt server"
}

// Hint says what to type.
func (*PlainError) Hint() string {
	return "if every step of every runbook may be root of the machine: trysail agent --plain there"
}

// plain runs the step on this machine as it is: nothing proves that it could be
// made again.
func (s *step) plain(ctx context.Context) (exit *machine.Exit, err error) {
	if err := s.workspace(ctx, blueprint.User{}); err != nil {
		return nil, err
	}
	_, argv, err := s.script("")
	if err != nil {
		return nil, err
	}
	top, err := trace.CgroupRoot()
	if err != nil {
		return nil, err
	}
	cg, err := s.n.Cgroup(top)
	if err != nil {
		return nil, err
	}
	watch, err := s.a.guard.Watch(0, cg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.a.guard.Forget(watch)) }()
	fd, err := os.Open(cg)
	if err != nil {
		return nil, err
	}
	defer fd.Close()
	home, err := s.n.MkdirAll(0o700, "home")
	if err != nil {
		return nil, err
	}
	var env []string
	for name, value := range s.environment() {
		env = append(env, name+"="+value)
	}
	env = append(env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME="+home, "LANG=C.UTF-8")
	return s.limited(ctx, func(ctx context.Context) (*machine.Exit, error) {
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.checkout, env, s.log, s.log
		cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, UseCgroupFD: true, CgroupFD: int(fd.Fd())}
		// Everything that the step started, wherever it put itself.
		cmd.Cancel = func() error { return os.WriteFile(filepath.Join(cg, "cgroup.kill"), []byte("1"), 0) }
		cmd.WaitDelay = time.Second
		begin := time.Now()
		err := cmd.Run()
		if kerr := cmd.Cancel(); kerr != nil { // what it left running, as in a rebuilt server
			return nil, kerr
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		exit := &machine.Exit{Duration: time.Since(begin)}
		var ee *exec.ExitError
		switch {
		case errors.As(err, &ee):
			exit.Code = ee.ExitCode()
			if ws, ok := ee.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
				exit.Code, exit.Signal = 128+int(ws.Signal()), ws.Signal().String()
			}
		case err != nil && !errors.Is(err, exec.ErrWaitDelay):
			return nil, &machine.CommandError{Args: argv, What: err.Error()}
		}
		return exit, nil
	})
}
