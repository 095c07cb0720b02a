package control

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"trysail/fleet"
	"trysail/internal/api"
	"trysail/internal/depot"
	"trysail/release"
	"trysail/runbook"
)

// station is a control with a depot, and machines that were just heard of.
func station(t testing.TB, machines ...string) *Control {
	t.Helper()
	k := newDisk(t)
	d, err := depot.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c := New(Options{Dir: k.dir, Depot: d, Ledger: k.store.Ledger, Actor: "control", Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	for _, m := range machines {
		joins(t, c, m)
		hears(c, m, time.Now())
	}
	return c
}

// hears says when a machine was heard of last, which had told what its disk says.
func hears(c *Control, machine string, at time.Time) {
	c.members[machine].heard, c.members[machine].told = at, at
}

func joins(t testing.TB, c *Control, name string) {
	t.Helper()
	if err := c.enlist(context.Background(), membership{Actor: "test", Joined: &enrolled{Name: name, Rank: fleet.Primary, Plain: true, Slots: 1}}); err != nil {
		t.Fatal(err)
	}
}

// begins starts a release of one step.
func started(t testing.TB, c *Control, version string) {
	t.Helper()
	asks(t, c.start, api.StartOf(written(t, c, version, "---\nroles:\n  host: {plain: true}\n---\n## Build\n\n```sh {\"name\":\"build\"}\ntrue\n```\n")))
}

// written is the start of a release as a runbook has it, which is in the depot, and the
// source too. It ships now.
func written(t testing.TB, c *Control, version, doc string) release.Started {
	t.Helper()
	r, err := runbook.Parse("RELEASE.md", []byte(doc), time.LoadLocation)
	if err != nil {
		t.Fatal(err)
	}
	st := release.Begin(r, version)
	st.Ship = c.o.Now().Add(time.Hour)
	for _, role := range r.Roles {
		st.Machines = append(st.Machines, release.Machine{Role: role.Name})
	}
	st.Source.VCS = "git"
	if st.Source.Original, err = c.o.Depot.PutBytes(t.Context(), []byte("source")); err == nil {
		st.Runbook, err = c.o.Depot.PutBytes(t.Context(), []byte(doc))
	}
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// granted gives a machine the release's step.
func granted(t testing.TB, c *Control, version, machine string) (epoch int64) {
	t.Helper()
	epoch, err := c.update(t.Context(), version, "test", func(*release.State) (release.Body, error) {
		return release.Granted{Item: "build", Machine: machine}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return epoch
}

// asks sends a body to a handler, as root.
func asks(t testing.TB, h handler, in any) any {
	t.Helper()
	answer, err := h(t.Context(), &caller{person: "*", role: Approver}, httptest.NewRequest(http.MethodPost, "/", sent(t, in)))
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// TestKeepLog: control makes a blob of the log that it has, if that is the whole
// log, and for nobody but the machine whose lease it is.
func TestKeepLog(t *testing.T) {
	c := station(t, "a", "b")
	started(t, c, "1")
	epoch := granted(t, c, "1", "a")
	request := func(query string, body io.Reader) *http.Request {
		r := httptest.NewRequest(http.MethodPost, "/"+query, body)
		r.SetPathValue("version", "1")
		r.SetPathValue("item", "build")
		r.SetPathValue("epoch", fmt.Sprint(epoch))
		return r
	}
	log := bytes.Repeat([]byte("a line\n"), 1000)
	whole := api.LogDigest{Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(log))}
	keep := func(machine string) error {
		_, err := c.keepLog(t.Context(), &caller{machine: machine}, request("", sent(t, whole)))
		return err
	}
	add := func(at int, part []byte) {
		if _, err := c.appendLog(t.Context(), &caller{machine: "a"}, request(fmt.Sprintf("?offset=%d", at), bytes.NewReader(part))); err != nil {
			t.Fatal(err)
		}
	}
	if err := keep("a"); err == nil {
		t.Error("a log was kept of which nothing was sent")
	}
	add(0, log[:500])
	if err := keep("a"); err == nil || c.o.Depot.Has(whole.Digest) {
		t.Errorf("a part of a log was kept as the whole: %v", err)
	}
	add(500, log[500:])
	if err := keep("b"); !denied(err) {
		t.Errorf("another machine: %v", err)
	}
	if err := keep("a"); err != nil || !c.o.Depot.Has(whole.Digest) {
		t.Errorf("the log was not kept: %v", err)
	}
	if _, err := c.update(t.Context(), "1", "test", func(*release.State) (release.Body, error) {
		return release.Lost{Item: "build", Epoch: epoch, Machine: "a", Why: "test"}, nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := keep("a"); !denied(err) {
		t.Errorf("after its lease: %v", err)
	}
}

// sent is a body as a request has it.
func sent(t testing.TB, in any) io.Reader {
	t.Helper()
	data, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(data)
}
