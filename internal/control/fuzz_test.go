package control

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"trysail/fleet"
	"trysail/internal/api"
	"trysail/release"
)

// rewritten holds that what a request amounts to is the same once it is written again: it is
// appended to the ledger, and read there by others.
func rewritten[T any](t *testing.T, data []byte) {
	v, err := body[T](httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(data)))
	if err != nil {
		var bad *badRequest
		if !errors.As(err, &bad) {
			t.Errorf("%q is refused as %v", data, err)
		}
		return
	}
	first, err := json.Marshal(v)
	if err != nil {
		return // a time that has no text
	}
	var w T
	if err := json.Unmarshal(first, &w); err != nil {
		t.Errorf("%q is read, and written so that it is not: %v", data, err)
	}
	if second, err := json.Marshal(w); err != nil || !bytes.Equal(first, second) {
		t.Errorf("%s is %s when it is read again: %v", first, second, err)
	}
}

func FuzzBody(f *testing.F) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for _, v := range []any{
		api.Beat{Holding: []api.Holding{{Release: "1.0", Item: "build", Epoch: 3}}, Has: []string{"sha256:00"}, Clock: &now, Copies: []api.Copy{{Stream: "fleet", Events: 2, Root: []byte{1}}}},
		api.Enrol{Token: "x", Name: "a", Rank: fleet.Primary, Slots: 1, Request: []byte{0x30}},
		api.Decide{Item: "qa", Person: "ann", Decision: "go", Spent: 3600},
		api.Checked{Event: 3},
		api.Amend{By: "ann"},
		map[string]any{"release": "1.0", "report": release.Report{Finished: release.Finished{Item: "build", Epoch: 3, Outputs: []release.Artifact{{Path: "a", Digest: "sha256:00"}}}}},
	} {
		data, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"holding":[{},{},{},{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		rewritten[api.Beat](t, data)
		rewritten[api.Enrol](t, data)
		rewritten[api.Start](t, data)
		rewritten[api.Decide](t, data)
		rewritten[api.Checked](t, data)
		rewritten[api.Step](t, data)
		rewritten[api.Token](t, data)
		rewritten[api.JoinControl](t, data)
		rewritten[api.Amend](t, data)
		rewritten[release.Excepted](t, data)
		rewritten[api.Abort](t, data)
		rewritten[api.Replay](t, data)
		rewritten[struct {
			Release string         `json:"release"`
			Report  release.Report `json:"report"`
		}](t, data)
	})
}

// FuzzKnown reads lines of a ledger that others kept. A line that is known is folded, or
// refused without a trace.
func FuzzKnown(f *testing.F) {
	f.Add("fleet", []byte(`{"seq":1,"joined":{"name":"a","rank":"primary","slots":1}}`))
	f.Add("access", []byte(`{"seq":1,"made":{"hash":"00","person":"ann","role":"viewer"}}`))
	f.Add("notices", []byte(`{"seq":1}`))
	f.Add("release-1.0", []byte(`{"seq":1,"time":"2026-11-24T12:00:00Z","actor":"ann","type":"started","body":{"version":"1.0","items":[{"name":"build"}]}}`))
	f.Add("release-1.0", []byte(`{"seq":1,"time":"2026-11-24T12:00:00Z","actor":"ann","type":"granted","body":{"item":"build","machine":"a"}}`))
	f.Fuzz(func(t *testing.T, stream string, line []byte) {
		if Known(stream, line) != nil || !streamName(stream) || stream == fleetStream || stream == AccessStream || stream == noticesStream {
			return
		}
		st := release.Empty()
		var e release.Event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		if err := st.Apply(e); err != nil && st.Head != 0 {
			t.Errorf("%s is refused, and counts: %v", line, err)
		}
	})
}

// FuzzSign reads requests for a certificate. What is signed is a machine's, of the name that
// control gives it, and no authority's.
func FuzzSign(f *testing.F) {
	a := authorityIn(f, f.TempDir(), time.Now())
	f.Add(request(f, x509.CertificateRequest{}, ecKey(f)))
	f.Fuzz(func(t *testing.T, data []byte) {
		cert, key, err := a.sign(data, "a", time.Now())
		if err != nil {
			return
		}
		block, _ := pem.Decode(cert)
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if c.IsCA || c.Subject.CommonName != "a" || len(c.DNSNames)+len(c.IPAddresses)+len(c.EmailAddresses)+len(c.URIs) > 0 || key != keyDigest(c) {
			t.Errorf("%x is made a certificate of %s", data, c.Subject)
		}
	})
}
