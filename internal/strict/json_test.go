package strict

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

type fact struct {
	Name string            `json:"name"`
	Took time.Duration     `json:"took,omitempty"`
	At   time.Time         `json:"at,omitzero"`
	Of   map[string]string `json:"of,omitempty"`
	In   *fact             `json:"in,omitempty"`
}

func TestJSON(t *testing.T) {
	for _, c := range []struct {
		name, text, what string // what: of the refusal; "" if it is read
		part             string // the same where keys may be unknown
	}{
		{"as it is written", `{"name":"a","took":5,"at":"2026-11-24T09:01:00Z","of":{"B":"c","b":"d"},"in":{"name":"e"}}`, "", ""},
		{"in another order, with blanks", " {\n\"took\":5, \"name\" : \"a\"}\n", "", ""},
		{"a key twice", `{"name":"a","name":"b"}`, "duplicate", "duplicate"},
		{"a key twice, below", `{"name":"a","in":{"name":"b","name":"b"}}`, "duplicate", "duplicate"},
		{"a key twice in a map", `{"name":"a","of":{"b":"c","b":"c"}}`, "duplicate", "duplicate"},
		{"the same key, escaped", `{"name":"a","n\u0061me":"b"}`, "duplicate", "duplicate"},
		{"another spelling", `{"Name":"a"}`, "unknown", ""},
		{"a letter that folds to k", "{\"too\u212a\":5}", "unknown", ""},
		{"an unknown key", `{"name":"a","nmae":"b"}`, "unknown", ""},
		{"something after it", `{"name":"a"}{"name":"b"}`, "after top-level value", "after top-level value"},
		{"a letter after it", `{"name":"a"} x`, "after top-level value", "after top-level value"},
		{"torn", `{"name":"a"`, "unexpected EOF", "unexpected EOF"},
		{"nothing", ``, "unexpected EOF", "unexpected EOF"},
		{"no UTF-8", "{\"name\":\"\xff\"}", "UTF-8", "UTF-8"},
		{"half a letter", `{"name":"\ud800"}`, "surrogate", "surrogate"},
		// The library says "cannot" in one process and "unable to" in another.
		{"another type", `{"name":5}`, "unmarshal JSON", "unmarshal JSON"},
		{"a duration in words", `{"name":"a","took":"5s"}`, "unmarshal JSON", "unmarshal JSON"},
		{"too large", `{"name":"` + strings.Repeat("a", 200) + `"}`, "200 is the most", "200 is the most"},
		{"too deep", strings.Repeat(`{"in":`, 30), "unexpected EOF", "unexpected EOF"},
	} {
		for _, x := range []struct {
			read func([]byte, int, any) error
			what string
		}{{JSON, c.what}, {PartOfJSON, c.part}} {
			var v fact
			err := x.read([]byte(c.text), 200, &v)
			switch {
			case (err == nil) != (x.what == ""):
				t.Errorf("%s: %v, %+v", c.name, err, v)
			case err != nil && !strings.Contains(err.Error(), x.what):
				t.Errorf("%s: %v, and not %q", c.name, err, x.what)
			case err == nil && c.name == "as it is written" && (v.Name != "a" || v.Took != 5 || v.At.IsZero() || len(v.Of) != 2 || v.In == nil):
				t.Errorf("%s: %+v", c.name, v)
			}
		}
	}
}

// What is read is what encoding/json reads too: nobody reads another thing. And it is the
// same once it is written again.
func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"name":"a","took":5,"at":"2026-11-24T09:01:00Z","of":{"B":"c"},"in":{"name":"e"}}`))
	f.Add([]byte(`{"name":"a","Name":"b"}`))
	f.Add([]byte(`{"name":"a","name":"b"}`))
	f.Add([]byte(`{"name":null,"of":{"\u0061":"\ud83d\ude00"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var v, w, again fact
		if JSON(data, 1<<20, &v) != nil {
			return
		}
		if err := json.Unmarshal(data, &w); err != nil || !reflect.DeepEqual(v, w) {
			t.Fatalf("%q is %+v, and to others %+v (%v)", data, v, w, err)
		}
		text, err := json.Marshal(v)
		if err != nil {
			return // a time that has no text
		}
		if err := JSON(text, 6<<20, &again); err != nil || !reflect.DeepEqual(v, again) {
			t.Fatalf("%s is %+v when it is read again (%v)", text, again, err)
		}
	})
}
