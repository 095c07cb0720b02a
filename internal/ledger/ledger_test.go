package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// short makes a directory whose path leaves room for the name of a socket.
func short(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "l")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func start(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Start(context.Background(), StartOptions{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fresh is an empty ledger in an etcd of its own.
func fresh(t testing.TB) *Store {
	t.Helper()
	s := start(t, short(t))
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// events are lines first to last of a stream, as control writes them.
func events(first, last int, what string) [][]byte {
	var list [][]byte
	for i := first; i <= last; i++ {
		list = append(list, fmt.Appendf(nil, `{"seq":%d,"what":%q}`, i, what))
	}
	return list
}

func same(a, b [][]byte) bool { return slices.EqualFunc(a, b, bytes.Equal) }

// put appends what must be taken.
func put(t testing.TB, l *Ledger, stream string, head int64, lines ...[]byte) {
	t.Helper()
	if err := l.Append(context.Background(), stream, head, lines...); err != nil {
		t.Fatalf("append to %s after %d: %v", stream, head, err)
	}
}

// holds says what is in a stream, all of it.
func holds(t testing.TB, l *Ledger, stream string, want [][]byte) {
	t.Helper()
	if got, err := l.Read(context.Background(), stream, 0); err != nil || !same(got, want) {
		t.Errorf("%s holds %d lines, not %d: %.300q %v", stream, len(got), len(want), got, err)
	}
}

func TestAppendAndRead(t *testing.T) {
	ctx := context.Background()
	s := fresh(t)
	if list, err := s.Streams(ctx); err != nil || len(list) != 0 {
		t.Errorf("a new ledger has streams %q %v", list, err)
	}
	holds(t, s.Ledger, "release.1", nil)
	// More than a page, and names that begin alike.
	n := 0
	for _, more := range []int{1, 1, 3, 100, 100, 100, 100, 94, 1, 1} {
		put(t, s.Ledger, "release.1", int64(n), events(n+1, n+more, "one")...)
		n += more
	}
	put(t, s.Ledger, "release.10", 0, events(1, 2, "ten")...)
	put(t, s.Ledger, "fleet", 0, events(1, 1, "fleet")...)
	put(t, s.Ledger, "release.1-rc", 0, []byte(""), []byte("no JSON \x00\xff"))
	for _, after := range []int{0, 1, 2, 499, n - page, n - 1, n, n + 1, n + page} {
		got, err := s.Read(ctx, "release.1", int64(after))
		if want := events(after+1, n, "one"); err != nil || !same(got, want) {
			t.Errorf("after %d: %d lines, not %d (%v)", after, len(got), len(want), err)
		}
	}
	holds(t, s.Ledger, "release.10", events(1, 2, "ten"))
	holds(t, s.Ledger, "fleet", events(1, 1, "fleet"))
	holds(t, s.Ledger, "release.1-rc", [][]byte{nil, []byte("no JSON \x00\xff")})
	holds(t, s.Ledger, "release", nil)
	list, err := s.Streams(ctx)
	slices.Sort(list)
	if err != nil || !slices.Equal(list, []string{"fleet", "release.1", "release.1-rc", "release.10"}) {
		t.Errorf("streams %q %v", list, err)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if got, err := s.Read(gone, "fleet", 0); !errors.Is(err, context.Canceled) {
		t.Errorf("a read that nobody waits for: %q %v", got, err)
	}
	if list, err := s.Streams(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("a list that nobody waits for: %q %v", list, err)
	}
}

// TestConflict: only who saw the last event may write the next one; who sends
// again what is there already has written it.
func TestConflict(t *testing.T) {
	ctx := context.Background()
	s := fresh(t)
	mine, other := events(1, 3, "mine"), events(1, 4, "other")
	put(t, s.Ledger, "r", 0, mine...)
	for _, c := range []struct {
		name     string
		head     int64
		lines    [][]byte
		conflict bool
	}{
		{"begun again", 0, other[:1], true},
		{"stale", 2, other[2:3], true},
		{"stale, and more than there is", 2, other[2:4], true},
		{"ahead", 4, other[3:], true},
		{"far ahead", 1000, other[3:], true},
		{"before the beginning", -1, other[:1], true},
		{"the same again", 0, mine, false},
		{"the first again", 0, mine[:1], false},
		{"the last again", 2, mine[2:], false},
		{"the same and more", 0, append(slices.Clone(mine), other[3]), true},
		{"the same but the last", 0, append(slices.Clone(mine[:2]), other[2]), true},
		{"the same elsewhere", 1, mine[2:], true},
	} {
		err := s.Append(ctx, "r", c.head, c.lines...)
		var conflict *ConflictError
		if c.conflict && (!errors.As(err, &conflict) || conflict.Stream != "r" || conflict.Expected != c.head) || !c.conflict && err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		holds(t, s.Ledger, "r", mine)
	}
	put(t, s.Ledger, "r", 3, other[3:]...)
	holds(t, s.Ledger, "r", append(slices.Clone(mine), other[3]))
}

// TestNoAnswer: who gave up waiting hears that it may have happened, unless it
// certainly did; sent again, it is one event.
func TestNoAnswer(t *testing.T) {
	s := fresh(t)
	lines := events(1, 20, "once")
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	for i := range lines {
		err := s.Append(gone, "r", int64(i), lines[i])
		var unknown *UnknownError
		if err != nil && (!errors.As(err, &unknown) || unknown.Stream != "r" || !errors.Is(err, context.Canceled)) {
			t.Fatalf("event %d: %v", i+1, err)
		}
		put(t, s.Ledger, "r", int64(i), lines[i])
		if err := s.Append(gone, "r", int64(i), lines[i]); err != nil {
			t.Errorf("event %d, which is there: %v", i+1, err)
		}
	}
	holds(t, s.Ledger, "r", lines)
}

// TestWritersRace: each event of each writer once and in its order, none missing.
func TestWritersRace(t *testing.T) {
	const writers, each = 4, 12
	ctx := context.Background()
	s := fresh(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	conflicts := 0
	begin := make(chan struct{})
	for w := range writers {
		wg.Go(func() {
			<-begin
			head := int64(0)
			for i := 0; i < each; {
				err := s.Append(ctx, "r", head, fmt.Appendf(nil, "%d-%d", w, i))
				var conflict *ConflictError
				if err == nil {
					i, head = i+1, head+1
					continue
				}
				if !errors.As(err, &conflict) {
					t.Errorf("writer %d: %v", w, err)
					return
				}
				mu.Lock()
				conflicts++
				mu.Unlock()
				more, err := s.Read(ctx, "r", head)
				if err != nil || len(more) == 0 {
					t.Errorf("writer %d, after a conflict at %d: %d lines %v", w, head, len(more), err)
					return
				}
				head += int64(len(more))
			}
		})
	}
	close(begin)
	wg.Wait()
	lines, err := s.Read(ctx, "r", 0)
	if err != nil || len(lines) != writers*each {
		t.Fatalf("%d lines of %d: %v", len(lines), writers*each, err)
	}
	next := make([]int, writers)
	for i, line := range lines {
		var w, n int
		if _, err := fmt.Sscanf(string(line), "%d-%d", &w, &n); err != nil || next[w] != n {
			t.Fatalf("event %d is %s: writer %d was to write %d (%v)", i+1, line, w, next[w], err)
		}
		next[w]++
	}
	if conflicts < writers-1 {
		t.Errorf("%d conflicts: the writers did not meet", conflicts)
	}
}

// TestSenders: the same append, sent by several at once, is one event.
func TestSenders(t *testing.T) {
	s := fresh(t)
	lines := events(1, 2, "same")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := s.Append(context.Background(), "r", 0, lines...); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	holds(t, s.Ledger, "r", lines)
}

func TestRestart(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(short(t), "etcd")
	s := start(t, dir)
	put(t, s.Ledger, "r", 0, events(1, 3, "before")...)
	put(t, s.Ledger, "fleet", 0, events(1, 1, "fleet")...)
	if err := s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	s = start(t, dir)
	holds(t, s.Ledger, "r", events(1, 3, "before"))
	holds(t, s.Ledger, "fleet", events(1, 1, "fleet"))
	if list, err := s.Streams(ctx); err != nil || !slices.Equal(list, []string{"fleet", "r"}) {
		t.Errorf("streams %q %v", list, err)
	}
	var conflict *ConflictError
	if err := s.Append(ctx, "r", 2, events(3, 3, "after")...); !errors.As(err, &conflict) {
		t.Errorf("a stale append: %v", err)
	}
	put(t, s.Ledger, "r", 2, events(3, 3, "before")...)
	put(t, s.Ledger, "r", 3, events(4, 4, "after")...)
	holds(t, s.Ledger, "r", append(events(1, 3, "before"), events(4, 4, "after")...))
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if info, err := os.Stat(dir); err != nil {
		t.Error(err)
	} else if info.Mode().Perm() != 0o700 {
		t.Errorf("the ledger's directory has mode %s", info.Mode())
	}
}

// TestGap: an event that is missing is not one that did not happen.
func TestGap(t *testing.T) {
	ctx := context.Background()
	s := fresh(t)
	for missing := int64(1); missing <= 4; missing++ {
		stream := fmt.Sprint("r", missing)
		lines := events(1, 4, "event")
		put(t, s.Ledger, stream, 0, lines...)
		if _, err := s.kv.Delete(ctx, eventKey(stream, missing)); err != nil {
			t.Fatal(err)
		}
		for after := range int64(4) {
			got, err := s.Read(ctx, stream, after)
			if after >= missing {
				if err != nil || !same(got, lines[after:]) {
					t.Errorf("without event %d, after %d: %q %v", missing, after, got, err)
				}
				continue
			}
			if err == nil || got != nil || !strings.Contains(err.Error(), fmt.Sprintf("event %d is missing", missing)) {
				t.Errorf("without event %d, after %d: %q %v", missing, after, got, err)
			}
		}
	}
}

func TestRefusedAppends(t *testing.T) {
	ctx := context.Background()
	s := fresh(t)
	long := bytes.Repeat([]byte("x"), maxLine+1)
	for _, c := range []struct {
		name, stream string
		lines        [][]byte
	}{
		{"no stream", "", events(1, 1, "x")},
		{"a stream with a slash", "a/b", events(1, 1, "x")},
		{"a stream that is a path", "../a", events(1, 1, "x")},
		{"a stream with a space", "a b", events(1, 1, "x")},
		{"a stream of two lines", "a\nb", events(1, 1, "x")},
		{"no lines", "r", nil},
		{"too many lines", "r", events(1, 101, "x")},
		{"an event of two lines", "r", [][]byte{[]byte("one\ntwo")}},
		{"an event that ends with a line's end", "r", [][]byte{[]byte("one\n")}},
		{"a second event of two lines", "r", [][]byte{[]byte("one"), []byte("\n")}},
		{"too long", "r", [][]byte{long}},
		{"a second one too long", "r", [][]byte{[]byte("one"), long}},
	} {
		err := s.Append(ctx, c.stream, 0, c.lines...)
		var conflict *ConflictError
		var unknown *UnknownError
		if err == nil || errors.As(err, &conflict) || errors.As(err, &unknown) || len(err.Error()) > 200 {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if list, err := s.Streams(ctx); err != nil || len(list) != 0 {
		t.Errorf("something refused was written: %q %v", list, err)
	}
	// The most that is taken.
	put(t, s.Ledger, "long", 0, long[1:])
	holds(t, s.Ledger, "long", [][]byte{long[1:]})
	put(t, s.Ledger, "many", 0, events(1, 100, "x")...)
	holds(t, s.Ledger, "many", events(1, 100, "x"))
}

// TestFull: a database without room takes nothing, says so, and can be read.
func TestFull(t *testing.T) {
	ctx := context.Background()
	s := fresh(t)
	put(t, s.Ledger, "r", 0, events(1, 1, "x")...)
	alarm := func(do etcdserverpb.AlarmRequest_AlarmAction) {
		t.Helper()
		if _, err := s.etcd.Server.Alarm(ctx, &etcdserverpb.AlarmRequest{
			MemberID: uint64(s.etcd.Server.MemberID()), Action: do, Alarm: etcdserverpb.AlarmType_NOSPACE,
		}); err != nil {
			t.Fatal(err)
		}
	}
	alarm(etcdserverpb.AlarmRequest_ACTIVATE)
	var full *FullError
	if err := s.Append(ctx, "r", 1, events(2, 2, "x")...); !errors.As(err, &full) || full.Hint() == "" {
		t.Errorf("append to a full ledger: %v", err)
	}
	holds(t, s.Ledger, "r", events(1, 1, "x"))
	alarm(etcdserverpb.AlarmRequest_DEACTIVATE)
	put(t, s.Ledger, "r", 1, events(2, 2, "x")...)
	holds(t, s.Ledger, "r", events(1, 2, "x"))
}

// TestWatch: a stream whose head moves is named, with its head. A watch ends with
// its context, and with the ledger, and tells these apart.
func TestWatch(t *testing.T) {
	s := start(t, short(t))
	put(t, s.Ledger, "old", 0, events(1, 1, "x")...)
	type move struct {
		stream string
		head   int64
	}
	watch := func(ctx context.Context) (moves chan move, ended chan error) {
		moves, ended = make(chan move, 1000), make(chan error, 1)
		go func() {
			ended <- s.Watch(ctx, func() {}, func(stream string, head int64) { moves <- move{stream, head} })
		}()
		return moves, ended
	}
	// When a watch begins is not told: append, two events at once, until it tells
	// of the last.
	hear := func(moves chan move, stream string) {
		t.Helper()
		deadline := time.After(20 * time.Second)
		for n, told := 0, int64(0); ; {
			put(t, s.Ledger, stream, int64(n), events(n+1, n+2, "x")...)
			n += 2
			for wait := time.After(50 * time.Millisecond); wait != nil; {
				select {
				case m := <-moves:
					if m.stream != stream || m.head <= told || m.head%2 != 0 {
						t.Errorf("%s moved to %d, after %d", m.stream, m.head, told)
					}
					if told = m.head; told == int64(n) {
						return
					}
				case <-wait:
					wait = nil
				case <-deadline:
					t.Fatalf("nothing was heard of %s", stream)
				}
			}
		}
	}
	end := func(ended chan error) error {
		t.Helper()
		select {
		case err := <-ended:
			return err
		case <-time.After(20 * time.Second):
			t.Fatal("the watch did not end")
			return nil
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	moves, ended := watch(ctx)
	hear(moves, "release.1")
	hear(moves, "fleet")
	cancel()
	if err := end(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("a watch that was cancelled ends with %v", err)
	}
	moves, ended = watch(context.Background())
	hear(moves, "release.2")
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := end(ended); err == nil {
		t.Error("a watch that broke ends without an error")
	}
}

// copies writes the copies that an agent has, by stream.
func copies(t testing.TB, streams map[string][][]byte) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for stream, lines := range streams {
		c, err := OpenCopy(dir, stream)
		if err == nil {
			err = errors.Join(c.Append(0, lines), c.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRecover(t *testing.T) {
	ctx := context.Background()
	s := fresh(t)
	if err := s.Recover(ctx, t.TempDir(), anything, nil); err == nil || !strings.Contains(err.Error(), "no copy") {
		t.Errorf("from an empty directory: %v", err)
	}
	if err := s.Recover(ctx, filepath.Join(t.TempDir(), "none"), anything, nil); err == nil || !strings.Contains(err.Error(), "no copy") {
		t.Errorf("from a directory that is not there: %v", err)
	}
	dir := copies(t, map[string][][]byte{"fleet": events(1, 2, "fleet"), "release.1": events(1, 120, "one")})
	torn := filepath.Join(dir, "release.1.jsonl")
	f, err := os.OpenFile(torn, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(`{"seq":121,"wha`)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Recover(ctx, dir, anything, nil); err != nil {
		t.Fatal(err)
	}
	holds(t, s.Ledger, "fleet", events(1, 2, "fleet"))
	holds(t, s.Ledger, "release.1", events(1, 120, "one"))
	put(t, s.Ledger, "release.1", 120, events(121, 121, "after")...)
	// One that was cut off goes on.
	for seq := int64(60); seq <= 121; seq++ {
		if _, err := s.kv.Delete(ctx, eventKey("release.1", seq)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.kv.Put(ctx, headKey("release.1"), "59"); err != nil {
		t.Fatal(err)
	}
	if err := s.Recover(ctx, dir, anything, nil); err != nil {
		t.Errorf("again after it was cut off: %v", err)
	}
	holds(t, s.Ledger, "release.1", events(1, 120, "one"))
	put(t, s.Ledger, "release.1", 120, events(121, 121, "after")...)
	var full *NotEmptyError
	if err := s.Recover(ctx, dir, anything, nil); !errors.As(err, &full) || full.Stream != "release.1" || full.Hint() == "" {
		t.Errorf("into a ledger that has events: %v", err)
	}
	holds(t, s.Ledger, "release.1", append(events(1, 120, "one"), events(121, 121, "after")...))
}

// TestRecoverTorn: a copy that is not events 1, 2, 3… is refused where it goes wrong.
func TestRecoverTorn(t *testing.T) {
	ctx := context.Background()
	s := fresh(t)
	for _, third := range []string{`{"seq":4}`, `{"seq":2}`, `{"seq":"3"}`, `{"what":"x"}`, `{"seq":3`, `[3]`, `3`, ``} {
		if _, err := s.kv.Delete(ctx, prefix, clientv3.WithPrefix()); err != nil {
			t.Fatal(err)
		}
		lines := append(events(1, 2, "x"), []byte(third))
		dir := copies(t, map[string][][]byte{"release.1": append(lines, events(4, 5, "x")...)})
		err := s.Recover(ctx, dir, anything, nil)
		var torn *TornError
		if !errors.As(err, &torn) || torn.File != filepath.Join(dir, "release.1.jsonl") || torn.Line != 3 || torn.Hint() == "" {
			t.Errorf("%s as event 3: %v", third, err)
		}
		if got, err := s.Streams(ctx); err != nil || len(got) != 0 {
			t.Errorf("%s as event 3: the ledger has streams %q %v", third, got, err)
		}
	}
}

// TestOneControl: a cluster of others has one seat for a control, which is free
// again when that control has gone.
func TestOneControl(t *testing.T) {
	ctx := context.Background()
	cluster := fresh(t)
	o := StartOptions{Endpoints: []string{"unix://" + filepath.Join(cluster.etcd.Config().Dir, "../client")}, Log: slog.New(slog.DiscardHandler)}
	sit := func() (*Store, *Term, error) {
		s, err := Start(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		term, err := s.Campaign(ctx)
		return s, term, err
	}
	first, term, err := sit()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if err := term.Append(ctx, "release.1", 0, []byte(`{"seq":1}`)); err != nil {
		t.Error(err)
	}
	if names, err := first.Streams(ctx); err != nil || len(names) != 1 {
		t.Errorf("streams %q %v", names, err)
	}
	var held *HeldError
	second, _, err := sit()
	if !errors.As(err, &held) || held.Hint() == "" {
		t.Errorf("a second control: %v", err)
	}
	defer second.Close()
	if err := errors.Join(term.ConfirmLeader(ctx), term.End()); err != nil {
		t.Error(err)
	}
	third, next, err := sit()
	if err != nil {
		t.Fatalf("after the first has gone: %v", err)
	}
	defer third.Close()
	var deposed *DeposedError
	if err := term.Append(ctx, "release.1", 1, []byte(`{"seq":2}`)); !errors.As(err, &deposed) {
		t.Errorf("the first appends after its term: %v", err)
	}
	if err := term.ConfirmLeader(ctx); !errors.As(err, &deposed) {
		t.Errorf("the first is sure after its term: %v", err)
	}
	key, err := third.client.Get(ctx, seatKey, clientv3.WithPrefix())
	if err != nil || len(key.Kvs) != 1 {
		t.Fatalf("the seat: %v %v", key, err)
	}
	if _, err := cluster.client.Revoke(ctx, clientv3.LeaseID(key.Kvs[0].Lease)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-next.Over:
	case <-time.After(20 * time.Second):
		t.Error("a control does not notice that it lost its seat")
	}
}
