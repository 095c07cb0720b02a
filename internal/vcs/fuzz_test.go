package vcs

import (
	"strings"
	"testing"
)

// FuzzSvn reads what svn says of a copy, with the names of files that its owner chose.
func FuzzSvn(f *testing.F) {
	f.Add(`<?xml version="1.0"?><status><target path="."><entry path="a &amp; b"><wc-status item="modified" props="none"/></entry></target></status>`, "4123:4168MS")
	f.Add(`<status><target><entry path="x"/></target>`, "exported")
	f.Fuzz(func(t *testing.T, status, span string) {
		all, err := paths(status, func(string, string) bool { return true })
		some, serr := paths(status, func(item, _ string) bool { return item == "modified" })
		if (err == nil) != (serr == nil) || len(some) > len(all) {
			t.Errorf("%q has %q, %q of them modified: %v, %v", status, all, some, err, serr)
		}
		if got := youngest(span, "7"); strings.Trim(got, "0123456789") != "" || got == "" {
			t.Errorf("the youngest of %q is %q", span, got)
		}
		if got := withoutPassword("https://ann:hunter2-hunter2@example.com/" + span); strings.Contains(got, "hunter2") && !strings.Contains(span, "hunter2") {
			t.Errorf("an address with a password is kept as %q", got)
		}
	})
}
