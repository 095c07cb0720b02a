package exercise

import (
	"context"
	"errors"
	"net/http"
	"time"

	"trysail/drill"
	"trysail/internal/api"
	"trysail/internal/lab"
	"trysail/release"
)

// revoked is the fault that a person's token is worthless. The probe asks control
// with that token; to undo it is to give them another.
func (r *runner) revoked(name string) *lab.Fault {
	ctx := context.Background()
	return &lab.Fault{
		Inject: func() error {
			return r.client.Do(ctx, http.MethodPost, "/tokens/revoke", api.Revoke{Person: name}, nil)
		},
		Probe: func(ctx context.Context) error {
			err := r.desks[name].Do(ctx, http.MethodGet, "/fleet", nil, nil)
			var p *api.Problem
			if errors.As(err, &p) && p.Code == "denied" {
				return nil
			}
			return errors.Join(errors.New("control still answers to their token"), err)
		},
		Undo: func() error {
			delete(r.denied, name)
			return r.badge(ctx, name)
		},
	}
}

// tries is how often somebody says what control does not take, before they give up:
// what hangs on them then hangs, and the drill ends and says so.
const tries = 5

// people lets those decide whose time has come.
func (r *runner) people(ctx context.Context) {
	now := r.stage.Now()
	open := map[string]bool{}
	for _, ask := range r.status.Asks {
		if ask.Type == "ship" {
			continue // the drill itself ships
		}
		for _, name := range ask.People {
			who, known := r.p.People[name]
			key := ask.Item + " " + ask.Type + " " + name
			if !known || r.away[name] || r.denied[name] || r.vain[key] >= tries {
				continue
			}
			open[key] = true
			if who.Live {
				r.live(ctx, ask, name)
				continue
			}
			at, waits := r.due[key]
			if !waits {
				at = r.responds(who, name, now)
				r.due[key] = at
				r.record(drill.Record{Kind: drill.Decided, Name: name, Why: "is asked: " + ask.Item})
			}
			if !at.IsZero() && !now.Before(at) {
				delete(r.due, key)
				r.decide(ctx, ask, name, who.Spends, false, release.Approve, "")
			}
		}
	}
	for key := range r.due {
		if !open[key] {
			delete(r.due, key)
		}
	}
}

// responds is when somebody will have decided: their own time, in the hours in
// which they work, and not while they are away; the zero time if they never will.
func (r *runner) responds(who drill.Response, name string, now time.Time) time.Time {
	d := who.Least
	if more := who.Most - who.Least; more > 0 {
		d += time.Duration(r.rand.Int64N(int64(more)))
	}
	after := func(t time.Time) time.Time {
		if c, ok := r.o.Hours[name]; ok {
			return c.Add(t, d)
		}
		return t.Add(d)
	}
	at := after(now)
	for _, s := range who.Away { // in their order: who comes back from one may leave for the next
		if at.After(s.From) && at.Before(s.To) {
			at = after(s.To)
		}
	}
	return at
}

// decide says a person's word, and remembers that it was acknowledged.
func (r *runner) decide(ctx context.Context, ask api.Ask, name string, spent time.Duration, live bool, decision release.Decision, reason string) {
	x := drill.Record{Kind: drill.Decided, Name: name, Why: string(decision) + ": " + ask.Item, Spent: spent, Live: live}
	var did struct {
		Event int64 `json:"event"`
	}
	var b release.Personal
	kind := ""
	switch ask.Type {
	case "sign":
		kind, b = "signed", release.Signed{Item: ask.Item, Person: name, Decision: decision, Subject: ask.Subject, Reason: reason, Spent: spent}
	case "except":
		if r.status.Gold == nil {
			return // control asks for what there is not
		}
		kind, b = "excepted", release.Excepted{Person: name, Differences: r.status.Gold.Differences, Reason: "as in every build of it, says the model of " + name}
	case "agree":
		kind, b = "agreed", release.Agreed{Amendment: r.status.Amendment, Person: name, Decision: decision, Reason: reason}
	default:
		return // what no model can decide: the drill ends when nothing else is left
	}
	b, err := r.prove(ctx, b)
	if err == nil {
		var request any = b
		if s, ok := b.(release.Signed); ok {
			request = api.DecideOf(s)
		}
		err = r.desks[name].Do(ctx, http.MethodPost, "/releases/"+r.status.Version+"/"+ask.Type, request, &did)
	}
	x.OK, _ = answer(err)
	if err != nil {
		x.Why += ": " + err.Error()
		var p *api.Problem
		if errors.As(err, &p) && p.Code == "denied" {
			r.denied[name] = true // they try no more before somebody gives them another token
		} else if p != nil && (p.Code == "rule" || p.Code == "usage") { // asking again changes nothing
			r.vain[ask.Item+" "+ask.Type+" "+name]++
		}
	}
	r.moved()
	r.record(x)
	if err == nil {
		item := ask.Item
		if kind != "signed" {
			item = ""
		}
		a := &release.Ack{Seq: did.Event, Type: kind, Item: item}
		if kind == "signed" {
			a.Person = name
		}
		r.record(drill.Record{Kind: drill.Told, Ack: a})
	}
}

// live asks somebody at the terminal; what it takes them is measured.
func (r *runner) live(ctx context.Context, ask api.Ask, name string) {
	if r.o.Ask == nil {
		return
	}
	begun := time.Now()
	yes, reason, err := r.o.Ask(ctx, name, ask.Item, ask.What)
	if err != nil {
		r.record(drill.Record{Kind: drill.Decided, Name: name, Why: err.Error(), Live: true})
		return
	}
	decision := release.Approve
	if !yes {
		decision = release.Reject
	}
	r.record(drill.Record{Kind: drill.Decided, Name: name, Why: "was asked at the terminal: " + ask.Item, Live: true, Took: time.Since(begun)})
	r.decide(ctx, ask, name, time.Since(begun), true, decision, reason)
}
