package evidence

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// FuzzReadStatement reads a statement that somebody signed. What is read is what is there: it
// is the same once it is written again.
func FuzzReadStatement(f *testing.F) {
	f.Add([]byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"a","digest":{"sha256":"00"}}],"predicateType":"` + signOffType + `","predicate":{"release":"1.0","item":"qa","decision":"go","person":"ann","signed":"2026-11-24T12:00:00Z","expires":"2026-11-24T13:00:00Z","nonce":"n","checkpoint":"c"}}`))
	f.Add([]byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"a","digest":{"sha256":"00"}}],"predicateType":"` + decisionType + `","predicate":{"release":"1.0","event":"agreed","decides":{"amendment":4,"person":"ann","decision":"approve"},"person":"ann","signed":"2026-11-24T12:00:00Z","expires":"2026-11-24T13:00:00Z","nonce":"n","checkpoint":"c"}}`))
	f.Add([]byte(`{"_type":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, b, _, err := ReadStatement(data)
		if (b == nil) != (err != nil) {
			t.Fatalf("%q says %v: %v", data, b, err)
		}
		readAgain[SignOff](t, data, signOffType)
		readAgain[Decision](t, data, decisionType)
	})
}

func readAgain[P any](t *testing.T, data []byte, kind string) {
	t.Helper()
	s, err := readStatement[P](data, kind)
	if err != nil {
		return
	}
	first, err := render(s)
	if err != nil {
		return // a time that has no text
	}
	again, err := readStatement[P](first, kind)
	if err != nil {
		t.Fatalf("%q is read, and written so that it is not: %v", data, err)
	}
	if second, err := render(again); err != nil || !bytes.Equal(first, second) {
		t.Errorf("%s is %s when it is read again: %v", first, second, err)
	}
}

// FuzzLedger reads the lines of a ledger. A line that is read is one event, to every program that reads
// it: written again it is the same.
func FuzzLedger(f *testing.F) {
	for _, rules := range []string{"rules-0", "rules-2"} {
		data, err := os.ReadFile(filepath.Join("testdata", rules, "bundle", eventsFile))
		if err != nil {
			f.Fatal(err)
		}
		for line := range bytes.Lines(data) {
			f.Add(bytes.TrimSpace(line))
		}
	}
	f.Add([]byte(`{"seq":1,"time":"2026-11-24T09:01:00Z","actor":"a","type":"resumed","type":"held","body":{}}`))
	f.Add([]byte(`{"seq":1,"time":"2026-11-24T09:01:00Z","actor":"a","type":"held","body":{"Reason":"r"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		events, err := parseLines([][]byte{data})
		if err != nil {
			return
		}
		first, err := json.Marshal(events[0])
		if err != nil {
			return // a time that has no text
		}
		again, err := parseLines([][]byte{first})
		if err != nil {
			t.Fatalf("%q is read, and written so that it is not: %v", data, err)
		}
		if second, err := json.Marshal(again[0]); err != nil || !bytes.Equal(first, second) {
			t.Errorf("%s is %s when it is read again: %v", first, second, err)
		}
		var keys, others map[string]any
		if err := json.Unmarshal(data, &keys); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(first, &others); err != nil {
			t.Fatal(err)
		}
		if keys["type"] != others["type"] || keys["actor"] != others["actor"] {
			t.Errorf("%s says something else than %s", data, first)
		}
	})
}
