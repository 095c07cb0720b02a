package control

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trysail/internal/api"
	"trysail/release"
)

const shipDoc = "---\nroles:\n  host: {plain: true}\npeople:\n  ann: {}\n  bob: {}\napprovers: [ann, bob]\n---\n## Gold\n\n" +
	"```sh {\"name\":\"gold\",\"out\":\"dist/*\",\"gold\":\"true\"}\nmake\n```\n"

// finished is a release of which everything is done, and what asks its control.
func finished(t *testing.T, differ func(*release.Started)) (c *Control, ask func(method, path string, body, out any) *api.Problem) {
	t.Helper()
	c, ask = working(t, noon())
	b := written(t, c, "1", shipDoc)
	c.o.Lab = true // which takes a plan that is not the runbook's
	if differ != nil {
		differ(&b)
	}
	if p := ask(http.MethodPost, "/v1/replays", api.Replay{Started: b}, nil); p != nil {
		t.Fatal(p)
	}
	say := func(decide func(s *release.State) release.Body) int64 {
		n, err := c.update(t.Context(), "1", "test", func(s *release.State) (release.Body, error) { return decide(s), nil })
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	app, err := c.o.Depot.PutBytes(t.Context(), []byte("the program"))
	if err != nil {
		t.Fatal(err)
	}
	epoch := say(func(*release.State) release.Body { return release.Granted{Item: "gold", Machine: "a"} })
	say(func(*release.State) release.Body {
		return release.Committed{Finished: release.Finished{Item: "gold", Epoch: epoch, Outputs: []release.Artifact{{Path: "dist/app", Digest: app, Size: 11, Mode: "0644"}}}}
	})
	epoch = say(func(*release.State) release.Body { return release.Granted{Item: "gold", Machine: "b", Confirm: true} })
	say(func(*release.State) release.Body {
		return release.Confirmed{Epoch: epoch, Verdict: release.Identical}
	})
	return c, ask
}

// A release ships if its evidence would verify, and else it stays as it is.
func TestShip(t *testing.T) {
	lose := func(t *testing.T, c *Control, digest string) {
		t.Helper()
		if err := os.Remove(filepath.Join(c.o.Dir, "depot", "blobs", "sha256", strings.TrimPrefix(digest, "sha256:"))); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range []struct {
		name   string
		differ func(*release.Started)
		change func(t *testing.T, c *Control)
		body   api.Ship
		code   string // of the problem; "" if it ships
		what   string
	}{
		{name: "all is there"},
		{name: "it is the one that was looked at", body: api.Ship{Head: 5}},
		{name: "it went on", body: api.Ship{Head: 4}, code: api.Moved, what: "release 1 has 5 events, and had 4"},
		{name: "nobody saw so much of it", body: api.Ship{Head: 6}, code: api.Moved, what: "release 1 has 5 events, and had 6"},
		{name: "the plan is not that of the runbook", differ: func(b *release.Started) { b.Approver = []string{"ann"} }, code: "rule", what: "its evidence would not verify: runbook.md: event 1 is not as its runbook says: approvers"},
		{name: "the runbook is lost", change: func(t *testing.T, c *Control) { lose(t, c, c.state("1").Runbook) }, code: "rule", what: "its evidence would not verify: the runbook"},
		{name: "what ships is lost", change: func(t *testing.T, c *Control) { lose(t, c, c.state("1").Gold.Outputs[0].Digest) }, code: "rule", what: "dist/app (sha256:"},
		{name: "it is not done", change: func(t *testing.T, c *Control) {
			if _, err := c.update(t.Context(), "1", "test", func(*release.State) (release.Body, error) { return release.Aborted{Reason: "r"}, nil }); err != nil {
				t.Fatal(err)
			}
		}, code: "rule", what: "release 1 is aborted"},
	} {
		t.Run(x.name, func(t *testing.T) {
			c, ask := finished(t, x.differ)
			if x.change != nil {
				x.change(t, c)
			}
			before := c.state("1")
			var did struct {
				Event int64 `json:"event"`
			}
			p := ask(http.MethodPost, "/v1/releases/1/ship", x.body, &did)
			after := c.state("1")
			if x.code == "" {
				if p != nil || after.Phase != release.Done || did.Event != before.Head+1 {
					t.Errorf("it did not ship: %+v, %s, event %d", p, after.Phase, did.Event)
				}
				return
			}
			if p == nil || p.Status != http.StatusConflict || p.Code != x.code || !strings.Contains(p.Message, x.what) {
				t.Errorf("the problem is %+v, and not %s: %q", p, x.code, x.what)
			}
			if p != nil && x.what[0] != 'r' && p.Hint == "" {
				t.Errorf("it says nothing of what to do: %+v", p)
			}
			if after.Head != before.Head || after.Phase != before.Phase {
				t.Errorf("it is another release: event %d, %s", after.Head, after.Phase)
			}
		})
	}
}
