package strict

import (
	"strings"
	"testing"
)

type sample struct {
	Name string            `yaml:"name"`
	List []string          `yaml:"list"`
	Map  map[string]string `yaml:"map"`
}

func TestYAML(t *testing.T) {
	var v sample
	if err := YAML("f.yaml", []byte("name: a\nlist: [b, c]\nmap:\n  d: e\n"), &v, "mend it"); err != nil || v.Name != "a" || len(v.List) != 2 || v.Map["d"] != "e" {
		t.Fatalf("%+v %v", v, err)
	}
	for _, c := range []struct {
		name, text, what string
		line             int
	}{
		{"unknown key", "name: a\nnmae: b\n", "nmae", 2},
		{"key twice", "name: a\nname: b\n", "already defined", 2},
		{"wrong type", "name: a\nlist: b\n", "", 2},
		{"anchor", "name: &x a\n", "anchors", 1},
		{"second document", "name: a\n---\nname: b\n", "second YAML document", 2},
		{"deep", "list: " + strings.Repeat("[", 1000) + "\n", "too deep", 1},
		{"no YAML", "name: [a\nlist: }\n", "", 0},
	} {
		var v sample
		err := YAML("f.yaml", []byte(c.text), &v, "mend it")
		if err == nil {
			t.Errorf("%s is read as %+v", c.name, v)
			continue
		}
		if !strings.Contains(err.Error(), c.what) || err.Hint() != "mend it" || (c.line > 0 && err.Line != c.line) {
			t.Errorf("%s: %v (line %d, %s)", c.name, err, err.Line, err.Hint())
		}
	}
}

func TestText(t *testing.T) {
	for text, what := range map[string]string{"": "empty", "a": "torn", "a\n\xff\n": "UTF-8", "abcdefghijkl\n": "too large"} {
		if err := Text("f", []byte(text), 10, "r"); err == nil || !strings.Contains(err.What, what) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := Text("f", []byte("a\n"), 10, "r"); err != nil {
		t.Error(err)
	}
}

func TestLine(t *testing.T) {
	data := []byte("name: a\nlist:\n- b\n- c\nmap:\n  d: e\n")
	for at, want := range map[string]int{"name": 1, "list[1]": 4, "map.d": 6, "map.z": 6, "zzz": 0, "": 0, "list[": 3} {
		if got := Line(data, at); got != want {
			t.Errorf("%q stands in line %d, not %d", at, got, want)
		}
	}
}
