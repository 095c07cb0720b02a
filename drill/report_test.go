package drill

import (
	"errors"
	"strings"
	"testing"
)

// judgedAs gives the good story, changed, and what it comes to.
func judgedAs(t *testing.T, old, new string, c change) (*Plan, []Record, *Verdict) {
	t.Helper()
	_, h := rehearsed(t, nil)
	if !strings.Contains(rehearsal, old) {
		t.Fatalf("the scenario has no %q", old)
	}
	p := parsed(t, strings.Replace(rehearsal, old, new, 1))
	h[0].Header.Scenario = p.Digest
	if c != nil {
		h = renumber(c(t, h))
	}
	return p, h, Judge(p, h)
}

// TestNever: what did not happen took no time, and what was not tried did not fail.
func TestNever(t *testing.T) {
	spare := []string{"{host: second, within: 5s}", "{host: spare, within: 5s}"}
	for _, x := range []struct {
		name, old, new string
		change         change
		has, hasNot    []string // of the terminal's text, Markdown and the objectives
		never          bool
	}{
		{"made a build server", "name: rehearsal", "name: rehearsal", nil, []string{"second made a build server in 3 s (limit 5 s)"}, []string{"never", "not known"}, false},
		{"never made one", spare[0], spare[1], nil, []string{"spare never made a build server (limit 5 s)", "| rebuilt | spare | never | 5 s | false |", "spare rebuilt: never: fail"}, []string{"in 0 s", "spare | 0 s"}, true},
		{"the drill was cut short", spare[0], spare[1], drop(Ended, "", ""), []string{"how long spare took to be made a build server is not known", "| rebuilt | spare | not known | 5 s |  |", "spare rebuilt: not known: unknown"}, []string{"never"}, false},
		{"nobody saw it begin", "name: rehearsal", "name: rehearsal", edit(Warmed, "", "second", func(r *Record) { r.Took = 0 }), []string{"how long second took to be made a build server is not known"}, []string{"second never", "| never"}, false},
		{"nothing had to move", "name: rehearsal", "name: rehearsal", nothingRan, []string{"| moved | primary-dies | not known | 6 s |  |"}, []string{"never"}, false},
	} {
		p, h, v := judgedAs(t, x.old, x.new, x.change)
		text := Short(p, h, v) + Markdown(p, h, v)
		for _, o := range objectives(p, v, len(kinds(h, Ended)) > 0) {
			text += o.What + ": " + o.Got + ": " + string(o.Value) + "\n"
		}
		for _, s := range x.has {
			if !strings.Contains(text, s) {
				t.Errorf("%s: it does not say %q", x.name, s)
			}
		}
		for _, s := range x.hasNot {
			if strings.Contains(text, s) {
				t.Errorf("%s: it says %q", x.name, s)
			}
		}
		if s := Summary(p, h, v); s.Never != x.never {
			t.Errorf("%s: never recovered: %+v", x.name, s)
		}
		drawn := false
		for _, b := range v.Faults {
			for _, k := range follows(p, h, v, b) {
				drawn = drawn || k.Seconds == 0
			}
		}
		if drawn != x.never {
			t.Errorf("%s: the picture shows what never came: %t", x.name, drawn)
		}
	}
}

// TestCutShort: of a drill that was cut short nobody knows what it would have come to, but
// for what it came to before.
func TestCutShort(t *testing.T) {
	values := func(p *Plan, h []Record, v *Verdict) map[string]Value {
		list := map[string]Value{}
		for _, o := range objectives(p, v, len(kinds(h, Ended)) > 0) {
			list[o.What] = o.Value
		}
		return list
	}
	p, h, v := judgedAs(t, "name: rehearsal", "name: rehearsal", cutShort(Happened, "gold", "", Record{Kind: Stopped, Why: "interrupted"}))
	got := values(p, h, v)
	for _, what := range []string{"the release", "on time", "on budget", "second build of gold"} {
		if got[what] != Unknown {
			t.Errorf("cut short: %s: %s", what, got[what])
		}
	}
	a, b := strings.Index(rehearsal, "expect:"), strings.Index(rehearsal, "modelled:")
	p, h, v = judgedAs(t, rehearsal[a:b], "expect: {ships: false}\n", cutShort(Happened, "gold", "", Record{Kind: Stopped, Why: "interrupted"}))
	if got := values(p, h, v); got["the release"] != Unknown {
		t.Errorf("it must not ship, and was cut short: %v", got)
	}
	p, h, v = judgedAs(t, "name: rehearsal", "name: rehearsal", drop(Ended, "", ""))
	if got := values(p, h, v); got["the release"] != Pass || got["on time"] != Pass || got["second build of gold"] != Pass || got["on budget"] != Unknown {
		t.Errorf("shipped, and cut short after that: %v", got)
	}
	p, h, v = judgedAs(t, "name: rehearsal", "name: rehearsal", nil)
	for what, value := range values(p, h, v) {
		if value != Pass {
			t.Errorf("to the end: %s: %s", what, value)
		}
	}
}

// TestWhatIsLookedAt: how it was seen that nothing is left is said as it was done.
func TestWhatIsLookedAt(t *testing.T) {
	for hosts, want := range map[int]string{0: "were listed in the end, and none bears a name of this drill", 5: "each of the 5 hosts listed"} {
		p, h, v := judgedAs(t, "name: rehearsal", "name: rehearsal", edit(Began, "", "", func(r *Record) { r.Header.Hosts = hosts }))
		r := &Report{Plan: p, History: h, Verdict: v}
		list := r.cleanUp()
		if said := list[len(list)-1][1]; !strings.Contains(said, want) || strings.Contains(said, "before") {
			t.Errorf("%d hosts: %s", hosts, said)
		}
	}
}

// TestPlainly: what others wrote moves nothing on a terminal, begins no line and is no
// markup.
func TestPlainly(t *testing.T) {
	bad := "\x1b[2J\u202epass <b>*x*</b>\n  system: fine"
	p, h, v := judgedAs(t, "name: rehearsal", "name: rehearsal", edit(Undone, "backup-hangs", "", no(bad)))
	text := Short(p, h, v)
	if strings.ContainsAny(text, "\x1b\u202e") || strings.Contains(text, "\n  system: fine") || !strings.Contains(text, "�[2J�pass <b>*x*</b>\n      system: fine") {
		t.Errorf("%q", text)
	}
	if text := Markdown(p, h, v); strings.Contains(text, "<b>") || !strings.Contains(text, "**The drill left something behind: ") {
		t.Errorf("%q", text)
	}
	past := Unread("x\x1b-20260102-030405", errors.New("bad\x1b[2J\nworse"))
	if text := Trend([]Past{past}); strings.ContainsAny(text, "\x1b") || strings.Count(text, "\n") != 2 {
		t.Errorf("%q", text)
	}
}
