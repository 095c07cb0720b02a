package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trysail/internal/api"
	"trysail/internal/tree"
)

const (
	failingXML = `<testsuite><testcase classname="net" name="flaky"><failure/></testcase><testcase name="good"/></testsuite>`
	goodXML    = `<testsuite><testcase name="good"/></testsuite>`
)

// TestTested: a failing test is a person's to waive where the results are whole and of this
// run; the exit status is kept. A script that ended before its work was done has failed.
func TestTested(t *testing.T) {
	for _, c := range []struct {
		what    string
		status  int
		write   string // what the script leaves in r.xml
		before  string // what was there before it
		age     time.Duration
		exit    int
		failing string
		why     string
	}{
		{what: "all good", write: goodXML},
		{what: "a test failed", status: 1, write: failingXML, failing: "net.flaky"},
		{what: "a test failed, and sh -e stopped", status: 2, write: failingXML, failing: "net.flaky"},
		{what: "a test failed, and nobody minded", write: failingXML, failing: "net.flaky"},
		{what: "as many as robots count", status: 60, write: failingXML, failing: "net.flaky"},
		{what: "it failed beside its tests", status: 2, write: goodXML, exit: 2, why: "exit status 2"},
		{what: "a command was not found", status: 127, write: failingXML, exit: 127, why: "a command was not found), so its work was not done: its results name 1 failing of 2 tests"},
		{what: "a command could not be run", status: 126, write: failingXML, exit: 126, why: "could not be run"},
		{what: "a test program crashed", status: 139, write: failingXML, exit: 139, why: "segmentation fault"},
		{what: "it was aborted", status: 134, write: failingXML, exit: 134, why: "abort"},
		{what: "results cut short", status: 1, write: failingXML[:60], exit: 1, why: "exit status 1; test results r.xml"},
		{what: "results cut short, and nobody minded", write: failingXML[:60], exit: 1, why: "test results r.xml"},
		{what: "no results", status: 3, exit: 3, why: "exit status 3; no test results match r.xml"},
		{what: "no results, and it ended well", exit: 1, why: "no test results match"},
		{what: "results of the source", status: 1, before: failingXML, exit: 1, why: "it was there before the step began"},
		{what: "results of the source, written anew", status: 1, before: goodXML, write: failingXML, failing: "net.flaky"},
		{what: "results of another day", status: 1, write: failingXML, age: time.Hour, exit: 1, why: "another run wrote it"},
		{what: "no test in them", write: "<testsuite/>", exit: 1, why: "it holds no test"},
	} {
		dir := t.TempDir()
		name := filepath.Join(dir, "r.xml")
		put := func(text string) {
			if text == "" {
				return
			}
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		put(c.before)
		root, err := tree.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		s := &step{checkout: dir, begun: time.Now()}
		s.as.Step.Results = []string{"r.xml"}
		if s.before, err = seen(root, dir, s.as.Step.Results); err != nil {
			t.Fatal(err)
		}
		if c.before != "" && c.write != "" {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
			put("another file takes the place")
			if err := os.Rename(name, name+".old"); err != nil {
				t.Fatal(err)
			}
		}
		put(c.write)
		if c.age > 0 {
			then := s.begun.Add(-c.age)
			if err := os.Chtimes(name, then, then); err != nil {
				t.Fatal(err)
			}
		}
		r := &api.Report{}
		r.Exit, r.Status, r.Why = c.status, c.status, ""
		if c.status != 0 {
			r.Why = exitWhy(c.status)
		}
		s.tested(r)
		if r.Exit != c.exit || strings.Join(r.Failing, " ") != c.failing || (r.Why == "") != (c.why == "") || !strings.Contains(r.Why, c.why) || r.Status != c.status {
			t.Errorf("%s: exit %d, status %d, failing %q, why %q", c.what, r.Exit, r.Status, r.Failing, r.Why)
		}
		root.Close()
	}
}
