package release

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"trysail/runbook"
)

// Plan is what a runbook says of a release, as its ledger holds it.
type Plan struct {
	Items    []runbook.Item
	Endgame  []runbook.Freeze
	Approver []string
	Team     runbook.Hours
	People   []Person
	Ship     time.Time // zero if the document names none
	Budget   time.Duration
}

// PlanOf gives what a document says.
func PlanOf(r *runbook.Runbook) Plan {
	return Plan{Items: r.Items, Endgame: r.Endgame, Approver: r.Approvers, Team: r.Team.Hours(), People: People(r), Ship: r.Ship, Budget: r.Budget}
}

// Begin gives the start of a release as a runbook has it, without what the runbook only
// names: its own digest, the source, machines, and who may sign.
func Begin(r *runbook.Runbook, version string) Started {
	p := PlanOf(r)
	return Started{Version: version, Items: p.Items, Endgame: p.Endgame, Approver: p.Approver, Ship: p.Ship, Budget: p.Budget, Team: p.Team, People: p.People}
}

// Differs says what of a plan is not as the document has it that it names; "" if all is.
// Whoever sends a plan may have read the document with another program, or not at all.
func (p Plan) Differs(r *runbook.Runbook) string {
	q := PlanOf(r)
	var list []string
	for _, x := range []struct {
		what       string
		says, read any
	}{
		{"steps and sign-offs", p.Items, q.Items},
		{"endgame", p.Endgame, q.Endgame},
		{"approvers", p.Approver, q.Approver},
		{"working hours", p.Team, q.Team},
		{"people", p.People, q.People},
		{"ship date", p.Ship.UTC(), q.Ship.UTC()},
		{"budget", p.Budget, q.Budget},
	} {
		a, err := json.Marshal(x.says)
		b, berr := json.Marshal(x.read)
		if err != nil || berr != nil || string(a) != string(b) {
			list = append(list, x.what)
		}
	}
	return strings.Join(list, ", ")
}

// Differs says what of a release's start is not as its runbook has it; "" if all is. The
// ship date is the caller's to choose, and so is whose keys the allowed signers are.
func (b Started) Differs(r *runbook.Runbook) string {
	switch {
	case r.Release != "" && r.Release != b.Version:
		return "the release, which is " + r.Release
	case (r.Signers != "") != (b.Signers != ""):
		return "allowed signers"
	}
	if s := serversOf(r, b.Machines); s != "" {
		return s
	}
	return Plan{b.Items, b.Endgame, b.Approver, b.Team, b.People, r.Ship, b.Budget}.Differs(r)
}

// Differs says what of an amendment is not as the runbook has it that it brings; "" if all
// is. Where it brings none, r is the one in force, of which it may change the machines.
func (b Amended) Differs(r *runbook.Runbook, s *State) string {
	if b.Runbook == "" {
		switch {
		case slices.Contains(b.changes(), "runbook"):
			return "a plan without a runbook"
		case b.Machines != nil:
			return serversOf(r, b.Machines)
		}
		return ""
	}
	machines := s.Machines
	if b.Machines != nil {
		machines = b.Machines
	}
	switch {
	case r.Release != "" && r.Release != s.Started.Version:
		return "the release, which is " + r.Release
	case r.Signers != "" && s.Signers == "" && b.Signers == "":
		return "allowed signers"
	}
	if what := serversOf(r, machines); what != "" {
		return what
	}
	return Plan{b.Items, b.Endgame, b.Approver, b.Team, b.People, b.Ship, b.Budget}.Differs(r)
}

// serversOf says which of the roles' machines are not as a runbook has them; "" if all
// are. A role that is rebuilt from a blueprint never runs plainly on a host instead.
func serversOf(r *runbook.Runbook, list []Machine) string {
	if len(list) != len(r.Roles) {
		return fmt.Sprintf("%d roles, and not %d", len(r.Roles), len(list))
	}
	for _, role := range r.Roles {
		i := slices.IndexFunc(list, func(m Machine) bool { return m.Role == role.Name })
		if i < 0 || (list[i].Blueprint != "") != (role.Blueprint != "") || (list[i].Sum != "") != (list[i].Blueprint != "") {
			return "the machine of role " + role.Name
		}
	}
	return ""
}
