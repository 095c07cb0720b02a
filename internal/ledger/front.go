package ledger

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"

	"trysail/internal/limit"
)

// front is where other members reach this one's etcd. Etcd does any number of TLS
// handshakes at a time; so its own listener is a socket in its directory, and the front
// passes on only what shows the certificate of a control.
type front struct {
	l      net.Listener
	config *tls.Config
	socket string
	log    *slog.Logger
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// handshake is how long a member may take to show its certificate.
const handshake = 5 * time.Second

// mostOfMembers bounds the connections of all other members together: each has a few.
func mostOfMembers() limit.Most { return limit.Most{Connections: 1024, Requests: 1024} }

// listenFront listens at an address for members with certificates that info allows, and
// passes what they say to the socket.
func listenFront(address string, info transport.TLSInfo, socket string, log *slog.Logger) (*front, error) {
	config, err := info.ServerConfig()
	if err != nil {
		return nil, err
	}
	config = limit.Certificates(config, func(c *x509.Certificate) error {
		if !slices.Contains(info.AllowedCNs, c.Subject.CommonName) {
			return fmt.Errorf("%q is the certificate of no control", c.Subject.CommonName)
		}
		return nil
	})
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	f := &front{l: limit.Listen(l, limit.Defaults()), config: config, socket: socket, log: log}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	f.wg.Go(f.accept)
	return f, nil
}

func (f *front) accept() {
	for {
		c, err := f.l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			f.log.Warn("accept a member of etcd", "err", err)
			select {
			case <-f.ctx.Done():
				return
			case <-time.After(100 * time.Millisecond): // too many files are open
			}
			continue
		}
		f.wg.Go(func() {
			defer c.Close()
			if err := f.pass(c); err != nil {
				f.log.Debug("member of etcd", "from", c.RemoteAddr(), "err", err)
			}
		})
	}
}

// pass ends when both sides have ended, or the front is closed.
func (f *front) pass(c net.Conn) error {
	ctx, cancel := context.WithTimeout(f.ctx, handshake)
	defer cancel()
	member := tls.Server(c, f.config)
	if err := member.HandshakeContext(ctx); err != nil {
		return err
	}
	done, ok := limit.Admit(limit.Context(f.ctx, c), "members", mostOfMembers())
	if !ok {
		return errors.New("the members have too many connections")
	}
	defer done()
	etcd, err := (&net.Dialer{}).DialContext(ctx, "unix", f.socket)
	if err != nil {
		return err
	}
	defer context.AfterFunc(f.ctx, func() { c.Close(); etcd.Close() })()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(etcd, member) // either side may be gone: then both are closed
		etcd.Close()
	})
	_, err = io.Copy(member, etcd)
	c.Close()
	wg.Wait()
	return err
}

// Close ends every connection. There may be no front.
func (f *front) Close() error {
	if f == nil {
		return nil
	}
	f.cancel()
	err := f.l.Close()
	f.wg.Wait()
	return err
}
