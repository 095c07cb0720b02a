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
		{"a key that a terminal obeys", "name: a\n\"\\e]0;b\\a\\u202e\": b\n", `unknown field "\x1b]0;b\a\u202e"`, 2},
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

// A text that looks like a number is what stands there, and a number stays a number.
func TestNumbers(t *testing.T) {
	var v struct {
		Text   string            `yaml:"text"`
		Keys   map[string]string `yaml:"keys"`
		List   []string          `yaml:"list"`
		Whole  int64             `yaml:"whole"`
		Broken float64           `yaml:"broken"`
	}
	for _, s := range []string{"4.10", "1.20", "3.0", "4.2", "7", "010", "0x10", "0o17", "0b11", "1_0", "+5", "-0", "-7", ".5", "5.", "1e3", "1.50e3", ".inf", "-.INF", ".nan", "9223372036854775807"} {
		for _, text := range []string{"text: %s\nkeys: {%s: %s}\nlist: [%s, '%s']\n", "text: %s\nkeys:\n  %s: %s\nlist:\n- %s\n- \"%s\"\n"} {
			text = strings.ReplaceAll(text, "%s", s)
			if err := YAML("f.yaml", []byte(text), &v, "mend it"); err != nil || v.Text != s || len(v.Keys) != 1 || v.Keys[s] != s || len(v.List) != 2 || v.List[0] != s || v.List[1] != s {
				t.Errorf("%q is read as %+v (%v)", text, v, err)
			}
		}
	}
	for s, want := range map[string]int64{"7": 7, "-7": -7, "0": 0, "9007199254740993": 9007199254740993, "010": 10} {
		if err := YAML("f.yaml", []byte("whole: "+s+"\n"), &v, "mend it"); err != nil || v.Whole != want {
			t.Errorf("%s is read as %d (%v)", s, v.Whole, err)
		}
	}
	for s, want := range map[string]float64{"71.0": 71, "71": 71, "71.50": 71.5, "-1.0": -1, "1e+21": 1e21} {
		if err := YAML("f.yaml", []byte("broken: "+s+"\n"), &v, "mend it"); err != nil || v.Broken != want {
			t.Errorf("%s is read as %g (%v)", s, v.Broken, err)
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
