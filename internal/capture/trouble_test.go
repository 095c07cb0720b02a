package capture

import (
	"strings"
	"testing"

	"trysail/internal/trace"
)

func TestForeignFormats(t *testing.T) {
	arm := parseFormat("qemu-arm", "enabled\ninterpreter /usr/libexec/qemu-binfmt/arm-binfmt-P\nflags: POCF\noffset 0\nmagic 7f454c4601010100000000000000000002002800\nmask ffffffffffffff00fffffffffffffffffeffffff\n")
	wine := parseFormat("wine", "enabled\ninterpreter /usr/bin/wine\nflags: \noffset 0\nmagic 4d5a\n")
	ending := parseFormat("jar", "enabled\ninterpreter /usr/bin/jexec\nflags: \nextension .jar\n")
	late := parseFormat("late", "enabled\ninterpreter /l\nflags: \noffset 4\nmagic 6162\n")
	elf := "\x7fELF\x01\x01\x01\x07" + strings.Repeat("\x00", 8) + "\x03\x00\x28\x00"
	for _, c := range []struct {
		f               foreignFormat
		beginning, name string
		is              bool
	}{
		{arm, elf, "/w/tool", true},
		{arm, strings.Replace(elf, "\x28", "\x3e", 1), "/w/tool", false},
		{arm, elf[:10], "/w/tool", false},
		{wine, "MZ\x90", "/w/x.exe", true},
		{wine, "#!/bin/sh", "/w/x.exe", false},
		{ending, "PK", "/w/a.jar", true},
		{ending, "PK", "/w/a.jar.sh", false},
		{late, "0123ab", "/w/x", true},
		{late, "ab", "/w/x", false},
		{parseFormat("off", "disabled\ninterpreter /usr/bin/wine\nflags: \noffset 0\nmagic 4d5a\n"), "MZ", "/w/x", false},
		{parseFormat("status", "enabled\n"), "", "/w/x", false},
	} {
		if got := c.f.interpreter != "" && c.f.is([]byte(c.beginning), c.name); got != c.is {
			t.Errorf("%s of %q, %s: %v", c.f.name, c.beginning, c.name, got)
		}
	}
}

func TestABuildThatWantsAProgramOfThisMachine(t *testing.T) {
	here := func(address string) bool { return address != "127.0.0.1:9999" }
	what, remedy := ownTrouble([]trace.Connect{{Network: "tcp", Address: "127.0.0.1:4873"}, {Network: "tcp", Address: "[::1]:4873"}, {Network: "tcp", Address: "127.0.0.1:9999"}, {Network: "tcp", Address: "198.51.100.7:80"}, {Network: "unix", Address: "/run/x"}}, here)
	if !strings.Contains(what, "127.0.0.1:4873, [::1]:4873. A program") || !strings.Contains(remedy, "ip_local_port_range") {
		t.Errorf("%s → %s", what, remedy)
	}
	for address, want := range map[string]bool{"127.0.0.1:4873": true, "127.0.1.1:4873": true, "[::1]:4873": false, "127.0.0.1:4874": false} {
		if reachable(address, []uint16{4873}) != want {
			t.Errorf("%s can be reached: %v", address, !want)
		}
	}
	if what, _ := ownTrouble([]trace.Connect{{Network: "tcp", Address: "127.0.0.1:9999"}}, here); what != "" {
		t.Errorf("nobody listens there: %s", what)
	}
}
