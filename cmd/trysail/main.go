// Command trysail answers with evidence: if the build server died right now,
// would we still ship on time?
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // the zones of runbooks, where a machine has none

	"trysail/internal/cli"
	"trysail/internal/machine"
	"trysail/internal/rootless"
)

func main() {
	if os.Args[0] == machine.InitPath {
		os.Exit(machine.Init())
	}
	if os.Args[0] == machine.GuardName {
		os.Exit(machine.RunGuard())
	}
	if os.Args[0] == rootless.WaitName {
		os.Exit(rootless.Wait())
	}
	// Whatever this program makes says its mode, and the caller's umask does not
	// change that: what containers and working copies hold is what it should be,
	// and everything else is private.
	umask := syscall.Umask(0o022)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if os.Args[0] == rootless.Name {
		ctx, stop = rootless.Context(ctx)
		defer stop()
	}
	os.Exit(cli.Run(ctx, os.Args[1:], umask, os.Stdin, os.Stdout, os.Stderr))
}
