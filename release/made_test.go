package release

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"
)

const someDigest = "sha256:0000000000000000000000000000000000000000000000000000000000000001"

func files(n int) []Artifact {
	var list []Artifact
	for i := range n {
		list = append(list, Artifact{Path: fmt.Sprintf("dist/%07d", i), Digest: someDigest, Size: 2, Mode: "0644"})
	}
	return list
}

// kept gives what an event keeps of a list, and the list that the depot keeps.
func kept(t testing.TB, list []Artifact) (Made, []byte) {
	t.Helper()
	if FitsEvent(list) {
		return Finished{Outputs: list}.Made(), nil
	}
	var b bytes.Buffer
	m, err := WriteList(&b, list)
	if err != nil {
		t.Fatal(err)
	}
	return m, b.Bytes()
}

// TestWriteList: an event names few files itself, and the list of many by its digest.
func TestWriteList(t *testing.T) {
	long := Artifact{Path: strings.Repeat(strings.Repeat("d", 200)+"/", 15) + "x", Digest: someDigest, Mode: "0644"}
	var deep []Artifact
	for i := range 40 {
		a := long
		a.Path += fmt.Sprintf("%02d", i)
		deep = append(deep, a)
	}
	for _, c := range []struct {
		what string
		list []Artifact
		tree bool
	}{
		{"none", nil, false},
		{"one", files(1), false},
		{"as many as fit", files(Few), false},
		{"one more", files(Few + 1), true},
		{"7,000", files(7000), true},
		{"few, with long names", deep, true},
	} {
		m, text := kept(t, c.list)
		if (m.Tree != "") != c.tree || m.Files != len(c.list) {
			t.Errorf("%s: %+v", c.what, m)
		}
		if m.Digest() != made(c.list, List{}).Digest() {
			t.Errorf("%s: the digest of the files is not that of their list", c.what)
		}
		if !c.tree {
			continue
		}
		var back []Artifact
		got, err := ReadList(bytes.NewReader(text), func(a Artifact) error { back = append(back, a); return nil })
		if err != nil || got.Is(m) != nil || !reflect.DeepEqual(back, c.list) {
			t.Errorf("%s: read back: %v, %v, %d files", c.what, err, got.Is(m), len(back))
		}
	}
}

// TestDigestPassesOverTimes: people sign what a step made, and not when; a file that has
// other attributes, another owner or other names is another file.
func TestDigestPassesOverTimes(t *testing.T) {
	base := Artifact{Path: "dist/b", Digest: someDigest, Size: 1, Mode: "0755"}
	at := func(s string) time.Time {
		x, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	for _, n := range []int{1, Few + 1} { // in the event, and in a list
		digest := func(change func(*Artifact)) string {
			list := files(n)
			a := base
			change(&a)
			m, text := kept(t, append([]Artifact{a}, list...))
			if m.Tree != "" {
				got, err := ReadList(bytes.NewReader(text), func(Artifact) error { return nil })
				if err != nil || got.Is(m) != nil {
					t.Errorf("read back: %v, %v", err, got.Is(m))
				}
				m.Untimed = someDigest
				if got.Is(m) == nil {
					t.Error("another digest without times is taken")
				}
				m = got
			}
			return m.Digest()
		}
		want := digest(func(*Artifact) {})
		for what, x := range map[string]struct {
			change func(*Artifact)
			same   bool
		}{
			"a time":         {func(a *Artifact) { a.Modified = at("2021-03-04T05:06:07.123456789Z") }, true},
			"another time":   {func(a *Artifact) { a.Modified = at("1970-01-01T00:00:01Z") }, true},
			"a capability":   {func(a *Artifact) { a.Attributes = map[string][]byte{"security.capability": {1}} }, false},
			"an owner":       {func(a *Artifact) { a.Owner = "33:33" }, false},
			"a second name":  {func(a *Artifact) { a.HardLink = "dist/a" }, false},
			"a mode":         {func(a *Artifact) { a.Mode = "4755" }, false},
			"owner and time": {func(a *Artifact) { a.Owner, a.Modified = "33:33", at("1970-01-01T00:00:01Z") }, false},
		} {
			if got := digest(x.change); (got == want) != x.same {
				t.Errorf("%d files, %s: %s, and without %s", n, what, got, want)
			}
		}
	}
}

// TestReadListRefuses: a list is written in one way, and names each file once.
func TestReadListRefuses(t *testing.T) {
	line := func(path string) string {
		return `{"path":"` + path + `","digest":"` + someDigest + `","size":1,"mode":"0644"}` + "\n"
	}
	for what, c := range map[string]struct{ text, want string }{
		"not sorted":         {line("b") + line("a"), "are sorted"},
		"twice":              {line("a") + line("a"), "are sorted"},
		"below a file":       {line("a") + line("a-b") + line("a/b"), `is below "a"`},
		"leads out":          {line("../a"), "leaves its directory"},
		"absolute":           {line("/a"), "leaves its directory"},
		"not clean":          {line("a//b"), "leaves its directory"},
		"torn":               {strings.TrimSuffix(line("a"), "\n"), "it has no end"},
		"another key":        {strings.Replace(line("a"), `"size"`, `"Size"`, 1), "not written as"},
		"an unknown key":     {strings.Replace(line("a"), `"size":1`, `"size":1,"x":2`, 1), "not written as"},
		"a key twice":        {strings.Replace(line("a"), `"size":1`, `"size":1,"size":1`, 1), "not written as"},
		"no digest":          {strings.Replace(line("a"), someDigest, "sha256:1", 1), "for a digest"},
		"neither file nor":   {strings.Replace(line("a"), someDigest, "", 1), "a file, a link or a directory"},
		"negative":           {strings.Replace(line("a"), `"size":1`, `"size":-1`, 1), "-1 bytes"},
		"a long part":        {line(strings.Repeat("x", 256)), "more than 255 bytes"},
		"a mode of its own":  {strings.Replace(line("a"), "0644", "rw-r", 1), "mode"},
		"not JSON":           {"hello\n", "line 1"},
		"an owner's name":    {strings.Replace(line("a"), `"0644"`, `"0644","owner":"root:root"`, 1), "UID:GID"},
		"a name of a later":  {strings.Replace(line("a"), `"0644"`, `"0644","hard_link":"b"`, 1), "no earlier path"},
		"a name of itself":   {strings.Replace(line("a"), `"0644"`, `"0644","hard_link":"a"`, 1), "no earlier path"},
		"a name outside":     {strings.Replace(line("a"), `"0644"`, `"0644","hard_link":"../a"`, 1), "no earlier path"},
		"an empty attribute": {strings.Replace(line("a"), `"0644"`, `"0644","attributes":{"":"AQ=="}`, 1), "invalid name"},
		"large attributes":   {strings.Replace(line("a"), `"0644"`, `"0644","attributes":{"user.a":"`+strings.Repeat("AAAA", 30000)+`"}`, 1), "the limit is"},
		"a time elsewhere":   {strings.Replace(line("a"), `"0644"`, `"0644","modified":"2021-03-04T05:06:07+01:00"`, 1), "not in UTC"},
		"a link's attribute": {`{"path":"a","digest":"","size":1,"link":"b","attributes":{"user.a":"AQ=="}}` + "\n", "no link has"},
		"a link that is not": {`{"path":"a","digest":"","size":1,"link":"` + strings.Repeat("x", 5000) + `"}` + "\n", "no link can"},
	} {
		_, err := ReadList(strings.NewReader(c.text), func(Artifact) error { return nil })
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	stop := errors.New("enough")
	if _, err := ReadList(strings.NewReader(line("a")), func(Artifact) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
	if m, err := ReadList(strings.NewReader(""), nil); err != nil || m.Files != 0 {
		t.Error(m, err)
	}
	if _, err := ReadList(io.MultiReader(strings.NewReader(line("a")), errReader{stop}), func(Artifact) error { return nil }); !errors.Is(err, stop) {
		t.Error(err)
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// TestCheckPath: what a file system and tar can hold is taken, if it is UTF-8.
func TestCheckPath(t *testing.T) {
	for name, want := range map[string]string{
		`dev-disk-by\x2dlabel.mount`: "", "two words": "", "a\nb": "", "-rf": "", "ä/ö": "", "[x]*?": "", "a\x1b[31m": "", "con": "", "..a": "",
		strings.Repeat("x", 255): "", "a\xe4b": "not UTF-8", "": "leaves", ".": "leaves", "..": "leaves", "a/../b": "leaves", "a/": "leaves",
		"a\x00b": "leaves", strings.Repeat("x", 256): "255 bytes", strings.Repeat("xx/", 2000) + "x": "4000 is the most",
	} {
		if err := CheckPath(name); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v", name, err)
		}
	}
}

// TestOver: a result has limits.
func TestOver(t *testing.T) {
	names := func(n, each int) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprintf("%0*d", each, i))
		}
		return list
	}
	for _, c := range []struct {
		what string
		f    Finished
		want string
	}{
		{"small", Finished{Outputs: files(3), Failing: names(3, 10)}, ""},
		{"as many files as may be", Finished{List: List{Tree: someDigest, Files: MostFiles, Bytes: MostBytes}}, ""},
		{"too many files", Finished{List: List{Tree: someDigest, Files: MostFiles + 1}}, "1000001 files, and 1000000 is the most"},
		{"too many bytes", Finished{List: List{Tree: someDigest, Files: 1, Bytes: MostBytes + 1}}, "1000 GB is the most"},
		{"a sparse file", Finished{Outputs: []Artifact{{Path: "a", Digest: someDigest, Size: MostBytes + 1, Mode: "0644"}}}, "1000 GB is the most"},
		{"names of tests that fit", Finished{Failing: names(100, 100)}, ""},
		{"names of tests that do not", Finished{Failing: names(101, 100)}, "101 tests failed, and their names have 10100 characters"},
		{"a name that is none", Finished{Outputs: []Artifact{{Path: "../a", Digest: someDigest, Mode: "0644"}}}, "leaves its directory"},
		{"files that are not sorted", Finished{Outputs: []Artifact{files(2)[1], files(2)[0]}}, "are sorted"},
	} {
		if err := c.f.Over(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

// TestUnfinished: a result of a script that a signal ended, or that failed beside its tests,
// is a failure, whatever its machine says; and no waiver makes it good.
func TestUnfinished(t *testing.T) {
	for _, c := range []struct {
		what string
		f    Finished
		exit int
		why  string
	}{
		{"good", Finished{Tests: 3}, 0, ""},
		{"tests failed", Finished{Status: 1, Tests: 3, Failing: []string{"a"}}, 0, ""},
		{"a signal", Finished{Status: 139, Signal: "segmentation fault", Tests: 3, Failing: []string{"a"}}, 139, "it ended by a signal: segmentation fault"},
		{"another reason", Finished{Status: 2, Tests: 3}, 2, "exit status 2, and its results name no failing test"},
		{"it failed by itself", Finished{Exit: 2, Status: 2, Why: "exit status 2"}, 2, "exit status 2"},
	} {
		g := begin(t)
		epoch := g.must(Granted{Item: "compile", Machine: "a"})
		c.f.Item, c.f.Epoch = "compile", epoch
		b, ok := g.s.Result(Report{Finished: c.f, Machine: "a"}).(Finished)
		if !ok || b.Exit != c.exit || b.Why != c.why || b.Status != c.f.Status {
			t.Errorf("%s: %+v", c.what, b)
		}
		if c.exit != 0 && c.f.Exit == 0 {
			g.refused(c.f, c.why)
		}
		g.must(b)
		if c.exit != 0 {
			g.refused(Waived{Item: "compile", Test: "a", Person: "ann", Reason: "flaky"}, "no failing test")
		}
	}
}

// TestTakes: what a step takes of a list is what it takes of the same files.
func TestTakes(t *testing.T) {
	for _, c := range []struct {
		in   []string
		path string
		want bool
	}{
		{[]string{"dist"}, "dist/a", true},
		{[]string{"dist"}, "dist", true},
		{[]string{"dist"}, "dista", false},
		{[]string{"dist"}, "dist-x/a", false},
		{[]string{"dist/**"}, "dist/a/b", true},
		{[]string{"dist/*"}, "dist/a", true},
		{[]string{"dist/*.deb", "doc"}, "doc/a", true},
		{nil, "a", false},
	} {
		if got := (Take{In: c.in}).Picks(c.path); got != c.want {
			t.Errorf("%q picks %s: %v", c.in, c.path, got)
		}
	}
}
