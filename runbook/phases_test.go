package runbook

import (
	"strings"
	"testing"
	"time"
)

const shipping = "---\nship: 2026-12-01T09:00:00Z\nroles:\n  build: {blueprint: trysail}\npeople:\n  ann: {}\n  bob: {}\ngroups:\n  legal: [ann, bob]\napprovers: [ann]\n---\n# Release\n\n" +
	"## Gold master\n\n```sh {\"name\":\"gold\",\"timeout\":\"1h\",\"budget\":\"5m\",\"out\":\"dist/*.tar.gz,NOTICE\",\"gold\":\"true\"}\nmake dist\n```\n\n" +
	"## Ship\n\n```sh {\"name\":\"publish\",\"kind\":\"publish\",\"in\":\"dist/*.tar.gz\",\"timeout\":\"5m\"}\nup\n```\n"

// Each phase, alone and all together, gives a document that reads one way, in which
// nothing is published before it is done, and the rest stands as it stood.
func TestInclude(t *testing.T) {
	r, err := Parse("RELEASE.md", []byte(shipping), time.LoadLocation)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, p := range Phases() {
		all = append(all, p.Name)
	}
	for _, names := range append([][]string{all}, chunks(all)...) {
		data, err := r.Include([]byte(shipping), names, "legal")
		if err != nil {
			t.Fatal(err)
		}
		got, err := Parse("RELEASE.md", data, time.LoadLocation)
		if err != nil {
			t.Errorf("%v: %v\n%s", names, err, data)
			continue
		}
		if len(got.Items) <= len(r.Items) || len(got.Phases) != len(r.Phases)+len(names) || got.Items[len(got.Items)-1].Name != "publish" {
			t.Errorf("%v: %d items in %d phases", names, len(got.Items), len(got.Phases))
		}
		for _, x := range got.Items {
			if strings.HasPrefix(x.Phase, "due-diligence") && len(x.Needs) == 0 {
				t.Errorf("%v: %s waits for nothing", names, x.Name)
			}
		}
		before, after, _ := strings.Cut(string(data), "## Due diligence: ")
		_, after, _ = strings.Cut(after, "## Ship")
		if before+"## Ship"+after != shipping {
			t.Errorf("%v: the rest was changed", names)
		}
	}
	for _, c := range []struct {
		names     []string
		who, want string
	}{{[]string{"luck"}, "ann", "no phase"}, {[]string{"legal"}, "eve", "knows nobody"}} {
		if _, err := r.Include([]byte(shipping), c.names, c.who); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v", c.names, err)
		}
	}
	// Without anything that publishes, they stand at the end.
	text, _, _ := strings.Cut(shipping, "## Ship")
	if r, err = Parse("RELEASE.md", []byte(text), time.LoadLocation); err != nil {
		t.Fatal(err)
	}
	if data, err := r.Include([]byte(text), []string{"legal"}, "ann"); err != nil || !strings.HasPrefix(string(data), text) {
		t.Errorf("%v\n%s", err, data)
	}
}

func chunks(list []string) [][]string {
	var one [][]string
	for _, x := range list {
		one = append(one, []string{x})
	}
	return one
}
