package agent

import (
	"slices"
	"strings"
	"testing"
)

func TestJUnit(t *testing.T) {
	for _, c := range []struct {
		name, text string
		tests      int
		failing    []string
		bad        bool
	}{
		{"suites", `<testsuites><testsuite name="s"><testcase classname="a.B" name="one"/><testcase classname="a.B" name="two"><failure message="m">text</failure></testcase></testsuite></testsuites>`, 2, []string{"a.B.two"}, false},
		{"one suite", `<?xml version="1.0"?><testsuite><properties/><testcase name="x"><error/></testcase><testcase name="y"><skipped/></testcase><system-out>s</system-out></testsuite>`, 2, []string{"x"}, false},
		{"nested suites", `<testsuite><testsuite><testcase name="x"/></testsuite><testcase name="y"><failure/><error/></testcase></testsuite>`, 2, []string{"y"}, false},
		{"twice", `<testsuite><testcase name="x"><failure/></testcase><testcase name="x"><failure/></testcase></testsuite>`, 2, []string{"x"}, false},
		{"line ends in a name", "<testsuite><testcase name=\"a\nb\"><failure/></testcase></testsuite>", 1, []string{"a b"}, false},
		{"no test", `<testsuites/>`, 0, nil, true},
		{"torn", `<testsuite><testcase name="x"/><testcase name="y"><fail`, 0, nil, true},
		{"not XML", `ok 1`, 0, nil, true},
		{"empty", ``, 0, nil, true},
		{"entities", `<!DOCTYPE x [<!ENTITY a "b">]><testsuite><testcase name="&a;"/></testsuite>`, 0, nil, true},
	} {
		tests, failing, err := junit(strings.NewReader(c.text))
		if tests != c.tests || !slices.Equal(failing, c.failing) || (err != nil) != c.bad {
			t.Errorf("%s: %d tests, failing %q, %v", c.name, tests, failing, err)
		}
	}
}

func FuzzJUnit(f *testing.F) {
	f.Add(`<testsuites><testsuite name="s"><testcase classname="a.B" name="one"/><testcase name="two"><failure/></testcase></testsuite></testsuites>`)
	f.Fuzz(func(t *testing.T, text string) {
		tests, failing, err := junit(strings.NewReader(text))
		if err == nil && (tests == 0 || len(failing) > tests) {
			t.Errorf("%d of %d tests fail", len(failing), tests)
		}
	})
}
