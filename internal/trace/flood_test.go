package trace

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAttackFlood: a build looks for one path after the other that nobody has, until the
// memory of root's program is full.
func TestAttackFlood(t *testing.T) {
	tr := newTracer(nil)
	tr.room = 1 << 20
	for i := range 100_000 {
		tr.add(fmt.Sprint("/none/", strings.Repeat("x", 1000), i), OpStat, -int32(unix.ENOENT))
		tr.connect([]byte{unix.AF_INET, 0, byte(i >> 8), byte(i), 10, 0, 0, byte(i >> 16), 0}, nil, 0)
	}
	if n := len(tr.accesses) + len(tr.connects); n > 5000 || tr.room >= 0 {
		t.Errorf("%d paths and peers are kept", n)
	}
}

// TestAttackFloodOfMounts: a build mounts many directories at one place, one after the
// other: each path below it is a path below each of them.
func TestAttackFloodOfMounts(t *testing.T) {
	tr := newTracer(nil)
	tr.room = 1 << 20
	for i := range 100 {
		tr.binds["/a"] = append(tr.binds["/a"], fmt.Sprint("/b/", i))
		tr.add(fmt.Sprint("/a/", i, strings.Repeat("x", 1000)), OpStat, 0)
	}
	tr.followBinds()
	if len(tr.accesses) > 2000 || tr.room >= 0 {
		t.Errorf("%d paths are kept", len(tr.accesses))
	}
}
