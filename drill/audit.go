package drill

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"trysail/release"
	"trysail/runbook"
)

// world is who takes part, in a line.
func world(p *Plan) string {
	s := fmt.Sprintf("%d control(s)", max(p.World.Controls, 1))
	for _, h := range p.World.Hosts {
		s += ", " + h.Name + " (" + h.Rank + ")"
	}
	for _, x := range p.World.Services {
		s += ", " + x.Name + " (" + string(x.Kind) + ")"
	}
	return s
}

// signs tells whether the release wanted signatures.
func signs(h []Record) bool {
	b := started(h)
	return b != nil && b.Signers != ""
}

// fidelity says what was real, what was simulated, what was modelled and what was
// not exercised at all: a rehearsal must not be taken for a failover.
func (r *Report) fidelity() [][2]string {
	p, v := r.Plan, r.Verdict
	list := [][2]string{
		{"Kind of exercise", "a functional exercise on " + header(r.History).where() + " (" + or2(header(r.History).Machine) + "); no production failover"},
		{"Real, and measured", "control, agents, builds, leases, the ledger, file systems, networks: all of them ran, at their own speed"},
	}
	var kinds []string
	for _, b := range v.Faults {
		i := slices.IndexFunc(Faults(), func(k FaultKind) bool { return k.Fault == b.Fault })
		if i >= 0 {
			kinds = append(kinds, b.Name+": "+Faults()[i].What)
		}
	}
	machines := "machines are containers with a disk, a network and cgroups of their own"
	if header(r.History).Hosts > 0 {
		machines = "each machine is a container with a disk and cgroups of its own, on a host of its own and in that host's network"
	}
	list = append(list, [2]string{"Simulated", machines + "; faults: " + or2(strings.Join(kinds, "; "))})
	if signs(r.History) {
		list = append(list, [2]string{"Keys", "people signed with keys that were made for the drill, not with their own"})
	}
	modelled := []string{}
	for _, x := range p.Scenario.People {
		if !x.Live {
			modelled = append(modelled, x.Name)
		}
	}
	if len(modelled) > 0 {
		list = append(list, [2]string{"Modelled", "how long these people take to answer, and what they spend: " + strings.Join(modelled, ", ")})
	}
	list = append(list, [2]string{"Skipped", runbook.FormatSeconds(v.Skipped) + " of idle calendar: the drill's clock jumped"})
	var plain []string
	for _, x := range p.World.Hosts {
		if x.Plain {
			plain = append(plain, x.Name)
		}
	}
	gone := []string{"hardware, power, the production network, other sites"}
	if len(plain) > 0 {
		gone = append(gone, "rebuilt servers on "+strings.Join(plain, ", ")+", which ran steps with the host's own programs")
	}
	return append(list, [2]string{"Not exercised", strings.Join(gone, "; ")})
}

// people are the roles, as they were meant to be and as they were.
func (r *Report) people() [][]string {
	var list [][]string
	for _, x := range r.Plan.Scenario.People {
		how := "modelled: answers within " + x.Responds + ", spends " + x.Spends + " on each decision"
		if x.Live {
			how = "asked at the terminal (measured)"
		}
		away := append([]string{}, x.Away...)
		for i, a := range r.Plan.Method {
			if a.Fault == "person-away" && a.Of == x.Name {
				t := "from " + a.When + map[bool]string{true: " on", false: " for " + a.For}[r.Plan.Timed[i].For == 0]
				away = append(away, a.Name+": "+t)
			}
			if a.Fault == "key-revoked" && a.Of == x.Name {
				away = append(away, a.Name+": may not sign")
			}
		}
		if len(away) == 0 {
			away = []string{"never"}
		}
		asked := 0
		var did []string
		var spent time.Duration
		for _, k := range r.History {
			if k.Kind != Decided || k.Name != x.Name {
				continue
			}
			if strings.HasPrefix(k.Why, "is asked: ") || strings.HasPrefix(k.Why, "was asked at the terminal: ") {
				asked++
				continue
			}
			did = append(did, k.Why)
			spent += k.Spent
		}
		said := fmt.Sprintf("asked %d time(s)", asked)
		if len(did) > 0 {
			said += "; " + strings.Join(did, ", ") + "; spent " + runbook.FormatDuration(spent)
		} else {
			said += "; decided nothing"
		}
		list = append(list, []string{x.Name, how, strings.Join(away, "; "), said})
	}
	return list
}

// machines are the build machines: the rank each had, and what became of it.
func (r *Report) machines() [][]string {
	var list [][]string
	for _, x := range r.Plan.World.Hosts {
		kind := "makes the build server"
		if x.Plain {
			kind = "plain: the host's programs"
		}
		last, ran, lost := "never seen", 0, 0
		for _, k := range r.History {
			switch {
			case k.Kind == Sighted && k.Host == x.Name:
				last = k.Why
			case k.Event != nil:
				if g, ok := k.Event.Body.(release.Granted); ok && g.Machine == x.Name {
					ran++
				}
				if l, ok := k.Event.Body.(release.Lost); ok && l.Machine == x.Name {
					lost++
				}
			}
		}
		did := fmt.Sprintf("began %d step(s)", ran)
		if lost > 0 {
			did += fmt.Sprintf(", lost %d", lost)
		}
		list = append(list, []string{x.Name, x.Rank, x.Disk, kind, did, last})
	}
	return list
}

// cleanUp proves that what was broken was undone, and that nothing is left.
func (r *Report) cleanUp() [][2]string {
	var list [][2]string
	for _, b := range r.Verdict.Faults {
		said := "not undone"
		switch {
		case b.Undone:
			said = "undone, and seen to be"
		case b.ForGood:
			said = "for good, as declared; it went with the drill's machines"
		}
		list = append(list, [2]string{b.Name, said})
	}
	said := "nobody looked"
	for _, k := range r.History {
		if k.Kind != Cleaned {
			continue
		}
		switch {
		case k.OK == nil:
			said = "could not be seen: " + k.Why
		case len(k.Left) > 0:
			said = fmt.Sprintf("%d thing(s) are left, and are listed here", len(k.Left))
		case !*k.OK:
			said = "failed: " + k.Why
		default:
			said = looked(r.History)
		}
	}
	return append(list, [2]string{"the host", said})
}

// looked says what was done to see that nothing is left.
func looked(h []Record) string {
	if hosts := header(h).Hosts; hosts > 0 {
		return fmt.Sprintf("nothing is left: in the end each of the %d hosts listed its mounts, loop devices, network namespaces, nftables' tables, cgroups and processes, none of which bears a name of this drill, and the drill's directory is gone from each", hosts)
	}
	return "nothing is left: mounts, loop devices, network namespaces, nftables' tables, cgroups and processes were listed in the end, and none bears a name of this drill"
}

// before compares with the run before this one.
func (r *Report) before() string {
	s := r.Previous()
	if s == nil {
		return "This is the first run of the scenario here."
	}
	now := Summary(r.Plan, r.History, r.Verdict)
	same := "the same scenario"
	if s.Digest != now.Digest {
		same = "the scenario was changed since"
	}
	text := fmt.Sprintf("The run before is %s of %s: %s, %s (%s).", s.Run, stamp(s.Began), s.Verdict, s.recovered(), same)
	if s.Recovery != nil && now.Recovery != nil {
		d := *now.Recovery - *s.Recovery
		change := "as long"
		switch {
		case d >= 0.1:
			change = runbook.FormatSeconds(d) + " longer"
		case d <= -0.1:
			change = runbook.FormatSeconds(-d) + " shorter"
		}
		text += fmt.Sprintf(" Recovery now took %s: %s.", runbook.FormatSeconds(*now.Recovery), change)
	}
	if s.Verdict != Pass {
		text += " What was wrong then: " + s.Sentence
	}
	return text
}

// Markdown is the report with what follows from the runs before it.
func (r *Report) Markdown() string {
	var b strings.Builder
	b.WriteString(Markdown(r.Plan, r.History, r.Verdict))
	w := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	if r.Sum != "" {
		w("- History %s", r.Sum)
	}
	if list := Issues(r.Plan, r.History, r.Verdict); len(list) > 0 {
		w("\n## Issues\n\n| issue | what | axis | owner | due |\n|---|---|---|---|---|")
		for _, x := range list {
			w("| %s | %s | %s: %s | %s | %s |", release.Cell(x.ID), release.Cell(x.What), x.Axis, x.Severity, or(x.Owner), or(x.Due))
		}
	}
	w("\n## Deviations\n")
	for _, x := range deviations(r.Plan, r.History) {
		w("- %s", release.Cell(x))
	}
	if len(deviations(r.Plan, r.History)) == 0 {
		w("None: everything that the scenario says was done, and nobody overrode anything.")
	}
	w("\n## Clean-up\n")
	for _, x := range r.cleanUp() {
		w("- %s: %s", release.Cell(x[0]), release.Cell(x[1]))
	}
	w("\n## Runs before\n\n%s\n", release.Cell(r.before()))
	if len(r.Runs) > 0 {
		w("| run | verdict | recovery |\n|---|---|---|")
		for _, s := range slices.Backward(r.Runs) {
			w("| %s | %s | %s |", release.Cell(s.Run), s.Verdict, release.Cell(s.recovered()))
		}
	}
	return b.String()
}
