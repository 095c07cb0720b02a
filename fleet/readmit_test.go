package fleet

import (
	"strings"
	"testing"
)

func TestReadmit(t *testing.T) {
	for _, c := range []struct {
		set          Condition
		withoutProof bool
		why          string
		want         Condition
		proof        Proof
		err          string
	}{
		{Retired, false, "", Proving, "", ""},
		{Draining, false, "new disk", Proving, "", ""},
		{Retired, true, "it was never broken", Up, Unasked, ""},
		{Draining, true, "y", Up, Unasked, ""},
		{Proving, true, "it takes too long", Up, Unasked, ""},
		{Retired, true, "", "", "", "give a reason"},
		{Proving, false, "", "", "", "a is proving itself already"},
		{"", false, "", "", "", "a is neither drained nor retired"},
		{"", true, "y", "", "", "a is neither drained nor retired"},
	} {
		got, proof, err := Readmit("a", c.set, c.withoutProof, c.why)
		say := ""
		if err != nil {
			say = err.Error()
		}
		if got != c.want || proof != c.proof || (c.err == "") != (err == nil) || !strings.Contains(say, c.err) {
			t.Errorf("%+v: %s, %q, %v", c, got, proof, err)
		}
	}
}

// TestBack: only a machine in which nothing was found works again.
func TestBack(t *testing.T) {
	proved := func(verdict, why string) Findings {
		return Findings{Originals: 9, Servers: []string{"app"}, Blueprint: "app", Build: "make", Verdict: verdict, Why: why}
	}
	for _, c := range []struct {
		name  string
		found Findings
		plain bool
		want  Condition
		proof Proof
		why   string
	}{
		{"identical", proved("identical", ""), false, Up, Proven, "build make in the server of app, made anew, is identical; 9 originals read again"},
		{"equivalent", proved("equivalent", ""), false, Up, Proven, "build make in the server of app, made anew, is equivalent; 9 originals read again"},
		{
			"proven, and plain too", proved("identical", ""), true, Up, Proven,
			"build make in the server of app, made anew, is identical; what it runs plainly on its host is not proven; 9 originals read again",
		},
		{"different", proved("different", "dist/a: line 1"), false, Retired, Disproved, "build make in the server of app, made anew, is different: dist/a: line 1"},
		{"failed", proved("failed", "exit status 2"), true, Retired, Disproved, "build make in the server of app, made anew, failed: exit status 2"},
		{"a verdict that is not known", proved("splendid", ""), false, Retired, Disproved, "build make in the server of app, made anew, is splendid"},
		{"an error before there is a verdict", Findings{Why: "its depot: input/output error"}, false, Retired, Disproved, "its depot: input/output error"},
		{"an error of a plain machine", Findings{Originals: 3, Why: "its depot: input/output error"}, true, Retired, Disproved, "its depot: input/output error"},
		{"an error after a good verdict", proved("identical", "the server of other: step unpack"), false, Retired, Disproved, "the server of other: step unpack"},
		{"plain", Findings{Originals: 3, Damaged: 1}, true, Up, NotProven, "not proven: it runs steps plainly on its host, which no blueprint describes; 3 originals read again; 1 of them damaged and set aside"},
		{"no blueprint", Findings{}, false, Up, NotProven, "not proven: no release names a blueprint of a role that it serves; 0 originals read again"},
	} {
		if got, proof, why := c.found.Back(c.plain); got != c.want || proof != c.proof || why != c.why {
			t.Errorf("%s: %s, %q, %q", c.name, got, proof, why)
		}
	}
}
