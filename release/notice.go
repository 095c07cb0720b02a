package release

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"trysail/runbook"
)

// NoticeKind is what a notice is about, in a word that people filter by.
type NoticeKind string

// The kinds of notices.
const (
	SignOffWanted   NoticeKind = "sign-off-wanted"
	ActionWanted    NoticeKind = "action-wanted" // a step stopped, a sign-off was rejected, an amendment is open
	MachineLost     NoticeKind = "machine-lost"  // a lease ended without a result
	GoldCommitted   NoticeKind = "gold-committed"
	GoldConfirmed   NoticeKind = "gold-confirmed" // built again alike, or its differences were signed for
	GoldDiffers     NoticeKind = "gold-differs"
	SlackLow        NoticeKind = "slack-low"
	MachineWanted   NoticeKind = "machine-wanted" // no machine can run a step whose turn has come
	ReleaseShipped  NoticeKind = "shipped"
	ReleaseAborted  NoticeKind = "aborted"
	amendmentItem              = "amendment" // what an ask of an amendment names
	leastSlackAbove            = time.Minute // see SlackNotice
)

// NoticeKinds lists them.
func NoticeKinds() []NoticeKind {
	return []NoticeKind{SignOffWanted, ActionWanted, MachineLost, GoldCommitted, GoldConfirmed, GoldDiffers, SlackLow, MachineWanted, ReleaseShipped, ReleaseAborted}
}

// Notice is something that people must know although they do not look.
type Notice struct {
	Kind   NoticeKind
	Item   string   // "" if it is about the whole release
	People []string // who is asked; empty: nobody by name
	What   string   // a sentence
}

// Notices are what follows from an event, given the states before and after it.
// An ask is told when it begins, never while it lasts: that one of two people has
// signed is no news for the other. One that ended and began again, because a step
// failed once more or other bytes are to be signed, is another ask.
func Notices(before *State, e Event, after *State) []Notice {
	var list []Notice
	switch b := e.Body.(type) {
	case Lost:
		list = append(list, Notice{MachineLost, b.Item, nil, Sentence(e)})
	case Committed:
		list = append(list, Notice{GoldCommitted, b.Item, nil, Sentence(e)})
	case Confirmed, Excepted:
		if x := after.goldItem(); after.Status(x) == Complete {
			list = append(list, Notice{GoldConfirmed, x.Name, nil, Sentence(e)})
		}
	case Shipped:
		list = append(list, Notice{ReleaseShipped, "", nil, "release " + after.Started.Version + " is shipped"})
	case Aborted:
		list = append(list, Notice{ReleaseAborted, "", nil, "release " + after.Started.Version + " is aborted" + because(b.Reason)})
	}
	known := map[string]bool{}
	for _, a := range before.Asks() {
		known[before.askKey(a)] = true
	}
	for _, a := range after.Asks() {
		if !known[after.askKey(a)] {
			list = append(list, after.askNotice(a, e))
		}
	}
	return list
}

// askKey tells one ask from another.
func (s *State) askKey(a Ask) string {
	x := s.Item(a.Item)
	switch {
	case a.Type == "agree", a.Type == "refuse":
		return fmt.Sprintf("%s %d", a.Type, s.Amendment.Seq)
	case a.Type == "sign" && x != nil:
		return "sign " + a.Item + " " + s.Subject(x)
	}
	return a.Type + " " + a.Item
}

func (s *State) askNotice(a Ask, e Event) Notice {
	n := Notice{ActionWanted, a.Item, a.People, a.Item + ": " + a.What}
	x := s.Item(a.Item)
	_, compared := e.Body.(Confirmed)
	switch {
	case a.Type == "sign":
		n.Kind = SignOffWanted
		n.What = fmt.Sprintf("%s wants %d sign-off(s) of %s: %s", a.Item, a.Needed, strings.Join(a.People, ", "), a.What)
	case a.Type == "agree":
		n.Item = amendmentItem
		n.What = fmt.Sprintf("%s proposes to change %s, which wants %d approval(s) of %s: %s",
			s.Amendment.By, strings.Join(s.Amendment.What, ", "), a.Needed, strings.Join(a.People, ", "), a.What)
	case a.Type == "refuse":
		n.Item = amendmentItem
		n.What = fmt.Sprintf("%s proposes to change %s: %s", s.Amendment.By, strings.Join(s.Amendment.What, ", "), a.What)
	case compared:
		n.Kind = GoldDiffers // one notice that says what is so and who is asked
	case x != nil && x.Kind == runbook.SignOff:
		// Whoever rejected said why.
		subject := s.Subject(x)
		for _, w := range s.Progress[x.Name].Words {
			if w.Decision == Reject && w.Subject == subject {
				n.What += " (" + w.Person + because(w.Reason) + ")"
			}
		}
	}
	n.People = slices.Clone(n.People)
	return n
}

// SlackNotice tells that a release's slack has fallen under a limit, once: low is
// whether that was told, and again what it is to be from now on. Slack moves all
// the time, so it must first have been above the limit by a tenth of it before it
// is told again.
func SlackNotice(o Outlook, limit time.Duration, low bool) (n *Notice, again bool) {
	above := limit + max(limit/10, leastSlackAbove)
	switch {
	case low && o.Slack >= above:
		return nil, false
	case low || o.Slack >= limit:
		return nil, low
	}
	what := "slack is " + runbook.FormatDuration(o.Slack)
	if o.Slack < 0 {
		what = "the release is late by " + runbook.FormatDuration(-o.Slack)
	}
	if len(o.Chain) > 0 {
		what += "; it hangs on " + strings.Join(o.Chain, ", ")
	}
	return &Notice{Kind: SlackLow, What: what}, true
}

// MachineNotices tell of the steps whose turn has come and that no machine can run, by item.
func MachineNotices(o Outlook) map[string]Notice {
	list := map[string]Notice{}
	for _, b := range o.Blocked {
		if b.Later || b.Code != BlockNoMachine && b.Code != BlockSecondMachine {
			continue
		}
		list[b.Item] = Notice{Kind: MachineWanted, Item: b.Item, What: fmt.Sprintf(
			"%s waits: %s. On control: trysail fleet token > link; on a machine, with that file as LINK: sudo %s", b.Item, b.Why, MachineFor(b.Role, b.Plain))}
	}
	return list
}
