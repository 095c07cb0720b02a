package control

import (
	"testing"

	"pgregory.net/rapid"

	"trysail/internal/depot"
)

// TestPlainName: every version makes a reference, and no two the same one.
func TestPlainName(t *testing.T) {
	for version, want := range map[string]string{"4.2": "v4.2", "4.2-rc1": "v4.2-rc1", "4.2+B": "v4.2_x2b_x42", "1.": "v1_x2e", "a..b": "va_x2e.b"} {
		if got := plainName(version); got != want {
			t.Errorf("%s is %s, not %s", version, got, want)
		}
	}
	d, err := depot.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9.+_-]{0,8}`).Draw(t, "version")
		n := "release/" + plainName(v) + "/step"
		if old, ok := seen[n]; ok && old != v {
			t.Fatalf("%s and %s are both %s", old, v, n)
		}
		seen[n] = v
		if _, err := d.Tag(t.Context(), n, noon().now, nil); err != nil {
			t.Fatalf("%s: %v", v, err)
		}
	})
}
