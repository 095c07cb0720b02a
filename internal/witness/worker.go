package witness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"trysail/internal/account"
)

// A working copy of somebody else is that person's program: its hooks, filters and settings
// run as the user who calls it. So root does nothing in it. This program runs itself again as the
// owner of the copy (internal/account), and that worker does what was asked, with the
// owner's own settings and keys. What a hostile copy can reach is what its owner can do
// anyway. Checkpoints are signed, and root reads what is there through no link.

// workerName is the argv[0] of the worker.
const workerName = "trysail-witness"

// What a worker does.
const (
	doUsable = "usable"
	doUpdate = "update"
	doSend   = "send"
	doCommit = "commit"
	doDue    = "due"
	doStamp  = "stamp"
)

// request is what is done in a working copy.
type request struct {
	Do      string `json:"do"`
	Dir     string `json:"dir"`
	Release string `json:"release,omitempty"`
	Note    []byte `json:"note,omitempty"`
	Push    bool   `json:"push,omitempty"`
	Token   []byte `json:"token,omitempty"`
	Digest  []byte `json:"digest,omitempty"` // SHA-256 of what the token is of
}

// answer is what came of it.
type answer struct {
	Revision string `json:"revision,omitempty"`
	Data     []byte `json:"data,omitempty"`
	Error    string `json:"error,omitempty"`
	Remedy   string `json:"remedy,omitempty"`
}

// ownerError is an error of the worker.
type ownerError struct{ what, remedy string }

func (e *ownerError) Error() string { return e.what }

// Hint says what to do.
func (e *ownerError) Hint() string { return e.remedy }

// Every program that links this package can be the worker, tests too.
func init() {
	if len(os.Args) != 2 || os.Args[0] != workerName {
		return
	}
	// Asked to end, git takes its locks away.
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	defer stop()
	var q request
	err := json.Unmarshal([]byte(os.Args[1]), &q)
	if err == nil {
		err = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	}
	a := &answer{}
	if err == nil {
		*a, err = here(ctx, q)
	}
	if err != nil {
		a.Error = err.Error()
		var h interface{ Hint() string }
		if errors.As(err, &h) {
			a.Remedy = h.Hint()
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(a); err != nil {
		os.Exit(2)
	}
	os.Exit(0)
}

// do does it: here, or as the owner of the copy if root is asked and the copy is another's.
func do(ctx context.Context, q request) (answer, error) {
	if os.Geteuid() != 0 {
		return here(ctx, q)
	}
	root, _, err := find(q.Dir)
	if err != nil {
		return answer{}, err
	}
	var st syscall.Stat_t
	if err := syscall.Lstat(root, &st); err != nil {
		return answer{}, &os.PathError{Op: "find the owner of", Path: root, Err: err}
	}
	if st.Uid == 0 {
		return here(ctx, q)
	}
	owner, err := account.Lookup(int(st.Uid))
	if err != nil {
		return answer{}, err
	}
	// The worker begins elsewhere, and may see nothing but the copy.
	if q.Dir, err = filepath.Abs(q.Dir); err == nil {
		q.Dir, err = filepath.EvalSymlinks(q.Dir)
	}
	if err != nil {
		return answer{}, err
	}
	return as(ctx, owner, root, q)
}

// mostAnswer bounds what root reads of a worker.
const mostAnswer = 16 << 20

// as has the owner's worker do it.
func as(ctx context.Context, owner account.Account, root string, q request) (a answer, err error) {
	text, err := json.Marshal(q)
	if err != nil {
		return a, err
	}
	cmd := owner.Self(ctx, account.Options{Reach: root}, workerName, string(text))
	out, said := &bounded{most: mostAnswer}, &bounded{most: 64 << 10}
	cmd.Stdout, cmd.Stderr = out, said
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 15 * time.Second
	err = cmd.Run()
	if ctx.Err() != nil {
		return a, fmt.Errorf("%s: it was stopped: %w", root, ctx.Err())
	}
	if err != nil {
		return a, fmt.Errorf("%s, as %s: %w: %s", root, owner.Name, err, strings.TrimSpace(said.String()))
	}
	if err := json.Unmarshal(out.Bytes(), &a); err != nil {
		return answer{}, fmt.Errorf("%s, as %s: what came of it cannot be read: %w", root, owner.Name, err)
	}
	if a.Error != "" {
		return answer{Revision: a.Revision}, &ownerError{clip(a.Error), clip(a.Remedy)}
	}
	return a, nil
}

// bounded keeps the beginning of what is written to it.
type bounded struct {
	bytes.Buffer
	most int
}

func (b *bounded) Write(p []byte) (int, error) {
	if n := b.most - b.Len(); n > 0 {
		b.Buffer.Write(p[:min(n, len(p))])
	}
	return len(p), nil
}

// here does it as the user of this process.
func here(ctx context.Context, q request) (a answer, err error) {
	switch q.Do {
	case doUsable:
		err = usable(ctx, q.Dir)
	case doUpdate:
		err = update(ctx, q.Dir)
	case doSend:
		err = send(ctx, q.Dir)
	case doCommit:
		a.Revision, err = commit(ctx, q.Dir, q.Release, q.Note, q.Push)
	case doDue:
		a.Data, err = due(ctx, q.Dir, q.Release)
	case doStamp:
		a.Revision, err = commitStamp(ctx, q.Dir, q.Release, q.Token, q.Digest)
	default:
		err = fmt.Errorf("the worker cannot %q", q.Do)
	}
	return a, err
}
