package debian

import (
	"maps"
	"slices"
	"testing"
)

func TestWhyAbsent(t *testing.T) {
	for _, c := range []struct {
		installed string
		offered   []string
		index     bool
		want      string
	}{
		{"1.0-1", nil, false, NoIndex},
		{"1.0-1", nil, true, "no configured source has this package"},
		{"1.0-1", []string{"1.0-2"}, true, "no configured source has this version any more: they have 1.0-2"},
		{"1.0-1", []string{"1.0-2", "1.0-10"}, true, "no configured source has this version any more: they have 1.0-10"},
		{"1.0-1+deb12u3", []string{"1.0-1", "1.0-1+deb12u2"}, true, OldIndex + ": it has 1.0-1+deb12u2"},
		{"2:1.0", []string{"3.0"}, true, OldIndex + ": it has 3.0"},
		{"1.0", []string{"1.0~rc1"}, true, OldIndex + ": it has 1.0~rc1"},
	} {
		if got := whyAbsent(c.installed, c.offered, c.index); got != c.want {
			t.Errorf("%s of %v: %q, want %q", c.installed, c.offered, got, c.want)
		}
	}
}

func TestParseMadison(t *testing.T) {
	got := parseMadison("      bash | 5.2.15-2+b13 | http://deb.example.com/debian bookworm/main amd64 Packages\n" +
		"gcc-12-base | 12.2.0-14 | http://deb.example.com/debian bookworm/main amd64 Packages\n" +
		"gcc-12-base | 12.2.0-15 | file:/srv/mirror ./ Packages\n" +
		"      bash | 5.2.15-2 | http://deb.example.com/debian bookworm/main Sources\nN: nothing\n")
	want := map[string][]string{"bash": {"5.2.15-2+b13"}, "gcc-12-base": {"12.2.0-14", "12.2.0-15"}}
	if !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("%v", got)
	}
}
