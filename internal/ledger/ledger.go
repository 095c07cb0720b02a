// Package ledger keeps streams of events, one line of JSON each, that are only
// ever appended to.
//
// A stream lies in etcd: one key an event, and one for the number of the last,
// the head. [Ledger.Append] is a transaction on condition that the head is still
// the one the writer saw; if it moved, nothing is written and the answer is a
// [ConflictError]. etcd syncs its log before it acknowledges, so what Append
// acknowledged survives the machine. An answer that never came is not a failure:
// the event may be there, so Append looks before it says anything.
//
// The etcd is embedded, alone or one of three ([Store.AddControl]), or a cluster
// that runs already. Of several controls one decides, for a [Term], and only it
// appends.
//
// The package does not know what an event means. It numbers lines, hashes them
// into a Merkle tree ([evidence.Tree], the tree of Go's checksum database, so that other
// tools can check a copy) and keeps copies ([Copy]) on other machines' disks.
package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	prefix  = "/trysail/v1/"
	maxLine = 1 << 20    // bytes of an event
	maxTxn  = 1400 << 10 // bytes of an append; etcd takes requests of 1.5 MiB
	page    = 500        // events read at once
)

// Ledger is the streams of one etcd cluster. It is safe for concurrent use.
type Ledger struct {
	kv   *clientv3.Client
	seat *clientv3.Cmp // what must hold for an append: this control decides; nil: nothing
}

// New gives the ledger of a cluster.
func New(c *clientv3.Client) *Ledger { return &Ledger{kv: c} }

// ConflictError says that the head of a stream is not the one that the writer saw.
type ConflictError struct {
	Stream   string
	Expected int64
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("the head of %s is no longer %d", e.Stream, e.Expected)
}

// UnknownError says that an append may have happened: whoever asked must read
// the stream before deciding anything.
type UnknownError struct {
	Stream string
	Err    error
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("append to %s: no answer: it may have happened: %v", e.Stream, e.Err)
}

func (e *UnknownError) Unwrap() error { return e.Err }

// SizeError says that events are too large. Nothing was written, and nothing ever will be.
type SizeError struct {
	Stream     string
	Size, Most int // bytes
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("append to %s: %d bytes are too many for the ledger, %d is the most", e.Stream, e.Size, e.Most)
}

// Hint says what to do.
func (e *SizeError) Hint() string {
	return "say it in fewer words, or put what is long into files of the repository (a step's script may call one)"
}

// FullError says that the database has no room; nothing was written.
type FullError struct{ Err error }

func (e *FullError) Error() string { return "the ledger is full: " + e.Err.Error() }

// Hint says what to do.
func (e *FullError) Hint() string {
	return "control makes room by itself where it can; if it says so again, move ended releases to a ledger of their own: trysail serve with another --state"
}

func (e *FullError) Unwrap() error { return e.Err }

// checkName refuses what is no part of a key and no file name.
func checkName(stream string) error {
	if stream == "" || len(stream) > 200 || strings.ContainsAny(stream, "/ \n\x00") || strings.HasPrefix(stream, ".") {
		return fmt.Errorf("%.60q is not the name of a stream", stream)
	}
	return nil
}

func headKey(stream string) string { return prefix + stream + "/head" }

func eventKey(stream string, seq int64) string {
	return fmt.Sprintf("%s%s/event/%012d", prefix, stream, seq)
}

// Append writes lines after the event with number head; 0 begins a stream.
func (l *Ledger) Append(ctx context.Context, stream string, head int64, lines ...[]byte) error {
	if err := checkName(stream); err != nil {
		return err
	}
	if len(lines) == 0 || len(lines) > 100 {
		return fmt.Errorf("append to %q: %d lines", stream, len(lines))
	}
	is := clientv3.Compare(clientv3.Value(headKey(stream)), "=", strconv.FormatInt(head, 10))
	if head == 0 {
		is = clientv3.Compare(clientv3.CreateRevision(headKey(stream)), "=", 0)
	}
	var ops []clientv3.Op
	size := 0
	for i, line := range lines {
		size += len(line)
		if bytes.ContainsRune(line, '\n') {
			return fmt.Errorf("append to %s: an event is one line", stream)
		}
		if len(line) > maxLine {
			return &SizeError{stream, len(line), maxLine}
		}
		ops = append(ops, clientv3.OpPut(eventKey(stream, head+int64(i)+1), string(line)))
	}
	if size > maxTxn {
		return &SizeError{stream, size, maxTxn}
	}
	ops = append(ops, clientv3.OpPut(headKey(stream), strconv.FormatInt(head+int64(len(lines)), 10)))
	conditions := []clientv3.Cmp{is}
	if l.seat != nil {
		conditions = append(conditions, *l.seat)
	}
	res, err := l.kv.Txn(ctx).If(conditions...).Then(ops...).Commit()
	switch {
	case err == nil && res.Succeeded:
		return nil
	case err == nil:
		return l.ours(ctx, stream, head, lines)
	case isFull(err):
		return &FullError{err}
	}
	// The context may be the reason that there was no answer.
	look, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if l.ours(look, stream, head, lines) == nil {
		return nil
	}
	return &UnknownError{stream, err}
}

// ours tells whether the lines are in the stream already: the client library may
// have sent a transaction twice.
func (l *Ledger) ours(ctx context.Context, stream string, head int64, lines [][]byte) error {
	for i, line := range lines {
		r, err := l.get(ctx, eventKey(stream, head+int64(i)+1))
		if err != nil {
			return &UnknownError{stream, err}
		}
		if len(r.Kvs) == 0 || !bytes.Equal(r.Kvs[0].Value, line) {
			if err := l.ConfirmLeader(ctx); err != nil {
				return err
			}
			return &ConflictError{stream, head}
		}
	}
	return nil
}

// Read gives the lines after the event with number after, in order, to the head.
// A gap is an error: an event that is missing must not be read as one that did
// not happen.
func (l *Ledger) Read(ctx context.Context, stream string, after int64) ([][]byte, error) {
	if err := checkName(stream); err != nil {
		return nil, err
	}
	r, err := l.get(ctx, headKey(stream))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", stream, err)
	}
	var head int64
	if len(r.Kvs) > 0 {
		if head, err = strconv.ParseInt(string(r.Kvs[0].Value), 10, 64); err != nil {
			return nil, fmt.Errorf("read %s: its head is %q", stream, r.Kvs[0].Value)
		}
	}
	var lines [][]byte
	for {
		next := after + int64(len(lines)) + 1
		r, err := l.get(ctx, eventKey(stream, next), clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix+stream+"/event/")),
			clientv3.WithSort(clientv3.SortByKey, clientv3.SortAscend), clientv3.WithLimit(page))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", stream, err)
		}
		for i, kv := range r.Kvs {
			if string(kv.Key) != eventKey(stream, next+int64(i)) {
				return nil, fmt.Errorf("read %s: event %d is missing", stream, next+int64(i))
			}
			lines = append(lines, kv.Value)
		}
		if r.More {
			continue
		}
		if last := after + int64(len(lines)); last < head {
			return nil, fmt.Errorf("read %s: event %d is missing", stream, last+1)
		}
		return lines, nil
	}
}

// get asks etcd. A member in this process may also answer who no longer waits: it
// chooses between the answer and the end of the context by chance.
func (l *Ledger) get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return l.kv.Get(ctx, key, opts...)
}

// Streams lists the streams that have events.
func (l *Ledger) Streams(ctx context.Context) ([]string, error) {
	r, err := l.get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return nil, fmt.Errorf("list streams: %w", err)
	}
	var list []string
	for _, kv := range r.Kvs {
		if name, ok := strings.CutSuffix(strings.TrimPrefix(string(kv.Key), prefix), "/head"); ok {
			list = append(list, name)
		}
	}
	return list, nil
}

// Watch calls began once nothing can be missed any more, and changed with the new
// head whenever a stream's moves, until ctx ends. It returns the context's error,
// or one that means the watch must begin again.
func (l *Ledger) Watch(ctx context.Context, began func(), changed func(stream string, head int64)) error {
	for r := range l.kv.Watch(clientv3.WithRequireLeader(ctx), prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify()) {
		if r.Created {
			began()
		}
		if err := r.Err(); err != nil {
			return fmt.Errorf("watch the ledger: %w", err)
		}
		for _, e := range r.Events {
			if name, ok := strings.CutSuffix(strings.TrimPrefix(string(e.Kv.Key), prefix), "/head"); ok {
				head, err := strconv.ParseInt(string(e.Kv.Value), 10, 64)
				if err != nil {
					return fmt.Errorf("watch the ledger: the head of %s is %q", name, e.Kv.Value)
				}
				changed(name, head)
			}
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.New("watch the ledger: the watch ended")
}
