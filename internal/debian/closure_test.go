package debian

import (
	"slices"
	"strings"
	"testing"
)

// installed makes a database of "name version arch" lines with further fields.
func installed(t testing.TB, paragraphs ...string) *Database {
	t.Helper()
	db := &Database{byKey: map[string]*Package{}}
	for _, s := range paragraphs {
		head, fields, _ := strings.Cut(s, "\n")
		f := strings.Fields(head)
		list, err := ParseStatus("status", []byte("Package: "+f[0]+"\nVersion: "+f[1]+"\nArchitecture: "+f[2]+"\n"+fields+"\n"))
		if err != nil || len(list) != 1 {
			t.Fatal(err)
		}
		db.packages = append(db.packages, list[0])
		db.byKey[list[0].Key()] = list[0]
	}
	return db
}

func TestClosure(t *testing.T) {
	for _, c := range []struct {
		name            string
		packages        []string
		used            string
		closed, missing string
	}{
		{"nothing", []string{"a 1 amd64"}, "", "", ""},
		{"itself", []string{"a 1 amd64", "b 1 amd64"}, "a:amd64", "a:amd64", ""},
		{"not installed", []string{"a 1 amd64"}, "z:amd64", "", ""},
		{"a chain and a circle", []string{"a 1 amd64\nDepends: b", "b 1 amd64\nPre-Depends: c", "c 1 amd64\nDepends: a", "d 1 amd64"}, "a:amd64", "a:amd64 b:amd64 c:amd64", ""},
		{"recommends do not count", []string{"a 1 amd64\nRecommends: b\nSuggests: b", "b 1 amd64"}, "a:amd64", "a:amd64", ""},
		{"what every system has", []string{"a 1 amd64\nEssential: yes", "b 1 amd64\nPriority: required", "c 1 amd64\nProtected: yes", "d 1 amd64\nImportant: yes", "e 1 amd64\nPriority: important"}, "", "a:amd64 b:amd64 c:amd64 d:amd64", ""},
		{"missing", []string{"a 1 amd64\nDepends: b, c (>= 2)", "c 1 amd64"}, "a:amd64", "a:amd64", "a: b|a: c (>= 2)"},
		{"unreadable", []string{"a 1 amd64\nDepends: b (>="}, "a:amd64", "a:amd64", "a: unreadable dependency b (>="},
		{"versions", []string{"a 1 amd64\nDepends: b (>= 1.0~rc1), c (<< 2:0), d (= 1-1), e (>> 1), f (<= 1)", "b 1.0~rc2 amd64", "c 1:9 amd64", "d 1-1 amd64", "e 1.1 amd64", "f 1 amd64"}, "a:amd64", "a:amd64 b:amd64 c:amd64 d:amd64 e:amd64 f:amd64", ""},
		{"versions that do not fit", []string{"a 1 amd64\nDepends: b (>= 1.0), c (<< 1), d (= 1-1), e (>> 1)", "b 1.0~rc2 amd64", "c 1 amd64", "d 1-2 amd64", "e 1 amd64"}, "a:amd64", "a:amd64", "a: b (>= 1.0)|a: c (<< 1)|a: d (= 1-1)|a: e (>> 1)"},
		{"alternatives: the one that is there", []string{"a 1 amd64\nDepends: x | b", "b 1 amd64"}, "a:amd64", "a:amd64 b:amd64", ""},
		{"alternatives: the one that is needed anyway", []string{"a 1 amd64\nDepends: b | c, d", "b 1 amd64", "c 1 amd64", "d 1 amd64\nDepends: c"}, "a:amd64", "a:amd64 c:amd64 d:amd64", ""},
		{"alternatives: the first", []string{"a 1 amd64\nDepends: b | c", "b 1 amd64", "c 1 amd64"}, "a:amd64", "a:amd64 b:amd64", ""},
		{"provides", []string{"a 1 amd64\nDepends: mail", "b 1 amd64\nProvides: mail, other"}, "a:amd64", "a:amd64 b:amd64", ""},
		{"provides has no version", []string{"a 1 amd64\nDepends: mail (>= 1)", "b 9 amd64\nProvides: mail"}, "a:amd64", "a:amd64", "a: mail (>= 1)"},
		{"provides with a version", []string{"a 1 amd64\nDepends: mail (>= 2)", "b 1 amd64\nProvides: mail (= 1)", "c 1 amd64\nProvides: mail (= 2)"}, "a:amd64", "a:amd64 c:amd64", ""},
		{"provides that cannot be read", []string{"a 1 amd64\nDepends: b", "b 1 amd64\nProvides: x (="}, "a:amd64", "a:amd64 b:amd64", ""},
		{"the same architecture", []string{"dpkg 1 amd64", "a 1 i386\nDepends: b", "b 1 amd64\nMulti-Arch: same", "b 1 i386\nMulti-Arch: same"}, "a:i386", "a:i386 b:i386", ""},
		{"another architecture does not do", []string{"a 1 i386\nDepends: b", "b 1 amd64"}, "a:i386", "a:i386", "a: b"},
		{"unless it is foreign", []string{"a 1 i386\nDepends: b", "b 1 amd64\nMulti-Arch: foreign"}, "a:i386", "a:i386 b:amd64", ""},
		{"or any will do", []string{"a 1 i386\nDepends: python3:any (>= 3)", "python3 3.11 amd64\nMulti-Arch: allowed"}, "a:i386", "a:i386 python3:amd64", ""},
		{"or it is named", []string{"a 1 amd64\nDepends: b:i386", "b 1 amd64", "b 1 i386"}, "a:amd64", "a:amd64 b:i386", ""},
		{"all is native", []string{"dpkg 1 amd64", "a 1 all\nDepends: b", "b 1 i386", "b 1 amd64"}, "a:all", "a:all b:amd64", ""},
		{"all does for every one", []string{"a 1 i386\nDepends: b", "b 1 all"}, "a:i386", "a:i386 b:all", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			closed, missing := installed(t, c.packages...).Closure(strings.Fields(c.used))
			var keys []string
			for _, p := range closed {
				keys = append(keys, p.Key())
			}
			if got := strings.Join(keys, " "); got != c.closed {
				t.Errorf("closure %q, want %q", got, c.closed)
			}
			var lacks []string
			for _, p := range closed {
				for _, l := range missing[p] {
					lacks = append(lacks, p.Name+": "+l)
				}
			}
			if got := strings.Join(lacks, "|"); got != c.missing {
				t.Errorf("missing %q, want %q", got, c.missing)
			}
		})
	}
}

func TestOrder(t *testing.T) {
	db := installed(t, "z 1 amd64\nEssential: yes\nPre-Depends: libz", "a 1 amd64\nDepends: virtual", "libz 1 amd64", "m 1 amd64\nProvides: virtual\nDepends: n", "n 1 amd64\nDepends: m", "o 1 amd64")
	var list []*Deb
	for _, p := range db.packages {
		list = append(list, &Deb{Package: p})
	}
	text := func(list []*Deb) string {
		var s []string
		for _, d := range list {
			s = append(s, d.Package.Name)
		}
		return strings.Join(s, " ")
	}
	if got := text(Order(list)); got != "libz z n m a o" {
		t.Errorf("order %s", got)
	}
	slices.Reverse(list)
	if got := text(Order(list)); got != "libz z n m a o" {
		t.Errorf("from the other end, order %s", got)
	}
	if got := text(Needed(list, func(p *Package) bool { return p.Essential })); got != "libz z" {
		t.Errorf("needed: %s", got)
	}
}
