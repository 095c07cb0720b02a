package release

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"trysail/runbook"
)

// Retrospective is a release as it was run: what was planned against what was measured,
// work against waiting, what was lost and how it went on, what people did and when. It
// follows from the ledger alone. Durations are in seconds.
//
// Times are those of the events, by the clock of the control that appended them; what
// steps took was measured on their machines.
type Retrospective struct {
	Version  string    `json:"version"`
	Revision string    `json:"revision"`
	Began    time.Time `json:"began"`
	Ended    time.Time `json:"ended"` // or the last that is known
	Ship     time.Time `json:"ship"`
	Outcome  string    `json:"outcome"` // shipped, aborted, under way
	Why      string    `json:"why,omitempty"`

	OnTime   *bool   `json:"on_time,omitempty"`
	Slack    float64 `json:"slack_seconds"` // left when it shipped; negative: late
	OnBudget *bool   `json:"on_budget,omitempty"`
	Budget   float64 `json:"people_budget_seconds"`
	People   float64 `json:"people_seconds"` // as they said
	// Unreported are people who signed and did not say how long it took. OnBudget is absent
	// where it hangs on that, and OnTime where it hangs on a clock that went back.
	Unreported []string     `json:"time_not_reported"`
	Backs      []ClockMoved `json:"clock_went_back"`

	Gold string `json:"gold"` // verdict of the last second build
	// Earlier are starts of the version that were aborted before this one.
	Earlier []Attempt `json:"earlier_starts"`
	// Disagreed are the second builds that failed or differed, in words.
	Disagreed []string `json:"second_builds_not_identical"`
	Machine   float64  `json:"machine_seconds"` // of steps that counted
	Again     float64  `json:"again_seconds"`   // leases that were lost, or failed: work done again
	Working   float64  `json:"working_seconds"` // in which some step ran
	Waiting   float64  `json:"waiting_seconds"` // in which none did: people, waits, and nobody's turn

	Steps    []StepRun   `json:"steps"`
	SignOffs []SignOff   `json:"sign_offs"`
	Losses   []Loss      `json:"losses"`
	Holds    []Hold      `json:"holds"`
	Changes  []Change    `json:"changes"` // amendments, waivers, exceptions, withdrawals
	Team     []Colleague `json:"people"`
	Timeline []Happening `json:"timeline"`

	zone *time.Location // of the team
}

// ClockMoved is an event that is earlier than the one before it.
type ClockMoved struct {
	Event int64   `json:"event"`
	By    float64 `json:"seconds"`
}

// StepRun is what a step came to.
type StepRun struct {
	Item   string  `json:"item"`
	Phase  string  `json:"phase"`
	Gold   bool    `json:"gold,omitempty"`
	Runs   int     `json:"runs"`
	On     string  `json:"on,omitempty"` // the machine whose result counted
	Took   float64 `json:"took_seconds"` // of that run
	Budget float64 `json:"budget_seconds,omitempty"`
	Within *bool   `json:"within_budget,omitempty"`
	Result string  `json:"result"` // ended well, failed, not run, runs
}

// SignOff is what became of a sign-off.
type SignOff struct {
	Item    string     `json:"item"`
	Asked   *time.Time `json:"asked,omitempty"`
	Done    *time.Time `json:"done,omitempty"`
	Waited  float64    `json:"waited_seconds"` // from being asked to the last word that it needed
	Budget  float64    `json:"budget_seconds,omitempty"`
	Spent   float64    `json:"spent_seconds"`
	Words   []Word     `json:"words"`
	Outcome string     `json:"outcome"` // approved, rejected, waits, not asked
}

// Word is what one person said.
type Word struct {
	At       time.Time `json:"at"`
	Person   string    `json:"person"`
	Decision Decision  `json:"decision"`
	Reason   string    `json:"reason,omitempty"`
	Spent    float64   `json:"spent_seconds"`
}

// Loss is a lease that a machine lost, and where the step went.
type Loss struct {
	At        time.Time `json:"at"`
	Item      string    `json:"item"`
	Machine   string    `json:"machine"`
	Why       string    `json:"why"`
	Ran       float64   `json:"ran_seconds"` // until then
	Recovered string    `json:"recovered_on,omitempty"`
	After     float64   `json:"recovered_after_seconds,omitempty"`
}

// Hold is a time in which nothing was begun, because somebody said so.
type Hold struct {
	From   time.Time  `json:"from"`
	To     *time.Time `json:"to,omitempty"`
	By     string     `json:"by"`
	Reason string     `json:"reason"`
}

// Change is what people decided besides signing.
type Change struct {
	At   time.Time `json:"at"`
	By   string    `json:"by"`
	What string    `json:"what"`
	Why  string    `json:"why,omitempty"`
}

// Colleague is what somebody did in all.
type Colleague struct {
	Name  string  `json:"name"`
	Words int     `json:"decisions"`
	Spent float64 `json:"spent_seconds"`
}

// Happening is one event in words.
type Happening struct {
	At   time.Time `json:"at"`
	What string    `json:"what"`
}

// retrospecting is what is remembered from event to event.
type retrospecting struct {
	r     *Retrospective
	s     *State
	runs  map[int64]run  // leases that are open, by epoch
	work  []span         // of closed ones
	count map[string]int // runs of each item
	lost  map[string]int // item: index of its last loss that nothing has recovered
	asked map[string]time.Time
	words map[string][]Word
	done  map[string]time.Time
	took  map[string]StepRun // of the run that counted, or of the last
}

type run struct {
	item, machine string
	confirm       bool
	from          time.Time
}

type span struct{ from, to time.Time }

// Retrospect looks back at a release: dates in its words are by the clock of the team. It
// refuses a ledger that breaks the rules.
func Retrospect(events []Event, zones Zones) (*Retrospective, error) {
	x, err := newRetrospecting(Empty()), error(nil)
	for _, e := range events {
		if err := x.s.Apply(e); err != nil {
			return nil, err
		}
		if _, ok := e.Body.(Started); ok {
			x = newRetrospecting(x.s) // of the last start: nothing of an earlier one counts
		}
		if x.r.zone, err = zones(x.s.Team.Zone); err != nil {
			return nil, fmt.Errorf("the team: %w", err)
		}
		x.event(e)
		for _, ask := range x.s.Asks() {
			if _, known := x.asked[ask.Item]; !known && ask.Type == "sign" {
				x.asked[ask.Item] = e.Time
			}
		}
	}
	for _, b := range x.s.SecondBuilds() {
		if b.Verdict != Identical {
			x.r.Disagreed = append(x.r.Disagreed, b.String())
		}
	}
	x.sum()
	x.claims(LastAttempt(events))
	return x.r, nil
}

func newRetrospecting(s *State) *retrospecting {
	return &retrospecting{
		r: &Retrospective{Outcome: "under way", Steps: []StepRun{}, SignOffs: []SignOff{}, Losses: []Loss{}, Holds: []Hold{}, Changes: []Change{}, Team: []Colleague{}, Unreported: []string{}, Disagreed: []string{}, Backs: []ClockMoved{}, Timeline: []Happening{}, Earlier: append([]Attempt{}, s.Earlier...)},
		s: s, runs: map[int64]run{}, count: map[string]int{}, lost: map[string]int{}, asked: map[string]time.Time{}, words: map[string][]Word{}, done: map[string]time.Time{}, took: map[string]StepRun{},
	}
}

func (x *retrospecting) event(e Event) {
	r := x.r
	r.Ended = e.Time
	if text := Sentence(e); text != "" {
		r.Timeline = append(r.Timeline, Happening{e.Time, text})
	}
	switch b := e.Body.(type) {
	case Started:
		r.Version, r.Revision, r.Began, r.Ship, r.Budget = b.Version, b.Source.Revision, e.Time, b.Ship, b.Budget.Seconds()
	case Granted:
		x.runs[e.Seq] = run{b.Item, b.Machine, b.Confirm, e.Time}
		x.count[b.Item]++
		if i, ok := x.lost[b.Item]; ok {
			r.Losses[i].Recovered, r.Losses[i].After = b.Machine, e.Time.Sub(r.Losses[i].At).Seconds()
			delete(x.lost, b.Item)
		}
	case Finished:
		x.ended(b, e.Time)
	case Committed:
		x.ended(b.Finished, e.Time)
	case Confirmed:
		r.Gold = string(b.Verdict)
		x.close(b.Epoch, e.Time)
		r.Machine += b.Took.Seconds()
	case Lost:
		g := x.close(b.Epoch, e.Time)
		ran := max(e.Time.Sub(g.from), 0).Seconds()
		r.Again += ran
		x.lost[b.Item] = len(r.Losses)
		r.Losses = append(r.Losses, Loss{At: e.Time, Item: b.Item, Machine: b.Machine, Why: b.Why, Ran: ran})
	case Signed:
		x.words[b.Item] = append(x.words[b.Item], Word{e.Time, b.Person, b.Decision, b.Reason, b.Spent.Seconds()})
		if it := x.s.Item(b.Item); it != nil && x.s.Status(it) == Complete {
			x.done[b.Item] = e.Time
		}
	case Withdrawn:
		delete(x.done, b.Item)
		x.change(e, b.Person, "withdrew the word on "+b.Item, b.Reason)
	case Waived:
		x.change(e, b.Person, "waived test "+b.Test+" of "+b.Item+x.s.exit(b.Item), b.Reason)
	case Excepted:
		x.change(e, b.Person, "signed for the differences of the second build: "+strings.Join(b.Differences, "; "), b.Reason)
	case Amended:
		x.change(e, b.By, "proposed to change "+strings.Join(b.What, ", "), b.Reason)
	case Agreed:
		what := map[Decision]string{Approve: "agreed to the change", Reject: "refused the change"}[b.Decision]
		if !x.s.Ship.Equal(r.Ship) {
			what += fmt.Sprintf(": it ships %s, and not %s", r.at(x.s.Ship), r.at(r.Ship))
		}
		x.change(e, b.Person, what, b.Reason)
		r.Ship, r.Budget = x.s.Ship, x.s.Budget.Seconds()
	case Retried:
		x.change(e, e.Actor, "had "+b.Item+" tried again", b.Reason)
	case Held:
		r.Holds = append(r.Holds, Hold{From: e.Time, By: e.Actor, Reason: b.Reason})
	case Resumed:
		x.resumed(e.Time)
	case Aborted:
		r.Outcome, r.Why = "aborted", b.Reason
	case Shipped:
		r.Outcome, r.Slack = "shipped", r.Ship.Sub(e.Time).Seconds()
	}
}

func (x *retrospecting) resumed(at time.Time) {
	if n := len(x.r.Holds); n > 0 && x.r.Holds[n-1].To == nil {
		x.r.Holds[n-1].To = &at
	}
}

func (x *retrospecting) change(e Event, by, what, why string) {
	x.r.Changes = append(x.r.Changes, Change{e.Time, by, what, why})
}

// close ends a lease.
func (x *retrospecting) close(epoch int64, at time.Time) run {
	g, ok := x.runs[epoch]
	if !ok {
		return run{from: at}
	}
	delete(x.runs, epoch)
	x.work = append(x.work, span{g.from, at})
	return g
}

// ended takes the result of a step, or of a second build of gold that failed.
func (x *retrospecting) ended(b Finished, at time.Time) {
	g := x.close(b.Epoch, at)
	if b.Exit != 0 {
		x.r.Again += b.Took.Seconds()
	} else {
		x.r.Machine += b.Took.Seconds()
	}
	if g.confirm {
		return // what counts is what was committed
	}
	result := "ended well"
	if b.Exit != 0 {
		result = "failed"
	}
	x.took[b.Item] = StepRun{On: g.machine, Took: b.Took.Seconds(), Result: result}
}

// sum works out what is known in the end only.
func (x *retrospecting) sum() {
	r, statuses := x.r, x.s.Statuses()
	for _, it := range x.s.Items {
		switch it.Kind {
		case runbook.Step, runbook.Publish:
			r.Steps = append(r.Steps, x.step(it))
		case runbook.SignOff:
			r.SignOffs = append(r.SignOffs, x.signOff(it, statuses[it.Name]))
		}
	}
	team := map[string]*Colleague{}
	for _, list := range x.words {
		for _, w := range list {
			if team[w.Person] == nil {
				team[w.Person] = &Colleague{Name: w.Person}
			}
			team[w.Person].Words++
			team[w.Person].Spent += w.Spent
			r.People += w.Spent
		}
	}
	for _, c := range team {
		r.Team = append(r.Team, *c)
	}
	slices.SortFunc(r.Team, func(a, b Colleague) int { return strings.Compare(a.Name, b.Name) })
	for _, g := range x.runs { // that are under way
		x.work = append(x.work, span{g.from, r.Ended})
	}
	r.Working = covered(x.work).Seconds()
	r.Waiting = max(r.Ended.Sub(r.Began).Seconds()-r.Working, 0)
}

// claims are what is said of the whole, if there is what to say it from.
func (x *retrospecting) claims(events []Event) {
	r, backs := x.r, ClocksBack(events)
	for _, b := range backs {
		r.Backs = append(r.Backs, ClockMoved{b.Event, b.By.Seconds()})
	}
	if r.Outcome == "shipped" {
		r.OnTime = OnTime(r.Ship, r.Ended, backs)
	}
	r.Unreported = append(r.Unreported, Unreported(events)...)
	inSeconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	r.OnBudget = OnBudget(inSeconds(r.Budget), inSeconds(r.People), r.Unreported)
}

func (x *retrospecting) step(it runbook.Item) StepRun {
	s, ok := x.took[it.Name]
	if !ok {
		s.Result = "not run"
	}
	for _, g := range x.runs {
		if g.item == it.Name && !g.confirm {
			s.Result = "runs"
		}
	}
	s.Item, s.Phase, s.Gold, s.Runs, s.Budget = it.Name, it.Phase, it.Gold, x.count[it.Name], it.Budget.Seconds()
	if it.Budget > 0 && s.Result == "ended well" {
		within := s.Took <= s.Budget
		s.Within = &within
	}
	return s
}

func (x *retrospecting) signOff(it runbook.Item, status Status) SignOff {
	s := SignOff{Item: it.Name, Budget: it.Budget.Seconds(), Words: append([]Word{}, x.words[it.Name]...), Outcome: "not asked"}
	if at, ok := x.asked[it.Name]; ok {
		s.Asked, s.Outcome = &at, "waits"
	}
	for _, w := range s.Words {
		s.Spent += w.Spent
	}
	switch status {
	case Complete:
		s.Outcome = "approved"
	case Stopped:
		s.Outcome = "rejected"
	}
	if at, ok := x.done[it.Name]; ok && s.Asked != nil {
		s.Done, s.Waited = &at, max(at.Sub(*s.Asked).Seconds(), 0)
	}
	return s
}

// covered is how long at least one of some spans lasted.
func covered(list []span) time.Duration {
	slices.SortFunc(list, func(a, b span) int { return a.from.Compare(b.from) })
	var sum time.Duration
	var end time.Time
	for _, s := range list {
		if s.from.Before(end) {
			s.from = end
		}
		if s.to.After(s.from) {
			sum += s.to.Sub(s.from)
			end = s.to
		}
	}
	return sum
}
