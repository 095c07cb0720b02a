package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"testing"
)

// The documented JSON is what the program prints: no key more, none less.
func TestDocumentedJSON(t *testing.T) {
	data, err := os.ReadFile("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?ms)^```json result\n(.*?)^```").FindSubmatch(data)
	if m == nil {
		t.Fatal("docs/json.md has no result")
	}
	var r result
	dec := json.NewDecoder(bytes.NewReader(m[1]))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		t.Fatal(err)
	}
	var documented, printed map[string]any
	if err := json.Unmarshal(m[1], &documented); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(again, &printed); err != nil {
		t.Fatal(err)
	}
	compareKeys(t, "", documented, printed)
}

func compareKeys(t *testing.T, at string, a, b map[string]any) {
	for k, v := range b {
		w, ok := a[k]
		if !ok {
			t.Errorf("docs/json.md lacks %s.%s", at, k)
			continue
		}
		if inner, ok := v.(map[string]any); ok {
			documented, _ := w.(map[string]any)
			compareKeys(t, at+"."+k, documented, inner)
		}
	}
}
