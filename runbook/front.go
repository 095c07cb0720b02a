package runbook

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"trysail/internal/strict"
)

// front is the YAML before the document, as written.
type front struct {
	Release  string                 `yaml:"release"`
	Ship     string                 `yaml:"ship"`
	Budget   string                 `yaml:"budget"`
	Zone     string                 `yaml:"zone"`
	Hours    string                 `yaml:"hours"`
	Holidays []string               `yaml:"holidays"`
	Roles    map[string]frontRole   `yaml:"roles"`
	People   map[string]frontPerson `yaml:"people"`
	Groups   map[string][]string    `yaml:"groups"`
	Approve  []string               `yaml:"approvers"`
	Endgame  []frontFreeze          `yaml:"endgame"`
	Signers  string                 `yaml:"signers"`
	Revoked  string                 `yaml:"revoked"`
	Runme    map[string]any         `yaml:"runme"` // Runme writes it
}

type frontRole struct {
	Blueprint string `yaml:"blueprint"`
	Plain     bool   `yaml:"plain"`
}

type frontPerson struct {
	Name  string   `yaml:"name"`
	Email string   `yaml:"email"`
	Zone  string   `yaml:"zone"`
	Hours string   `yaml:"hours"`
	Away  []string `yaml:"away"`
}

type frontFreeze struct {
	Phase     string   `yaml:"phase"`
	Freezes   []string `yaml:"freezes"`
	Approvals int      `yaml:"approvals"`
}

// frozen are the things that the endgame can freeze.
func frozen() []string { return []string{"source", "runbook", "machines", "signers"} }

// frontMatter reads the YAML between two lines of --- and gives the rest.
func (p *parser) frontMatter() (body []byte, offset int) {
	p.r.Team = Calendar{Zone: time.UTC, Days: []time.Weekday{1, 2, 3, 4, 5}, From: 9 * time.Hour, To: 17 * time.Hour}
	const mark = "---\n"
	if !bytes.HasPrefix(p.data, []byte(mark)) {
		return p.data, 0
	}
	end := bytes.Index(p.data, []byte("\n"+mark))
	if end < 0 {
		p.fail(1, "end the front matter with a line of ---", "the front matter is never closed: the whole document would be part of it")
		return nil, len(p.data)
	}
	head, offset := p.data[len(mark):end+1], end+1+len(mark)
	if err := strict.YAML(p.r.File, head, &p.front, "see docs/runbook.md"); err != nil {
		err.Line++ // the line of dashes
		p.errs = append(p.errs, err)
		return p.data[offset:], offset
	}
	f := p.front
	f.Runme = nil // which nothing prints
	text := fmt.Sprint(f)
	if i := strings.IndexFunc(text, unseen); i >= 0 {
		escape := max(bytes.IndexByte(head, '\\'), 0) // the document itself holds no such letter
		p.fail(2+bytes.Count(head[:escape], []byte("\n")), "write every value in one line, without escapes", "a value of the front matter holds character %U", []rune(text[i:])[0])
		return p.data[offset:], offset
	}
	find := strict.Lines(head)
	p.apply(func(at string) int { return 1 + find(at) })
	return p.data[offset:], offset
}

func (p *parser) apply(line func(at string) int) {
	f, r := &p.front, p.r
	r.Release = f.Release
	if err := CheckVersion(f.Release); f.Release != "" && err != nil {
		p.fail(line("release"), "write a version such as 1.0, 2026.11 or 2.0-rc1", "release: %v", err)
	}
	if f.Ship != "" {
		t, err := ParseTime(f.Ship)
		if err != nil {
			p.fail(line("ship"), "write it as 2026-12-01T09:00:00Z", "ship: %v", err)
		}
		r.Ship = t
	}
	if f.Budget != "" {
		d, err := ParsePersonHours(f.Budget)
		if err != nil {
			p.fail(line("budget"), "write it as 16 person-hours", "budget: %v", err)
		}
		r.Budget = d
	}
	r.Team = p.calendar(r.Team, f.Zone, f.Hours, f.Holidays, "", line)
	if err := OtherOffset(r.Ship, r.Team.Zone); f.Ship != "" && err != nil {
		p.fail(line("ship"), "write it with Z, or as the clocks of the team are then", "ship: %v", err)
	}
	for _, name := range slices.Sorted(maps.Keys(f.Roles)) {
		p.role(name, f.Roles[name], line("roles."+name))
	}
	for _, name := range slices.Sorted(maps.Keys(f.People)) {
		at := "people." + name
		p.name(name, "person", line(at))
		q := f.People[name]
		if q.Email != "" && (!strings.Contains(q.Email, "@") || strings.ContainsAny(q.Email, " <>\n")) {
			p.fail(line(at+".email"), "write the bare address", "e-mail %q of %s is not an address", q.Email, name)
		}
		for _, other := range r.People {
			what := ""
			switch {
			case q.Email != "" && strings.EqualFold(q.Email, other.Email):
				what = "address " + q.Email
			case q.Name != "" && strings.EqualFold(strings.Join(strings.Fields(q.Name), " "), strings.Join(strings.Fields(other.Full), " ")):
				what = "full name " + q.Name
			}
			if what != "" {
				p.newly(line(at), "remove one of the two, or give each their own", "%s and %s share the %s: they count as one person", other.Name, name, what)
			}
		}
		r.People = append(r.People, Person{
			Name: name, Full: q.Name, Email: q.Email,
			Hours: p.calendar(r.Team, q.Zone, q.Hours, q.Away, at+".", line),
		})
	}
	for _, name := range slices.Sorted(maps.Keys(f.Groups)) {
		p.name(name, "group", line("groups."+name))
		if r.Person(name) != nil {
			p.fail(line("groups."+name), "give the group another name", "%s is a person and a group", name)
		}
		if len(f.Groups[name]) == 0 {
			p.fail(line("groups."+name), "name its people, or remove it", "group %s is empty: nobody could sign for it", name)
		}
		for i, m := range f.Groups[name] {
			if slices.Contains(f.Groups[name][:i], m) {
				p.newly(line("groups."+name), "name them once", "group %s names %s twice", name, m)
			}
			if r.Person(m) == nil {
				p.fail(line("groups."+name), "add them under people", "group %s: nobody under people is called %s", name, m)
			}
		}
		r.Groups = append(r.Groups, Group{name, f.Groups[name]})
	}
	for i, who := range f.Approve {
		if slices.Contains(f.Approve[:i], who) {
			p.newly(line("approvers"), "name them once", "approvers names %s twice", who)
		}
		names, ok := r.people(who)
		if !ok {
			p.fail(line("approvers"), "add them under people or groups", "approver %s is not known", who)
		}
		for _, n := range names {
			if !slices.Contains(r.Approvers, n) {
				r.Approvers = append(r.Approvers, n)
			}
		}
	}
	for key, file := range map[string]string{"signers": f.Signers, "revoked": f.Revoked} {
		if file != "" && (path.IsAbs(file) || path.Clean(file) != file || file == ".." || strings.HasPrefix(file, "../")) {
			p.fail(line(key), "write a path below the runbook's directory: trysail/allowed_signers", "%s: %q leads elsewhere", key, file)
		}
	}
	if f.Revoked != "" && f.Signers == "" {
		p.fail(line("revoked"), "add signers: trysail/allowed_signers", "keys are revoked, and nobody has any")
	}
	if f.Revoked != "" && f.Signers == f.Revoked {
		p.newly(line("revoked"), "give each a file of its own", "the keys of %s are allowed and revoked", f.Signers)
	}
	r.Signers, r.Revoked = f.Signers, f.Revoked
	for i, x := range f.Endgame {
		at := line(fmt.Sprintf("endgame[%d]", i))
		for j, what := range x.Freezes {
			twice := slices.Contains(x.Freezes[:j], what) || slices.ContainsFunc(f.Endgame[:i], func(y frontFreeze) bool {
				return Slug(y.Phase) == Slug(x.Phase) && slices.Contains(y.Freezes, what)
			})
			if twice {
				p.newly(at, "say once how many approvals it needs", "endgame: phase %s freezes %s twice", x.Phase, what)
			}
			if !slices.Contains(frozen(), what) {
				p.fail(at, "the things that freeze are "+strings.Join(frozen(), ", "), "endgame: %q cannot be frozen", what)
			}
		}
		if x.Approvals < 1 || x.Approvals > 20 || len(x.Freezes) == 0 {
			p.fail(at, "write freezes: [source] and approvals: 1", "endgame: the rule for phase %s freezes nothing", x.Phase)
		}
		// Whoever proposes a change does not approve it too.
		if n := len(r.Approvers); x.Approvals > n || x.Approvals == n && len(r.People) <= n {
			p.fail(at, "ask for fewer approvals, or name more approvers", "endgame: phase %s wants %d approvals, and there are %d approvers, of whom the one who proposes does not count: no change could pass", x.Phase, x.Approvals, n)
		}
		r.Endgame = append(r.Endgame, Freeze{Phase: Slug(x.Phase), Freezes: x.Freezes, Approvals: x.Approvals})
	}
}

// people expands a group, or gives the person.
func (r *Runbook) people(who string) ([]string, bool) {
	if i := slices.IndexFunc(r.Groups, func(g Group) bool { return g.Name == who }); i >= 0 {
		return r.Groups[i].Members, true
	}
	return []string{who}, r.Person(who) != nil
}

func (p *parser) name(name, what string, line int) {
	if !nameRE.MatchString(name) {
		p.fail(line, nameRemedy, "%s name %q is not usable", what, name)
	}
}

func (p *parser) role(name string, x frontRole, line int) {
	p.name(name, "role", line)
	switch {
	case x.Plain && x.Blueprint != "":
		p.fail(line, "remove one of the two", "role %s has a blueprint and runs plainly on the host", name)
	case !x.Plain && x.Blueprint == "":
		p.fail(line, "write blueprint: trysail, or plain: true for a machine that Trysail cannot rebuild", "role %s has no blueprint", name)
	case x.Blueprint != "" && checkPath(x.Blueprint) != nil:
		p.fail(line, "give the directory relative to the repository", "role %s: %v", name, checkPath(x.Blueprint))
	}
	p.r.Roles = append(p.r.Roles, Role{Name: name, Blueprint: x.Blueprint})
}

// calendar gives somebody's working time, which is the base where nothing else is said.
func (p *parser) calendar(base Calendar, zone, hours string, off []string, prefix string, line func(string) int) Calendar {
	c := base
	c.Off = slices.Clone(base.Off)
	if zone != "" {
		z, err := location(zone, p.zones)
		if err != nil {
			p.fail(line(prefix+"zone"), "use a name such as Europe/Berlin", "time zone %q is not known", zone)
		} else {
			c.Zone = z
		}
	}
	if hours != "" {
		days, from, to, err := parseHours(hours)
		if err != nil {
			p.fail(line(prefix+"hours"), "write it as mon-fri 09:00-17:00", "%v", err)
		} else {
			c.Days, c.From, c.To = days, from, to
		}
	}
	key := "holidays"
	if prefix != "" {
		key = prefix + "away"
	}
	for _, s := range off {
		span, err := parseSpan(s)
		if err != nil {
			p.fail(line(key), "write it as 2026-12-24 or 2026-12-24..2026-12-31", "%v", err)
			continue
		}
		if p.r.Ship.Sub(span.Last.begin(c.Zone)) > past {
			p.fail(line(key), "remove it, or write its right year", "%s is over long before the ship date", s)
			continue
		}
		if slices.Contains(c.Off[len(base.Off):], span) {
			p.newly(line(key), "leave one of the two away", "%s stands twice", s)
			continue
		}
		c.Off = append(c.Off, span)
	}
	return c
}
