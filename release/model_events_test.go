package release_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"trysail/release"
)

// allows says whether an event may follow. The plan is that of the document which it
// brings, if it brings one; subject is what a decision is for, in the model's words.
func (m *model) allows(body release.Body, p *plan, subject string) answer {
	_, start := body.(release.Started)
	switch {
	case m.life == "", m.life == "aborted" && m.gold == nil && start:
		return m.starts(body, p)
	case m.life == "shipped", m.life == "aborted":
		return no(0, "it is over")
	}
	if b, ok := body.(release.Personal); ok {
		if a := m.proved(b); !a.ok {
			return a
		}
		if proof := b.Signed(); proof != nil {
			m = m.signing(b.Decider(), proof.Key)
		}
	}
	return m.rules(body, p, subject)
}

// proved is rule 23.
func (m *model) proved(b release.Personal) answer {
	proof := b.Signed()
	switch _, off := b.(release.Signed); {
	case off: // it has rules of its own
	case m.keys == (proof == nil):
		return no(23, "a signature where there are allowed signers, and nowhere else")
	case proof == nil:
	case proof.Statement == "" || proof.Signature == "" || proof.Nonce == "" || proof.Key == "":
		return no(23, "half a signature")
	case m.nonces[proof.Nonce]:
		return no(23, "it was given before")
	}
	return yes()
}

// rules are those but for who signed with which key.
func (m *model) rules(body release.Body, p *plan, subject string) answer {
	switch b := body.(type) {
	case release.Started:
		return no(0, "it began")
	case release.Granted:
		return m.grants(b)
	case release.Finished:
		return m.finishes(b)
	case release.Committed:
		return m.commits(b)
	case release.Confirmed:
		return m.confirms(b)
	case release.Excepted:
		return m.excepts(b)
	case release.Lost:
		if r := m.steps[b.Item]; m.plan.item(b.Item) == nil || r == nil || r.lease == nil || r.lease.epoch != b.Epoch {
			return no(0, "no such lease")
		}
	case release.Retried:
		return m.retries(b)
	case release.Waived:
		return m.waives(b)
	case release.Passed:
		return m.passes(b)
	case release.Signed:
		return m.signs(b, subject)
	case release.Withdrawn:
		return m.withdraws(b)
	case release.Amended:
		return m.amends(b, p)
	case release.Agreed:
		return m.agrees(b)
	case release.Held:
		if m.life == "held" {
			return no(0, "it is held")
		}
	case release.Resumed:
		if m.life != "held" {
			return no(0, "it is not held")
		}
	case release.Aborted:
		switch {
		case blank(b.Reason):
			return no(24, "no reason")
		case m.keys && m.plan.human(b.Person) == nil:
			return no(24, "nobody of the runbook")
		}
	case release.Shipped:
		return m.shipping()
	}
	return yes()
}

func (m *model) starts(body release.Body, p *plan) answer {
	b, ok := body.(release.Started)
	switch {
	case !ok:
		return no(0, "it has not begun")
	case b.Rules < 0 || b.Rules > release.RulesNow:
		return no(0, "rules %d are not known", b.Rules)
	case !knownVCS(b.Source.VCS):
		return no(0, "version control %q is not known", b.Source.VCS)
	case len(p.faults()) > 0:
		return no(p.faults()[0], "check refuses the runbook")
	}
	return yes()
}

func knownVCS(s string) bool { return s == "git" || s == "svn" }

func (m *model) grants(b release.Granted) answer {
	x := m.plan.item(b.Item)
	switch {
	case m.life == "held":
		return no(16, "it is held")
	case !isStep(x):
		return no(0, "no machine runs it")
	case x.gold && m.open != nil:
		return no(0, "gold waits for the change")
	case b.Confirm:
		r := m.steps[b.Item]
		if !x.gold || m.gold == nil || m.step(x) != release.Confirming || r.lease != nil || b.Machine == m.gold.machine {
			return no(0, "there is nothing to confirm here")
		}
	case m.status(x) != release.Ready:
		return no(0, "it is not ready")
	}
	return yes()
}

// lease gives that in force, of an epoch.
func (m *model) lease(item string, epoch int64) *lease {
	if r := m.steps[item]; isStep(m.plan.item(item)) && r != nil && r.lease != nil && r.lease.epoch == epoch {
		return r.lease
	}
	return nil
}

func (m *model) finishes(b release.Finished) answer {
	l := m.lease(b.Item, b.Epoch)
	switch {
	case l == nil:
		return no(0, "no such lease")
	case m.plan.item(b.Item).gold && b.Exit == 0:
		return no(0, "gold is committed or confirmed")
	case b.Exit == 0 && b.Signal != "":
		return no(19, "a signal ended it, and it did not fail")
	case b.Exit == 0 && b.Status != 0 && len(b.Failing) == 0:
		return no(19, "it ended before its tests had, and it did not fail")
	}
	return yes()
}

func (m *model) commits(b release.Committed) answer {
	l := m.lease(b.Item, b.Epoch)
	switch {
	case l == nil || l.confirm || !m.plan.item(b.Item).gold || m.gold != nil:
		return no(0, "no such lease")
	case b.Exit != 0 || b.Signal != "" || len(b.Outputs) == 0:
		return no(19, "it failed")
	case l.server != m.servers[m.plan.item(b.Item).role]:
		return no(0, "its server was amended")
	}
	return yes()
}

func (m *model) confirms(b release.Confirmed) answer {
	x := m.goldItem()
	if x == nil || m.gold == nil {
		return no(0, "there is no gold")
	}
	if l := m.lease(x.name, b.Epoch); l == nil || !l.confirm {
		return no(0, "no such lease")
	}
	switch n := len(b.Differences); b.Verdict {
	case release.Identical:
		if n > 0 {
			return no(17, "identical, with differences")
		}
	case release.Equivalent:
		if n == 0 {
			return no(17, "equivalent, without differences")
		}
	case release.Different:
	default:
		return no(17, "verdict %q is not known", b.Verdict)
	}
	return yes()
}

func (m *model) goldItem() *item {
	for i := range m.plan.items {
		if m.plan.items[i].gold {
			return &m.plan.items[i]
		}
	}
	return nil
}

func blank(s string) bool { return strings.TrimSpace(s) == "" }

func (m *model) excepts(b release.Excepted) answer {
	switch {
	case m.gold == nil || m.gold.verdict != release.Equivalent || m.gold.excepted:
		return no(17, "there is no difference to accept")
	case !m.plan.approver(b.Person):
		return no(15, "not an approver")
	case m.wrote(b.Person, m.source.Author):
		return no(13, "an author")
	case blank(b.Reason):
		return no(17, "no reason")
	case !slices.Equal(slices.Sorted(slices.Values(b.Differences)), slices.Sorted(slices.Values(m.gold.differences))):
		return no(17, "it does not name each difference")
	}
	return yes()
}

func (m *model) retries(b release.Retried) answer {
	x := m.plan.item(b.Item)
	switch {
	case !isStep(x) || m.status(x) != release.Stopped:
		return no(0, "it has not stopped")
	case x.gold && m.gold != nil && m.gold.verdict != "":
		return no(18, "it is not tried until it agrees")
	}
	return yes()
}

func (m *model) waives(b release.Waived) answer {
	x := m.plan.item(b.Item)
	switch {
	case isStep(x) && m.steps[x.name] != nil && m.steps[x.name].result == nil && m.steps[x.name].failed != nil && slices.Contains(m.steps[x.name].failed.Failing, b.Test):
		return answer{free: true, rule: 19, why: "it failed, and no waiver makes it done"}
	case !isStep(x) || !slices.Contains(m.unwaived(x), b.Test):
		return no(0, "no such failed test")
	case !m.plan.approver(b.Person):
		return no(15, "not an approver")
	case m.wrote(b.Person, m.source.Author):
		return no(13, "an author")
	case blank(b.Reason):
		return no(15, "no reason")
	}
	return yes()
}

func (m *model) passes(b release.Passed) answer {
	x := m.plan.item(b.Item)
	if x == nil || x.kind != "wait" || m.status(x) != release.Ready {
		return no(0, "no wait that is to end")
	}
	return yes()
}

func (m *model) signs(b release.Signed, subject string) answer {
	x := m.plan.item(b.Item)
	if x == nil || x.kind != "sign-off" {
		return no(0, "no sign-off")
	}
	asked := slices.ContainsFunc(x.places, func(p place) bool { return slices.Contains(m.plan.members(p.who), b.Person) })
	switch {
	case !slices.Contains([]release.Decision{release.Approve, release.ApproveExcept, release.Reject}, b.Decision):
		return no(5, "decision %q is not known", b.Decision)
	case b.Decision != release.Approve && blank(b.Reason):
		return no(5, "no reason")
	case !m.settled(x):
		return no(12, "it is not asked for yet")
	case !asked:
		return no(1, "not asked")
	case subject != m.subject(x):
		return no(6, "for another subject")
	case b.Decision != release.Reject && m.wrote(b.Person, m.source.Author):
		return no(13, "an author")
	case m.said(b, subject):
		return no(3, "they have signed")
	}
	for _, s := range []string{b.Statement, b.Signature, b.Nonce, b.Key} {
		if m.keys == (s == "") {
			return no(0, "a signature where there are allowed signers, and nowhere else")
		}
	}
	if m.keys && m.nonces[b.Nonce] {
		return no(0, "it was given before")
	}
	return yes()
}

// said tells whether a person has decided this already, under this name or another one.
func (m *model) said(b release.Signed, subject string) bool {
	return slices.ContainsFunc(m.words, func(w word) bool {
		return w.item == b.Item && w.subject == subject && m.same(w.person, b.Person)
	})
}

// signing is the model that knows of the key of a signature already (rule 3).
func (m *model) signing(person, key string) *model {
	if key == "" {
		return m
	}
	n := *m
	n.marks = maps.Clone(m.marks)
	n.marks[person] = maps.Clone(m.marks[person])
	n.mark(person, key)
	n.memo, n.about = nil, nil
	return &n
}

func (m *model) withdraws(b release.Withdrawn) answer {
	x := m.plan.item(b.Item)
	switch {
	case x == nil || x.kind != "sign-off":
		return no(0, "no sign-off")
	case !slices.ContainsFunc(m.words, func(w word) bool { return w.item == b.Item && m.same(w.person, b.Person) }):
		return no(6, "they have said nothing")
	}
	return yes()
}

func (m *model) amends(b release.Amended, p *plan) answer {
	switch {
	case m.open != nil:
		return no(0, "another change is open")
	case len(b.What) == 0 || blank(b.Reason) || blank(b.By):
		return no(15, "it says not what, why and who")
	}
	for i, what := range b.What {
		if !slices.Contains([]string{"source", "runbook", "machines", "signers"}, what) || slices.Contains(b.What[:i], what) {
			return no(15, "%q does not change", what)
		}
	}
	for what, brings := range map[string]bool{"source": b.Source != nil, "runbook": b.Runbook != "", "machines": b.Machines != nil, "signers": b.Signers != ""} {
		if slices.Contains(b.What, what) != brings {
			return no(15, "it says that %s changes: %v; it brings one: %v", what, !brings, brings)
		}
	}
	if b.Source != nil && !knownVCS(b.Source.VCS) {
		return no(0, "version control %q is not known", b.Source.VCS)
	}
	if p != nil && len(p.faults()) > 0 {
		return no(p.faults()[0], "check refuses the runbook")
	}
	if m.gold != nil && !m.late(&proposal{Amended: b, plan: p}) {
		return no(21, "it changes more than is changed after gold")
	}
	if m.approvals(b.What) > len(m.mayApprove(b)) {
		return no(15, "too few may approve it")
	}
	return yes()
}

// mayApprove are the approvers of a change, each person once.
func (m *model) mayApprove(b release.Amended) (list []string) {
	for _, h := range m.plan.people {
		switch {
		case !m.plan.approver(h.name), m.theirs(b, h.name):
		case slices.ContainsFunc(list, func(o string) bool { return m.same(o, h.name) }):
		default:
			list = append(list, h.name)
		}
	}
	return list
}

func (m *model) agrees(b release.Agreed) answer {
	switch {
	case m.open == nil || m.open.seq != b.Amendment:
		return no(0, "no such change is open")
	case b.Decision != release.Approve && b.Decision != release.Reject:
		return no(15, "decision %q is not known", b.Decision)
	case !m.plan.approver(b.Person):
		return no(15, "not an approver")
	case b.Decision == release.Reject:
		return yes()
	case m.theirs(m.open.Amended, b.Person):
		return no(14, "they proposed it, or wrote what it brings")
	case m.gold != nil && !m.late(m.open):
		return no(21, "gold was committed meanwhile")
	case slices.ContainsFunc(m.open.approved, func(o string) bool { return m.same(o, b.Person) }):
		return no(3, "they have approved it")
	}
	return yes()
}

// shipping is rule 16.
func (m *model) shipping() answer {
	switch left := m.left(); {
	case m.life == "held":
		return no(16, "it is held")
	case m.open != nil:
		return no(16, "a change is open")
	case len(left) > 0:
		return no(16, "%v are not done", left)
	case m.gold == nil || !m.done(m.goldItem()):
		return no(16, "there is no gold")
	}
	return yes()
}

// take follows an event that is allowed.
func (m *model) take(body release.Body, p *plan, subject string) {
	m.head++
	m.memo, m.about = nil, nil
	if b, ok := body.(release.Personal); ok && b.Signed() != nil {
		m.nonces[b.Signed().Nonce] = true
		m.mark(b.Decider(), b.Signed().Key)
	}
	switch b := body.(type) {
	case release.Started:
		head, nonces := m.head, m.nonces
		*m = *newModel() // nothing of an earlier start counts (rule 24)
		m.head, m.nonces = head, nonces
		m.life, m.version, m.plan, m.ship, m.source, m.keys = "running", b.Version, p, b.Ship, b.Source, b.Signers != ""
		for _, s := range b.Machines {
			m.servers[s.Role] = s.Blueprint
		}
		m.markPeople()
	case release.Granted:
		r := m.run(b.Item)
		r.lease = &lease{m.head, b.Machine, m.servers[m.plan.item(b.Item).role], b.Confirm}
		m.begins(b.Item)
	case release.Finished:
		m.finished(b)
	case release.Committed:
		r := m.run(b.Item)
		m.gold = &goldBuild{machine: r.lease.machine}
		r.result, r.server, r.lease, r.failures, r.moves = &b.Finished, r.lease.server, nil, 0, 0
	case release.Confirmed:
		m.gold.verdict, m.gold.differences = b.Verdict, b.Differences
		m.gold.seconds++
		m.run(m.goldItem().name).lease = nil
	case release.Excepted:
		m.gold.excepted = true
	case release.Lost:
		r := m.run(b.Item)
		r.lease, r.lost = nil, m.plan.item(b.Item).ask
		r.moves++
	case release.Retried:
		r := m.run(b.Item)
		if m.gold != nil && m.plan.item(b.Item).gold {
			m.gold.failed = false
		} else {
			r.result = nil
		}
		r.failures, r.moves, r.lost, r.failed, r.waived = 0, 0, false, nil, map[string]string{}
	case release.Waived:
		if m.run(b.Item).result != nil {
			m.run(b.Item).waived[b.Test] = b.Person + ": " + b.Reason
		}
	case release.Passed:
		m.passed[b.Item] = true
		m.begins(b.Item)
	case release.Signed:
		m.words = append(m.words, word{b.Item, b.Person, subject, b.Decision, nil})
		m.words[len(m.words)-1].called = m.called(b.Person)
		m.begins(b.Item)
	case release.Withdrawn:
		m.words = slices.DeleteFunc(m.words, func(w word) bool { return w.item == b.Item && m.same(w.person, b.Person) })
	case release.Amended:
		m.open = &proposal{Amended: b, seq: m.head, plan: p}
	case release.Agreed:
		if b.Decision == release.Reject {
			m.open = nil
			return
		}
		m.open.approved = append(m.open.approved, b.Person)
		if m.approved(m.open) >= m.approvals(m.open.What) {
			b := m.open
			m.open = nil
			m.force(b)
		}
	case release.Held:
		m.life = "held"
	case release.Resumed:
		m.life = "running"
	case release.Aborted:
		m.life = "aborted"
	case release.Shipped:
		m.life = "shipped"
	case release.Refused:
	default:
		panic(fmt.Sprintf("the model does not know %T", b))
	}
}

func (m *model) finished(b release.Finished) {
	r, x := m.run(b.Item), m.plan.item(b.Item)
	l := r.lease
	r.lease, r.moves = nil, 0
	switch {
	case l.confirm:
		m.gold.failed = true
		m.gold.seconds++
	case x.gold, b.Exit != 0, b.Signal != "":
		r.failures++
		r.failed = &b
	default:
		r.result, r.server, r.waived = &b, l.server, map[string]string{}
	}
}
