package rootless

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

func TestRangeOf(t *testing.T) {
	const text = "ann:100000:65536\n# bob:1:65536\n\nbob:165536:10\n1001:200000:65535\ncarol:x:65536\ndave:1:2:3\n"
	for _, x := range []struct {
		name, uid string
		first     int
		ok        bool
	}{
		{"ann", "1000", 100000, true},
		{"bob", "1002", 0, false}, // too few
		{"eve", "1001", 200000, true},
		{"carol", "1003", 0, false},
		{"dave", "1004", 0, false},
		{"an", "100", 0, false},
	} {
		got, ok := rangeOf(text, x.name, x.uid)
		if ok != x.ok || got.first != x.first {
			t.Errorf("%s (%s): %v %v, want %d %v", x.name, x.uid, got, ok, x.first, x.ok)
		}
	}
}

func TestWholeMap(t *testing.T) {
	for text, want := range map[string]bool{
		"         0          0 4294967295\n": true, "0 1000 1\n1 100000 65536\n": false, "0 100000 65536\n": false, "": false,
	} {
		if got := wholeMap(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// Each error says what to type.
func TestErrorsSayWhatToDo(t *testing.T) {
	for _, x := range []struct {
		err  interface{ Hint() string }
		want string
	}{
		{&NoRangeError{User: "ann", File: "/etc/subuid"}, "usermod --add-subuids 200000-265535 --add-subgids 200000-265535 ann"},
		{&MapError{Program: "newuidmap", Err: exec.ErrNotFound}, "apt-get install uidmap"},
		{&MapError{Program: "newuidmap", Err: errors.New("exit status 1")}, "sudo"},
	} {
		if !strings.Contains(x.err.Hint(), x.want) {
			t.Errorf("%v: %q lacks %q", x.err, x.err.Hint(), x.want)
		}
	}
}
