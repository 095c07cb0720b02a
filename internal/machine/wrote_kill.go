//go:build killpoint

package machine

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// wrote kills this process, as kill -9 does, after the write of its journals that
// TRYSAIL_KILLPOINT numbers from 1: it counts down there.
func wrote() {
	left, err := strconv.Atoi(os.Getenv("TRYSAIL_KILLPOINT"))
	if err != nil {
		return
	}
	if left == 1 {
		_ = unix.Kill(os.Getpid(), unix.SIGKILL) // nothing is left that could say that it failed
		select {}
	}
	if err := os.Setenv("TRYSAIL_KILLPOINT", strconv.Itoa(left-1)); err != nil {
		panic(err)
	}
}
