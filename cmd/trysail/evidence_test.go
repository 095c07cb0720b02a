package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"trysail/evidence"
	"trysail/release"
)

// signers are people with keys of their own: ann's is in an SSH agent, bob signs by
// hand.
type signers struct {
	w   *world
	dir string
	env []string // with the agent
}

func newSigners(w *world) *signers {
	w.t.Helper()
	s := &signers{w: w, dir: w.t.TempDir()}
	w.sh("cd " + s.dir + "; ssh-keygen -q -t ed25519 -N '' -C ann -f ann; ssh-keygen -q -t rsa -b 3072 -N '' -C bob -f bob; ssh-keygen -q -t ed25519 -N '' -C eve -f eve; ssh-keygen -q -t ed25519 -N '' -C dan -f dan; " +
		"for p in ann bob dan; do echo \"$p namespaces=\\\"" + evidence.NamespaceSignOff + "\\\" $(cat $p.pub)\"; done > allowed; printf 'a long enough passphrase\\n' > word")
	socket := filepath.Join(s.dir, "agent")
	agent := exec.Command("ssh-agent", "-D", "-a", socket)
	if err := agent.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = agent.Process.Kill() // it may have ended
		_ = agent.Wait()
	})
	w.until("the SSH agent listens", func() bool { _, err := os.Stat(socket); return err == nil })
	s.env = []string{"SSH_AUTH_SOCK=" + socket}
	w.sh("SSH_AUTH_SOCK=" + socket + " ssh-add -q " + s.dir + "/ann " + s.dir + "/eve " + s.dir + "/dan")
	return s
}

// authority is a time stamping authority on control's loopback: openssl's own.
func (s *signers) authority() string {
	s.w.t.Helper()
	const answer = `
import http.server, subprocess, tempfile, sys
class H(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        q = tempfile.NamedTemporaryFile()
        q.write(self.rfile.read(int(self.headers["Content-Length"]))); q.flush()
        r = subprocess.run(["openssl", "ts", "-reply", "-config", "tsa.cnf", "-queryfile", q.name], capture_output=True, check=True).stdout
        self.send_response(200); self.send_header("Content-Type", "application/timestamp-reply"); self.send_header("Content-Length", str(len(r))); self.end_headers()
        self.wfile.write(r)
    def log_message(self, *a): pass
http.server.HTTPServer(("127.0.0.1", 3161), H).serve_forever()
`
	config := "[tsa]\ndefault_tsa = t\n[t]\nserial = " + s.file("serial") + "\nsigner_cert = " + s.file("tsa.pem") + "\nsigner_key = " + s.file("tsa.key") +
		"\nsigner_digest = sha256\ndefault_policy = 1.2.3.4\ndigests = sha256\naccuracy = secs:1\ness_cert_id_alg = sha256\ncerts = " + s.file("tsa.pem") + "\n"
	for name, text := range map[string]string{"tsa.py": answer, "tsa.cnf": config, "serial": "01\n"} {
		if err := os.WriteFile(s.file(name), []byte(text), 0o644); err != nil {
			s.w.t.Fatal(err)
		}
	}
	s.w.sh("cd " + s.dir + "; openssl req -x509 -newkey rsa:2048 -nodes -keyout tsa.key -out tsa.pem -days 30 -subj /CN=tsa -addext extendedKeyUsage=critical,timeStamping 2>&1")
	server := exec.Command("nsenter", "--net=/run/netns/"+s.w.tag+"-control", "python3", "tsa.py")
	server.Dir = s.dir
	if err := server.Start(); err != nil {
		s.w.t.Fatal(err)
	}
	s.w.t.Cleanup(func() {
		_ = server.Process.Kill() // it has no end of its own
		_ = server.Wait()
	})
	s.w.until("the authority listens", func() bool {
		return exec.Command("nsenter", "--net=/run/netns/"+s.w.tag+"-control", "bash", "-c", "echo > /dev/tcp/127.0.0.1/3161").Run() == nil
	})
	return "http://127.0.0.1:3161/"
}

// keeps has control keep checkpoints in version control by itself, set up as its
// documentation says; it gives a clone of somebody else's.
func (s *signers) keeps(authority string) string {
	s.w.t.Helper()
	setUp, command, ok := strings.Cut(blocks(s.w.t, "docs/evidence.md", "sh copy")[0], "trysail serve ")
	if !ok {
		s.w.t.Fatal("docs/evidence.md starts no control")
	}
	s.w.sh("git init -q --bare --initial-branch=main " + s.file("bare") + "; git -C " + s.w.app + " push -q " + s.file("bare") + " HEAD:main")
	s.w.sh("cd " + s.dir + "; REPOSITORY=" + s.file("bare") + "\n" + setUp)
	c := s.w.hosts["control"]
	c.kill()
	args := append([]string{"serve", "--listen", s.w.control, "--stamp", authority}, strings.Fields(command)...)
	args[len(args)-1] = s.file(args[len(args)-1])
	c.start(args...)
	s.w.until("control answers, and the machines are back", func() bool {
		_, err := s.w.run("fleet")
		return err == nil && s.w.up("a") && s.w.up("b") && s.w.up("c")
	})
	s.w.sh("git clone -q " + s.file("bare") + " " + s.file("theirs"))
	return s.file("theirs")
}

// token is a key on a SoftHSM token, by its reference.
func (s *signers) token() string {
	s.w.t.Helper()
	const module = "/usr/lib/softhsm/libsofthsm2.so"
	if err := os.WriteFile(s.file("softhsm2.conf"), []byte("directories.tokendir = "+s.file("tokens")+"\nobjectstore.backend = file\n"), 0o600); err != nil {
		s.w.t.Fatal(err)
	}
	conf := "SOFTHSM2_CONF=" + s.file("softhsm2.conf")
	s.env = append(s.env, conf)
	s.w.env = s.env
	s.w.sh("cd " + s.dir + "; mkdir tokens; (umask 077; echo 246810 > pin); export " + conf + "; softhsm2-util --init-token --free --label rel --pin 246810 --so-pin 12345678 > /dev/null; " +
		"pkcs11-tool --module " + module + " --token-label rel --login --pin 246810 --keypairgen --key-type EC:prime256v1 --label release --id 01 > /dev/null 2>&1")
	return "pkcs11:token=rel;object=release?module-path=" + module
}

func (s *signers) file(name string) string { return filepath.Join(s.dir, name) }

// evidenceRelease is a runbook whose sign-offs are signed.
func evidenceRelease(dir string) string {
	r := strings.Replace(plainRelease(dir), "people:\n  ann: {}\n  bob: {}\n", "people:\n  ann: {name: Ann Example}\n  bob: {}\n  dan: {email: T@example.org}\ngroups:\n  qa: [ann, bob, dan]\nsigners: trysail/allowed_signers\n", 1)
	return strings.Replace(r, "(@ann, budget 1h, needs gold): installed and tried\n", "(@qa, budget 1h, needs gold): installed and tried\n- [ ] **legal** (@bob, budget 1h, needs gold): licences\n", 1)
}

// A release that loses a machine ends in a bundle that others verify: with the tools
// that everybody has, by the commands that stand in it.
func TestFleetEvidence(t *testing.T) {
	w, a := evidenceWorld(t)
	s := newSigners(w)
	w.write("app/trysail/allowed_signers", w.sh("cat "+s.file("allowed")))
	w.sh("cd " + w.app + "; git add -A; git -c user.name=t -c user.email=t@example.org commit -qm signers")
	authority := s.authority()
	theirs := s.keeps(authority)
	w.begin()
	w.until("gold begins on a", func() bool { return w.item("gold").Machine == "a" && len(w.began()) == 1 })
	a.kill()
	w.movesTo("b", 2)
	w.letGo()
	w.until("gold is confirmed", func() bool { return w.item("gold").Status == release.Complete })

	w.refused("there is no SSH agent", "release", "sign", "4.2", "tried", "--as", "ann", "--yes")
	w.env = s.env
	w.refused("none of the 3 key(s)", "release", "sign", "4.2", "legal", "--yes")
	w.refused("several keys", "release", "sign", "4.2", "tried", "--yes")
	w.refused("nothing was signed", "release", "sign", "4.2", "tried", "--key", "ann")
	w.refused("dan wrote what is released", "release", "sign", "4.2", "tried", "--as", "dan", "--yes")
	w.trysail("release", "sign", "4.2", "tried", "--key", "ann", "--yes", "--spent", "30m")

	// By hand, as with any other tool of the team.
	statement := s.file("legal.json")
	if said := w.trysail("release", "sign", "4.2", "legal", "--as", "bob", "--with-exception", "--reason", "one licence is to come", "--statement", statement); !strings.Contains(said, "ssh-keygen -Y sign -n "+evidence.NamespaceSignOff) {
		t.Errorf("what to type: %s", said)
	}
	sign := func(key, namespace string) {
		t.Helper()
		w.sh("cd " + s.dir + "; rm -f legal.json.sig; ssh-keygen -q -Y sign -n " + namespace + " -f " + key + " legal.json 2>&1")
	}
	send := []string{"release", "sign", "4.2", "legal", "--statement", statement, "--signature", statement + ".sig"}
	sign("eve", evidence.NamespaceSignOff)
	w.refused("is not among the allowed signers", send...)
	sign("ann", evidence.NamespaceSignOff)
	w.refused("is that of ann", send...)
	sign("bob", evidence.NamespaceBundle)
	w.refused("and not for", send...)
	sign("bob", evidence.NamespaceSignOff)
	w.sh("sed -i 's/one licence/no licence/' " + statement)
	w.refused("not of these bytes", send...)
	w.sh("sed -i 's/no licence/one licence/' " + statement)
	w.trysail(send...)
	w.until("it is published", func() bool { return w.item("upload").Status == release.Complete })

	// A checkpoint is kept where nobody who holds control's keys can rewrite it.
	if w.trysail("release", "checkpoint", "4.2", "--commit"); !strings.Contains(w.sh("cd "+w.app+"; git log -1 --stat"), "trysail/checkpoints/4.2.note") {
		t.Error("no checkpoint is in version control")
	}

	key := s.file("release.age")
	pem := w.trysail("key", "new", key, "--passphrase-file", s.file("word"))
	w.write("release.pub", pem)
	bundle := filepath.Join(w.dir, "bundle")
	w.refused("say where the evidence goes", "release", "ship", "4.2", "--key", key)
	w.refused("is there already", "release", "ship", "4.2", "--bundle", s.dir, "--key", key, "--passphrase-file", s.file("word"))
	w.refused("passphrase", "release", "ship", "4.2", "--bundle", bundle, "--key", key, "--passphrase-file", key)
	w.trysail("release", "ship", "4.2", "--bundle", bundle, "--key", key, "--passphrase-file", s.file("word"), "--stamp", authority)
	w.trysail("release", "checkpoint", "4.2", "--commit", "--into", s.file("last.note"), "--stamp", authority)
	w.refused("is there already", "release", "bundle", "4.2", "--into", bundle, "--key", key, "--passphrase-file", s.file("word"))

	// Alone and offline, with keys from elsewhere: no network, no state, nobody to ask.
	verify := func(more ...string) (*evidence.Report, error) {
		t.Helper()
		args := append([]string{
			"--net", w.bin, "--json", "--state", t.TempDir(), "verify", bundle, "--release-key", filepath.Join(w.dir, "release.pub"), "--ledger-key", strings.TrimSpace(w.trysail("release", "checkpoint", "4.2", "--key")),
			"--checkpoint", filepath.Join(w.app, "trysail/checkpoints/4.2.note"), "--stamp-roots", s.file("tsa.pem"),
		}, more...)
		out, err := exec.Command("unshare", args...).Output()
		r := &evidence.Report{}
		if jerr := json.Unmarshal(out, r); jerr != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return r, err
	}
	r, err := verify()
	if err != nil || !r.Verified || r.Stamped == "" || len(r.SignOffs) != 2 || r.SignOffs[0].Key == "" || r.SignOffs[1].Decision != "approve-with-exception" {
		t.Errorf("%v: %+v", err, r)
	}
	// What control committed and had stamped by itself, as somebody has it who fetches it.
	w.until("control has committed how it ended", func() bool {
		notes, err := evidence.SplitNotes([]byte(w.sh("git -C " + theirs + " pull -q; cat " + theirs + "/trysail/checkpoints/4.2.note")))
		if err != nil || len(notes) < 3 { // some may have come together
			return false
		}
		last, err := evidence.ReadNote(notes[len(notes)-1], nil)
		return err == nil && last.Size == int64(r.Events) && exec.Command("git", "-C", theirs, "cat-file", "-e", "HEAD:trysail/checkpoints/4.2.note.tsr").Run() == nil
	})
	w.sh("cd " + theirs + "/trysail/checkpoints; openssl ts -verify -token_in -in 4.2.note.tsr -data 4.2.note -CAfile " + s.file("tsa.pem") + " 2>&1")
	if r, err := verify("--checkpoint", theirs+"/trysail/checkpoints/4.2.note"); err != nil || r.Checkpoints < 5 || len(r.KeptStamped) != 2 {
		t.Errorf("%v: %+v", err, r)
	}
	// A stamp that is older than the last checkpoint is no fault of the bundle, and said.
	kept := w.sh("cat " + theirs + "/trysail/checkpoints/4.2.note")
	notes, err := evidence.SplitNotes([]byte(kept))
	if err != nil {
		t.Fatal(err)
	}
	w.write("old.note", string(notes[0]))
	w.sh("cp " + theirs + "/trysail/checkpoints/4.2.note.tsr " + filepath.Join(w.dir, "old.note.tsr"))
	if r, err := verify("--checkpoint", filepath.Join(w.dir, "old.note")); err != nil || !r.Verified || !strings.Contains(strings.Join(r.Attention, " "), "was changed after it was time-stamped") {
		t.Errorf("an old stamp: %v: %+v", err, r)
	}
	// The release key in an SSH agent, and on a token.
	w.sh("cd " + s.dir + "; ssh-keygen -q -t ecdsa -b 256 -N '' -C release -f agent-key; " + s.env[0] + " ssh-add -q agent-key")
	for where, ref := range map[string]string{"agent": "agent:release", "token": s.token()} {
		other := bundle + "-" + where
		w.trysail("release", "bundle", "4.2", "--into", other, "--key", ref, "--passphrase-file", s.file("pin"))
		out, err := exec.Command(w.bin, "--state", t.TempDir(), "verify", other).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "Release 4.2 verifies") || !strings.Contains(string(out), "came with the bundle: compare") {
			t.Errorf("signed by a key in %s: %v\n%s", where, err, out)
		}
	}
	// What ran plainly on a host is nothing that could be made again, and says so.
	if out, err := exec.Command(w.bin, "--state", t.TempDir(), "--json", "reprove", bundle, "--trust", r.Key).CombinedOutput(); err == nil || !strings.Contains(string(out), "ran plainly on a host") {
		t.Errorf("reprove: %v\n%s", err, out)
	}
	s.othersVerify(bundle)
	for what, do := range map[string]string{
		"a symbolic link": "ln -s /etc/passwd attest/link", "symbolic link": "rm runbook.md; ln -s /etc/passwd runbook.md",
		"and not listed": "echo x > extra", "is not the file of which": "echo x >> attest/summary.dsse.json", "leads out of the bundle": "sed -i '1s,  .*,  ../../etc/passwd,' SHA256SUMS",
		"is not there": "rm signoffs/*.sig", "is a pipe": "rm ledger/checkpoint.note.tsr; mkfifo ledger/checkpoint.note.tsr",
	} {
		w.sh("rm -rf " + bundle + ".good; cp -a " + bundle + " " + bundle + ".good; cd " + bundle + "; " + do)
		if r, err := verify(); err == nil || r.Verified || !strings.Contains(string(mustJSON(t, r)), what) {
			t.Errorf("%s: %v: %+v", do, err, r)
		}
		w.sh("rm -rf " + bundle + "; mv " + bundle + ".good " + bundle)
	}
	if r, err := verify(); err != nil || !r.Verified {
		t.Errorf("as it was: %v: %+v", err, r)
	}
}

// others are the tools that everybody has, and those that verify such things only.
func (s *signers) others() (everybody, verifiers []string, path string) {
	s.w.t.Helper()
	everybody = []string{"sha256sum", "ssh-keygen", "python3", "openssl"}
	path = os.Getenv("TRYSAIL_CLIENTS")
	if path == "" {
		if os.Getenv("TRYSAIL_TESTS") == "all" {
			s.w.t.Fatal("needs cosign, slsa-verifier and npm's sigstore: scripts/clients bin/clients, and TRYSAIL_CLIENTS=$PWD/bin/clients/bin")
		}
		return everybody, nil, ""
	}
	return everybody, []string{"cosign", "slsa-verifier", "sigstore-verify"}, path
}

// othersVerify types the commands that stand in a bundle, and each of them for a bundle
// in which what that tool reads was changed.
func (s *signers) othersVerify(bundle string) {
	s.w.t.Helper()
	everybody, verifiers, path := s.others()
	readme := s.w.sh("cat " + bundle + "/README.txt")
	run := func(tool string) (ran int, err error) {
		lines := strings.Split(readme, "\n")
		if tool == "sigstore-verify" { // a library: a program of a few lines around it
			lines = []string{tool + " attest/provenance.sigstore.json trust/release.pub", tool + " attest/summary.sigstore.json trust/release.pub"}
		}
		for _, line := range lines {
			if line = strings.TrimSpace(line); !strings.HasPrefix(line, tool+" ") || !strings.Contains(line, " -") && len(lines) > 2 {
				continue
			}
			ran++
			cmd := exec.Command("unshare", "--net", "bash", "-c", strings.NewReplacer("/tmp/", s.dir+"/", "AUTHORITY.pem", s.file("tsa.pem")).Replace(line))
			cmd.Dir = bundle
			cmd.Env = append(os.Environ(), "PATH="+path+":"+os.Getenv("PATH"), "TUF_ROOT="+s.file("tuf"), "HOME="+s.dir)
			if out, cerr := cmd.CombinedOutput(); cerr != nil {
				err = fmt.Errorf("%s: %w\n%s", line, cerr, out)
			}
		}
		return ran, err
	}
	tools := append(everybody, verifiers...)
	for _, tool := range tools {
		if ran, err := run(tool); ran == 0 || err != nil {
			s.w.t.Errorf("%s, of which %d command(s) stand in the README: %v", tool, ran, err)
		}
	}
	for file, refuse := range map[string][]string{
		"artifacts/dist/app.gz": {"sha256sum", "cosign"}, "attest/provenance.sigstore.json": {"sha256sum", "cosign", "sigstore-verify"},
		"attest/summary.sigstore.json": {"sha256sum", "sigstore-verify"}, "attest/summary.dsse.json": {"sha256sum", "slsa-verifier", "openssl"},
		"SHA256SUMS": {"ssh-keygen"}, "ledger/checkpoint.note": {"sha256sum", "openssl"},
	} {
		data, err := os.ReadFile(filepath.Join(bundle, file))
		if err != nil {
			s.w.t.Fatal(err)
		}
		put := func(data []byte) {
			if err := os.WriteFile(filepath.Join(bundle, file), data, 0o644); err != nil {
				s.w.t.Fatal(err)
			}
		}
		changed := bytes.Clone(data)
		changed[len(changed)/2] ^= 1
		put(changed)
		for _, tool := range refuse {
			if !slices.Contains(tools, tool) {
				continue
			}
			var err error
			if tool == "openssl" { // it reads what python3 takes out of the envelope
				_, err = run("python3")
			}
			if err == nil {
				_, err = run(tool)
			}
			if err == nil {
				s.w.t.Errorf("%s takes a changed %s", tool, file)
			}
		}
		put(data)
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// evidenceWorld has three machines, and a runbook whose sign-offs are signed.
func evidenceWorld(t *testing.T) (*world, *host) {
	w := markedWorld(t, evidenceRelease)
	a := w.agent("a", 11, "--plain")
	w.agent("b", 12, "--plain", "--rank", "backup")
	w.agent("c", 13, "--plain", "--rank", "spare")
	return w, a
}
