package control

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"trysail/internal/api"
	"trysail/internal/limit"
	"trysail/release"
)

// TestAttackReportsNobodyAskedFor: a machine reports leases that it never had, of steps that
// a release does not have, as often as it likes. The ledger, which is of bounded size, does
// not grow by it; a result that came too late stands in it once.
func TestAttackReportsNobodyAskedFor(t *testing.T) {
	c := station(t, "a", "b")
	started(t, c, "1.0")
	epoch := granted(t, c, "1.0", "a")
	head := func() int64 { return c.state("1.0").Head }
	before := head()
	reports := func(machine, item string, epoch int64) {
		in := map[string]any{"release": "1.0", "report": release.Report{Finished: release.Finished{Item: item, Epoch: epoch}}}
		answer, err := c.report(t.Context(), &caller{machine: machine}, httptest.NewRequest(http.MethodPost, "/", sent(t, in)))
		if err != nil || !strings.Contains(fmt.Sprint(answer), " ") && !strings.Contains(fmt.Sprint(answer), "over") {
			t.Errorf("%s is answered %v on lease %d of %.20s: %v", machine, answer, epoch, item, err)
		}
	}
	for i := range 20 {
		reports("b", strings.Repeat("x", 100_000), int64(i))
		reports("b", "build", int64(1000+i))
		reports("b", "build", epoch)
	}
	if head() != before {
		t.Errorf("a hostile machine appended %d events", head()-before)
	}
	if _, err := c.update(t.Context(), "1.0", "test", func(*release.State) (release.Body, error) {
		return release.Lost{Item: "build", Epoch: epoch, Machine: "a", Why: "test"}, nil
	}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		reports("a", "build", epoch)
	}
	if got := len(c.state("1.0").Refusals); got != 1 {
		t.Errorf("one result that came too late stands in the ledger %d times", got)
	}
}

// TestAttackTermsWithoutEnd: a machine says something else of itself with each request, as long
// as a request may be. The ledger, which is of bounded size, hardly grows by it; other machines
// change theirs meanwhile, and this one may again after a while.
func TestAttackTermsWithoutEnd(t *testing.T) {
	c := station(t, "a", "b")
	says := func(machine string, asks api.Terms) error {
		_, err := c.terms(t.Context(), &caller{machine: machine}, httptest.NewRequest(http.MethodPost, "/", sent(t, asks)))
		return err
	}
	before := c.joined
	for i := range 200 {
		_ = says("a", api.Terms{Slots: 1 + i%7})
		_ = says("a", api.Terms{Serves: &[]string{strings.Repeat("x", 100_000+i)}})
	}
	if grew := c.joined - before; grew > 30 {
		t.Errorf("a hostile machine appended %d events", grew)
	}
	lines, err := c.o.Ledger.Read(t.Context(), fleetStream, before)
	if err != nil {
		t.Fatal(err)
	}
	size := 0
	for _, l := range lines {
		size += len(l)
	}
	if size > 100_000 {
		t.Errorf("a hostile machine appended %d bytes", size)
	}
	if err := says("b", api.Terms{Slots: 3, Serves: &[]string{"build", "sign"}}); err != nil || c.members["b"].Slots != 3 {
		t.Errorf("another machine is refused: %v", err)
	}
	now := c.o.Now
	c.o.Now = func() time.Time { return now().Add(termsTime) }
	if err := says("a", api.Terms{Slots: 500}); err != nil || c.members["a"].Slots != 500 {
		t.Errorf("after an hour it is refused: %v", err)
	}
}

// TestAttackCopiesOfNothing: a machine says with each beat that it copies streams that
// nobody ever had. What control keeps of that is bounded.
func TestAttackCopiesOfNothing(t *testing.T) {
	c := station(t, "a")
	at := time.Now()
	for i := range 4 {
		b := api.Beat{}
		for k := range 3000 {
			b.Copies = append(b.Copies, api.Copy{Stream: fmt.Sprintf("release-%d.%d", i, k), Events: 1, Root: make([]byte, 32)})
		}
		_, _ = c.beat(t.Context(), &caller{machine: "a"}, httptest.NewRequest(http.MethodPost, "/", sent(t, b)))
	}
	if took := time.Since(at); took > 5*time.Second {
		t.Errorf("four beats took control %s", took)
	}
	if n := len(c.doubts); n > 2000 {
		t.Errorf("control keeps %d doubts of one machine", n)
	}
	for _, name := range []string{"release-" + strings.Repeat("x", 1<<20), "release-a\n\x1b[2J", "../x"} {
		if err := c.compare(t.Context(), "a", []api.Copy{{Stream: name, Events: 1}}); err == nil && c.doubts[name] != nil {
			t.Errorf("control keeps a stream of the name %.20q", name)
		}
	}
}

// TestAttackListsWithoutEnd: a machine sends megabytes of empty leases with a beat. Control
// keeps none of them, and makes no values of them either.
func TestAttackListsWithoutEnd(t *testing.T) {
	c := station(t, "a")
	data := []byte(`{"holding":[` + strings.TrimSuffix(strings.Repeat("{},", maxBody/3-10), ",") + `]}`)
	runtime.GC()
	var m0, m1 runtime.MemStats
	runtime.ReadMemStats(&m0)
	_, err := c.beat(t.Context(), &caller{machine: "a"}, httptest.NewRequest(http.MethodPost, "/v1/beat", bytes.NewReader(data)))
	runtime.ReadMemStats(&m1)
	if got := m1.TotalAlloc - m0.TotalAlloc; got > 16<<20 {
		t.Errorf("one beat of %d bytes costs %d MB", len(data), got>>20)
	}
	if n := len(c.members["a"].holding); err == nil || n > 5000 {
		t.Errorf("control keeps %d leases that a machine says it has: %v", n, err)
	}
	// What agents send is dense too, and is taken.
	var b api.Beat
	for i := range 1000 {
		b.Holding = append(b.Holding, api.Holding{Release: "1", Item: "a", Epoch: int64(i)})
	}
	if _, err := c.beat(t.Context(), &caller{machine: "a"}, httptest.NewRequest(http.MethodPost, "/v1/beat", sent(t, b))); err != nil {
		t.Errorf("a machine with a thousand leases is refused: %v", err)
	}
}

// TestAttackBodiesAtATime: one caller sends as many large requests at a time as it can.
// Those on top of what it may wait; nobody else does.
func TestAttackBodiesAtATime(t *testing.T) {
	var b bodies
	ask := func(ctx context.Context, who string, length int64) (func(), error) {
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/beat", strings.NewReader("x"))
		r.ContentLength = length
		return b.read(r, who)
	}
	var ends []func()
	for range mostBodies / maxBody {
		done, err := ask(t.Context(), "machine a", -1)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, done)
	}
	soon, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := ask(soon, "machine a", 10); err == nil {
		t.Error("one caller has more read at a time than it may")
	}
	if _, err := ask(t.Context(), "machine b", -1); err != nil {
		t.Errorf("another waits too: %v", err)
	}
	ends[0]()
	if _, err := ask(t.Context(), "machine a", 10); err != nil {
		t.Errorf("it waits for ever: %v", err)
	}
}

// TestAttackRequestOfAKeyWithoutEnd: a machine asks for a certificate of a key so large that
// nobody can check its signature in a day.
func TestAttackRequestOfAKeyWithoutEnd(t *testing.T) {
	n := new(big.Int).Lsh(big.NewInt(1), 1<<18)
	n.Sub(n, big.NewInt(1))
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	q, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	large := &rsa.PublicKey{N: n, E: 1<<31 - 1}
	spki, err := x509.MarshalPKIXPublicKey(large)
	if err != nil {
		t.Fatal(err)
	}
	// The outer length of what is replaced.
	var outer asn1.RawValue
	if _, err := asn1.Unmarshal(q.RawTBSCertificateRequest, &outer); err != nil {
		t.Fatal(err)
	}
	inner := bytes.Replace(outer.Bytes, q.RawSubjectPublicKeyInfo, spki, 1)
	tbs, err := asn1.Marshal(asn1.RawValue{Class: outer.Class, Tag: outer.Tag, IsCompound: true, Bytes: inner})
	if err != nil {
		t.Fatal(err)
	}
	algorithm := []byte{0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00} // sha256WithRSAEncryption
	sig := make([]byte, (n.BitLen()+7)/8)
	sig[len(sig)-1] = 2
	bits, err := asn1.Marshal(asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)})
	if err != nil {
		t.Fatal(err)
	}
	whole, err := asn1.Marshal(asn1.RawValue{Tag: 16, IsCompound: true, Bytes: append(append(bytes.Clone(tbs), algorithm...), bits...)})
	if err != nil {
		t.Fatal(err)
	}
	a := authorityIn(t, t.TempDir(), time.Now())
	at := time.Now()
	_, _, err = a.sign(whole, "a", time.Now())
	if took := time.Since(at); err == nil || took > 5*time.Second {
		t.Errorf("a request of %d bytes takes %s: %v", len(whole), took, err)
	}
}

// TestAttackQuotaOfAnother: whoever has the key of a machine that was replaced keeps as many
// connections open as a machine may. The machine that has the name now gets one all the same.
func TestAttackQuotaOfAnother(t *testing.T) {
	at := noon()
	c := begin(t, newDisk(t), at)
	d := &Door{}
	d.open(c.Handler())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := Server(d, c.o.Identity, slog.New(slog.DiscardHandler))
	go func() { _ = srv.ServeTLS(limit.Listen(l, limit.Defaults()), "", "") }()
	t.Cleanup(func() { srv.Close() })
	machine := func() *tls.Config {
		key := ecKey(t)
		cert, _, err := c.o.Identity.authority.sign(request(t, x509.CertificateRequest{}, key), "a", at.now)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(cert)
		return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{block.Bytes}, PrivateKey: key}}, InsecureSkipVerify: true}
	}
	ask := func(config *tls.Config) (net.Conn, string) {
		conn, err := tls.Dial("tcp", l.Addr().String(), config)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, "GET /v1/openapi.yaml HTTP/1.1\r\nHost: control\r\n\r\n")
		line := make([]byte, 12)
		if _, err := io.ReadFull(conn, line); err != nil {
			t.Fatal(err)
		}
		return conn, string(line)
	}
	old := machine()
	for range mostOfMachine().Connections {
		conn, _ := ask(old)
		defer conn.Close()
	}
	if conn, answer := ask(old); !strings.HasSuffix(answer, "429") {
		conn.Close()
		t.Errorf("with too many connections it is answered %q", answer)
	}
	conn, answer := ask(machine())
	defer conn.Close()
	if !strings.HasSuffix(answer, "200") {
		t.Errorf("the machine that has the name now is answered %q", answer)
	}
}
