package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"trysail/internal/machine"
)

func main() {
	if os.Args[0] == machine.InitPath {
		os.Exit(machine.Init())
	}
	ctx := context.Background()
	st, err := machine.OpenState(ctx, "/tmp/smoke/state", "/run/trysail-smoke", slog.Default())
	if err != nil { panic(err) }
	s, err := st.Begin()
	if err != nil { panic(err) }
	root, err := s.Overlay("root", []string{"/"}, s.Path("upper"), false)
	if err != nil { panic(err) }
	ex, err := s.Run(ctx, machine.Spec{Root: root, Hostname: "h", Args: os.Args[1:], Env: os.Environ(), Dir: "/", Umask: 022, Stdout: os.Stdout, Stderr: os.Stderr, HostDevices: true,
		Ready: func(pid int) error { fmt.Println("ready", pid); return nil }})
	fmt.Println(ex, err)
	fmt.Println(s.Close())
}
