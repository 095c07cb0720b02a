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
)

func main() {
	if os.Args[0] == machine.InitPath {
		os.Exit(machine.Init())
	}
	if os.Args[0] == machine.GuardName {
		os.Exit(machine.RunGuard())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(cli.Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
