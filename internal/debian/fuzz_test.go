package debian

import "testing"

// FuzzRelations reads a package's field of relations: a package may say anything.
func FuzzRelations(f *testing.F) {
	for _, s := range []string{"a (>= 1.2-3), b:any | c [amd64 !i386] <!nocheck>, ${x:y}", "a:-", "a (<< 1", "a|", ","} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		list, err := parseRelations(s)
		if err != nil && list != nil {
			t.Errorf("%q is refused, and is %+v", s, list)
		}
		for _, r := range list { // each is held against packages, whatever it says
			for _, p := range r.any {
				if p.version != "" && p.operator == "" {
					t.Errorf("%q asks for version %q of %s, and not how", s, p.version, p.name)
				}
			}
		}
		names(s)
	})
}
