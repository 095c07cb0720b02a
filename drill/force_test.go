package drill

import (
	"slices"
	"testing"
	"time"

	"trysail/release"
)

func TestInForce(t *testing.T) {
	p, _ := rehearsed(t, nil)
	other := *p
	other.Name = "mirror-gone"
	day := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	run := func(dir string, p *Plan, daysBefore int, blueprint string, broken ...string) Run {
		return Run{dir, p, []Record{
			{Seq: 1, Kind: Began, Header: &Header{Run: dir, Began: day.AddDate(0, 0, -daysBefore), Broken: broken}},
			{Seq: 2, Kind: Happened, Event: &release.Event{Seq: 1, Body: release.Started{Machines: []release.Machine{{Role: "compiler", Blueprint: blueprint}}}}},
		}}
	}
	roles := []release.Machine{{Role: "build", Blueprint: "sha256:b"}, {Role: "sign", Blueprint: "sha256:s"}, {Role: "upload"}}
	for _, x := range []struct {
		what string
		runs []Run
		want []string
	}{
		{"none", nil, nil},
		{"the last of each scenario, the oldest first", []Run{run("old", p, 30, "sha256:b"), run("other", &other, 40, "sha256:s"), run("new", p, 2, "sha256:b"), run("older", p, 31, "sha256:b")}, []string{"other", "new"}},
		{"another server", []Run{run("strange", p, 2, "sha256:x"), run("plain", p, 2, "")}, nil},
		{"one of another server is newer", []Run{run("strange", p, 2, "sha256:x"), run("ours", p, 20, "sha256:b")}, []string{"ours"}},
		{"after the day", []Run{run("late", p, -1, "sha256:b"), run("before", p, 3, "sha256:b")}, []string{"before"}},
		{"with a planted defect", []Run{run("planted", p, 1, "sha256:b", "two golds"), run("real", p, 3, "sha256:b")}, []string{"real"}},
		{"killed before its release began", []Run{{"killed", p, run("", p, 1, "").History[:1]}}, nil},
	} {
		var got []string
		for _, r := range InForce(x.runs, roles, day) {
			got = append(got, r.Dir)
		}
		if !slices.Equal(got, x.want) {
			t.Errorf("%s: %v, not %v", x.what, got, x.want)
		}
	}
	if covered := Covers(run("", p, 1, "sha256:b").History, roles); !slices.Equal(covered, []string{"build"}) {
		t.Errorf("%v", covered)
	}
}
