package release

import (
	"cmp"
	"slices"
	"strings"
	"testing"
	"time"

	"trysail/runbook"
)

// TestPlans: a plan is what its runbook says, and who sends another is told in what.
func TestPlans(t *testing.T) {
	read := func(doc string) *runbook.Runbook {
		t.Helper()
		r, err := runbook.Parse("RELEASE.md", []byte(doc), time.LoadLocation)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	keys := strings.Replace(doc, "ship:", "signers: keys\nship:", 1)
	plain := strings.NewReplacer("{blueprint: trysail}", "{plain: true}", `,"again":"machine"`, "").Replace(doc)
	for _, x := range []struct {
		what string
		doc  string
		with func(b *Started)
		says string // in what it differs
	}{
		{"as it is", doc, func(*Started) {}, ""},
		{"another ship date", doc, func(b *Started) { b.Ship = b.Ship.Add(time.Hour) }, ""},
		{"without a sign-off", doc, func(b *Started) {
			b.Items = slices.DeleteFunc(b.Items, func(x runbook.Item) bool { return x.Name == "legal" })
		}, "steps and sign-offs"},
		{"another need", doc, func(b *Started) { b.Items[6].Needs = []string{"gold"} }, "steps and sign-offs"},
		{"a path for a name", doc, func(b *Started) { b.Items[0].Name = "../../x" }, "steps and sign-offs"},
		{"another approver", doc, func(b *Started) { b.Approver = append(b.Approver, "eve") }, "approvers"},
		{"no endgame", doc, func(b *Started) { b.Endgame = nil }, "endgame"},
		{"another e-mail", doc, func(b *Started) { b.People[0].Email = "x@example.org" }, "people"},
		{"other hours", doc, func(b *Started) { b.Team.From = "01:00" }, "working hours"},
		{"more hours of people", doc, func(b *Started) { b.Budget = time.Hour }, "budget"},
		{"the runbook of another", strings.Replace(doc, "ship:", "release: \"5\"\nship:", 1), func(*Started) {}, "the release, which is 5"},
		{"plainly on the host", doc, func(b *Started) { b.Machines[0].Blueprint = "" }, "the machine of role build"},
		{"without its sum", doc, func(b *Started) { b.Machines[0].Sum = "" }, "the machine of role build"},
		{"in a server", plain, func(*Started) {}, "the machine of role build"},
		{"another role", doc, func(b *Started) { b.Machines[0].Role = "x" }, "the machine of role build"},
		{"no machine", doc, func(b *Started) { b.Machines = nil }, "1 roles, and not 0"},
		{"words where keys are wanted", keys, func(*Started) {}, "allowed signers"},
		{"keys", keys, func(b *Started) { b.Signers = "sha256:keys" }, ""},
		{"keys where none are named", doc, func(b *Started) { b.Signers = "sha256:keys" }, "allowed signers"},
	} {
		r := read(x.doc)
		b := Begin(read(x.doc), "4.2")
		b.Machines = []Machine{{Role: "build", Blueprint: "sha256:bp1", Sum: "sha256:sum1"}}
		x.with(&b)
		if got := b.Differs(r); got != x.says {
			t.Errorf("%s: it differs in %q, not %q", x.what, got, x.says)
		}
	}
	g := begin(t)
	g.s.Machines[0].Sum = "sha256:sum1"
	for _, x := range []struct {
		what string
		doc  string
		with func(b *Amended)
		says string
	}{
		{"as it is", doc, func(*Amended) {}, ""},
		{"nothing of it", "", func(b *Amended) { *b = Amended{Source: &Source{VCS: "git"}} }, ""},
		{"a plan without its document", "", func(b *Amended) { b.Runbook = "" }, "a plan without a runbook"},
		{"a document without its plan", doc, func(b *Amended) { *b = Amended{Runbook: "sha256:two"} }, "steps and sign-offs, endgame, approvers, working hours, people, ship date"},
		{"another ship date", doc, func(b *Amended) { b.Ship = b.Ship.Add(time.Hour) }, "ship date"},
		{"its ship date in another zone", doc, func(b *Amended) { b.Ship = b.Ship.In(time.FixedZone("", 3600)) }, ""},
		{"without its ship date", doc, func(b *Amended) { b.Ship = time.Time{} }, "ship date"},
		{"more hours of people", doc, func(b *Amended) { b.Budget = time.Hour }, "budget"},
		{"keys that nobody has", keys, func(*Amended) {}, "allowed signers"},
		{"keys", keys, func(b *Amended) { b.Signers = "sha256:keys" }, ""},
		{"the roles of before", plain, func(*Amended) {}, "the machine of role build"},
		{"with its machines", plain, func(b *Amended) { b.Machines = []Machine{{Role: "build"}} }, ""},
		{"the runbook of another", strings.Replace(doc, "ship:", "release: \"5\"\nship:", 1), func(*Amended) {}, "the release, which is 5"},
		{"other machines", doc, func(b *Amended) {
			*b = Amended{Machines: []Machine{{Role: "build", Blueprint: "sha256:bp2", Sum: "sha256:s"}}}
		}, ""},
		{"plain machines", doc, func(b *Amended) { *b = Amended{Machines: []Machine{{Role: "build"}}} }, "the machine of role build"},
	} {
		p, r := PlanOf(read(cmp.Or(x.doc, doc))), (*runbook.Runbook)(nil)
		if x.doc != "" {
			r = read(x.doc)
		}
		b := Amended{Runbook: "sha256:two", Items: p.Items, Endgame: p.Endgame, Approver: p.Approver, Team: p.Team, People: p.People, Ship: p.Ship, Budget: p.Budget}
		x.with(&b)
		if got := b.Differs(r, g.s); got != x.says {
			t.Errorf("an amendment, %s: it differs in %q, not %q", x.what, got, x.says)
		}
	}
}
