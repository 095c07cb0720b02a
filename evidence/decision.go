package evidence

import (
	"encoding/json"
	"fmt"
	"time"

	"trysail/release"
)

// Decision is what a person decides of a release, beside sign-offs.
type Decision struct {
	Release  string `json:"release"`
	Event    string `json:"event"`   // its type: withdrawn, waived, excepted, amended, agreed, aborted
	Decides  any    `json:"decides"` // the event, but for its proof and for what its runbook says
	Meaning  string `json:"meaning"`
	Person   string `json:"person"`
	Name     string `json:"name,omitempty"`
	Revision string `json:"revision"` // that is in force
	Runbook  string `json:"runbook"`  // that is in force
	Signing
}

// event is what a statement decides.
func (d Decision) event() (release.Personal, error) {
	data, err := json.Marshal(map[string]any{"seq": 0, "time": d.Signed, "actor": "", "type": d.Event, "body": d.Decides})
	if err != nil {
		return nil, err
	}
	var e release.Event
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, err
	}
	b, ok := e.Body.(release.Personal)
	if _, off := b.(release.Signed); !ok || off {
		return nil, fmt.Errorf("an event of type %s is no decision", d.Event)
	}
	return b, nil
}

// draftDecision writes the statement of a decision.
func draftDecision(s *release.State, b release.Personal, g Signing) ([]byte, error) {
	subject, err := about(s, b)
	if err != nil {
		return nil, err
	}
	p := Decision{
		Release: s.Started.Version, Event: eventType(b), Decides: unplanned(b), Person: b.Decider(), Name: s.Person(b.Decider()).Full,
		Revision: s.Source.Revision, Runbook: s.Runbook, Signing: g,
	}
	p.Meaning = fmt.Sprintf("for release %s: %s", p.Release, release.Sentence(release.Event{Body: b}))
	if len(subject) == 0 { // a statement is about something
		subject = []Resource{resource("runbook", s.Runbook)}
	}
	return render(Statement[Decision]{Type: statementType, Subject: subject, PredicateType: decisionType, Predicate: p})
}

// eventType is the type of a decision's event.
func eventType(b release.Personal) string { return release.New(time.Time{}, "", b).Type }

// unplanned is an event as it is signed: without its proof, and without the plan, which is
// that of the runbook whose digest it has.
func unplanned(b release.Personal) release.Personal {
	if x, ok := b.(release.Amended); ok {
		b = x.With(release.Plan{})
	}
	return b.Prove(nil)
}

// about are the things that a decision is about, by digest; none: it is about the release.
func about(s *release.State, b release.Personal) ([]Resource, error) {
	none := func(format string, args ...any) ([]Resource, error) {
		return nil, &Error{fmt.Sprintf(format, args...), "trysail release status " + s.Started.Version}
	}
	switch b := b.(type) {
	case release.Withdrawn:
		x := s.Item(b.Item)
		if x == nil {
			return none("release %s has no sign-off %s", s.Started.Version, b.Item)
		}
		return []Resource{resource("what "+b.Item+" is about", s.Subject(x))}, nil
	case release.Waived:
		p := s.Progress[b.Item]
		switch {
		case p == nil || p.Result == nil:
			return none("%s has no result whose tests could be waived", b.Item)
		case p.Result.Log != "":
			return []Resource{resource("log of "+b.Item, p.Result.Log)}, nil
		}
	case release.Excepted:
		if s.Gold == nil || s.Gold.Confirmed == nil {
			return none("gold has no second build yet")
		}
		list := []Resource{listOf("gold", s.Gold.Made())}
		if l := s.Gold.Confirmed.Log; l != "" {
			list = append(list, resource("log of the second build", l))
		}
		return list, nil
	case release.Amended:
		return brings(b), nil
	case release.Agreed:
		if s.Amendment == nil || s.Amendment.Seq != b.Amendment {
			return none("amendment %d is not open", b.Amendment)
		}
		return brings(s.Amendment.Amended), nil
	}
	return nil, nil
}

// brings are the things that an amendment brings.
func brings(b release.Amended) []Resource {
	var list []Resource
	add := func(name, digest string) {
		if digest != "" {
			list = append(list, resource(name, digest))
		}
	}
	if b.Source != nil {
		list = append(list, sourceOf(*b.Source))
	}
	add("runbook", b.Runbook)
	for _, m := range b.Machines {
		add("blueprint of role "+m.Role, m.Blueprint)
	}
	add("allowed signers", b.Signers)
	add("revoked keys", b.Revoked)
	return list
}

// Title is what people call an event.
func Title(b release.Personal) string {
	switch b := b.(type) {
	case release.Signed:
		return "sign-off " + b.Item
	case release.Withdrawn:
		return "withdrawal from " + b.Item
	case release.Waived:
		return "waiver of test " + b.Test + " of " + b.Item
	case release.Excepted:
		return "exception for the second build"
	case release.Amended:
		return "amendment"
	case release.Agreed:
		return fmt.Sprintf("decision on amendment %d", b.Amendment)
	}
	return "abort"
}

// command is that of trysail release by which a person decides so.
func command(b release.Personal) string {
	switch b := b.(type) {
	case release.Signed:
		if b.Decision == release.Reject {
			return "reject"
		}
		return "sign"
	case release.Withdrawn:
		return "withdraw"
	case release.Waived:
		return "waive"
	case release.Excepted:
		return "except"
	case release.Amended:
		return "amend"
	case release.Agreed:
		return "agree"
	}
	return "abort"
}
