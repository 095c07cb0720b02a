package blueprint

import (
	"strings"
	"testing"
)

func TestParsePermission(t *testing.T) {
	for text, want := range map[string]string{
		"device=/dev/bus/usb/001/004": "", "unix=/run/lic.sock": "", "file=/opt/lic/key.dat": "", "tcp=lic.example.com:27000": "", "udp=[2001:db8::1]:53": "",
		"device":              "is not KIND=ADDRESS",
		"block=/dev/sda":      "the kind is",
		"other=dongle":        "the kind is",
		"device=dev/x":        "absolute path",
		"file=/opt/../etc":    "absolute path",
		"file=/":              "absolute path",
		"unix=@abstract":      "absolute path",
		"tcp=lic.example.com": "a host and a port",
		"tcp=:27000":          "a host and a port",
		"file=/opt/a\nb":      "one line",
	} {
		p, err := ParsePermission(text)
		switch {
		case want == "" && (err != nil || p.String() != text):
			t.Errorf("%s: %v, %v", text, p, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestPermissionsAllowWhatTheyName(t *testing.T) {
	p := Permissions{{"tcp", "lic.example.com:27000"}, {"device", "/dev/a"}}
	for _, x := range []struct {
		kind, address string
		want          bool
	}{
		{"tcp", "LIC.example.com:27000", true},
		{"udp", "lic.example.com:27000", false},
		{"tcp", "lic.example.com:27001", false},
		{"device", "/dev/a", true},
		{"device", "/dev/A", false},
		{"file", "/dev/a", false},
		{"unix", "/dev/a", false},
	} {
		if got := p.Allow(LiveDependency{Kind: x.kind, Address: x.address}); got != x.want {
			t.Errorf("%s=%s: %v", x.kind, x.address, got)
		}
	}
	open, closed := p.Remote([]LiveDependency{
		{Name: "a", Kind: "tcp", Address: "lic.example.com:27000"},
		{Name: "b", Kind: "udp", Address: "lic.example.com:27000"},
		{Name: "c", Kind: "tcp", Address: "x:1", Proposed: true},
		{Name: "d", Kind: "device", Address: "/dev/b"},
	})
	if len(open) != 1 || open[0].Name != "a" || len(closed) != 1 || closed[0].Name != "b" {
		t.Errorf("open %v, closed %v", open, closed)
	}
	if got := Flags(LiveDependency{Kind: "file", Address: "/opt/a b"}, LiveDependency{Kind: "device", Address: "/dev/x"}); got != "--allow file='/opt/a b' --allow device=/dev/x" {
		t.Error(got)
	}
}
