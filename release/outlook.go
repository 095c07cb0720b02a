package release

import (
	"cmp"
	"container/heap"
	"maps"
	"slices"
	"strings"
	"time"

	"trysail/runbook"
)

// Host is a machine as an outlook needs it.
type Host struct {
	Name   string
	Rank   int         // of two that are free the lower one gets a step
	Serves []string    // roles; empty: all
	Plain  bool        // runs steps on its host, for roles without a blueprint
	Slots  int         // steps at once
	Away   string      // its condition, where it gets nothing new, such as lost
	Warm   []string    // digests of blueprints whose server is ready
	Busy   []time.Time // when the steps of other releases that it runs end
}

// Fleet is what there is to run steps on.
type Fleet struct {
	Hosts   []Host
	Rebuild map[string]time.Duration // how long a machine took to make a server, by the blueprint's digest
}

// toCome begins the name of a machine that is missing.
const toCome = "another machine for "

// AssumedRebuild is counted for a server that nobody has seen made.
const AssumedRebuild = 10 * time.Minute

// simulation runs the rest of a release as control and people would: a step begins when what
// it needs is done and a machine is free, in the order of the runbook; each person works on
// one sign-off at a time, within their hours.
type simulation struct {
	*statuses
	now     time.Time
	hours   map[string]runbook.Calendar
	fleet   *Fleet // nil: there is a machine whenever one is wanted
	hosts   []Host
	slots   []slot
	people  map[string]taken // until when each person works on something
	end     map[string]time.Time
	before  map[string]string // what each item waited for last
	long    map[string]int    // chains, in items: of two that end at once the longer one counts
	missing map[string]int    // needs of an item that have no end yet
	next    map[string][]int  // items that need one
	queue   tasks
	on      map[string]string // machine of each item's last build
	blocked []Block
	assumed []string
}

// slot is one of the steps that a machine runs at once.
type slot struct {
	host int
	taken
}

// taken is until when something is in use, and by which item.
type taken struct {
	until time.Time
	by    string
}

// task is an item that may begin at a time, or the second build of gold.
type task struct {
	at     time.Time
	item   int
	second bool
}

type tasks []task

func (q tasks) Len() int      { return len(q) }
func (q tasks) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q tasks) Less(i, j int) bool {
	return cmp.Or(q[i].at.Compare(q[j].at), cmp.Compare(q[i].item, q[j].item)) < 0
}
func (q *tasks) Push(x any) { *q = append(*q, x.(task)) }
func (q *tasks) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

func newSimulation(a *statuses, fleet *Fleet, now time.Time, hours map[string]runbook.Calendar) *simulation {
	x := &simulation{
		statuses: a, now: now, hours: hours, fleet: fleet, people: map[string]taken{}, end: map[string]time.Time{}, before: map[string]string{}, long: map[string]int{},
		missing: map[string]int{}, next: map[string][]int{}, on: map[string]string{},
	}
	if fleet == nil {
		return x
	}
	for _, h := range fleet.Hosts {
		h.Warm = slices.Clone(h.Warm)
		x.add(h)
	}
	return x
}

// add gives the simulation a machine.
func (x *simulation) add(h Host) int {
	x.hosts = append(x.hosts, h)
	for i := range max(h.Slots, 1) {
		s := slot{host: len(x.hosts) - 1}
		if i < len(h.Busy) {
			s.until = h.Busy[i]
		}
		x.slots = append(x.slots, s)
	}
	return len(x.hosts) - 1
}

func (x *simulation) run() {
	for i := range x.Items {
		it := &x.Items[i]
		if x.done(it) {
			continue
		}
		for _, n := range it.Needs {
			if !x.done(x.Item(n)) {
				x.missing[it.Name]++
				x.next[n] = append(x.next[n], i)
			}
		}
	}
	var running, ready []int // before anything ends: what an end makes ready is pushed then
	for i := range x.Items {
		it := &x.Items[i]
		switch {
		case x.done(it):
		case x.Progress[it.Name].Lease != nil:
			running = append(running, i)
		case x.missing[it.Name] == 0:
			ready = append(ready, i)
		}
	}
	for _, i := range running { // it has its machine already
		x.leased(i)
	}
	for _, i := range ready {
		x.push(i, x.now, x.Gold != nil && x.Items[i].Gold)
	}
	for x.queue.Len() > 0 {
		x.begin(heap.Pop(&x.queue).(task))
	}
}

func (x *simulation) push(item int, at time.Time, second bool) {
	heap.Push(&x.queue, task{at, item, second})
}

// ends is when an item is done. What needs it, and nothing else any more, may begin.
func (x *simulation) ends(item int, at time.Time) {
	name := x.Items[item].Name
	if _, twice := x.end[name]; twice {
		return // it runs while something that it needs runs again
	}
	x.long[name] = x.long[x.before[name]] + 1
	x.end[name] = at
	for _, i := range x.next[name] {
		it := &x.Items[i]
		if x.missing[it.Name]--; x.missing[it.Name] > 0 {
			continue
		}
		begin := x.now
		for _, n := range it.Needs {
			if t := x.end[n]; t.After(begin) || t.Equal(begin) && x.long[n] > x.long[x.before[it.Name]] {
				begin, x.before[it.Name] = t, n
			}
		}
		x.push(i, begin, false)
	}
}

func (x *simulation) begin(t task) {
	it := &x.Items[t.item]
	switch it.Kind {
	case runbook.Wait:
		at := t.at
		if until := it.Until.Time(x.Ship); until.After(at) {
			at, x.before[it.Name] = until, "" // the calendar decides, whatever was before
		}
		x.ends(t.item, at)
	case runbook.SignOff:
		x.ends(t.item, x.signed(it, t.at))
	default:
		x.step(t)
	}
}

// step gives a step a machine, or has it wait until one is free.
func (x *simulation) step(t task) {
	it := &x.Items[t.item]
	if x.fleet == nil {
		x.built(t, t.at.Add(it.Budget), "")
		return
	}
	not := ""
	if t.second {
		not = x.on[it.Name]
		if x.Gold != nil {
			not = x.Gold.Machine
		}
	}
	blueprint := x.Machine(it.Role).Blueprint
	i := x.free(it, blueprint, not)
	if s := x.slots[i]; s.until.After(t.at) {
		if s.by != "" && !t.second { // the second build of gold waits for the first, and so did this
			x.before[it.Name] = s.by
		}
		x.push(t.item, s.until, t.second)
		return
	}
	h := &x.hosts[x.slots[i].host]
	took := it.Budget
	if blueprint != "" && !slices.Contains(h.Warm, blueprint) {
		took += x.rebuild(it.Role, blueprint)
		h.Warm = append(h.Warm, blueprint)
	}
	x.slots[i].taken = taken{t.at.Add(took), it.Name}
	x.built(t, t.at.Add(took), h.Name)
}

// built says when a step has ended, and on which machine. Of gold the second build is to come.
func (x *simulation) built(t task, end time.Time, host string) {
	it := &x.Items[t.item]
	if it.Gold && !t.second {
		x.on[it.Name] = host
		x.push(t.item, end, true)
		return
	}
	x.ends(t.item, end)
}

// leased is a step that runs: its machine makes the server first, if it has none.
func (x *simulation) leased(item int) {
	it := &x.Items[item]
	l := x.Progress[it.Name].Lease
	ran := max(x.now.Sub(l.Since), 0)
	left := max(it.Budget-ran, 0)
	i := slices.IndexFunc(x.hosts, func(h Host) bool { return h.Name == l.Machine })
	if bp := x.Machine(it.Role).Blueprint; i >= 0 && bp != "" && !slices.Contains(x.hosts[i].Warm, bp) {
		left = it.Budget + max(x.rebuild(it.Role, bp)-ran, 0)
		x.hosts[i].Warm = append(x.hosts[i].Warm, bp)
	}
	end := x.now.Add(left)
	for k := range x.slots {
		if s := &x.slots[k]; s.host == i && !s.until.After(x.now) {
			s.taken = taken{end, it.Name}
			break
		}
	}
	x.built(task{x.now, item, l.Confirm}, end, l.Machine)
}

func (x *simulation) rebuild(role, blueprint string) time.Duration {
	if d, measured := x.fleet.Rebuild[blueprint]; measured {
		return d
	}
	if !slices.Contains(x.assumed, role) {
		x.assumed = append(x.assumed, role)
	}
	return AssumedRebuild
}

// free finds the slot in which a step can begin first. Where no machine can ever run it, one
// that can is added, and what is missing is named.
func (x *simulation) free(it *runbook.Item, blueprint, not string) int {
	best := -1
	for i, s := range x.slots {
		h := &x.hosts[s.host]
		if h.Away != "" || h.Name == not || !h.able(it.Role, blueprint) {
			continue
		}
		if best < 0 || x.better(s, x.slots[best], blueprint) {
			best = i
		}
	}
	if best >= 0 {
		return best
	}
	x.blocked = append(x.blocked, x.lacks(it, blueprint, not))
	x.add(Host{Name: toCome + it.Name, Serves: []string{it.Role}, Plain: blueprint == "", Slots: 1})
	return len(x.slots) - 1
}

func (h *Host) able(role, blueprint string) bool {
	return (len(h.Serves) == 0 || slices.Contains(h.Serves, role)) && (blueprint != "" || h.Plain)
}

// better tells whether a step begins sooner in a slot than in another; of two that are free
// the better machine gets it, as control gives it.
func (x *simulation) better(a, b slot, blueprint string) bool {
	ha, hb := &x.hosts[a.host], &x.hosts[b.host]
	cold := func(h *Host) int {
		if blueprint == "" || slices.Contains(h.Warm, blueprint) {
			return 0
		}
		return 1
	}
	at := func(s slot) time.Time {
		if s.until.Before(x.now) {
			return x.now
		}
		return s.until
	}
	return cmp.Or(at(a).Compare(at(b)), cmp.Compare(ha.Rank, hb.Rank), cmp.Compare(cold(ha), cold(hb)), strings.Compare(ha.Name, hb.Name)) < 0
}

// lacks says which machine is missing for a step.
func (x *simulation) lacks(it *runbook.Item, blueprint, not string) Block {
	status := x.of(it)
	b := Block{Code: BlockNoMachine, Item: it.Name, Role: it.Role, Plain: blueprint == "", Later: status != Ready && status != Confirming && status != InProgress}
	away := map[string][]string{}
	for _, h := range x.hosts {
		switch {
		case !h.able(it.Role, blueprint):
		case h.Name == not:
			b.Code, b.Later = BlockSecondMachine, status != Confirming
		default:
			away[h.Away] = append(away[h.Away], h.Name)
		}
	}
	b.Why = "no machine for role " + it.Role
	if b.Code == BlockSecondMachine {
		b.Why = it.Name + " needs a second machine"
		if !strings.HasPrefix(not, toCome) {
			b.Why += ", beside " + not
		}
	}
	var list []string
	for _, why := range slices.Sorted(maps.Keys(away)) {
		list = append(list, strings.Join(away[why], ", ")+map[bool]string{true: " is ", false: " are "}[len(away[why]) == 1]+why)
	}
	if len(list) > 0 {
		b.Why += ": " + strings.Join(list, ", ")
	}
	return b
}

// signed is the earliest time at which as many of a sign-off's people as it still wants have
// worked for its budget: those who can be done first work on it, each after what they work
// on already.
func (x *simulation) signed(it *runbook.Item, begin time.Time) time.Time {
	h := x.heard(it)
	if len(h.left) == 0 {
		return begin.Add(it.Budget) // an amendment brings others
	}
	type turn struct {
		who        string
		after      taken
		end        time.Time
		neverWorks bool
	}
	var turns []turn
	for _, who := range h.left {
		t := turn{who: who, after: x.people[who]}
		from := begin
		if t.after.until.After(begin) {
			from = t.after.until
		}
		t.end, t.neverWorks = worked(who, from, it.Budget, x.hours)
		turns = append(turns, t)
	}
	slices.SortStableFunc(turns, func(a, b turn) int { return a.end.Compare(b.end) })
	wanted := max(it.Approvals-h.yes, 1)
	if h.fills != nil && !h.short {
		turns = slices.DeleteFunc(turns, func(t turn) bool { return !h.fills(t.who) })
	}
	turns = turns[:min(wanted, len(turns))]
	for _, t := range turns {
		x.people[t.who] = taken{t.end, it.Name}
	}
	last := turns[len(turns)-1]
	if last.after.until.After(begin) {
		x.before[it.Name] = last.after.by
	}
	if last.neverWorks {
		var names []string
		for _, t := range turns {
			if t.neverWorks {
				names = append(names, t.who)
			}
		}
		x.blocked = append(x.blocked, Block{Code: BlockNobodyWorks, Item: it.Name, Why: strings.Join(names, ", ") + " must sign, and by their hours and absences do not work for years", Later: x.of(it) == Pending})
	}
	return last.end
}
