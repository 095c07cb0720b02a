package capture

import (
	"strings"
	"testing"

	"trysail/blueprint"
)

func uris(sources ...blueprint.AptSource) (list []string) {
	for _, s := range sources {
		list = append(list, s.URIs...)
	}
	return list
}

// FuzzSources reads apt's sources in both formats. An address with a password is kept
// without it.
func FuzzSources(f *testing.F) {
	f.Add("deb [arch=amd64 signed-by=/k.gpg] http://ann:hunter2-hunter2@deb.example.com/debian stable main\n")
	f.Add("Types: deb\nURIs: https://x:hunter2-hunter2@a/%zz https://b/\nSuites: s\nComponents: main\n x\nSigned-By: /k\n\nEnabled: no\nURIs: c\n")
	f.Add("deb [ x")
	f.Fuzz(func(t *testing.T, s string) {
		for _, list := range [][]string{uris(parseSourcesList([]byte(s))...), uris(parseSources([]byte(s))...)} {
			for _, u := range list {
				if scheme, rest, ok := strings.Cut(u, "://"); ok && !strings.ContainsAny(scheme, "/?#%@") {
					host := rest[:len(rest)-len(strings.TrimLeft(rest, "abcdefghijklmnopqrstuvwxyz:"))]
					if strings.HasPrefix(rest[len(host):], "@") && strings.Contains(host, ":") {
						t.Errorf("%q is kept with a password: %q", s, u)
					}
				}
			}
		}
	})
}
