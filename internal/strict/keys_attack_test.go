package strict

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestAttackKeysWithoutEnd: a file of one megabyte has one mapping with very many keys, for which
// the library takes an hour. Who reads it is root, an agent or control.
func TestAttackKeysWithoutEnd(t *testing.T) {
	list := func(form string, n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, form, i)
		}
		return b.String()
	}
	for name, text := range map[string]string{
		"lines":    list("k%d: 1\n", 100_000),
		"below":    "a:\n  b:\n" + list("    k%d: 1\n", 100_000),
		"in items": "a:\n- b: 1\n" + list("  k%d: 1\n", 100_000),
		"braces":   "a: {" + list("k%d: 1, ", 100_000) + "z: 1}\n",
		"values":   list("k%d:\n  a: 1\n", 50_000),
		"lists":    list("k%d:\n- a: 1\n", 50_000),
		"quoted":   list("\"k%d\": {a: [1]}\n", 50_000),
	} {
		done := make(chan *Error, 1)
		go func() {
			var v map[string]any
			done <- YAML("file", []byte(text), &v, "")
		}()
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.What, "keys") {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: a file of %d KB is read for longer than 10 s", name, len(text)>>10)
		}
	}
	var v struct {
		A []struct{ B, C, D string } `yaml:"a"`
		E map[string]string          `yaml:"e"`
	}
	if err := YAML("file", []byte("a:\n"+list("- b: x%d\n  c: y\n  d: z\n", 3000)+list("- {b: x%d, c: y}\n", 3000)+"e:\n"+list("  k%d: v\n", 900)), &v, ""); err != nil || len(v.A) != 6000 || len(v.E) != 900 {
		t.Errorf("%d and %d (%v)", len(v.A), len(v.E), err)
	}
}
