package evidence

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/crypto/ssh"

	"trysail/release"
)

// problems says what a bundle is refused for.
func problems(r *Report) string {
	var list []string
	for _, p := range r.Problems {
		list = append(list, p.String())
	}
	return strings.Join(list, "\n")
}

func copied(b fstest.MapFS) fstest.MapFS {
	c := fstest.MapFS{}
	for name, f := range b {
		g := *f
		g.Data = slices.Clone(f.Data)
		c[name] = &g
	}
	return c
}

// resum makes the list of checksums again, and signs it with the release key, as
// somebody would who has that key and nothing else.
func (x *story) resum(b fstest.MapFS) {
	x.t.Helper()
	sums := map[string]string{}
	for name, f := range b {
		if name != sumsFile && name != sumsSignature {
			sums[name] = sum(f.Data)
		}
	}
	list := writeSums(sums)
	sig, err := sshSign(list, NamespaceBundle, &x.key.PublicKey, x.signs)
	if err != nil {
		x.t.Fatal(err)
	}
	b[sumsFile], b[sumsSignature] = &fstest.MapFile{Data: list}, &fstest.MapFile{Data: sig}
}

func TestBundle(t *testing.T) {
	x := newStory(t, "4.2")
	x.ship()
	b := x.bundle()
	r := Verify(b, x.trust())
	if !r.Verified || r.Version != "4.2" || len(r.SignOffs) != 3 || len(r.Gold) != 1 || len(r.FromBundle) != 0 || r.Events != len(x.lines) {
		t.Fatalf("%+v\n%s", r, problems(r))
	}
	if !slices.Contains(r.Attention, "role host runs on machines that cannot be made again: not proven") {
		t.Errorf("attention: %q", r.Attention)
	}
	// With nothing brought along it is of one piece, and says whose keys those are.
	if r := Verify(b, Trust{}); !r.Verified || len(r.FromBundle) != 2 || !strings.HasPrefix(r.Key, "SHA256:") {
		t.Errorf("%+v\n%s", r, problems(r))
	}
	// The same material makes the same bundle, but for ECDSA's own chance.
	again := x.bundle()
	for name, f := range b {
		if !strings.HasPrefix(name, "attest/") && !strings.HasPrefix(name, "SHA256SUMS") && !bytes.Equal(f.Data, again[name].Data) {
			t.Errorf("%s differs between two bundles", name)
		}
	}
}

// Every byte of every file counts.
func TestEveryByteOfABundle(t *testing.T) {
	x := newStory(t, "4.2")
	x.ship()
	b := x.bundle()
	for name := range b {
		for _, at := range []int{0, len(b[name].Data) / 2, len(b[name].Data) - 1} {
			c := copied(b)
			c[name].Data[at] ^= 1
			if r := Verify(c, x.trust()); r.Verified || !strings.Contains(problems(r), name) {
				t.Errorf("byte %d of %s was changed, and what is wrong is %q", at, name, problems(r))
			}
		}
		c := copied(b)
		delete(c, name)
		if r := Verify(c, x.trust()); r.Verified || !strings.Contains(problems(r), name) {
			t.Errorf("%s is gone, and what is wrong is %q", name, problems(r))
		}
	}
}

// What somebody can do who has the release key, and makes new checksums.
func TestTampering(t *testing.T) {
	x := newStory(t, "4.2")
	x.ship()
	other := newStory(t, "4.1")
	other.key, other.log, other.logKey, other.people, other.allowed = x.key, x.log, x.logKey, x.people, x.allowed
	other.ship()
	good, old := x.bundle(), other.bundle()
	signOff := func(b fstest.MapFS, has string) string {
		for _, name := range slices.Sorted(maps.Keys(b)) {
			if strings.HasPrefix(name, signOffDir) && strings.Contains(name, has) && strings.HasSuffix(name, ".json") && !strings.HasSuffix(name, "proof.json") {
				return name
			}
		}
		t.Fatalf("no sign-off %s", has)
		return ""
	}
	ann, bob := signOff(good, "ann"), signOff(good, "bob")
	lines := func(b fstest.MapFS, f func([][]byte) [][]byte) {
		list := bytes.Split(bytes.TrimSuffix(b[eventsFile].Data, []byte("\n")), []byte("\n"))
		b[eventsFile].Data = append(bytes.Join(f(list), []byte("\n")), '\n')
	}
	for _, c := range []struct {
		name, want string
		do         func(b fstest.MapFS)
	}{
		{"a sign-off is deleted", "the ledger has this sign-off", func(b fstest.MapFS) {
			for _, end := range []string{"", ".sig"} {
				delete(b, ann+end)
			}
		}},
		{"two change places", "is not the sign-off of the ledger", func(b fstest.MapFS) { b[ann], b[bob] = b[bob], b[ann] }},
		{"one of another release", "is not the sign-off of the ledger", func(b fstest.MapFS) { b[ann] = old[signOff(old, "ann")] }},
		{"one more of another release", "the ledger does not speak of it", func(b fstest.MapFS) { b[signOffDir+"/0099-tried-ann.json"] = old[signOff(old, "ann")] }},
		{"an artifact is swapped", "is not gold", func(b fstest.MapFS) { b["artifacts/dist/app"].Data = []byte("another program") }},
		{"an artifact more", "the ledger does not speak of it", func(b fstest.MapFS) { b["artifacts/extra"] = &fstest.MapFile{Data: []byte("x")} }},
		{"the ledger is cut short", "checkpoint covers", func(b fstest.MapFS) { lines(b, func(l [][]byte) [][]byte { return l[:len(l)-1] }) }},
		{"an event is gone", "checkpoint covers", func(b fstest.MapFS) { lines(b, func(l [][]byte) [][]byte { return slices.Delete(l, 3, 4) }) }},
		{"two events change places", "is not the one of which the checkpoint speaks", func(b fstest.MapFS) {
			lines(b, func(l [][]byte) [][]byte { l[3], l[4] = l[4], l[3]; return l })
		}},
		{"a byte of an event", "is not the one of which the checkpoint speaks", func(b fstest.MapFS) {
			b[eventsFile].Data = bytes.Replace(b[eventsFile].Data, []byte("it works"), []byte("it burns"), 1)
		}},
		{"the ledger of another release", "checkpoint belongs to the ledger of release.4.1", func(b fstest.MapFS) { b[checkpointFile] = old[checkpointFile] }},
		{"another release's provenance", "says something else than the ledger", func(b fstest.MapFS) { b[provenanceFile] = old[provenanceFile] }},
		{"another runbook", "is not the runbook that was followed", func(b fstest.MapFS) { b[runbookFile].Data = []byte("# x\n") }},
		{"signers with one more", "is not the file that was in force", func(b fstest.MapFS) {
			b[allowedFile].Data = append(b[allowedFile].Data, b[allowedFile].Data...)
		}},
		{"no ledger", "ledger/key.txt: ", func(b fstest.MapFS) {
			b[logKeyFile].Data, b[eventsFile].Data, b[checkpointFile].Data = []byte("\n"), []byte("\n"), []byte("\n")
			b["artifacts/dist/app"].Data = []byte("another program")
		}},
		{"a file of nobody", "has no place in a bundle", func(b fstest.MapFS) { b["extra/x"] = &fstest.MapFile{Data: []byte("x")} }},
		{"a name that paints", "has a name that no file", func(b fstest.MapFS) { b["drill/\x1b[2J"] = &fstest.MapFile{Data: []byte("x")} }},
		{"a bill of other things", "does not list dist/app as it was shipped", func(b fstest.MapFS) {
			b[shippedFile] = &fstest.MapFile{Data: []byte(`{"components":[{"bom-ref":"artifact:dist/app","hashes":[{"alg":"SHA-256","content":"00"}]}]}`)}
		}},
		{"a link", "is a symbolic link", func(b fstest.MapFS) {
			b["artifacts/link"] = &fstest.MapFile{Data: []byte("/etc/passwd"), Mode: fs.ModeSymlink}
		}},
		{"a pipe", "is a pipe", func(b fstest.MapFS) { b["pipe"] = &fstest.MapFile{Mode: fs.ModeNamedPipe} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := copied(good)
			c.do(b)
			x.resum(b)
			if r := Verify(b, x.trust()); r.Verified || !strings.Contains(problems(r), c.want) {
				t.Errorf("not refused for %q:\n%s", c.want, problems(r))
			}
			// Without any key of one's own it is found out too, whoever signed it.
			if r := Verify(b, Trust{}); r.Verified {
				t.Error("taken with the keys of the bundle")
			}
		})
	}
	for _, c := range []struct{ name, want, file string }{
		{"out of the bundle", "leads out of the bundle", strings.Repeat("0", 64) + "  ../x\n"},
		{"from the root", "leads out of the bundle", strings.Repeat("0", 64) + "  /etc/passwd\n"},
		{"twice", "does not follow", strings.Repeat("0", 64) + "  a\n" + strings.Repeat("0", 64) + "  a\n"},
		{"no sum", "no line of sha256sum", "hello\n"},
		{"torn", "torn", strings.Repeat("0", 64) + "  a"},
	} {
		b := copied(good)
		b[sumsFile].Data = []byte(c.file)
		if r := Verify(b, x.trust()); r.Verified || !strings.Contains(problems(r), c.want) {
			t.Errorf("checksums %s: not refused for %q:\n%s", c.name, c.want, problems(r))
		}
	}
}

// Who holds every key of control cannot rewrite what a signer saw, nor what was kept
// elsewhere.
func TestForks(t *testing.T) {
	x := newStory(t, "4.2")
	x.gold()
	kept := x.checkpoint()
	x.sign("tried", "ann", release.Approve)
	lines := slices.Clone(x.lines)
	x.sign("tried", "bob", release.ApproveExcept)
	x.sign("legal", "eve", release.Approve)
	x.must(release.Shipped{})

	// A ledger in which another machine made gold, with ann's signature as it was.
	fork := newStory(t, "4.2")
	fork.key, fork.log, fork.logKey, fork.people, fork.allowed = x.key, x.log, x.logKey, x.people, x.allowed
	fork.begin()
	fork.run("compile", "evil", "obj/a", "object")
	fork.run("gold", "evil", "dist/app", "the program")
	epoch := fork.must(release.Granted{Item: "gold", Machine: "b", Confirm: true})
	fork.must(release.Confirmed{Epoch: epoch, Verdict: release.Identical, Log: fork.blob("second log")})
	var e release.Event
	if err := json.Unmarshal(lines[len(lines)-1], &e); err != nil {
		t.Fatal(err)
	}
	fork.must(e.Body)
	fork.sign("tried", "bob", release.Approve)
	fork.sign("legal", "eve", release.Approve)
	fork.must(release.Shipped{})
	if r := Verify(fork.bundle(), x.trust()); r.Verified || !strings.Contains(problems(r), "not those that the signer saw") {
		t.Errorf("a forked ledger: %s", problems(r))
	}
	// Without any signature of before, a checkpoint that was kept shows it.
	fork = newStory(t, "4.2")
	fork.key, fork.log, fork.logKey, fork.people, fork.allowed = x.key, x.log, x.logKey, x.people, x.allowed
	fork.now = fork.now.Add(time.Hour)
	fork.ship()
	trust := x.trust()
	if r := Verify(fork.bundle(), trust); !r.Verified {
		t.Errorf("it is of one piece: %s", problems(r))
	}
	trust.Checkpoints = [][]byte{[]byte(kept)}
	if r := Verify(fork.bundle(), trust); r.Verified || !strings.Contains(problems(r), "the ledger was changed") {
		t.Errorf("against a checkpoint that was kept: %s", problems(r))
	}
	if r := Verify(x.bundle(), trust); !r.Verified {
		t.Errorf("the true one: %s", problems(r))
	}
}

// What is wrong with a signature when it comes.
func TestMoment(t *testing.T) {
	x := newStory(t, "4.2")
	x.gold()
	subject := x.s.Subject(x.s.Item("tried"))
	sane := release.Signed{Item: "tried", Person: "ann", Decision: release.Approve, Subject: subject}
	now := SigningAt(x.now, time.Hour, "0123456789abcdef", x.checkpoint())
	draft := func(g Signing) []byte {
		text, err := Draft(x.s, sane, g)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	signed := func(text []byte, by, namespace string) release.Signed {
		return sane.Prove(x.proof(text, by, namespace, now.Nonce)).(release.Signed)
	}
	text := draft(now)
	for _, want := range []string{`"role": "qa"`, `"name": "Ann Example"`, `"name": "dist/app"`, `"name": "log of gold"`, "Ann Example says approve to \\\"it works\\\", for release 4.2"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	good := signed(text, "ann", NamespaceSignOff)
	if by, err := x.moment().Check(good); err != nil || by.Principals[0] != "ann" {
		t.Fatalf("%v", err)
	}
	change := func(f func(b *release.Signed)) release.Signed { b := good; f(&b); return b }
	expired := SigningAt(x.now.Add(-2*time.Hour), time.Hour, now.Nonce, now.Checkpoint)
	forever := SigningAt(x.now, 100*365*24*time.Hour, now.Nonce, now.Checkpoint)
	early := SigningAt(x.now.Add(time.Hour), time.Hour, now.Nonce, now.Checkpoint)
	foreign := SigningAt(x.now, time.Hour, now.Nonce, strings.Replace(now.Checkpoint, "4.2", "4.3", 1))
	padded := append([]byte(strings.TrimSuffix(string(text), "}\n")), "}\n\n"...)
	for _, c := range []struct {
		name, want string
		b          release.Signed
	}{
		{"another's key", "is that of bob", signed(text, "bob", NamespaceSignOff)},
		{"wrong namespace", `is for namespace "bundle@trysail"`, signed(text, "ann", NamespaceBundle)},
		{"a login", `is for namespace "login@trysail"`, signed(text, "ann", NamespaceLogin)},
		{"other bytes", "not of these bytes", change(func(b *release.Signed) {
			b.Signature = signed([]byte("x"), "ann", NamespaceSignOff).Signature
		})},
		{"another decision", "says decision", change(func(b *release.Signed) { b.Decision = release.Reject })},
		{"another reason", "says reason", change(func(b *release.Signed) { b.Reason = "x" })},
		{"for another person", "says person", change(func(b *release.Signed) { b.Person = "bob" })},
		{"another item", "says item", change(func(b *release.Signed) { b.Item = "legal" })},
		{"another nonce", "says nonce", change(func(b *release.Signed) { b.Nonce = "fedcba9876543210" })},
		{"another question", "says question", change(func(b *release.Signed) { b.Subject = "sha256:x" })},
		{"more time spent", "not the one that this release asks for", change(func(b *release.Signed) { b.Spent = time.Hour })},
		{"expired", "the statement expired", signed(draft(expired), "ann", NamespaceSignOff)},
		{"good for ever", "none is for longer than", signed(draft(forever), "ann", NamespaceSignOff)},
		{"to come", "which is to come", signed(draft(early), "ann", NamespaceSignOff)},
		{"a checkpoint of another", "the checkpoint that was seen", signed(draft(foreign), "ann", NamespaceSignOff)},
		{"written otherwise", "says the same in other bytes", signed(padded, "ann", NamespaceSignOff)},
		{"no statement", "cannot be read", change(func(b *release.Signed) { b.Statement = "{}{}" })},
		{"another type", "is not the type of a sign-off", change(func(b *release.Signed) { b.Statement = `{"_type":"x"}` })},
		{"no signature", "no SSH signature", change(func(b *release.Signed) { b.Signature = "hello" })},
		{"two signatures", "no SSH signature", change(func(b *release.Signed) { b.Signature += b.Signature })},
	} {
		if _, err := x.moment().Check(c.b); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: not refused for %q: %v", c.name, c.want, err)
		}
	}
	// Keys that are not good at the time, or any more.
	key := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(x.people["ann"].PublicKey())))
	for _, c := range []struct{ name, want, allowed, revoked string }{
		{"had expired", "had expired", `ann valid-before="20261123Z" ` + key, ""},
		{"not yet", "is valid from", `ann valid-after="20270101Z" ` + key, ""},
		{"for bundles", "is not allowed for", `ann namespaces="` + NamespaceBundle + `" ` + key, ""},
		{"of two people", "its key is that of bob too", "ann,bob " + key, ""},
		{"of two lines", "its key is that of bob too", "bob " + key + "\nann " + key, ""},
		{"of nobody", "is not among the allowed signers", "# nobody\n", ""},
		{"revoked", "is revoked", "ann " + key, key},
		{"good", "", `ann@example.org namespaces="x,` + NamespaceSignOff + `",valid-after="20260101Z",valid-before="20261231235959Z" ` + key + " Ann", ""},
	} {
		m := x.moment()
		var err error
		if m.Signers, err = ParseSigners("s", []byte(c.allowed+"\n")); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if c.revoked != "" {
			if m.Revoked, err = ParseRevoked("r", []byte(c.revoked+"\n")); err != nil {
				t.Fatal(err)
			}
		}
		_, err = m.Check(good)
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: not refused for %q: %v", c.name, c.want, err)
		}
	}
}

// A key that is revoked during the release: what it signed before stays, by whoever
// does not say otherwise.
func TestRevocation(t *testing.T) {
	x := newStory(t, "4.2")
	x.gold()
	x.sign("legal", "eve", release.Approve)
	key := string(ssh.MarshalAuthorizedKey(x.people["eve"].PublicKey()))
	n := x.decide(release.Amended{What: []string{"signers"}, Signers: x.blob(x.allowed + "# as before\n"), Revoked: x.blob(key), Reason: "lost", By: "bob"})
	x.decide(release.Agreed{Amendment: n, Person: "ann", Decision: release.Approve})
	if _, err := x.moment().Check(x.word("legal", "eve", release.Approve, NamespaceSignOff)); err == nil || !strings.Contains(err.Error(), "is revoked") {
		t.Errorf("a revoked key signs: %v", err)
	}
	x.sign("tried", "ann", release.Approve)
	x.sign("tried", "bob", release.Approve)
	x.must(release.Shipped{})
	b := x.bundle()
	if r := Verify(b, x.trust()); !r.Verified || len(r.SignOffs) != 3 {
		t.Errorf("%s", problems(r))
	}
	trust := x.trust()
	trust.Revoked = []byte(key)
	if r := Verify(b, trust); r.Verified || !strings.Contains(problems(r), "is revoked") {
		t.Errorf("whoever verifies takes the key back: %s", problems(r))
	}
	trust = x.trust()
	trust.Signers = []byte("# nobody is trusted\n")
	if r := Verify(b, trust); r.Verified || strings.Count(problems(r), "not among the allowed signers") != 5 {
		t.Errorf("whoever verifies trusts nobody: %s", problems(r))
	}
}

// A signature that was taken back and given again, by people who stand among the signers
// by their e-mail, after who may sign was changed: the bundle's own commands hold it.
func TestAmendedSigners(t *testing.T) {
	x := newStory(t, "4.2")
	x.allowed = strings.Replace(x.allowed, "ann namespaces", "ann@example.org namespaces", 1)
	x.gold()
	x.sign("tried", "ann", release.Approve)
	x.decide(release.Withdrawn{Item: "tried", Person: "ann"})
	x.sign("legal", "eve", release.Approve)
	// From here on eve is gone, and her key with her.
	rest := ""
	for line := range strings.Lines(x.allowed) {
		if !strings.HasPrefix(line, "eve ") {
			rest += line
		}
	}
	n := x.decide(release.Amended{What: []string{"signers"}, Signers: x.blob(rest), Revoked: x.blob(string(ssh.MarshalAuthorizedKey(x.people["eve"].PublicKey()))), Reason: "eve left", By: "bob"})
	x.decide(release.Agreed{Amendment: n, Person: "ann", Decision: release.Approve})
	x.sign("tried", "ann", release.Approve)
	x.sign("tried", "bob", release.Approve)
	x.must(release.Shipped{})
	b := x.bundle()
	r := Verify(b, x.trust())
	if !r.Verified || len(r.SignOffs) != 4 || len(r.Decisions) != 3 || r.Decisions[2].Key == "" || strings.Contains(strings.Join(r.Attention, "\n"), "without a signature") || !strings.Contains(strings.Join(r.Attention, "\n"), "who wrote the revision") {
		t.Errorf("%+v\n%s", r, problems(r))
	}
	dir := lay(t, b)
	ran := 0
	for line := range strings.Lines(string(b[readmeFile].Data)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "ssh-keygen -Y") {
			ran++
			if err := run(dir, []string{line}); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
	}
	if ran != 8 {
		t.Errorf("%d commands of ssh-keygen", ran)
	}
	// An event that is dated before a key ended, after later ones, is dated so for that.
	x = newStory(t, "4.2")
	x.allowed = strings.Replace(x.allowed, "eve namespaces", `eve valid-before="20261124090800Z",namespaces`, 1)
	x.gold()
	x.now = x.now.Add(time.Hour)
	x.sign("tried", "ann", release.Approve)
	x.now = time.Date(2026, 11, 24, 9, 5, 0, 0, time.UTC)
	if _, err := x.moment().Check(x.word("legal", "eve", release.Approve, NamespaceSignOff)); err == nil || !strings.Contains(err.Error(), "had expired") {
		t.Errorf("an expired key signs in the past: %v", err)
	}
}

// lay writes a bundle's files below a directory of the test's.
func lay(t *testing.T, b fstest.MapFS) string {
	t.Helper()
	dir := t.TempDir()
	for name, f := range b {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// run types commands in a directory, in a time zone that is not UTC.
func run(dir string, commands []string) error {
	cmd := exec.Command("sh", "-euc", strings.Join(commands, "\n"))
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "TZ=Asia/Kathmandu")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// The same by other people's tools: sha256sum and ssh-keygen, with the commands of the
// bundle's own README, on files that are as they were and on those that are not.
func TestOthersTools(t *testing.T) {
	for _, tool := range []string{"ssh-keygen", "sha256sum", "openssl", "python3"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("needs %s: make packages-test", tool)
		}
	}
	x := newStory(t, "4.2")
	x.ship()
	b := x.bundle()
	commands := func(tool string) (list []string) {
		for line := range strings.Lines(string(b[readmeFile].Data)) {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, tool) && strings.Contains(line, " -") {
				list = append(list, strings.ReplaceAll(line, "/tmp/", "/tmp/trysail-test-"))
			}
		}
		return list
	}
	sums, keygen, envelope := commands("sha256sum"), commands("ssh-keygen"), append(commands("python3"), commands("openssl")...)
	if len(sums) != 1 || len(keygen) != 4 || len(envelope) != 3 {
		t.Fatalf("%q %q %q", sums, keygen, envelope)
	}
	dir := lay(t, b)
	for _, list := range [][]string{sums, keygen, envelope} {
		if err := run(dir, list); err != nil {
			t.Errorf("%q: %v", list, err)
		}
	}
	change := func(name string) string {
		c := copied(b)
		c[name].Data[len(c[name].Data)/3] ^= 1
		return lay(t, c)
	}
	if err := run(change("artifacts/dist/app"), sums); err == nil {
		t.Error("sha256sum takes a changed artifact")
	}
	if err := run(change(sumsFile), keygen[:1]); err == nil {
		t.Error("ssh-keygen takes changed checksums")
	}
	for _, k := range keygen[1:] {
		name := k[strings.LastIndex(k, " ")+1:]
		if err := run(change(name), []string{k}); err == nil {
			t.Errorf("ssh-keygen takes a changed %s", name)
		}
	}
	if err := run(change(summaryLine), envelope); err == nil {
		t.Error("openssl takes a changed envelope")
	}
	// What each of the named defects is to ssh-keygen.
	ann := keygen[1]
	name := ann[strings.LastIndex(ann, " ")+1:]
	for what, f := range map[string]func(b fstest.MapFS){
		"expired key": func(b fstest.MapFS) {
			list := signersFile(x.s.Signers)
			b[list].Data = bytes.Replace(b[list].Data, []byte("ann namespaces"), []byte(`ann valid-before="20261123Z",namespaces`), 1)
		},
		"wrong namespace": func(b fstest.MapFS) {
			b[name+".sig"].Data = []byte(x.proof(b[name].Data, "ann", NamespaceBundle, "").Signature)
		},
		"another's key": func(b fstest.MapFS) {
			b[name+".sig"].Data = []byte(x.proof(b[name].Data, "bob", NamespaceSignOff, "").Signature)
		},
	} {
		c := copied(b)
		f(c)
		if err := run(lay(t, c), []string{ann}); err == nil {
			t.Errorf("ssh-keygen takes it: %s", what)
		}
	}
	c := copied(b)
	c["revoked"] = &fstest.MapFile{Data: ssh.MarshalAuthorizedKey(x.people["ann"].PublicKey())}
	if err := run(lay(t, c), []string{strings.Replace(ann, " -I ", " -r revoked -I ", 1)}); err == nil {
		t.Error("ssh-keygen takes a revoked key")
	}
}

func FuzzVerify(f *testing.F) {
	x := newStory(f, "4.2")
	x.ship()
	b := x.bundle()
	drilled(f, b)
	x.resum(b)
	names := slices.Sorted(maps.Keys(b))
	for i, name := range names {
		f.Add(i, b[name].Data)
	}
	f.Fuzz(func(t *testing.T, which int, data []byte) {
		if which < 0 {
			return
		}
		name := names[which%len(names)]
		if bytes.Equal(data, b[name].Data) {
			return
		}
		c := copied(b)
		c[name].Data = data
		if r := Verify(c, x.trust()); r.Verified {
			t.Errorf("another %s is taken", name)
		}
	})
}
