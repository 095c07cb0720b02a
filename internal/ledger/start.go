package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// StartOptions say which etcd holds the ledger.
type StartOptions struct {
	Dir       string   // of the embedded etcd
	Endpoints []string // of a cluster that runs already; then nothing is embedded
	Log       *slog.Logger
}

// Store is a ledger with the etcd that holds it.
type Store struct {
	*Ledger
	etcd   *embed.Etcd
	client *clientv3.Client
	quota  int64
	seat   *concurrency.Session // of a cluster that others reach too; nil: embedded
}

const (
	startTime = 30 * time.Second
	quota     = 4 << 30 // bytes; a release of 500 steps takes a few megabytes
)

// Start starts the embedded etcd, or connects to the cluster.
func Start(ctx context.Context, o StartOptions) (*Store, error) {
	if len(o.Endpoints) > 0 {
		c, err := clientv3.New(clientv3.Config{Endpoints: o.Endpoints, DialTimeout: 5 * time.Second, Logger: zap.NewNop(), Context: ctx})
		if err != nil {
			return nil, fmt.Errorf("etcd at %s: %w", strings.Join(o.Endpoints, ", "), err)
		}
		s := &Store{Ledger: New(c), client: c}
		if err := s.sit(ctx, o.Endpoints); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		return s, nil
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	// Nobody connects: the client calls the server in this process. The sockets
	// that etcd insists on are files below its own directory.
	socket := func(name string) url.URL {
		return url.URL{Scheme: "unix", Path: filepath.Join(o.Dir, name)}
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = "control", filepath.Join(o.Dir, "data")
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{socket("client")}, []url.URL{socket("client")}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{socket("peer")}, []url.URL{socket("peer")}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.QuotaBackendBytes = quota
	// What is overwritten, which heads alone are, is forgotten.
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModeRevision, "1000"
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(zapcore.NewCore(
		zapcore.NewConsoleEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&lines{o.Log}), zapcore.WarnLevel)))
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		e.Close()
		return nil, fmt.Errorf("start etcd: %w", err)
	case <-ctx.Done():
		e.Close()
		return nil, ctx.Err()
	case <-time.After(startTime):
		e.Close()
		return nil, fmt.Errorf("etcd in %s was not ready after %s", o.Dir, startTime)
	}
	c := v3client.New(e.Server)
	return &Store{Ledger: New(c), etcd: e, client: c, quota: cfg.QuotaBackendBytes}, nil
}

const (
	seatKey  = "/trysail/control" // outside of prefix: it is no stream
	seatTTL  = 3                  // seconds after which a killed control's seat is free
	seatWait = 6 * time.Second
)

// HeldError says that another control uses the cluster.
type HeldError struct{ Endpoints []string }

func (e *HeldError) Error() string {
	return "another control uses the etcd cluster at " + strings.Join(e.Endpoints, ", ")
}

// Hint says what to do.
func (e *HeldError) Hint() string {
	return "stop it first: machines report to one control, and a second would hold them all for lost"
}

// sit takes the only seat for a control at a cluster.
func (s *Store) sit(ctx context.Context, endpoints []string) error {
	within, cancel := context.WithTimeout(ctx, seatWait)
	defer cancel()
	seat, err := concurrency.NewSession(s.client, concurrency.WithTTL(seatTTL), concurrency.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("etcd at %s: %w", strings.Join(endpoints, ", "), err)
	}
	if err := concurrency.NewMutex(seat, seatKey).Lock(within); err != nil {
		err = errors.Join(err, seat.Close())
		if ctx.Err() == nil && within.Err() != nil {
			return &HeldError{endpoints}
		}
		return err
	}
	s.seat = seat
	return nil
}

// Close stops what Start started.
func (s *Store) Close() error {
	var err error
	if s.seat != nil {
		err = s.seat.Close()
	}
	err = errors.Join(err, s.client.Close())
	if s.etcd != nil {
		s.etcd.Close()
	}
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
}

func isFull(err error) bool {
	return errors.Is(err, rpctypes.ErrNoSpace) || errors.Is(err, rpctypes.ErrGRPCNoSpace)
}

// lines hands etcd's own log on.
type lines struct{ log *slog.Logger }

func (l *lines) Write(p []byte) (int, error) {
	l.log.Debug("etcd", "line", strings.TrimSpace(string(p)))
	return len(p), nil
}

// NotEmptyError says that a ledger holds events already.
type NotEmptyError struct{ Stream string }

func (e *NotEmptyError) Error() string {
	return "the ledger holds " + e.Stream + " already: a copy would not bring it back but fork it"
}

// Hint says what to do.
func (e *NotEmptyError) Hint() string {
	return "start without --recover; or move the old ledger away first, if it is damaged"
}

// Recover fills an empty ledger from copies. All of them are read and checked
// before anything is written. One that was cut off goes on: a ledger that is the
// beginning of the copies is no other ledger.
func (s *Store) Recover(ctx context.Context, dir string) error {
	names, err := Copies(dir)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return fmt.Errorf("%s holds no copy of a ledger", dir)
	}
	copies := map[string][][]byte{}
	for _, n := range names {
		if copies[n], err = checkedCopy(dir, n); err != nil {
			return err
		}
	}
	have, err := s.Streams(ctx)
	if err != nil {
		return err
	}
	begun := map[string]int{}
	for _, n := range have {
		lines, err := s.Read(ctx, n, 0)
		if err != nil {
			return err
		}
		old := copies[n]
		if len(lines) > len(old) || !slices.EqualFunc(lines, old[:min(len(lines), len(old))], bytes.Equal) {
			return &NotEmptyError{n}
		}
		begun[n] = len(lines)
	}
	for _, n := range names {
		for i, l := range copies[n] {
			if i < begun[n] {
				continue
			}
			if err := s.Append(ctx, n, int64(i), l); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkedCopy reads a copy whose events are numbered as they stand.
func checkedCopy(dir, name string) ([][]byte, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	lines, err := ReadCopy(dir, name)
	if err != nil {
		return nil, err
	}
	for i, l := range lines {
		var e struct {
			Seq int64 `json:"seq"`
		}
		if err := json.Unmarshal(l, &e); err != nil || e.Seq != int64(i)+1 {
			return nil, &TornError{filepath.Join(dir, name+".jsonl"), int64(i) + 1, fmt.Sprintf("this is not event %d", i+1)}
		}
	}
	return lines, nil
}

// tending is how often Tend looks.
const tending = 10 * time.Second

// Tend ends when ctx does. A database that was full refuses every write until it
// is told that there is room again, which is what Tend does once there is: it
// forgets what was overwritten (heads; events never are), gives the room back to
// the disk, and takes the alarm away. At a cluster of others it ends with an error
// when this control lost its seat.
func (s *Store) Tend(ctx context.Context, log *slog.Logger) error {
	t := time.NewTicker(tending)
	defer t.Stop()
	var lost <-chan struct{}
	if s.seat != nil {
		lost = s.seat.Done()
	}
	for {
		if s.etcd != nil {
			if err := s.makeRoom(ctx); err != nil && ctx.Err() == nil {
				log.Error("the ledger is full", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-lost:
			return errors.New("etcd did not answer for so long that another control may have begun")
		case <-t.C:
		}
	}
}

func (s *Store) makeRoom(ctx context.Context) error {
	alarms, err := s.client.AlarmList(ctx)
	if err != nil || len(alarms.Alarms) == 0 {
		return err
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
	_, err = s.client.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	return err
}
