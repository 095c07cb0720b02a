package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
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
		return &Store{Ledger: New(c), client: c}, nil
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
	return &Store{Ledger: New(c), etcd: e, client: c}, nil
}

// Close stops what Start started.
func (s *Store) Close() error {
	err := s.client.Close()
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

// Recover fills an empty ledger from a copy.
func (s *Store) Recover(ctx context.Context, dir string) error {
	names, err := Copies(dir)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return fmt.Errorf("%s holds no copy of a ledger", dir)
	}
	have, err := s.Streams(ctx)
	if err != nil {
		return err
	}
	if len(have) > 0 {
		return &NotEmptyError{have[0]}
	}
	for _, n := range names {
		lines, err := ReadCopy(dir, n)
		if err != nil {
			return err
		}
		for i, l := range lines {
			var e struct {
				Seq int64 `json:"seq"`
			}
			if err := json.Unmarshal(l, &e); err != nil || e.Seq != int64(i)+1 {
				return &TornError{filepath.Join(dir, n+".jsonl"), int64(i) + 1, "this is not event " + fmt.Sprint(i+1)}
			}
			if err := s.Append(ctx, n, int64(i), l); err != nil {
				return err
			}
		}
	}
	return nil
}
