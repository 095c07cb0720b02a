package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"trysail/internal/machine"
)

// guards are the processes of the guards that this one has started.
func guards(t *testing.T) (pids []int) {
	t.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		data, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for pid := range strings.FieldsSeq(string(data)) {
			if line, err := os.ReadFile(filepath.Join("/proc", pid, "cmdline")); err != nil || !strings.HasPrefix(string(line), machine.GuardName) {
				continue
			}
			n, err := strconv.Atoi(pid)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, n)
		}
	}
	return pids
}

// TestGuardGone: an agent whose guard has died ends, and says why: each lease that it
// took would be lost. A step that met it is one that its machine could not run.
func TestGuardGone(t *testing.T) {
	f := newFreezing(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") })
	a := joinedTo(t, f)
	list := guards(t)
	if len(list) != 1 {
		t.Fatalf("the guards: %v", list)
	}
	if err := a.beat(t.Context(), machine.BootTime()); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(list[0], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := a.Run(ctx)
	var gone *machine.GuardError
	if !errors.As(err, &gone) || gone.Hint() == "" || !strings.Contains(err.Error(), "guard") {
		t.Errorf("it ended: %v", err)
	}
	if a.trouble(err) == nil {
		t.Error("a step is failed for it")
	}
}
