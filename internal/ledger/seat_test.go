package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// heard is a log that is read while it is written.
type heard struct {
	mu   sync.Mutex
	said bytes.Buffer
}

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.said.Write(p)
}

func (h *heard) count(text string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Count(h.said.String(), text)
}

// raise raises the alarm of a member.
func raise(t *testing.T, s *Store, id uint64, what etcdserverpb.AlarmType) {
	t.Helper()
	if _, err := s.etcd.Server.Alarm(t.Context(), &etcdserverpb.AlarmRequest{MemberID: id, Action: etcdserverpb.AlarmRequest_ACTIVATE, Alarm: what}); err != nil {
		t.Fatal(err)
	}
}

func alarms(t *testing.T, s *Store) []*etcdserverpb.AlarmMember {
	t.Helper()
	list, err := s.client.AlarmList(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list.Alarms
}

// TestFullSeat: a control that leads while the ledger is full says so once, asks
// now and then, and decides when there is room.
func TestFullSeat(t *testing.T) {
	var h heard
	s, err := Start(t.Context(), StartOptions{Dir: short(t), Log: slog.New(slog.NewTextHandler(&h, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	raise(t, s, uint64(s.etcd.Server.MemberID()), etcdserverpb.AlarmType_NOSPACE)
	before := s.etcd.Server.AppliedIndex()
	sat := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	go func() {
		term, err := s.Campaign(ctx)
		if err == nil {
			err = term.End()
		}
		sat <- err
	}()
	select {
	case err := <-sat:
		t.Fatalf("it decides on a full ledger: %v", err)
	case <-time.After(2500 * time.Millisecond):
	}
	if n := s.etcd.Server.AppliedIndex() - before; n < 2 || n > 10 {
		t.Errorf("it asked for the seat %d times in 2.5 s", n)
	}
	if n := h.count("the ledger is full"); n != 1 || h.count((&FullError{}).Hint()) != 1 {
		t.Errorf("it said %d times that the ledger is full", n)
	}
	if err := s.makeRoom(t.Context(), map[uint64]int{}); err != nil {
		t.Fatal(err)
	}
	if err := <-sat; err != nil {
		t.Errorf("once there is room: %v", err)
	}
}

// TestStoppedSeat: a control whose etcd stopped while it led does not wait for its
// seat.
func TestStoppedSeat(t *testing.T) {
	s := fresh(t)
	s.etcd.Server.HardStop()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var stopped *StartError
	if _, err := s.Campaign(ctx); !errors.As(err, &stopped) {
		t.Errorf("it sits in an etcd that stopped: %v", err)
	}
}

// TestDeadAlarm: the alarm of a member that cannot take it away itself is taken
// away by the leader, at once if that member was dismissed, and later if it is
// only not there. What is no want of room is left to people.
func TestDeadAlarm(t *testing.T) {
	c := &trust{dir: t.TempDir()}
	c.issue(t, "ca", "authority", true)
	a := member(t, c, "a", "control")
	if err := a.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := a.AddControl(t.Context(), "b", free(t)); err != nil {
		t.Fatal(err)
	}
	var b uint64
	for _, m := range a.etcd.Server.Cluster().Members() {
		if m.ID != a.etcd.Server.MemberID() {
			b = uint64(m.ID)
		}
	}
	stood := map[uint64]int{}
	look := func() error {
		t.Helper()
		if err := a.makeRoom(t.Context(), stood); err != nil {
			t.Fatal(err)
		}
		return a.Append(t.Context(), "r", 0, events(1, 1, "x")...)
	}
	var full *FullError
	raise(t, a.Store, b, etcdserverpb.AlarmType_NOSPACE)
	for range ownLooks - 1 {
		if err := look(); !errors.As(err, &full) {
			t.Errorf("a member has no time to take its alarm away: %v", err)
		}
	}
	if err := look(); err != nil {
		t.Errorf("the alarm of a member that is not there: %v", err)
	}
	raise(t, a.Store, b, etcdserverpb.AlarmType_NOSPACE)
	raise(t, a.Store, 4711, etcdserverpb.AlarmType_NOSPACE) // of nobody any more
	if err := look(); !errors.As(err, &full) {
		t.Errorf("a second alarm of a member stands as long as its first: %v", err)
	}
	if left := alarms(t, a.Store); len(left) != 1 || left[0].MemberID != b {
		t.Errorf("the alarm of a member that was dismissed: %v", left)
	}
	for range ownLooks {
		_ = look() // that it is taken away was seen
	}
	raise(t, a.Store, uint64(a.etcd.Server.MemberID()), etcdserverpb.AlarmType_CORRUPT)
	if err := a.makeRoom(t.Context(), stood); err != nil {
		t.Fatal(err)
	}
	if left := alarms(t, a.Store); len(left) != 1 || left[0].Alarm != etcdserverpb.AlarmType_CORRUPT {
		t.Errorf("a corrupt member's alarm: %v", left)
	}
}

// TestMute: a control whose etcd is not there says so, and does not wait for it.
func TestMute(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*seatWait)
	defer cancel()
	var mute *MuteError
	if _, err := Start(ctx, StartOptions{Endpoints: []string{"http://" + free(t)}, Log: slog.New(slog.DiscardHandler)}); !errors.As(err, &mute) || mute.Hint() == "" {
		t.Errorf("an etcd that is not there: %v", err)
	}
	cluster := start(t, short(t))
	s, err := Start(ctx, StartOptions{Endpoints: []string{"unix://" + filepath.Join(cluster.etcd.Config().Dir, "../client")}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := cluster.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Campaign(ctx); !errors.As(err, &mute) {
		t.Errorf("an etcd that is not there any more: %v", err)
	}
	cancel()
	if _, err := s.Campaign(ctx); !errors.Is(err, context.Canceled) || errors.As(err, &mute) {
		t.Errorf("who does not want to know any more: %v", err)
	}
}

// TestTransient: what etcd says while it elects, or when it ends, is not what the
// ledger holds.
func TestTransient(t *testing.T) {
	ctx := t.Context()
	s := fresh(t)
	put(t, s.Ledger, "r", 0, events(1, 2, "x")...)
	if _, err := s.kv.Delete(ctx, eventKey("r", 1)); err != nil {
		t.Fatal(err)
	}
	_, err := s.Read(ctx, "r", 0)
	if err == nil || Transient(err) {
		t.Errorf("a gap: %v", err)
	}
	for _, err := range []error{nil, errors.New("x"), &DeposedError{}, &ConflictError{"r", 1}, context.Canceled} {
		if Transient(err) {
			t.Errorf("%v passes", err)
		}
	}
	gone := start(t, short(t))
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	_, stopped := gone.Streams(ctx)
	for _, err := range []error{
		stopped, gone.Append(ctx, "r", 0, events(1, 1, "x")...), &FullError{rpctypes.ErrNoSpace},
		fmt.Errorf("read r: %w", rpctypes.ErrLeaderChanged), fmt.Errorf("ask the majority: %w", rpctypes.ErrNoLeader), status.Error(codes.Unknown, "raft proposal dropped"),
	} {
		if !Transient(err) {
			t.Errorf("%v stays", err)
		}
	}
}
