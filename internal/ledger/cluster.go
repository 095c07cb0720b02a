package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/types"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	tending     = time.Second      // between looks for a member that waits for its vote
	roomEvery   = 10 * time.Second // between looks whether there is room again
	ownLooks    = 3                // that a member has to take its alarm away itself
	clusterTime = 15 * time.Second
)

// Member is a control of the cluster.
type Member struct {
	Name  string `json:"name"` // address of its API; "" before it has begun for the first time
	Peer  string `json:"peer"` // where its etcd listens for others
	Votes bool   `json:"votes"`
	Leads bool   `json:"leads"`
}

// AloneError says that other controls cannot reach this one.
type AloneError struct{}

func (*AloneError) Error() string { return "this control has no address for other controls" }

// Hint says what to do.
func (*AloneError) Hint() string {
	return "start it again where others reach it: trysail serve --listen ADDRESS:7440"
}

func (s *Store) peerName() string {
	if s.peer == nil {
		return "control"
	}
	return s.peer.Name
}

// advertise tells the cluster where this member is, if it moved.
func (s *Store) advertise(ctx context.Context) error {
	if s.peer == nil {
		return nil
	}
	want := "https://" + s.peer.Address
	self := s.etcd.Server.Cluster().Member(s.etcd.Server.MemberID())
	if self == nil || slices.Equal(self.PeerURLs, []string{want}) {
		return nil
	}
	within, cancel := context.WithTimeout(ctx, clusterTime)
	defer cancel()
	if _, err := s.client.MemberUpdate(within, uint64(self.ID), []string{want}); err != nil {
		return fmt.Errorf("tell other controls the new address %s: %w", s.peer.Address, err)
	}
	return nil
}

// Controls lists the members of the cluster, by name. It asks nobody.
func (s *Store) Controls() []Member {
	if s.etcd == nil {
		return nil
	}
	var list []Member
	leader := s.etcd.Server.Leader()
	for _, m := range s.etcd.Server.Cluster().Members() {
		list = append(list, Member{m.Name, strings.TrimPrefix(slices.Concat(m.PeerURLs, []string{""})[0], "https://"), !m.IsLearner, m.ID == leader})
	}
	slices.SortFunc(list, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// Leader is the name of the control that this one takes for the leader; "" if a
// majority does not answer.
func (s *Store) Leader() string {
	for _, m := range s.Controls() {
		if m.Leads {
			return m.Name
		}
	}
	return ""
}

// AddControl makes room for one more control, without a vote until it has all
// that the others have, and gives what it starts with ([Peer.Cluster]). It may be
// asked again by one that did not come to begin.
func (s *Store) AddControl(ctx context.Context, name, peer string) (string, error) {
	if s.peer == nil {
		return "", &AloneError{}
	}
	ctx, cancel := context.WithTimeout(ctx, clusterTime)
	defer cancel()
	at := "https://" + peer
	if strings.ContainsAny(name+peer, ",= ") {
		return "", fmt.Errorf("%q is no address", name)
	}
	list, err := s.client.MemberList(ctx)
	if err != nil {
		return "", fmt.Errorf("list the controls: %w", err)
	}
	waits := false
	for _, m := range list.Members {
		same := slices.Contains(m.PeerURLs, at)
		switch {
		case same && m.Name == "":
			waits = true
		case same || m.Name == name:
			return "", fmt.Errorf("%s is a control of this cluster already", m.Name)
		}
	}
	if !waits {
		if err := s.addLearner(ctx, at); err != nil {
			return "", fmt.Errorf("add a control: %w", err)
		}
	}
	all := []string{name + "=" + at}
	for _, m := range list.Members {
		if !slices.Contains(m.PeerURLs, at) && m.Name != "" {
			for _, u := range m.PeerURLs {
				all = append(all, m.Name+"="+u)
			}
		}
	}
	return strings.Join(all, ","), nil
}

// addLearner waits until the others have been there for long enough that etcd
// takes the cluster for healthy (five seconds), and until one that joined before
// has its vote: etcd takes one at a time.
func (s *Store) addLearner(ctx context.Context, at string) error {
	for {
		_, err := s.client.MemberAddAsLearner(ctx, []string{at})
		soon := err != nil && slices.ContainsFunc([]error{rpctypes.ErrUnhealthy, rpctypes.ErrTooManyLearners}, func(e error) bool {
			return rpctypes.ErrorDesc(err) == rpctypes.ErrorDesc(e)
		})
		if !soon {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(looks):
		}
	}
}

// Dismiss takes a control out of the cluster for good: what it holds is void.
func (s *Store) Dismiss(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, clusterTime)
	defer cancel()
	for _, m := range s.etcd.Server.Cluster().Members() {
		if m.Name == name || slices.Contains(m.PeerURLs, "https://"+name) {
			if m.ID == s.etcd.Server.MemberID() {
				return fmt.Errorf("%s is the control that decides: stop it, and ask another", name)
			}
			if _, err := s.client.MemberRemove(ctx, uint64(m.ID)); err != nil {
				return fmt.Errorf("dismiss %s: %w", name, err)
			}
			return nil
		}
	}
	return fmt.Errorf("there is no control %s", name)
}

// promote gives votes to members that have caught up.
func (s *Store) promote(ctx context.Context, log *slog.Logger) error {
	if s.peer == nil || s.etcd.Server.Leader() != s.etcd.Server.MemberID() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, clusterTime)
	defer cancel()
	for _, m := range s.etcd.Server.Cluster().Members() {
		if !m.IsLearner || m.Name == "" {
			continue
		}
		if _, err := s.etcd.Server.PromoteMember(ctx, uint64(m.ID)); err != nil {
			if errors.Is(err, rpctypes.ErrMemberLearnerNotReady) || strings.Contains(err.Error(), "in sync") {
				continue // it is asked again
			}
			return err
		}
		log.Warn("a control has caught up, and votes", "control", m.Name)
	}
	return nil
}

// makeRoom counts in stood at how many looks the alarm of each member stood.
func (s *Store) makeRoom(ctx context.Context, stood map[uint64]int) error {
	if s.etcd == nil {
		return nil
	}
	list, err := s.client.AlarmList(ctx)
	if err != nil {
		return err
	}
	var full []uint64
	for _, a := range list.Alarms {
		if a.Alarm == etcdserverpb.AlarmType_NOSPACE { // another is for people to look at
			full = append(full, a.MemberID)
		}
	}
	maps.DeleteFunc(stood, func(id uint64, _ int) bool { return !slices.Contains(full, id) })
	if len(full) == 0 {
		return nil
	}
	head, err := s.client.Get(ctx, prefix)
	if err != nil {
		return err
	}
	if _, err := s.client.Compact(ctx, head.Header.Revision); err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		return err
	}
	if err := s.etcd.Server.Backend().Defrag(); err != nil {
		return err
	}
	if used := s.etcd.Server.Backend().SizeInUse(); used >= s.quota*9/10 {
		return fmt.Errorf("%d of %d bytes are in use", used, s.quota)
	}
	for _, id := range full {
		stood[id]++
		if !s.disarms(id, stood[id]) {
			continue
		}
		if _, err := s.client.AlarmDisarm(ctx, &clientv3.AlarmMember{MemberID: id, Alarm: etcdserverpb.AlarmType_NOSPACE}); err != nil {
			return err
		}
		delete(stood, id)
	}
	return nil
}

// disarms tells whether this member, which has room, takes a member's alarm away.
// Each gives its own room back, and takes its own alarm away. But one that is dead
// or was dismissed does not, and etcd keeps its alarm for ever and takes nothing
// from anybody: the leader takes it away. All members hold the same, so where the
// leader has room after it forgot what was overwritten a majority has; a member
// that lives and is full all the same raises its alarm at the next write.
func (s *Store) disarms(id uint64, stood int) bool {
	self := s.etcd.Server.MemberID()
	if id == uint64(self) {
		return true
	}
	return s.etcd.Server.Leader() == self && (s.etcd.Server.Cluster().Member(types.ID(id)) == nil || stood >= ownLooks)
}
