package cli

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"trysail/evidence"
	"trysail/fleet"
	"trysail/internal/api"
	"trysail/release"
	"trysail/runbook"
)

// matter is one thing that a release would meet with. What is wrong stops it; anything else is
// for people to know.
type matter struct {
	Wrong  bool   `json:"wrong"`
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	What   string `json:"what"`
	Remedy string `json:"remedy,omitempty"`
	// Later says that it can be mended while the release runs, as a machine can join.
	Later bool `json:"later,omitempty"`
}

// stops tells whether a release does not start because of it.
func (m matter) stops() bool { return m.Wrong && !m.Later }

func (m matter) String() string {
	mark, at := "  ! ", ""
	if m.stops() {
		mark = "  ✗ "
	}
	switch {
	case m.Line > 0:
		at = fmt.Sprintf("%s:%d: ", m.File, m.Line)
	case m.File != "":
		at = m.File + ": "
	}
	text := mark + at + m.What + "\n"
	if m.Remedy != "" {
		text += "      → " + m.Remedy + "\n"
	}
	return text
}

// preflight holds a runbook against the people and machines there are, before a release starts.
type preflight struct {
	book    *runbook.Runbook
	ship    time.Time // zero: not known yet
	author  string    // of the revision; "" if not known
	signers evidence.Signers
	revoked []ssh.PublicKey
	fleet   []api.MachineStatus
	told    []string // who hears from control that they are asked
}

// ask asks control which machines there are, and whom it tells.
func (p *preflight) ask(ctx context.Context, c *api.Client) error {
	if err := c.Do(ctx, http.MethodGet, "/fleet", nil, &p.fleet); err != nil {
		return err
	}
	var told api.Told
	err := c.Do(ctx, http.MethodGet, "/told?"+url.Values{"person": askedOf(p.book)}.Encode(), nil, &told)
	p.told = told.People
	return err
}

func (p preflight) look() []matter {
	return slices.Concat(p.approvals(), p.people(), p.machines())
}

// approvals says which sign-offs cannot be given, and which stand on no bytes.
func (p preflight) approvals() (list []matter) {
	add := func(wrong bool, x *runbook.Item, remedy, format string, args ...any) {
		list = append(list, matter{Wrong: wrong, File: p.book.File, Line: x.Line, What: fmt.Sprintf(format, args...), Remedy: remedy})
	}
	for i := range p.book.Items {
		x := &p.book.Items[i]
		if x.Kind != runbook.SignOff {
			continue
		}
		if !standsOnStep(p.book, x, map[string]bool{}) {
			add(false, x, "if it is about what is shipped, let it need a step: (…, needs gold)", "sign-off %s stands on no step: it is for its words, and stays signed whatever is built", x.Name)
		}
		var cannot []string
		places, counts := runbook.PlacesOf(x.Counted()), map[string][]int{}
		for i, q := range x.Counted() {
			for _, who := range q.Of {
				counts[who] = append(counts[who], i)
			}
		}
		for _, who := range x.Signers {
			if why := p.lacks(who); why != "" {
				cannot = append(cannot, why)
			} else {
				places.Give(who, counts)
			}
		}
		switch {
		case len(cannot) == 0:
		case places.Filled() < x.Approvals:
			add(true, x, p.remedy("who sign"), "sign-off %s needs %s, and cannot get it: %s", x.Name, plural(x.Approvals, "approval"), strings.Join(cannot, "; "))
		default:
			add(false, x, "", "sign-off %s: %s", x.Name, strings.Join(cannot, "; "))
		}
	}
	var cannot []string
	for _, who := range p.book.Approvers {
		if why := p.lacks(who); why != "" {
			cannot = append(cannot, why)
		}
	}
	if n := len(cannot); n > 0 {
		m := matter{File: p.book.File, Line: 1, What: "of the approvers, " + strings.Join(cannot, "; "), Remedy: p.remedy("who approve")}
		if m.Wrong = n == len(p.book.Approvers); m.Wrong {
			m.What = "nobody may decide on a failed test, a difference or a late change: " + m.What
		}
		list = append(list, m)
	}
	return list
}

// remedy says what to do about people who cannot sign.
func (p preflight) remedy(who string) string {
	text := "name other people " + who + " in " + p.book.File
	if p.book.Signers != "" {
		text += ", or mend " + p.book.Signers
	}
	return text + "; commit it and start again"
}

// standsOnStep tells whether an item needs a step, directly or through others.
func standsOnStep(r *runbook.Runbook, x *runbook.Item, seen map[string]bool) bool {
	for _, n := range x.Needs {
		y := r.Item(n)
		if y == nil || seen[n] {
			continue
		}
		seen[n] = true
		if y.Kind == runbook.Step || y.Kind == runbook.Publish || standsOnStep(r, y, seen) {
			return true
		}
	}
	return false
}

// lacks says why a person cannot sign on the ship date; "" if they can.
func (p preflight) lacks(who string) string {
	s := release.State{Started: release.Started{Rules: release.RulesNow}, People: release.People(p.book), Source: release.Source{Author: p.author}}
	switch {
	case s.Wrote(who):
		return who + " wrote what is released"
	case p.book.Signers == "":
		return ""
	}
	names := []string{who}
	if i := slices.IndexFunc(p.book.People, func(x runbook.Person) bool { return x.Name == who }); i >= 0 && p.book.People[i].Email != "" {
		names = append(names, p.book.People[i].Email)
	}
	why := who + " has no key in " + p.book.Signers
	for _, s := range p.signers {
		switch {
		case !slices.ContainsFunc(s.Principals, func(n string) bool { return slices.Contains(names, n) }):
		case s.Namespaces != nil && !slices.Contains(s.Namespaces, evidence.NamespaceSignOff):
			why = fmt.Sprintf("the key of %s (line %d of %s) is not for namespace %s", who, s.Line, p.book.Signers, evidence.NamespaceSignOff)
		case slices.ContainsFunc(p.revoked, func(k ssh.PublicKey) bool { return bytes.Equal(k.Marshal(), s.Key.Marshal()) }):
			why = fmt.Sprintf("the key of %s (line %d of %s) is revoked", who, s.Line, p.book.Signers)
		case !p.ship.IsZero() && !s.Before.IsZero() && s.Before.Before(p.ship):
			why = fmt.Sprintf("the key of %s (line %d of %s) ends on %s, before the ship date", who, s.Line, p.book.Signers, runbook.FormatTime(s.Before, p.book.Team.Zone))
		case !p.ship.IsZero() && s.After.After(p.ship):
			why = fmt.Sprintf("the key of %s (line %d of %s) begins on %s, after the ship date", who, s.Line, p.book.Signers, runbook.FormatTime(s.After, p.book.Team.Zone))
		default:
			return ""
		}
	}
	return why
}

// people says who cannot be told that they are asked.
func (p preflight) people() (list []matter) {
	silent := slices.DeleteFunc(askedOf(p.book), func(who string) bool { return slices.Contains(p.told, who) })
	if len(silent) > 0 {
		list = append(list, matter{What: "control does not tell " + strings.Join(silent, ", ") + " that they are asked: they must look at trysail release status", Remedy: "name them in the file of trysail serve --notify (docs/notices.md)"})
	}
	return list
}

// askedOf are all people whom a release may ask something.
func askedOf(r *runbook.Runbook) []string {
	list := slices.Clone(r.Approvers)
	for _, x := range r.Items {
		list = append(list, x.Signers...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// machines says which roles have none, or too few.
func (p preflight) machines() (list []matter) {
	for _, role := range p.book.Roles {
		if !slices.ContainsFunc(p.book.Items, func(x runbook.Item) bool { return x.Role == role.Name }) {
			continue
		}
		n := len(serving(role, p.fleet))
		gold := slices.ContainsFunc(p.book.Items, func(x runbook.Item) bool { return x.Gold && x.Role == role.Name })
		join := "trysail fleet token --out link; there: sudo trysail agent --join link"
		if role.Blueprint == "" {
			join += " --plain"
		}
		switch {
		case n == 0:
			list = append(list, matter{Wrong: true, What: "no machine runs steps of role " + role.Name, Remedy: join, Later: true})
		case n == 1 && gold:
			list = append(list, matter{Wrong: true, What: "one machine runs steps of role " + role.Name + ", and gold is built again on a second", Remedy: join, Later: true})
		}
	}
	return list
}

// serving names the machines that may run steps of a role: those that are away for a moment too.
func serving(role runbook.Role, machines []api.MachineStatus) (names []string) {
	for _, m := range machines {
		if m.Condition != fleet.Retired && m.Condition != fleet.Draining && (len(m.Serves) == 0 || slices.Contains(m.Serves, role.Name)) && (role.Blueprint != "" || m.Plain) {
			names = append(names, m.Name)
		}
	}
	return names
}
