package debian

import (
	"slices"
	"testing"
)

func TestBuildDependencies(t *testing.T) {
	got := BuildDependencies([]byte(`Source: app
# Build-Depends: not-this
Build-Depends: debhelper-compat (= 13), gcc (>= 4) | clang [amd64],
 python3:any <!nocheck>,
# nor-this,
 zlib1g-dev
Standards-Version: 4.6.2
Build-Depends-Indep: dblatex
Build-Conflicts: autoconf2.13

Package: app
Depends: libc6
Build-Depends: never
`))
	want := []string{"debhelper-compat", "gcc", "clang", "python3", "zlib1g-dev", "dblatex"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := BuildDependencies(nil); got != nil {
		t.Errorf("%q of nothing", got)
	}
}
