package cli

import (
	"strings"
	"testing"
)

// A team's own control takes no plan that is not its runbook's, whatever is typed.
func TestPlansAsSent(t *testing.T) {
	state := t.TempDir()
	code, _, why := typed(t, "--state", state, "serve", "--listen", "127.0.0.1:0", "--plans-as-sent")
	if code != exitUsage || !strings.Contains(why, "machine of a lab") {
		t.Errorf("exit %d: %s", code, why)
	}
}
