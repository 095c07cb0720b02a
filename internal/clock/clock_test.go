package clock

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestClock: a jump has passed on both clocks, a skew is the wall clock's alone.
func TestClock(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "clock")
	for _, what := range []string{"no marker", "no file", "ready"} {
		c, err := Open(file, dir)
		var real *RealError
		switch what {
		case "no marker":
			if !errors.As(err, &real) {
				t.Fatalf("the clock of a machine of no drill is opened: %v", err)
			}
			if err := os.WriteFile(filepath.Join(dir, Marker), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		case "no file":
			if err == nil {
				t.Fatal("a clock without a file is opened")
			}
			if err := Write(file, Set{}); err != nil {
				t.Fatal(err)
			}
		default:
			if err != nil {
				t.Fatal(err)
			}
			check(t, c, file)
		}
	}
}

func check(t *testing.T, c *Clock, file string) {
	var own Clock
	near := func(what string, got, want time.Duration) {
		t.Helper()
		if d := got - want; d < -time.Minute || d > time.Minute {
			t.Errorf("%s: %s off, want %s", what, got, want)
		}
	}
	differs := func(what string, wall, boot time.Duration) {
		t.Helper()
		near(what+", wall", c.Now().Sub(own.Now()), wall)
		near(what+", boot", c.Boot()-own.Boot(), boot)
	}
	differs("as it is", 0, 0)
	for _, x := range []Set{{Jump: 72 * time.Hour}, {Skew: -3 * time.Hour}, {72 * time.Hour, 5 * time.Hour}} {
		if err := Write(file, x); err != nil {
			t.Fatal(err)
		}
		differs("set", x.Jump+x.Skew, x.Jump)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	differs("torn", 77*time.Hour, 72*time.Hour)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	differs("gone", 77*time.Hour, 72*time.Hour)
}
