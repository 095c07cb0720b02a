package ledger

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// trust is an authority for the members of a test's cluster.
type trust struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (c *trust) issue(t *testing.T, name, common string, ca bool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: common}, NotAfter: time.Now().Add(time.Hour), IsCA: ca,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if ca {
		c.cert, c.key, x.ExtKeyUsage = x, key, nil
	}
	der, err := x509.CreateCertificate(rand.Reader, x, c.cert, &key.PublicKey, c.key)
	if err != nil {
		t.Fatal(err)
	}
	if ca {
		if c.cert, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
	}
	pkcs, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for suffix, b := range map[string]*pem.Block{".pem": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: pkcs}} {
		if err := os.WriteFile(filepath.Join(c.dir, name+suffix), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// free is an address that nobody listens on.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// control is a member of a test's cluster.
type control struct {
	*Store
	o StartOptions
}

func member(t *testing.T, c *trust, name, common string) *control {
	t.Helper()
	c.issue(t, name, common, false)
	return &control{nil, StartOptions{Dir: short(t), Log: slog.New(slog.DiscardHandler), Peer: &Peer{
		Name: name, Address: free(t), Cert: filepath.Join(c.dir, name+".pem"), Key: filepath.Join(c.dir, name+".key"),
		Authority: filepath.Join(c.dir, "ca.pem"), CommonName: "control",
	}}}
}

func (c *control) start(ctx context.Context) (err error) {
	c.Store, err = Start(ctx, c.o)
	return err
}

// TestThreeControls: a control that was alone becomes one of three; one decides,
// and when it goes another does, with all that was acknowledged. Two that go leave
// one that takes nothing, until one is back. Who was deposed writes nothing.
func TestThreeControls(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	c := &trust{dir: t.TempDir()}
	c.issue(t, "ca", "authority", true)
	all := map[string]*control{}
	for _, name := range []string{"a", "b", "c"} {
		all[name] = member(t, c, name, "control")
	}
	a := all["a"]
	if err := a.start(ctx); err != nil {
		t.Fatal(err)
	}
	tend := func(x *control) {
		go func() { _ = x.Maintain(ctx, x.o.Log) }() // ends with the test
	}
	tend(a)
	first, err := a.Campaign(ctx)
	if err != nil {
		t.Fatal(err)
	}
	put(t, first.Ledger, "r", 0, events(1, 10, "x")...)
	for i, name := range []string{"b", "c"} {
		x := all[name]
		for range 2 { // one that did not come to begin asks again
			if x.o.Peer.Cluster, err = a.AddControl(ctx, name, x.o.Peer.Address); err != nil {
				t.Fatal(err)
			}
		}
		if err := x.start(ctx); err != nil {
			t.Fatal(err)
		}
		tend(x)
		for votes := 0; votes < i+2; time.Sleep(20 * time.Millisecond) {
			if ctx.Err() != nil {
				t.Fatalf("%s has no vote: %+v", name, a.Controls())
			}
			votes = 0
			for _, m := range a.Controls() {
				if m.Votes {
					votes++
				}
			}
		}
		holds(t, x.Ledger, "r", events(1, 10, "x"))
		if _, err := a.AddControl(ctx, name, x.o.Peer.Address); err == nil {
			t.Errorf("%s is added twice", name)
		}
	}
	stop := func(x *control) {
		t.Helper()
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	}

	// The one that decides is gone.
	stop(a)
	second := make(chan *Term, 2)
	var led *control
	for _, name := range []string{"b", "c"} {
		go func() {
			if term, err := all[name].Campaign(ctx); err == nil {
				second <- term
			}
		}()
	}
	term := <-second
	for _, name := range []string{"b", "c"} {
		if all[name].Leader() == name {
			led = all[name]
		}
	}
	if led == nil {
		t.Fatal("nobody leads")
	}
	put(t, term.Ledger, "r", 10, events(11, 12, "x")...)

	// Two are gone: the last takes nothing, and says that it is not sure.
	other := all["b"]
	if led == other {
		other = all["c"]
	}
	stop(other)
	<-term.Over
	within, end := context.WithTimeout(ctx, 2*time.Second)
	var unknown *UnknownError
	if err := term.Append(within, "r", 12, events(13, 13, "x")...); err == nil {
		t.Error("one of three took an event")
	} else if !errors.As(err, &unknown) {
		t.Errorf("one of three: %v", err)
	}
	if err := term.ConfirmLeader(within); err == nil {
		t.Error("one of three is sure")
	}
	end()
	if name := led.Leader(); name != "" {
		t.Errorf("one of three says that %s leads", name)
	}

	// One is back. What was not acknowledged may be there or not; what was is.
	if err := a.start(ctx); err != nil {
		t.Fatal(err)
	}
	tend(a)
	go func() {
		if term, err := a.Campaign(ctx); err == nil {
			second <- term
		}
	}()
	go func() {
		if term, err := led.Campaign(ctx); err == nil {
			second <- term
		}
	}()
	third := <-second
	lines, err := third.Read(ctx, "r", 0)
	if err != nil || len(lines) < 12 || !same(lines[:12], events(1, 12, "x")) {
		t.Fatalf("%d events: %v", len(lines), err)
	}
	put(t, third.Ledger, "r", int64(len(lines)), events(len(lines)+1, len(lines)+1, "x")...)
	if err := term.Append(ctx, "r", int64(len(lines))+1, []byte(`{}`)); err == nil {
		t.Error("who was deposed appends")
	}

	// The one that does not come back makes room for another.
	decides := a
	if led.Leader() == led.o.Peer.Name {
		decides = led
	}
	if err := decides.Dismiss(ctx, decides.o.Peer.Name); err == nil {
		t.Error("the one that decides dismisses itself")
	}
	if err := decides.Dismiss(ctx, other.o.Peer.Name); err != nil {
		t.Error(err)
	}
	if list := decides.Controls(); len(list) != 2 {
		t.Errorf("controls %+v", list)
	}
	for _, x := range []*control{a, led} {
		stop(x)
	}

	// After a power cut the first that is back waits, and says for what.
	var said bytes.Buffer
	o := a.o
	o.Log = slog.New(slog.NewTextHandler(&said, nil))
	within, end = context.WithTimeout(ctx, sayAlone+2*time.Second)
	defer end()
	if s, err := Start(within, o); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(said.String(), "no majority of the controls answers") {
		t.Errorf("one of two begins: %v %v, and says %q", s, err, said.String())
	}
}

// TestStrangers: who has no certificate that names a control is no member.
func TestStrangers(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := &trust{dir: t.TempDir()}
	c.issue(t, "ca", "authority", true)
	a, b := member(t, c, "a", "control"), member(t, c, "b", "machine b")
	if err := a.start(ctx); err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	var err error
	if b.o.Peer.Cluster, err = a.AddControl(ctx, "b", b.o.Peer.Address); err != nil {
		t.Fatal(err)
	}
	within, end := context.WithTimeout(ctx, 5*time.Second)
	defer end()
	if err := b.start(within); err == nil {
		b.Close()
		t.Error("a machine's certificate makes a member")
	}
	put(t, a.Ledger, "r", 0, events(1, 1, "x")...) // and does a no harm
	if _, err := fresh(t).AddControl(ctx, "c", "127.0.0.1:1"); err == nil {
		t.Error("a control without an address for others adds one")
	}
	if _, err := a.AddControl(ctx, "c,d", "127.0.0.1:1"); err == nil {
		t.Error(fmt.Errorf("a name of two"))
	}
}
