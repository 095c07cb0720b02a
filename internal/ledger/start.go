package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/transport"
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
	Peer      *Peer    // how other controls reach the embedded one; nil: not at all
	Log       *slog.Logger
}

// Peer is this control as a member of a cluster of several. Members speak TLS
// with each other, and show certificates of one authority.
type Peer struct {
	Name    string // of this control, and of no other: the address of its API
	Address string // host:port where other members reach this one's etcd
	// Cluster is what [Store.AddControl] of a control that runs answered; "" begins
	// a cluster of one, or goes on with the one that the directory holds.
	Cluster              string
	Cert, Key, Authority string // files
	CommonName           string // that the certificate of a peer must bear
}

// listens is the address to listen on. One that is named is reached at any address of
// this machine.
func (p *Peer) listens() (string, error) {
	host, port, err := net.SplitHostPort(p.Address)
	if err != nil {
		return "", fmt.Errorf("--peer %s: %w", p.Address, err)
	}
	if net.ParseIP(host) == nil {
		host = "0.0.0.0"
	}
	return net.JoinHostPort(host, port), nil
}

// Store is a ledger with the etcd that holds it. Its own ledger appends whoever
// decides; that of a [Term] only while this control does.
type Store struct {
	*Ledger
	etcd   *embed.Etcd
	front  *front // nil if no other member reaches this one
	client *clientv3.Client
	quota  int64
	peer   *Peer
	said   *lines
	where  []string // endpoints of a cluster of others
}

const (
	startTime = 30 * time.Second
	sayAlone  = 3 * time.Second
	quota     = 4 << 30 // bytes; a release of 500 steps takes a few megabytes

	// The times of an election among three controls, in milliseconds. A majority
	// that does not hear of its leader elects another after one to two times the
	// second; agents end what they run when nobody answered for three seconds.
	raftHeartbeat, raftElection = 100, 700
)

// Start starts the embedded etcd, or connects to the cluster.
func Start(ctx context.Context, o StartOptions) (*Store, error) {
	if len(o.Endpoints) > 0 {
		c, err := clientv3.New(clientv3.Config{Endpoints: o.Endpoints, DialTimeout: 5 * time.Second, Logger: zap.NewNop(), Context: ctx})
		if err != nil {
			return nil, fmt.Errorf("etcd at %s: %w", strings.Join(o.Endpoints, ", "), err)
		}
		s := &Store{Ledger: New(c), client: c, where: o.Endpoints}
		if err := s.answers(ctx, func(within context.Context) error { _, err := c.Get(within, seatKey); return err }); err != nil {
			return nil, errors.Join(err, s.Close())
		}
		return s, nil
	}
	said := &lines{log: o.Log}
	cfg, err := config(o, said)
	if err != nil {
		return nil, err
	}
	var members *front
	if o.Peer != nil {
		at, err := o.Peer.listens()
		if err != nil {
			return nil, err
		}
		if members, err = listenFront(at, cfg.PeerTLSInfo, cfg.ListenPeerUrls[0].Host, o.Log); err != nil {
			return nil, startError(o, said, err)
		}
	}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, errors.Join(startError(o, said, err), members.Close())
	}
	if err := ready(ctx, e, o); err != nil {
		e.Server.HardStop() // Close alone waits for clients' listeners, which wait until it is ready
		e.Close()
		err = errors.Join(err, members.Close())
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, startError(o, said, err)
	}
	c := v3client.New(e.Server)
	s := &Store{Ledger: New(c), etcd: e, client: c, quota: cfg.QuotaBackendBytes, peer: o.Peer, said: said, front: members}
	if err := s.advertise(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// ready waits until etcd can be used. A member of several waits for the others as
// long as it takes, and says so: after a power cut they come back one by one.
func ready(ctx context.Context, e *embed.Etcd, o StartOptions) error {
	var late <-chan time.Time
	if o.Peer == nil {
		late = time.After(startTime)
	}
	for alone := time.After(sayAlone); ; {
		select {
		case <-e.Server.ReadyNotify():
			return nil
		case err := <-e.Err():
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			return fmt.Errorf("it was not ready after %s", startTime)
		case <-alone:
			if o.Peer != nil {
				o.Log.Warn("no majority of the controls answers: waiting for others to start")
			}
		}
	}
}

// config is the embedded etcd's. Nobody connects to serve clients: the client
// calls the server in this process. The socket that etcd insists on for them is a
// file below its own directory, and so is that for other members: they come through
// the front, if there are to be any.
func config(o StartOptions, said *lines) (*embed.Config, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	socket := func(name string) url.URL {
		return url.URL{Scheme: "unix", Path: filepath.Join(o.Dir, name)}
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = "control", filepath.Join(o.Dir, "data")
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{socket("client")}, []url.URL{socket("client")}
	// For members etcd listens on what it takes for the host. Without one it is a socket
	// without a file, which everybody on this machine may connect to.
	cfg.ListenPeerUrls = []url.URL{{Scheme: "unix", Host: filepath.Join(o.Dir, "peer")}}
	cfg.AdvertisePeerUrls = []url.URL{socket("peer")}
	if p := o.Peer; p != nil {
		cfg.Name, cfg.AdvertisePeerUrls = p.Name, []url.URL{{Scheme: "https", Host: p.Address}}
		cfg.PeerTLSInfo = transport.TLSInfo{
			CertFile: p.Cert, KeyFile: p.Key, TrustedCAFile: p.Authority, ClientCertAuth: true, SkipClientSANVerify: true, AllowedCNs: []string{p.CommonName},
		}
		cfg.TickMs, cfg.ElectionMs = raftHeartbeat, raftElection
		if p.Cluster != "" {
			cfg.ClusterState = embed.ClusterStateFlagExisting
		}
	}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	if o.Peer != nil && o.Peer.Cluster != "" {
		cfg.InitialCluster = o.Peer.Cluster
	}
	cfg.QuotaBackendBytes = quota
	// What is overwritten, which heads alone are, is forgotten.
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModeRevision, "1000"
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(zapcore.NewCore(
		zapcore.NewConsoleEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(said), zapcore.WarnLevel), zap.WithFatalHook(&fatal{o})))
	return cfg, nil
}

// StartError says that the embedded etcd does not start.
type StartError struct {
	Dir  string
	Peer string // address for other members; "" without
	Out  bool   // this control was dismissed
	Err  error
}

func (e *StartError) Error() string {
	if e.Out {
		return "this control was dismissed from its cluster"
	}
	return "start etcd: " + e.Err.Error()
}

// Hint says what to do.
func (e *StartError) Hint() string {
	switch text := e.Err.Error(); {
	case strings.Contains(text, "address already in use"):
		return "another program listens on " + e.Peer + ", where other controls would reach this one: give another with --peer"
	case strings.Contains(text, "no space left"):
		return "make room on the disk of " + e.Dir + ", and start again: what was acknowledged is there"
	case e.Out:
		return "move " + e.Dir + " away, and join again with trysail serve --join"
	}
	return "is another control running on " + e.Dir + "? if the disk lost it: trysail serve --recover DIR"
}

func (e *StartError) Unwrap() error { return e.Err }

func startError(o StartOptions, said *lines, err error) error {
	peer := ""
	if o.Peer != nil {
		peer = o.Peer.Address
	}
	return &StartError{o.Dir, peer, said.out.Load(), err}
}

// Close stops what Start started.
func (s *Store) Close() error {
	err := s.client.Close()
	if s.etcd != nil {
		s.etcd.Close()
	}
	err = errors.Join(err, s.front.Close())
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
}

func isFull(err error) bool {
	return errors.Is(err, rpctypes.ErrNoSpace) || errors.Is(err, rpctypes.ErrGRPCNoSpace)
}

// fatal ends the process, as etcd does where it cannot write any more, and says
// why before. What was not synced was not acknowledged.
type fatal struct{ o StartOptions }

// OnWrite implements zapcore.CheckWriteHook.
func (f *fatal) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	why := e.Message
	for _, x := range fields {
		if err, ok := x.Interface.(error); ok {
			why += ": " + err.Error()
		}
	}
	err := &StartError{Dir: f.o.Dir, Err: errors.New(why)}
	f.o.Log.Error("the ledger cannot be written, control ends; what it acknowledged is safe", "why", why, "remedy", err.Hint())
	os.Exit(1)
}

// lines hands etcd's own log on.
type lines struct {
	log *slog.Logger
	out atomic.Bool // it said that this member was removed
}

func (l *lines) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("permanently removed")) {
		l.out.Store(true)
	}
	l.log.Debug("etcd", "line", strings.TrimSpace(string(p)))
	return len(p), nil
}
