package cli

import (
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"trysail/release"
	"trysail/runbook"
)

// What is made again are the steps that gold was made by, in order and in their servers;
// what people did, and what only followed, is not.
func TestOnceMore(t *testing.T) {
	s := &release.State{
		Started: release.Started{Version: "4.2", Signers: "sha256:s", People: []release.Person{{Name: "ann"}}},
		Source:  release.Source{Original: "sha256:src"}, Runbook: "sha256:r",
		Machines: []release.Machine{{Role: "build", Blueprint: "sha256:b"}, {Role: "upload"}},
		Items: []runbook.Item{
			{Name: "compile", Kind: runbook.Step, Role: "build"},
			{Name: "read", Kind: runbook.SignOff, Needs: []string{"compile"}},
			{Name: "freeze", Kind: runbook.Wait, Needs: []string{"read"}},
			{Name: "gold", Kind: runbook.Step, Role: "build", Gold: true, Needs: []string{"compile", "freeze"}},
			{Name: "scan", Kind: runbook.Step, Role: "build", Needs: []string{"gold"}},
			{Name: "publish", Kind: runbook.Publish, Role: "upload", Needs: []string{"gold"}, Secrets: []string{"TOKEN"}},
		},
	}
	st, err := onceMore(s)
	if err != nil {
		t.Fatal(err)
	}
	if len(st.Items) != 2 || st.Items[0].Name != "compile" || len(st.Items[1].Needs) != 1 || st.Items[1].Needs[0] != "compile" || len(st.Machines) != 1 || st.Signers != "" || st.People != nil || st.Source != s.Source {
		t.Errorf("%+v", st)
	}
	if len(s.Items[3].Needs) != 2 {
		t.Error("the release that shipped was changed")
	}
	for want, change := range map[string]func(x *runbook.Item){
		"needs secrets": func(x *runbook.Item) { x.Secrets = []string{"TOKEN"} }, "the network of its day": func(x *runbook.Item) { x.Network = true },
		"ran plainly on a host": func(x *runbook.Item) { x.Role = "upload" },
	} {
		before := s.Items[0]
		change(&s.Items[0])
		if _, err := onceMore(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
		s.Items[0] = before
	}
}

// What will not be there for ever is said while there is time.
func TestExpiring(t *testing.T) {
	key := "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBWkUPdBKAQ4uFYp7D3Y6KZlVnUgJ9nqIhlDkTL0tXvP"
	soon := time.Now().Add(30*24*time.Hour).UTC().Format("20060102") + "Z"
	bundle := fstest.MapFS{
		"trust/allowed_signers": {Data: []byte("ann valid-before=\"" + soon + "\" " + key + "\nbob valid-before=\"20990101Z\" " + key + "\neve " + key + "\n")},
	}
	list := (&app{}).expiring(bundle, &release.State{}, 90*24*time.Hour)
	if len(list) != 1 || !strings.Contains(list[0], "the key of ann ends") {
		t.Errorf("%q", list)
	}
	if list = (&app{}).expiring(bundle, &release.State{}, 24*time.Hour); len(list) != 0 {
		t.Errorf("%q", list)
	}
}
