package api

import (
	"strings"
	"testing"
)

func TestLink(t *testing.T) {
	digest, secret := strings.Repeat("0123456789abcdef", 4), strings.Repeat("feed", 12)
	for _, address := range []string{"control:7440", "control.example.org:7440", "10.0.0.1:1", "[::1]:65535", "[fe80::192.0.2.1]:7440", "build-1.example:80", "10.0.0.1:1,10.0.0.2:1,[::1]:3"} {
		l := Link{address, digest, secret}
		if want := "trysail://" + address + "/" + digest + "/" + secret; l.String() != want {
			t.Errorf("%+v is %s", l, l)
		}
		for _, text := range []string{l.String(), l.String() + "\n", " \t" + l.String() + "\r\n\n"} {
			if got, err := ParseLink(text); err != nil || got != l {
				t.Errorf("%q is read as %+v: %v", text, got, err)
			}
		}
	}

	tail := "/" + digest + "/" + secret
	for _, text := range []string{
		"", "trysail://", "trysail:", "trysail:///", "trysail:////", "trysail://control:7440",
		secret, digest + "/" + secret, "control:7440" + tail, // no scheme
		"https://control:7440" + tail, "TRYSAIL://control:7440" + tail, "trysail:/control:7440" + tail, "xtrysail://control:7440" + tail,
		"trysail://trysail://control:7440" + tail,
		"trysail://" + tail, "trysail://control" + tail, "trysail://control:" + tail, "trysail://:7440" + tail, // the address
		"trysail://control:744000" + tail, "trysail://control:port" + tail, "trysail://control:-1" + tail, "trysail://control:7440:7440" + tail,
		"trysail://a:1," + tail, "trysail://,a:1" + tail, "trysail://a:1,,b:1" + tail, "trysail://a:1, b:1" + tail, "trysail://a:1,b" + tail,
		"trysail://ann@control:7440" + tail, "trysail://ann:pw@control:7440" + tail, "trysail://con trol:7440" + tail, "trysail://control:7440 " + tail,
		"trysail://control\n:7440" + tail, "trysail://control:7440\n" + tail, "trysail://cöntrol:7440" + tail, "trysail://%63ontrol:7440" + tail,
		"trysail://::1:7440" + tail, "trysail://[::1]" + tail, "trysail://[::1:7440" + tail, "trysail://[control]:7440" + tail,
		"trysail://control:7440/x" + tail, "trysail://control:7440/" + tail,
		"trysail://control:7440//" + secret, "trysail://control:7440/" + secret, "trysail://control:7440/" + secret + "/" + digest, // the fingerprint
		"trysail://control:7440/" + digest[1:] + "/" + secret, "trysail://control:7440/" + digest + "0/" + secret,
		"trysail://control:7440/" + strings.ToUpper(digest) + "/" + secret, "trysail://control:7440/g" + digest[1:] + "/" + secret,
		"trysail://control:7440/" + digest + "\n/" + secret, "trysail://control:7440/sha256:" + digest + "/" + secret,
		"trysail://control:7440/" + digest + "/", "trysail://control:7440/" + digest, // the secret
		"trysail://control:7440/" + digest + "/" + secret[1:], "trysail://control:7440/" + digest + "/" + secret + "0",
		"trysail://control:7440/" + digest + "/" + strings.ToUpper(secret), "trysail://control:7440/" + digest + "/g" + secret[1:],
		"trysail://control:7440/" + digest + "/ " + secret, "trysail://control:7440/" + digest + "/" + secret + "/", "trysail://control:7440" + tail + "?x=1",
		"trysail://control:7440" + tail + "\ntrysail://control:7440" + tail, "trysail://control:7440" + tail + " x", "trysail://control:7440" + tail + "\x00",
	} {
		got, err := ParseLink(text)
		if err == nil || got != (Link{}) {
			t.Errorf("%q is read as %+v: %v", text, got, err)
			continue
		}
		if low := strings.ToLower(err.Error()); strings.Contains(low, secret[1:]) || strings.Contains(low, digest[1:]) {
			t.Errorf("%q: the error holds what it must not: %v", text, err)
		}
	}
}
