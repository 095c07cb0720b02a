package blueprint

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func observation() []Observed {
	return []Observed{
		{Path: "/etc/localtime", Class: ClassConfig, Item: "/etc/localtime", Why: "unowned", Ops: "open", Type: "link", Link: "/usr/share/zoneinfo/Europe/Berlin"},
		{Path: "/etc/ld.so.cache", Class: ClassGenerated, Item: "ld.so-cache", Why: "made by ldconfig", Ops: "open", Type: "file", Mode: "0644"},
		{Path: "/usr/bin/cc", Class: ClassAlternative, Item: "cc", Why: "kept by update-alternatives", Type: "link", Link: "/etc/alternatives/cc"},
		{Path: "/usr/bin/gcc-12", Class: ClassPackage, Item: "gcc-12:amd64", Why: "owned by gcc-12:amd64", Ops: "open,exec", Type: "file", Mode: "0755", SHA256: sumA},
		{Path: "/opt/toolchain/bin/ld", Class: ClassSoftware, Item: "/opt/toolchain", Why: "no package owns it", Type: "file"},
		{Path: "/home/rel", Class: ClassDirectory, Item: "/home/rel", Why: "a directory", Type: "dir", Mode: "0755"},
		{Path: "/home/rel/.npm/<x>&y", Class: ClassDownload, Item: "/home/rel/.npm", Why: "in a cache"},
		{Path: "/usr/lib/locale/locale-archive", Class: ClassGenerated, Item: "locale-archive", Why: "made by locale-gen", Type: "file", SHA256: sumA},
	}
}

func TestObservationRoundTrip(t *testing.T) {
	list := observation()
	data, err := MarshalObservation(list)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), `\u003c`) {
		t.Errorf("names are made unreadable:\n%s", data)
	}
	again, err := ParseObservation(data)
	if err != nil || !reflect.DeepEqual(list, again) {
		t.Errorf("%v\n%+v\n%+v", err, list, again)
	}
}

func TestParseObservationDamage(t *testing.T) {
	good := `{"path":"/a","class":"package","why":"w"}` + "\n"
	for _, c := range []struct{ name, text, what string }{
		{"torn", good + `{"path":"/b","cla`, "line 2"},
		{"empty line", good + "\n" + good, "line 2"},
		{"unknown key", `{"path":"/a","class":"package","colour":"red"}`, "colour"},
		{"unknown class", `{"path":"/a","class":"packages"}`, `class "packages"`},
		{"no class", `{"path":"/a"}`, `class ""`},
		{"two on a line", strings.TrimSpace(good) + " " + good, "something follows"},
		{"relative", `{"path":"a","class":"package"}`, "not absolute"},
		{"a list", `[]`, "line 1"},
		{"too long", `{"path":"/` + strings.Repeat("a", 2<<20) + `"}`, "token too long"},
	} {
		if list, err := ParseObservation([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.what) {
			t.Errorf("%s: %v, %v; want an error with %q", c.name, list, err, c.what)
		}
	}
	if list, err := ParseObservation(nil); err != nil || list != nil {
		t.Errorf("nothing: %v %v", list, err)
	}
}

func FuzzParseObservation(f *testing.F) {
	data, err := MarshalObservation(observation())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"path":"/\ud800","class":"live","why":""}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := ParseObservation(data)
		if err != nil {
			return
		}
		out, err := MarshalObservation(list)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseObservation(out)
		if err != nil || !reflect.DeepEqual(list, again) {
			t.Fatalf("%v\n%+v\n%+v", err, list, again)
		}
	})
}

func TestProvided(t *testing.T) {
	provided := []Class{ClassPackage, ClassConfig, ClassSoftware, ClassGenerated, ClassAlternative, ClassDirectory}
	for _, c := range []Class{ClassPackage, ClassConfig, ClassSoftware, ClassGenerated, ClassAlternative, ClassDirectory, ClassDownload, ClassSource, ClassOutput, ClassTemporary, ClassSystem, ClassLive, ClassSecret, ClassRefused, ClassIgnored, ClassMissing, ClassUnexplained} {
		if got := (Observed{Class: c}).Provided(); got != slices.Contains(provided, c) || !c.known() {
			t.Errorf("%s: Provided() = %v, known() = %v", c, got, c.known())
		}
	}
}

func TestExplain(t *testing.T) {
	list := observation()
	for _, c := range []struct {
		path  string
		class Class
		why   string
	}{
		{"/usr/bin/gcc-12", ClassPackage, "owned by"},
		{"/opt/toolchain/bin/ld", ClassSoftware, "no package owns it"},
		{"/opt/toolchain/lib/unused.so", ClassSoftware, "kept whole"},
		{"/home/rel/.npm/_cacache/x", ClassDownload, "kept whole"},
		{"/opt/toolchain2", "", ""},
		{"/usr/bin/gcc-12/x", "", ""},
		{"", "", ""},
	} {
		got := Explain(list, c.path)
		if c.class == "" {
			if len(got) != 0 {
				t.Errorf("%s: %+v", c.path, got)
			}
			continue
		}
		if len(got) != 1 || got[0].Class != c.class || got[0].Path != c.path || !strings.Contains(got[0].Why, c.why) {
			t.Errorf("%s: %+v, want one of class %s that says %q", c.path, got, c.class, c.why)
		}
	}
}

func TestUncovered(t *testing.T) {
	obs := observation()
	if got := sample().Uncovered(obs); len(got) != 0 {
		t.Errorf("the whole blueprint lacks %+v", got)
	}
	for _, c := range []struct {
		name   string
		change func(*Blueprint)
		path   string
		item   string
	}{
		{"a package", func(b *Blueprint) { b.Packages = b.Packages[1:] }, "/usr/bin/gcc-12", "package gcc-12:amd64"},
		{"a package of another architecture", func(b *Blueprint) { b.Packages[0].Architecture = "i386" }, "/usr/bin/gcc-12", "package gcc-12:amd64"},
		{"software", func(b *Blueprint) { b.Software = nil }, "/opt/toolchain/bin/ld", "software /opt/toolchain"},
		{"software beside", func(b *Blueprint) { b.Software[0].Path = "/opt/toolchain2" }, "/opt/toolchain/bin/ld", "software /opt/toolchain"},
		{"software within", func(b *Blueprint) { b.Software[0].Path = "/opt/toolchain/bin/ld/x" }, "/opt/toolchain/bin/ld", "software /opt/toolchain"},
		{"a config link", func(b *Blueprint) { b.Config = b.Config[2:] }, "/etc/localtime", "config /etc/localtime"},
		{"a generated file", func(b *Blueprint) { b.Generated = nil }, "/usr/lib/locale/locale-archive", "generated /usr/lib/locale/locale-archive"},
		{"an alternative", func(b *Blueprint) { b.Alternatives = nil }, "/usr/bin/cc", "alternative cc"},
		{"a directory", func(b *Blueprint) { b.Directories = nil }, "/home/rel", "directory /home/rel"},
	} {
		b := sample()
		c.change(b)
		if got, want := b.Uncovered(obs), []Omission{{c.path, c.item}}; !slices.Equal(got, want) {
			t.Errorf("without %s: %+v, want %+v", c.name, got, want)
		}
	}
	b := sample()
	b.Software = []Software{{Path: "/opt", File: "opt.tar.zst"}}
	obs = append(obs, Observed{Path: "/opt/toolchain/share", Class: ClassDirectory}, Observed{Path: "/usr/bin/gcc-12", Class: ClassPackage, Item: "gcc-12:amd64"})
	if got := b.Uncovered(obs); len(got) != 0 {
		t.Errorf("a tree around it covers a tree: %+v", got)
	}
	b.Packages = nil
	if got := b.Uncovered(obs); len(got) != 1 {
		t.Errorf("one item is named once: %+v", got)
	}
}

func TestMerge(t *testing.T) {
	other := func(change func(*Blueprint)) *Blueprint {
		n := sample()
		n.Builds[0].Name = "debug"
		if change != nil {
			change(n)
		}
		return n
	}
	b := sample()
	n := other(func(n *Blueprint) {
		n.Packages = append(n.Packages[1:], Package{Name: "zlib1g", Version: "1", Architecture: "amd64", File: "z.deb"})
		n.Machine.Hostname, n.Users = "build2", n.Users[:1]
		n.Config = n.Config[1:]
	})
	if err := b.Merge(n); err != nil {
		t.Fatal(err)
	}
	if len(b.Packages) != 5 || len(b.Builds) != 2 || len(b.Config) != 4 || b.Machine.Hostname != "build2" || len(b.Users) != 1 || b.Builds[0].Name != "debug" {
		t.Errorf("merged: %+v", b)
	}

	// The only build captured again replaces all of it.
	b = sample()
	n = sample()
	n.Packages = n.Packages[:1]
	if err := b.Merge(n); err != nil || len(b.Packages) != 1 {
		t.Errorf("%v, %d packages", err, len(b.Packages))
	}
	// One of two captured again keeps what the other may need.
	b = sample()
	if err := errors.Join(b.Merge(other(nil)), b.Merge(other(func(n *Blueprint) { n.Packages, n.Builds[0].Umask = n.Packages[:1], "0077" }))); err != nil {
		t.Fatal(err)
	}
	if len(b.Packages) != 4 || len(b.Builds) != 2 || b.Build("debug").Umask != "0077" || b.Build("release").Umask != "0022" {
		t.Errorf("captured again: %+v", b.Builds)
	}

	for _, c := range []struct {
		name, item string
		change     func(*Blueprint)
	}{
		{"package", "package gcc-12:amd64", func(n *Blueprint) { n.Packages[0].Version = "13" }},
		{"config content", "config /etc/ssl/openssl.cnf", func(n *Blueprint) { n.Config[2].SHA256 = sumA }},
		{"config mode", "config /etc/ssl/openssl.cnf", func(n *Blueprint) { n.Config[2].Mode = "0600" }},
		{"config owner", "config /etc/ssl/openssl.cnf", func(n *Blueprint) { n.Config[2].Owner = "rel:rel" }},
		{"config link", "config /etc/localtime", func(n *Blueprint) { n.Config[1].Link = "/usr/share/zoneinfo/UTC" }},
		{"generated", "generated /usr/lib/locale/locale-archive", func(n *Blueprint) { n.Generated[0].SHA256 = sumB }},
		{"alternative", "alternative cc", func(n *Blueprint) { n.Alternatives[0].Value = "/usr/bin/clang" }},
		{"release", "the distribution", func(n *Blueprint) { n.Machine.Release = "13" }},
		{"architecture", "the distribution", func(n *Blueprint) { n.Machine.Architecture = "arm64" }},
	} {
		b := sample()
		n := other(func(n *Blueprint) {
			n.Packages = append(n.Packages, Package{Name: "a-new-one", Version: "1", Architecture: "all", File: "a.deb"})
			c.change(n)
		})
		err := b.Merge(n)
		var ce *ConflictError
		if !errors.As(err, &ce) || ce.Item != c.item || ce.Have == ce.New || ce.Hint() == "" || !strings.Contains(err.Error(), c.item) {
			t.Errorf("%s: %v", c.name, err)
		}
		if !reflect.DeepEqual(b, sample()) {
			t.Errorf("%s: a conflict left the blueprint half merged", c.name)
		}
	}
}
