package runbook

import (
	"fmt"
	"slices"
	"strings"
)

// Ready is a phase of due diligence that is ready to include: what is in it is done,
// by this program, by a tool of the team or by a person; none of it is for show.
type Ready struct {
	Name, What string
	text       func(f form) string
}

// form is what a phase is filled in with.
type form struct {
	step string // keys of each step: role
	in   string // gold's outputs, as in JSON
	args string // the same, for a shell
	gold string
	who  string
}

// tool runs this program in a step.
const tool = `"$TRYSAIL" diligence`

// Phases lists them.
func Phases() []Ready {
	step := func(f form, name, more string) string {
		return fmt.Sprintf("```sh {\"name\":%q%s,\"in\":%q%s,\"timeout\":\"30m\",\"budget\":\"5m\"}\n", name, f.step, f.in, more)
	}
	sign := func(f form, name, budget, needs, text string) string {
		return fmt.Sprintf("- [ ] **%s** (@%s, budget %s, needs %s): %s\n", name, f.who, budget, needs, text)
	}
	return []Ready{
		{"licences", "the licences of what is shipped, listed from its bill of materials, and read", func(f form) string {
			return step(f, "licence-inventory", `,"out":"diligence/licences.md"`) + "mkdir -p diligence\n" + tool + " licences " + f.args + " > diligence/licences.md\n```\n\n" +
				sign(f, "licences-read", "2h", "licence-inventory", "the inventory of licences was read, what is unknown was looked up, and nothing forbids what we ship")
		}},
		{"changes", "third-party components that changed since the release before (shipped.cdx.json, beside this document)", func(f form) string {
			return step(f, "component-changes", `,"out":"diligence/changes.md"`) + "mkdir -p diligence\n" + tool + " changes --since shipped.cdx.json " + f.args + " > diligence/changes.md\n```\n\n" +
				sign(f, "changes-read", "1h", "component-changes", "each third-party component that is new or changed is meant to be")
		}},
		{"secrets", "no private keys, tokens or passwords are in what is shipped", func(f form) string {
			return step(f, "secret-scan", "") + tool + " secrets " + f.args + "\n```\n"
		}},
		{"malware", "a scanner of yours looks at what is shipped (here ClamAV, which must be in the build server)", func(f form) string {
			return step(f, "malware-scan", "") + "clamscan --recursive --infected " + f.args + "\n```\n"
		}},
		{"reproducible", "the second build of gold was compared, and somebody looked at how", func(f form) string {
			return sign(f, "reproducible", "30m", f.gold, "gold was built on two machines; the bytes are identical, or each difference was accepted by name")
		}},
		{"notes", "release notes of this version are written (NOTES.md), with known issues", func(f form) string {
			return step(f, "notes-written", "") + "grep --quiet --fixed-strings \"## $TRYSAIL_RELEASE\" NOTES.md\n```\n\n" +
				sign(f, "known-issues", "1h", "notes-written", "the notes name every known issue that a user would meet")
		}},
		{"legal", "export control, trademarks, third-party notices", func(f form) string {
			return sign(f, "export-control", "1h", f.gold, "cryptography and destinations were classified, and what must be reported is reported") +
				sign(f, "notices", "1h", f.gold, "third-party notices and the offer of source are in what is shipped") +
				sign(f, "names", "30m", f.gold, "names, marks and dates are right")
		}},
		{"support", "the people who will answer for it have it", func(f form) string {
			return sign(f, "support-trained", "2h", f.gold, "support has installed gold, and knows what is new and what is broken") +
				sign(f, "rollback-known", "1h", f.gold, "how to go back to the version before was tried, and is written down")
		}},
	}
}

// Include writes phases into a runbook, before what publishes: as they would stand if
// the team had written them. who signs.
func (r *Runbook) Include(document []byte, names []string, who string) ([]byte, error) {
	gold := r.Gold()
	if gold == nil {
		return nil, fmt.Errorf("%s has no gold step, of which due diligence would be", r.File)
	}
	if _, known := r.people(who); !known {
		return nil, fmt.Errorf("%s knows nobody who is called %s", r.File, who)
	}
	f := form{gold: gold.Name, in: strings.Join(gold.Out, ","), args: strings.Join(gold.Out, " "), who: who}
	if gold.Role != "" && len(r.Roles) > 1 {
		f.step = fmt.Sprintf(",\"role\":%q", gold.Role)
	}
	var b strings.Builder
	for _, n := range names {
		i := slices.IndexFunc(Phases(), func(p Ready) bool { return p.Name == n })
		if i < 0 {
			return nil, fmt.Errorf("there is no phase %q", n)
		}
		p := Phases()[i]
		fmt.Fprintf(&b, "## Due diligence: %s\n\n%s.\n\n%s\n", p.Name, strings.ToUpper(p.What[:1])+p.What[1:], p.text(f))
	}
	at := len(document)
	if line := r.ships(); line > 0 {
		lines := strings.SplitAfter(string(document), "\n")
		at = len(strings.Join(lines[:line-1], ""))
	}
	return []byte(string(document[:at]) + b.String() + string(document[at:])), nil
}

// ships is the line of the heading below which publish steps begin; 0 if none do.
func (r *Runbook) ships() int {
	for _, x := range r.Items {
		if x.Kind != Publish {
			continue
		}
		for _, p := range r.Phases {
			if p.Slug == x.Phase {
				return p.Line
			}
		}
	}
	return 0
}
