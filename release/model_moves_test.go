package release_test

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"

	"trysail/release"
)

func digest(data string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(data))) }

// move is an event that may be tried; plan is that of the document it brings.
type move struct {
	body release.Body
	plan *plan
	sure bool // it folds
}

// next makes the next event: seven times of ten one that helps the release along, and
// otherwise any, right or wrong.
func (g *game) next(d *dice) move {
	v := g.any
	if d.n(10) < 7 {
		if list := g.helpful(d); len(list) > 0 {
			v = func(d *dice) move { return pick(d, list...) }
		}
	}
	return g.prove(d, v(d))
}

// prove puts a signature to a decision, where there are allowed signers: a good one, mostly.
func (g *game) prove(d *dice, v move) move {
	b, ok := v.body.(release.Personal)
	if _, off := v.body.(release.Signed); !ok || off || g.m.keys == d.in(30) {
		return v
	}
	p := release.Proof{Statement: "statement", Signature: "signature", Nonce: fmt.Sprintf("nonce %032d", g.m.head), Key: "SHA256:" + g.holder(b.Decider())}
	if g.books != nil {
		if !g.m.keys || g.m.plan.human(b.Decider()) == nil {
			return v
		}
		v.body = g.books.sign(g, b, p.Nonce)
		return v
	}
	switch d.n(60) {
	case 0:
		p.Statement = ""
	case 1:
		p.Signature = ""
	case 2:
		p.Key = ""
	case 3:
		p.Nonce = pick(d, "", fmt.Sprintf("nonce %032d", g.m.head/2), fmt.Sprintf("nonce %032d", g.m.head-2))
	}
	v.body = b.Prove(&p)
	return v
}

// helpful are the events that the model allows and that bring the release nearer to its end.
func (g *game) helpful(d *dice) (list []move) {
	m := g.m
	add := func(b release.Body) { list = append(list, move{body: b}) }
	if m.life == "held" {
		add(release.Resumed{})
	}
	if m.open != nil {
		for _, who := range everybody() {
			if b := (release.Agreed{Amendment: m.open.seq, Person: who, Decision: release.Approve}); m.rules(b, nil, "").ok {
				add(b)
			}
		}
		if len(list) == 0 { // nobody is left who may approve it
			add(release.Agreed{Amendment: m.open.seq, Person: g.approver(d), Decision: release.Reject})
		}
	}
	for i := range m.plan.items {
		x := &m.plan.items[i]
		switch s := m.status(x); {
		case isStep(x) && m.run(x.name).lease != nil:
			if d.in(3) {
				list = append(list, g.report(d, x, m.run(x.name).lease))
			} else {
				add(g.result(d, x, true))
			}
		case isStep(x) && (s == release.Ready || s == release.Confirming) && m.life == "running" && (!x.gold || m.open == nil):
			add(g.grant(d, x))
		case isStep(x) && s == release.Stopped && (m.gold == nil || m.gold.verdict != release.Different):
			add(g.mend(d, x))
		case x.kind == "wait" && s == release.Ready:
			add(release.Passed{Item: x.name})
		case x.kind == "sign-off" && s == release.Ready:
			for _, who := range everybody() {
				b := g.word(d, x, who, release.Approve)
				if m.allows(b, nil, g.subjects[b.Subject]).ok {
					add(b)
				}
			}
		case x.kind == "sign-off" && s == release.Stopped:
			for _, w := range m.words {
				if w.item == x.name && w.decision == release.Reject && d.in(3) {
					add(release.Withdrawn{Item: x.name, Person: w.person, Reason: "mended"})
				}
			}
		}
	}
	switch {
	case m.shipping().ok:
		add(release.Shipped{})
	case m.gold != nil && m.gold.verdict == release.Different && d.in(4):
		add(release.Aborted{Reason: "gold differs"})
	}
	return list
}

func (g *game) approver(d *dice) string {
	for {
		if who := pick(d, everybody()...); g.m.plan.approver(who) {
			return who
		}
	}
}

func (g *game) machine(d *dice) string { return pick(d, "a", "b", "c") }

func (g *game) grant(d *dice, x *item) release.Body {
	b := release.Granted{Item: x.name, Machine: g.machine(d)}
	if b.Confirm = x.gold && g.m.gold != nil; b.Confirm {
		for b.Machine == g.m.gold.machine {
			b.Machine = g.machine(d)
		}
	}
	return b
}

// mend is what lets a step that stopped go on.
func (g *game) mend(d *dice, x *item) release.Body {
	if x.gold && g.m.gold != nil && g.m.gold.verdict == release.Equivalent {
		return release.Excepted{Person: g.approver(d), Differences: g.m.gold.differences, Reason: "known"}
	}
	if left := g.m.unwaived(x); len(left) > 0 && d.n(4) > 0 {
		return release.Waived{Item: x.name, Test: pick(d, left...), Person: g.approver(d), Reason: pick(d, "flaky", "known")}
	}
	return release.Retried{Item: x.name, Reason: "again"}
}

// result ends a lease: well, mostly.
func (g *game) result(d *dice, x *item, mostly bool) release.Body {
	l := g.m.run(x.name).lease
	if l == nil {
		l = &lease{epoch: int64(d.n(int(g.m.head) + 2)), machine: g.machine(d), server: g.m.servers[x.role]}
	}
	bad := d.n(100)
	if mostly {
		bad = d.n(500)
	}
	root := ""
	if l.server != "" {
		root = digest("the root of " + l.server)
	}
	f := release.Finished{Item: x.name, Epoch: l.epoch, Took: 1, Log: g.blob(fmt.Sprintf("log %d", d.n(9))), Root: root}
	switch {
	case bad < 20:
		return release.Lost{Item: x.name, Epoch: l.epoch, Machine: l.machine, Why: "silence"}
	case bad < 40:
		f.Exit, f.Why = pick(d, 1, 2), "it failed"
		return f
	}
	if l.confirm {
		return g.compared(d, x, l)
	}
	if len(x.out) > 0 && d.n(50) > 0 {
		path := map[string]string{"obj/**": "obj/a", "dist/*": "dist/app"}[x.out[0]]
		data := x.name + pick(d, "", "", "", " again")
		f.Outputs = []release.Artifact{{Path: path, Digest: g.blob(data), Size: int64(len(data)), Mode: "0644"}}
	}
	if x.results {
		if f.Tests = 9; d.in(2) {
			f.Failing = pick(d, []string{"t1"}, []string{"t1", "t2"})
			switch f.Status = pick(d, 0, 1, 2); d.n(7) {
			case 0: // and then it failed, too
				f.Exit, f.Why = 1, "it failed"
			case 1:
				f.Status, f.Signal, f.Exit, f.Why = 137, "killed", 137, "killed"
			case 2:
				f.Status, f.Signal = 137, "killed"
			case 3:
				f.Failing = nil
			}
		}
	}
	if x.gold {
		return release.Committed{Finished: f}
	}
	return f
}

// report is what comes of what a machine says at the end of a lease, which is in force or
// not: package release makes an event of it that always folds.
func (g *game) report(d *dice, x *item, l *lease) move {
	r := release.Report{Machine: l.machine}
	r.Item, r.Epoch, r.Took, r.Log = x.name, l.epoch, 1, g.blob("log")
	if l.server != "" {
		r.Root = digest("the root of " + l.server)
	}
	if len(x.out) > 0 {
		data := x.name + pick(d, "", " again")
		r.Outputs = []release.Artifact{{Path: map[string]string{"obj/**": "obj/a", "dist/*": "dist/app"}[x.out[0]], Digest: g.blob(data), Size: int64(len(data)), Mode: "0644"}}
	}
	switch d.n(12) {
	case 0:
		r.Exit, r.Status, r.Why = 1, 1, "it failed"
	case 1:
		r.Stopped, r.Why = true, "it could not renew its lease"
	case 2:
		r.Failing, r.Tests, r.Status = []string{"t1"}, 9, 1
	case 3:
		r.Failing, r.Tests, r.Status, r.Signal = []string{"t1"}, 9, 137, "killed"
	case 4:
		r.Tests, r.Status = 9, 1
	}
	if l.confirm && r.Exit == 0 {
		if r.Compared = release.Identical; d.in(6) {
			r.Compared, r.Differences = release.Equivalent, []string{"dist/app: time"}
		}
	}
	return move{body: g.s.Result(r), sure: true}
}

func (g *game) compared(d *dice, _ *item, l *lease) release.Body {
	b := release.Confirmed{Epoch: l.epoch, Verdict: release.Identical, Log: g.blob("second log")}
	switch d.n(12) {
	case 0, 1:
		b.Verdict, b.Differences = release.Equivalent, pick(d, []string{"dist/app: time"}, []string{"dist/app: time", "dist/app: order"})
	case 2:
		b.Verdict, b.Differences = release.Different, pick(d, nil, []string{"dist/app: bytes"})
	case 3:
		b.Verdict = pick(d, release.Equivalent, "", "Identical", "same")
	case 4:
		b.Differences = []string{"dist/app: time"}
	}
	return b
}

// word is what somebody says of a sign-off, for what is to be signed.
func (g *game) word(d *dice, x *item, who string, what release.Decision) release.Signed {
	b := release.Signed{Item: x.name, Person: who, Decision: what}
	if x.kind == "sign-off" && g.m.settled(x) {
		b.Subject = g.digests[g.m.subject(x)]
	} else {
		b.Subject = g.s.Subject(g.s.Item(x.name))
	}
	if what != release.Approve {
		b.Reason = "a reason"
	}
	if g.m.keys {
		b.Statement, b.Signature, b.Nonce = "statement", "signature", fmt.Sprintf("nonce %032d", g.m.head)
		b.Key = "SHA256:" + g.holder(who)
	}
	if g.books != nil && g.m.keys && g.m.plan.human(who) != nil {
		return g.books.sign(g, b, b.Nonce).(release.Signed)
	}
	return b
}

// spoke are those who rejected something, or else who approved something.
func (g *game) spoke() (list []string) {
	for _, reject := range []bool{true, false} {
		for _, w := range g.m.words {
			if reject == (w.decision == release.Reject) {
				list = append(list, w.person)
			}
		}
		if len(list) > 0 {
			break
		}
	}
	return list
}

// amend proposes a change.
func (g *game) amend(d *dice, late bool) move {
	b := release.Amended{Reason: "a reason", By: pick(d, everybody()...)}
	var p *plan
	kind := pick(d, "source", "runbook", "runbook", "runbook", "machines", "signers")
	if late {
		kind = pick(d, "runbook", "signers")
	}
	b.What = []string{kind}
	if d.in(8) && !late {
		if other := pick(d, "source", "machines", "signers"); other != kind {
			b.What = append(b.What, other)
		}
	}
	for _, what := range b.What {
		switch what {
		case "source":
			s := pick(d, sources()...)
			if d.in(20) {
				s.VCS = pick(d, "", "hg", "GIT")
			}
			b.Source = &s
		case "machines":
			for _, s := range slices.Sorted(maps.Keys(g.m.servers)) {
				b.Machines = append(b.Machines, g.server(s, d.n(3)))
			}
		case "signers":
			b.Signers = pick(d, g.signers...)
		case "runbook":
			p = change(d, g.m.plan, g.past, g.spoke(), late)
			g.bring(p, &b)
		}
	}
	return move{body: b, plan: p}
}

// any is an event that may be wrong.
func (g *game) any(d *dice) move {
	m := g.m
	x := &m.plan.items[d.n(len(m.plan.items))]
	who := pick(d, everybody()...)
	if d.in(30) {
		who = pick(d, "nobody", "", "qa")
	}
	reason := pick(d, "a reason", "a reason", "a reason", "", " ")
	var b release.Body
	kind := d.n(27)
	if m.open != nil && d.in(2) {
		if kind = 17; d.in(2) { // somebody whose change it is, by one name or another
			for _, n := range everybody() {
				if m.same(n, m.open.By) && d.in(2) {
					who = n
				}
			}
		}
	}
	switch kind {
	case 24:
		if isStep(x) && d.in(2) {
			return g.report(d, x, &lease{epoch: int64(d.n(int(m.head) + 1)), machine: g.machine(d), server: m.servers[x.role]})
		}
		b = release.Refused{Item: x.name, Epoch: int64(d.n(int(m.head) + 2)), Machine: g.machine(d), Why: "late"}
	case 0, 1, 2, 25, 26:
		if g.amended < 5 && (m.gold == nil || d.in(3)) {
			return g.amend(d, m.gold != nil && d.n(3) > 0)
		}
		b = release.Passed{Item: x.name}
	case 3:
		mv := g.amend(d, false)
		a := mv.body.(release.Amended)
		switch d.n(5) {
		case 0:
			a.What = append(a.What, pick(d, "source", "everything", "", "signers"))
		case 1:
			a.What = nil
		case 2:
			a.Reason = reason
		case 3:
			a.Source = &sources()[1]
		case 4:
			a.By = ""
		}
		return move{body: a, plan: mv.plan}
	case 4, 5:
		b = release.Granted{Item: x.name, Machine: g.machine(d), Confirm: d.in(4)}
	case 6, 7:
		b = g.result(d, x, false)
		if d.in(6) {
			b = release.Committed{Finished: release.Finished{Item: x.name, Epoch: m.head, Outputs: []release.Artifact{{Path: "dist/app", Digest: g.blob("evil"), Size: 4, Mode: "0644"}}}}
		}
	case 8:
		b = release.Confirmed{Epoch: m.head, Verdict: release.Identical}
	case 9:
		b = release.Retried{Item: x.name}
	case 10:
		b = release.Waived{Item: x.name, Test: pick(d, "t1", "t2"), Person: who, Reason: reason}
		if y := m.plan.item("suite"); y != nil && d.n(4) > 0 {
			b = release.Waived{Item: y.name, Test: pick(d, "t1", "t2"), Person: who, Reason: reason}
		}
	case 11:
		e := release.Excepted{Person: who, Differences: []string{"dist/app: time"}, Reason: reason}
		if m.gold != nil && d.in(2) {
			e.Differences = m.gold.differences
		}
		b = e
	case 12, 13, 14, 15:
		b = g.anyWord(d, x, who, reason)
	case 16:
		b = release.Withdrawn{Item: x.name, Person: who, Reason: reason}
		if len(m.words) > 0 && d.in(2) {
			w := pick(d, m.words...)
			b = release.Withdrawn{Item: w.item, Person: w.person, Reason: reason}
		}
	case 17, 18:
		a := release.Agreed{Person: who, Decision: pick(d, release.Approve, release.Reject, release.Approve, "yes", "", "Approve", release.ApproveExcept), Reason: reason}
		if m.open != nil {
			a.Amendment = m.open.seq
		}
		if d.in(8) {
			a.Amendment = m.head
		}
		b = a
	case 19:
		b = release.Held{Reason: pick(d, "a hole", "fire drill")}
	case 20:
		b = release.Resumed{}
	case 21:
		if b = (release.Passed{Item: x.name}); d.in(40) {
			b = release.Aborted{Reason: reason, Person: who}
		}
	case 22:
		b = release.Shipped{}
	case 23:
		b = release.Started{Version: m.version, Rules: release.RulesNow}
	}
	return move{body: b}
}

// anyWord is a decision: of anybody, of any word, for any subject.
func (g *game) anyWord(d *dice, x *item, who, reason string) release.Body {
	if d.n(4) > 0 {
		for x.kind != "sign-off" {
			x = &g.m.plan.items[d.n(len(g.m.plan.items))]
		}
	}
	b := g.word(d, x, who, pick(d, release.Approve, release.Approve, release.ApproveExcept, release.Reject, release.Reject))
	if g.books != nil {
		return b
	}
	if d.in(4) {
		b.Reason = reason
	}
	switch d.n(12) {
	case 0:
		b.Decision = pick[release.Decision](d, "", "yes", "APPROVE", "rejected")
	case 1, 2:
		if len(g.digests) > 0 { // of another sign-off, or of another time
			b.Subject = pick(d, slices.Sorted(maps.Keys(g.subjects))...)
		}
	case 3:
		b.Subject = pick(d, "", "sha256:0", strings.ToUpper(b.Subject))
	case 4:
		b.Nonce = pick(d, "", fmt.Sprintf("nonce %032d", g.m.head/2), fmt.Sprintf("nonce %032d", g.m.head-2))
	case 5:
		b.Statement, b.Signature = pick(d, "", "statement"), pick(d, "", "signature")
	}
	return b
}
