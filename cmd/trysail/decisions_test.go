package main

import (
	"path/filepath"
	"strings"
	"testing"

	"trysail/evidence"
	"trysail/release"
)

// TestFleetDecisions: where the runbook names signers, people sign what they decide with
// their keys, after they saw what changes; an abort frees the version; and the bundle holds
// all of it.
func TestFleetDecisions(t *testing.T) {
	t.Parallel()
	book := func(more string) string { return decidedRelease("signers: trysail/allowed_signers\n", more) }
	w := newWorld(t, book("exit 3\n"))
	s := newSigners(w)
	commit := func(what string) {
		w.sh("cd " + w.app + " && git add -A && git -c user.name=t -c user.email=t@example.org commit -qm " + what)
	}
	w.write("app/trysail/allowed_signers", w.sh("cat "+s.file("allowed")))
	commit("signers")
	w.agent("a", 11, "--plain")
	w.agent("b", 12, "--plain", "--rank", "backup")
	w.begin()
	shows := func(want string, args ...string) {
		t.Helper()
		cmd := w.command(args...)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("trysail %s does not show %q: %v %s", strings.Join(args, " "), want, err, out)
		}
	}

	// It began too early: the version is free again, and what was said before counts no more.
	w.refused("there is no SSH agent", "release", "abort", "4.2", "--as", "ann", "--reason", "too early", "--yes")
	w.env = s.env
	w.refused("an abort needs a reason", "release", "abort", "4.2", "--as", "ann", "--yes")
	w.refused("has been started already", "release", "start", "4.2", "--yes", "--ship", "2036-12-01T09:00:00Z")
	shows("version 4.2 may be started again", "release", "abort", "4.2", "--as", "ann", "--reason", "too early", "--yes")
	w.begin()

	w.until("the test stops the release", func() bool { return w.item("test").Status == release.Stopped })
	shows("its script ended with exit status 1", "release", "waive", "4.2", "test", "flaky", "--as", "dan", "--reason", "known", "--yes")
	w.until("gold has failed", func() bool { return w.item("gold").Status == release.Stopped })

	w.write("app/RELEASE.md", book(""))
	commit("mended")
	shows("-exit 3", "release", "amend", "4.2", "--runbook", "RELEASE.md", "--as", "ann", "--reason", "the last line fails", "--yes")
	w.refused("another must approve", "release", "agree", "4.2", "--as", "ann", "--yes")

	// By hand: bob's key is in no agent.
	statement := filepath.Join(s.dir, "agree.json")
	shows("-exit 3", "release", "agree", "4.2", "--as", "bob", "--statement", statement)
	w.sh("cd " + s.dir + "; ssh-keygen -q -Y sign -n " + evidence.NamespaceSignOff + " -f ann agree.json 2>&1")
	w.refused("is that of ann", "release", "agree", "4.2", "--statement", statement, "--signature", statement+".sig")
	w.sh("cd " + s.dir + "; rm agree.json.sig; ssh-keygen -q -Y sign -n " + evidence.NamespaceSignOff + " -f bob agree.json 2>&1")
	w.refused("is a statement on the decision on amendment", "release", "abort", "4.2", "--statement", statement, "--signature", statement+".sig")
	w.trysail("release", "agree", "4.2", "--statement", statement, "--signature", statement+".sig")
	w.until("gold is confirmed", func() bool { return w.item("gold").Status == release.Complete })

	w.sh(s.env[0] + " ssh-add -q " + s.file("bob"))
	w.trysail("release", "reject", "4.2", "tried", "--as", "bob", "--reason", "it does not start", "--yes")
	shows("bob said reject to tried", "release", "withdraw", "4.2", "tried", "--as", "bob", "--reason", "wrong machine", "--yes")
	w.trysail("release", "sign", "4.2", "tried", "--as", "bob", "--yes")
	key := s.file("release.age")
	w.write("release.pub", w.trysail("key", "new", key, "--passphrase-file", s.file("word")))
	bundle := filepath.Join(w.dir, "bundle")
	w.trysail("release", "ship", "4.2", "--bundle", bundle, "--key", key, "--passphrase-file", s.file("word"))
	out := w.trysail("verify", bundle, "--release-key", filepath.Join(w.dir, "release.pub"))
	for _, want := range []string{"aborted: too early (SHA256:", "dan waived test flaky of test: known (SHA256:", "ann proposes to change runbook", "bob says approve (SHA256:", "bob takes their word back", "an earlier start of this release was aborted"} {
		if !strings.Contains(out, want) {
			t.Errorf("verify does not say %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "without a signature") {
		t.Errorf("a decision is not signed:\n%s", out)
	}
	w.check()
}
