package rebuild

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trysail/blueprint"
	"trysail/internal/build"
	"trysail/internal/depot"
)

// TestJudge: the worst output makes the verdict.
func TestJudge(t *testing.T) {
	same, like, other := OutputProof{Identical: true}, OutputProof{Equivalent: true}, OutputProof{}
	for _, c := range []struct {
		list []OutputProof
		want Verdict
	}{
		{[]OutputProof{same, same}, Identical},
		{[]OutputProof{same, like}, Equivalent},
		{[]OutputProof{like, other, same}, Different},
		{[]OutputProof{other, like}, Different},
	} {
		if got := judge(c.list); got != c.want {
			t.Errorf("%v: %s, want %s", c.list, got, c.want)
		}
	}
}

// TestVerdict proves outputs of a captured build, of its repetition and of a
// rebuilt machine, with the captured ones in a depot.
func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		name               string
		made, again, built string // "" for again: not repeated
		want               Verdict
		say                string
	}{
		{"identical", "x", "", "x", Identical, ""},
		{"different, not repeated", "at 12:00:01", "", "at 12:00:02", Different, "line 1"},
		{"equivalent", "at 12:00:01", "at 12:00:05", "at 12:01:00", Equivalent, "time stamp"},
		{"the same twice, but not here", "at 12:00:01", "at 12:00:01", "at 12:01:00", Different, "does not differ from itself"},
		{"a host's name beside a time stamp", "at 12:00:01 on alpha", "at 12:00:05 on alpha", "at 12:01:00 on beta", Different, "beta"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := depot.Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			outputs := func(dir, data string) []blueprint.Output {
				if err := os.WriteFile(filepath.Join(dir, "out"), []byte(data), 0o600); err != nil {
					t.Fatal(err)
				}
				list, _, err := build.Outputs(dir, []string{"out"})
				if err != nil {
					t.Fatal(err)
				}
				return list
			}
			put := func(data string) string {
				digest, err := d.PutBytes(t.Context(), []byte(data))
				if err != nil {
					t.Fatal(err)
				}
				return digest
			}
			x := &blueprint.Build{Made: outputs(t.TempDir(), c.made)}
			put(c.made)
			repeated := false
			checkout := t.TempDir()
			rebuilt := outputs(checkout, c.built)
			o := ProveOptions{Depot: d, Build: x}
			if c.again != "" {
				o.Repeat = func(_ context.Context) error {
					repeated, x.Repeated = true, true
					if c.again != c.made {
						x.Made[0].Again = put(c.again)
					}
					return nil
				}
			}
			if err := o.repeat(t.Context(), rebuilt); err != nil {
				t.Fatal(err)
			}
			if repeated != (c.again != "") {
				t.Errorf("repeated: %t", repeated)
			}
			list, err := o.compare(t.Context(), t.TempDir(), checkout, rebuilt)
			if err != nil {
				t.Fatal(err)
			}
			if got := judge(list); got != c.want {
				t.Errorf("%s, want %s: %v", got, c.want, list)
			}
			say := ""
			for _, diff := range list[0].Differences {
				say += diff.Path + ": " + diff.What + " (" + diff.Cause + ")\n"
			}
			if !strings.Contains(say, c.say) || (say == "") != (c.say == "") {
				t.Errorf("it says %q, want %q", say, c.say)
			}
		})
	}
}

// TestRepeatOnlyWhereItTells: a reproducible build is never built a third time.
func TestRepeatOnlyWhereItTells(t *testing.T) {
	made := []blueprint.Output{{Path: "x", SHA256: "1", Mode: "0644"}}
	for _, c := range []struct {
		rebuilt []blueprint.Output
		already bool
		want    bool
	}{
		{made, false, false},
		{nil, false, true},
		{[]blueprint.Output{{Path: "x", SHA256: "2", Mode: "0644"}}, false, true},
		{[]blueprint.Output{{Path: "x", SHA256: "2", Mode: "0644"}}, true, false},
	} {
		called := false
		o := ProveOptions{Build: &blueprint.Build{Made: made, Repeated: c.already}, Repeat: func(context.Context) error { called = true; return nil }}
		if err := o.repeat(t.Context(), c.rebuilt); err != nil || called != c.want {
			t.Errorf("%v, already %t: called %t, %v", c.rebuilt, c.already, called, err)
		}
	}
}
