//go:build killpoint

package machine

import (
	"os"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// writes are those of this process.
var writes atomic.Int64

// wrote kills this process, as kill -9 does, after the write of its journals that
// TRYSAIL_KILLPOINT numbers from 1.
func wrote() {
	at, err := strconv.ParseInt(os.Getenv("TRYSAIL_KILLPOINT"), 10, 64)
	if err == nil && writes.Add(1) == at {
		_ = unix.Kill(os.Getpid(), unix.SIGKILL) // nothing is left that could say that it failed
		select {}
	}
}
