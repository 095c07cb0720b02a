package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"google.golang.org/grpc/status"
)

// One control decides at a time: the leader. It holds a key in etcd, the seat. Every append
// of a [Term] has the condition that the seat is still its own, and [Ledger.ConfirmLeader]
// asks a majority. So a control that was deposed and does not know it yet (it was frozen, it
// is cut off) can neither write nor renew a lease. That makes it safe to take the seat at any
// moment: the control whose etcd member leads takes it, and waits for no lease to expire.

const (
	seatKey  = "/trysail/control" // outside of prefix: it is no stream
	seatTTL  = 3                  // seconds after which a killed control's seat at a cluster of others is free
	seatWait = 6 * time.Second
	looks    = 50 * time.Millisecond // between looks at who leads
)

// Term is the time in which this control decides.
type Term struct {
	*Ledger // appends only during the term
	Over    <-chan struct{}
	end     func() error
}

// End gives the seat up.
func (t *Term) End() error { return t.end() }

// HeldError says that another control uses the cluster.
type HeldError struct{ Endpoints []string }

func (e *HeldError) Error() string {
	return "another control uses the etcd cluster at " + strings.Join(e.Endpoints, ", ")
}

// Hint says what to do.
func (e *HeldError) Hint() string {
	return "stop that control first: machines report to one control, and a second would mark them all lost"
}

// MuteError says that a cluster of others gives no answer.
type MuteError struct{ Endpoints []string }

func (e *MuteError) Error() string {
	return "etcd at " + strings.Join(e.Endpoints, ", ") + " does not answer"
}

// Hint says what to do.
func (e *MuteError) Hint() string {
	return "see that it runs, that a majority of its members does, and that this machine reaches it: etcdctl endpoint health --endpoints " + strings.Join(e.Endpoints, ",")
}

// DeposedError says that another control decides by now; nothing was written.
type DeposedError struct{}

func (*DeposedError) Error() string { return "another control decides by now" }

// Transient tells whether an error is that etcd gave no answer, as while it elects,
// or took nothing: asked again, it may. An error in what it holds stays.
func Transient(err error) bool {
	var unknown *UnknownError
	var full *FullError
	var etcd rpctypes.EtcdError
	_, other := status.FromError(err) // that the client has no name for
	return errors.As(err, &unknown) || errors.As(err, &full) || errors.As(err, &etcd) || (err != nil && other)
}

// ConfirmLeader tells whether this control decides: a majority said so after it was asked.
func (l *Ledger) ConfirmLeader(ctx context.Context) error {
	if l.seat == nil {
		return nil
	}
	// With a read in it, or etcd would answer from what this member knows alone.
	r, err := l.kv.Txn(ctx).If(*l.seat).Then(clientv3.OpGet(seatKey, clientv3.WithKeysOnly())).Commit()
	switch {
	case err != nil:
		return fmt.Errorf("ask the majority: %w", err)
	case !r.Succeeded:
		return &DeposedError{}
	}
	return nil
}

// Campaign waits until this control decides. At a cluster of others it does not wait
// for long: one that holds the seat there is at work.
func (s *Store) Campaign(ctx context.Context) (*Term, error) {
	if s.etcd == nil {
		return s.sitThere(ctx)
	}
	for said := ""; ; {
		if err := s.lead(ctx); err != nil {
			return nil, err
		}
		mine := s.peerName() + " " + rand.Text()
		within, cancel := context.WithTimeout(ctx, seatWait)
		_, err := s.client.Put(within, seatKey, mine)
		cancel()
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err.Error() != said {
				said = err.Error()
				s.unseated(err)
			}
			again := looks // it led for a moment
			if isFull(err) {
				again = tending // that may last, and each try is in etcd's log
			}
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(again):
			}
			continue
		}
		is := clientv3.Compare(clientv3.Value(seatKey), "=", mine)
		l := &Ledger{kv: s.client, seat: &is}
		tctx, end := context.WithCancel(ctx)
		over := make(chan struct{})
		go func() {
			defer close(over)
			s.reign(tctx, l)
		}()
		return &Term{l, over, func() error { end(); <-over; return nil }}, nil
	}
}

// unseated says why a control that leads does not decide.
func (s *Store) unseated(err error) {
	if isFull(err) {
		full := &FullError{err}
		s.said.log.Error("this control leads and cannot decide yet", "err", full, "remedy", full.Hint())
		return
	}
	s.said.log.Warn("this control leads and cannot decide yet", "err", err)
}

// lead returns once this member leads. One that has stopped says for ever that it
// does, if it did.
func (s *Store) lead(ctx context.Context) error {
	for {
		select {
		case <-s.etcd.Server.StopNotify():
			return &StartError{s.etcd.Config().Dir, "", s.said.out.Load(), errors.New("the embedded etcd has stopped")}
		default:
		}
		if s.etcd.Server.Leader() == s.etcd.Server.MemberID() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.etcd.Server.StopNotify():
		case <-s.etcd.Server.LeaderChangedNotify():
		case <-time.After(looks):
		}
	}
}

// reign returns when this member does not lead any more, or another took the seat.
func (s *Store) reign(ctx context.Context, l *Ledger) {
	t := time.NewTicker(looks)
	defer t.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-s.etcd.Server.StopNotify():
			return
		case <-t.C:
		}
		if s.etcd.Server.Leader() != s.etcd.Server.MemberID() {
			return
		}
		if n%20 != 0 {
			continue
		}
		within, cancel := context.WithTimeout(ctx, time.Second)
		err := l.ConfirmLeader(within)
		cancel()
		var deposed *DeposedError
		if errors.As(err, &deposed) {
			return
		}
	}
}

// answers asks a cluster of others, which the client does for as long as nobody
// answers.
func (s *Store) answers(ctx context.Context, ask func(context.Context) error) error {
	within, cancel := context.WithTimeout(ctx, seatWait)
	defer cancel()
	err := ask(within)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case within.Err() != nil:
		return &MuteError{s.where}
	}
	return fmt.Errorf("etcd at %s: %w", strings.Join(s.where, ", "), err)
}

// sitThere takes the only seat for a control at a cluster of others.
func (s *Store) sitThere(ctx context.Context) (*Term, error) {
	within, cancel := context.WithTimeout(ctx, seatWait)
	defer cancel()
	// Not by the session: what it is given lives as long as the seat, and it would
	// ask for ever.
	var lease *clientv3.LeaseGrantResponse
	if err := s.answers(ctx, func(within context.Context) (err error) { lease, err = s.client.Grant(within, seatTTL); return err }); err != nil {
		return nil, err
	}
	seat, err := concurrency.NewSession(s.client, concurrency.WithLease(lease.ID), concurrency.WithTTL(seatTTL), concurrency.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("etcd at %s: %w", strings.Join(s.where, ", "), err)
	}
	m := concurrency.NewMutex(seat, seatKey)
	if err := m.Lock(within); err != nil {
		err = errors.Join(err, seat.Close())
		if ctx.Err() == nil && within.Err() != nil {
			return nil, &HeldError{s.where}
		}
		return nil, err
	}
	is := m.IsOwner()
	return &Term{&Ledger{kv: s.client, seat: &is}, seat.Done(), seat.Close}, nil
}

// Maintain ends when ctx does. A database that was full refuses every write until it
// gets an order to go on, which Maintain gives once there is room: it
// forgets what was overwritten (heads; events never are), gives the room back to
// the disk, and takes the alarm away. A member that has caught up gets its vote.
func (s *Store) Maintain(ctx context.Context, log *slog.Logger) error {
	t := time.NewTicker(tending)
	defer t.Stop()
	room := time.NewTicker(roomEvery)
	defer room.Stop()
	stood := map[uint64]int{}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-room.C:
			if err := s.makeRoom(ctx, stood); err != nil && ctx.Err() == nil {
				log.Error("the ledger is full", "err", err)
			}
		case <-t.C:
			if err := s.promote(ctx, log); err != nil && ctx.Err() == nil {
				log.Warn("give a control its vote", "err", err)
			}
		}
	}
}
