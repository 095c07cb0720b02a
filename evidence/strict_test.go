package evidence

import (
	"bytes"
	"strings"
	"testing"

	"trysail/release"
)

// A line of the ledger that two readers may read in two ways verifies nowhere, though it was
// in the ledger when its checkpoint was signed.
func TestLinesAreReadStrictly(t *testing.T) {
	for _, c := range []struct{ name, old, line, what string }{
		{"a decision twice", `"decision":"approve"`, `"decision":"reject","decision":"approve"`, "duplicate"},
		{"a decision in another spelling", `"decision":"approve"`, `"decision":"approve","Decision":"approve"`, "unknown"},
		{"a decision only in another spelling", `"decision":"approve"`, `"DECISION":"approve"`, "unknown"},
		{"a type twice", `"type":"signed"`, `"type":"lost","type":"signed"`, "duplicate"},
		{"a type in another spelling", `"type":"signed"`, `"type":"lost","TYPE":"signed"`, "unknown"},
		{"an actor twice", `"seq":`, "\"actor\":\"\u202enobody\",\"seq\":", "duplicate"},
		{"something behind it", `"seq":`, "", "after top-level value"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newStory(t, "4.2")
			x.gold()
			x.sign("tried", "ann", release.Approve)
			n := len(x.lines)
			x.sign("tried", "bob", release.Approve)
			if !bytes.Contains(x.lines[n], []byte(c.old)) {
				t.Fatalf("%s holds no %s", x.lines[n], c.old)
			}
			if c.line == "" {
				x.lines[n] = append(x.lines[n], " {}"...)
			} else {
				x.lines[n] = bytes.Replace(x.lines[n], []byte(c.old), []byte(c.line), 1)
			}
			x.tree = &Tree{}
			for _, l := range x.lines {
				if err := x.tree.Add(l); err != nil {
					t.Fatal(err)
				}
			}
			x.sign("legal", "eve", release.Approve)
			x.must(release.Shipped{})
			if _, err := parseLines(x.lines); err == nil || !strings.Contains(err.Error(), c.what) {
				t.Errorf("the ledger is read: %v", err)
			}
		})
	}
}

// Statements are read as strictly.
func TestStatementsAreReadStrictly(t *testing.T) {
	x := newStory(t, "4.2")
	x.gold()
	b := x.word("tried", "ann", release.Approve, NamespaceSignOff)
	if _, _, _, err := ReadStatement([]byte(b.Statement)); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{
		{`"decision": "approve"`, `"decision": "reject", "decision": "approve"`},
		{`"decision": "approve"`, `"Decision": "approve"`},
		{`"sha256": "`, `"sha256": "00", "sha256": "`},
		{`"_type"`, `"more": 1, "_type"`},
	} {
		text := strings.Replace(b.Statement, c[0], c[1], 1)
		if text == b.Statement {
			t.Fatalf("no %s in %s", c[0], text)
		}
		if _, _, _, err := ReadStatement([]byte(text)); err == nil {
			t.Errorf("%s is read", c[1])
		}
	}
}
