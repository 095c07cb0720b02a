package control

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"trysail/internal/api"
	"trysail/internal/depot"
)

// TestStandbyKnowsNobody: a control that has just begun has folded nothing yet. It
// does not turn a machine of the fleet away for that, which would fail its step: it
// says that it does not decide, in words that the client understands also where an
// answer has none.
func TestStandbyKnowsNobody(t *testing.T) {
	d, err := depot.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c := New(Options{Dir: t.TempDir(), Depot: d, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	machine := &x509.Certificate{Subject: pkix.Name{CommonName: "m1", OrganizationalUnit: []string{"machine"}}}
	h := c.standby()
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{machine}}
		h.ServeHTTP(w, r)
	}))
	defer srv.Close()
	client := api.NewClient([]string{srv.Listener.Addr().String()}, "", srv.Client())
	dg := "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	asks := map[string]func() error{
		"has": func() error { _, err := client.HasBlob(t.Context(), dg); return err },
		"get": func() error { _, err := client.GetBlob(t.Context(), dg); return err },
		"put": func() error { return client.PutBlob(t.Context(), dg, http.NoBody) },
	}
	for what, ask := range asks {
		var away *api.UnreachableError
		if err := ask(); !errors.As(err, &away) || away.Sent {
			t.Errorf("%s: %v", what, err)
		}
	}
	h = &Door{} // it has not begun at all
	for what, ask := range asks {
		var away *api.UnreachableError
		if err := ask(); !errors.As(err, &away) {
			t.Errorf("before it begins, %s: %v", what, err)
		}
	}
	if _, err := d.PutBytes(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	h = c.standby()
	c.members["m1"] = &member{}
	for what, ask := range asks {
		if err := ask(); err != nil {
			t.Errorf("once it knows the machine, %s: %v", what, err)
		}
	}
}
