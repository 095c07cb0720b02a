package api

import (
	"strings"
	"testing"
)

func FuzzParseLink(f *testing.F) {
	secret := strings.Repeat("ab", 24)
	for _, s := range []string{"trysail://a:7440/" + strings.Repeat("0", 64) + "/" + secret, "trysail://[::1]:7440,b.c:1/" + strings.Repeat("f", 64) + "/" + secret + "\n", "trysail://a/b/" + secret} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLink(s)
		if err != nil {
			if i := strings.LastIndex(s, "/"); i >= 0 && len(s[i+1:]) >= 20 && strings.Contains(err.Error(), s[i+1:]) {
				t.Errorf("the error holds the secret: %v", err)
			}
			return
		}
		if again, err := ParseLink(l.String()); err != nil || again != l {
			t.Errorf("%q is %+v, and then %+v: %v", s, l, again, err)
		}
		for _, a := range l.Addresses() {
			if strings.ContainsAny(a, "/ \n\x00@?#") {
				t.Errorf("%q names the address %q", s, a)
			}
		}
	})
}
