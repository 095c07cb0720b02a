package evidence

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"

	"trysail/release"
	"trysail/runbook"
)

const document = "---\nship: 2026-12-01T09:00:00Z\nsigners: allowed_signers\nroles:\n  host: {plain: true}\npeople:\n  ann: {name: Ann Example, email: ann@example.org}\n  bob: {}\n  eve: {}\n" +
	"groups:\n  qa: [ann, bob]\napprovers: [ann, bob]\n---\n" +
	"## Build\n\n```sh {\"name\":\"compile\",\"budget\":\"10m\",\"out\":\"obj/*\"}\nmake\n```\n\n" +
	"## Gold master\n\n```sh {\"name\":\"gold\",\"needs\":\"compile\",\"in\":\"obj/a\",\"budget\":\"20m\",\"out\":\"dist/*\",\"gold\":\"true\"}\nmake dist\n```\n\n" +
	"## Diligence\n\n- [ ] **tried** (2 of @qa, budget 2h, needs gold): it works\n- [ ] **legal** (@eve, budget 1h): licences\n"

// story is a release as control would have run it, with real keys.
type story struct {
	t       testing.TB
	s       *release.State
	lines   [][]byte
	tree    *Tree
	key     *ecdsa.PrivateKey
	log     note.Signer
	logKey  string
	people  map[string]ssh.Signer
	blobs   map[string][]byte
	allowed string
	now     time.Time
	version string
	rules   int
}

func newStory(t testing.TB, version string) *story {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	secret, public, err := note.GenerateKey(rand.Reader, "trysail.fleet.test")
	if err != nil {
		t.Fatal(err)
	}
	x := &story{t: t, s: release.Empty(), tree: &Tree{}, key: key, logKey: public, people: map[string]ssh.Signer{}, blobs: map[string][]byte{}, now: time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC), version: version, rules: release.RulesNow}
	if x.log, err = note.NewSigner(secret); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ann", "bob", "eve"} {
		_, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if x.people[name], err = ssh.NewSignerFromKey(k); err != nil {
			t.Fatal(err)
		}
		x.allowed += fmt.Sprintf("%s namespaces=%q %s", name, NamespaceSignOff, ssh.MarshalAuthorizedKey(x.people[name].PublicKey()))
	}
	return x
}

func (x *story) blob(data string) string {
	d := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(data)))
	x.blobs[d] = []byte(data)
	return d
}

func (x *story) must(b release.Body) int64 {
	x.t.Helper()
	x.now = x.now.Add(time.Minute)
	e := release.New(x.now, "test", b)
	e.Seq = x.s.Head + 1
	if err := x.s.Apply(e); err != nil {
		x.t.Fatalf("%T: %v", b, err)
	}
	line, err := json.Marshal(e)
	if err == nil {
		err = x.tree.Add(line)
	}
	if err != nil {
		x.t.Fatal(err)
	}
	x.lines = append(x.lines, line)
	return e.Seq
}

func (x *story) checkpoint() string {
	x.t.Helper()
	n := x.tree.Size()
	root, err := x.tree.Root(n)
	if err != nil {
		x.t.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: Checkpoint{Stream(x.version), n, root}.Text()}, x.log)
	if err != nil {
		x.t.Fatal(err)
	}
	return string(signed)
}

func (x *story) begin() {
	x.t.Helper()
	x.must(x.started())
}

// started is the start of the story's release, which a test may change.
func (x *story) started() release.Started {
	x.t.Helper()
	r, err := runbook.Parse("RELEASE.md", []byte(document), time.LoadLocation)
	if err != nil {
		x.t.Fatal(err)
	}
	return release.Started{
		Version: x.version, Runbook: x.blob(document), Items: r.Items, Approver: r.Approvers, Ship: r.Ship, Team: r.Team.Hours(), People: release.People(r), Rules: x.rules,
		Source:   release.Source{VCS: "git", URL: "https://example.org/app.git", Revision: strings.Repeat("ab", 20), Original: x.blob("source")},
		Machines: []release.Machine{{Role: "host"}}, Signers: x.blob(x.allowed),
	}
}

func (x *story) run(item, machine, path, data string) {
	x.t.Helper()
	epoch := x.must(release.Granted{Item: item, Machine: machine})
	r := release.Report{Machine: machine}
	r.Item, r.Epoch, r.Log = item, epoch, x.blob("log of "+item)
	r.Outputs = []release.Artifact{{Path: path, Digest: x.blob(data), Size: int64(len(data)), Mode: "0644"}}
	body := x.s.Result(r)
	x.must(body)
}

func (x *story) gold() {
	x.t.Helper()
	x.begin()
	x.run("compile", "a", "obj/a", "object")
	x.run("gold", "a", "dist/app", "the program")
	epoch := x.must(release.Granted{Item: "gold", Machine: "b", Confirm: true})
	x.must(release.Confirmed{Epoch: epoch, Verdict: release.Identical, Log: x.blob("second log")})
}

// word drafts and signs, and gives what a person sends.
func (x *story) word(item, person string, d release.Decision, namespace string) release.Signed {
	x.t.Helper()
	b := release.Signed{Item: item, Person: person, Decision: d, Subject: x.s.Subject(x.s.Item(item)), Spent: 90 * time.Minute}
	if d != release.Approve {
		b.Reason = "it < works & how"
	}
	return x.draft(b, namespace).(release.Signed)
}

// draft drafts what a person decides, and has them sign it.
func (x *story) draft(b release.Personal, namespace string) release.Personal {
	x.t.Helper()
	g := SigningAt(x.now, time.Hour, fmt.Sprintf("nonce-%s-%d-%032d", b.Decider(), x.s.Head, 0), x.checkpoint())
	text, err := Draft(x.s, b, g)
	if err != nil {
		x.t.Fatal(err)
	}
	return b.Prove(x.proof(text, b.Decider(), namespace, g.Nonce))
}

func (x *story) proof(text []byte, by, namespace, nonce string) *release.Proof {
	x.t.Helper()
	sig, err := sshsig.Sign(bytes.NewReader(text), x.people[by], sshsig.HashSHA512, namespace)
	if err != nil {
		x.t.Fatal(err)
	}
	p := &release.Proof{Statement: string(text), Signature: string(sshsig.Armor(sig)), Nonce: nonce}
	if x.s.Started.Rules >= 3 {
		p.Key = ssh.FingerprintSHA256(x.people[by].PublicKey())
	}
	return p
}

// decide has a person decide, with a signature where the rules want one.
func (x *story) decide(b release.Personal) int64 {
	x.t.Helper()
	if x.s.Started.Rules >= 4 && x.s.Signers != "" {
		b = x.draft(b, NamespaceSignOff)
		if _, err := x.moment().Check(b); err != nil {
			x.t.Fatal(err)
		}
	}
	return x.must(b)
}

// moment is now.
func (x *story) moment() *Moment {
	x.t.Helper()
	allowed, err := ParseSigners("allowed_signers", x.blobs[x.s.Signers])
	if err != nil {
		x.t.Fatal(err)
	}
	revoked, err := ParseRevoked("revoked", x.blobs[x.s.Revoked])
	if err != nil {
		x.t.Fatal(err)
	}
	key, err := note.NewVerifier(x.logKey)
	if err != nil {
		x.t.Fatal(err)
	}
	return &Moment{State: x.s, At: x.now.Add(time.Minute), Signers: allowed, Revoked: revoked, Stream: Stream(x.version), Log: key, Root: x.tree.Root}
}

func (x *story) sign(item, person string, d release.Decision) {
	x.t.Helper()
	b := x.word(item, person, d, NamespaceSignOff)
	if _, err := x.moment().Check(b); err != nil {
		x.t.Fatal(err)
	}
	x.must(b)
}

func (x *story) ship() {
	x.t.Helper()
	x.gold()
	x.sign("tried", "ann", release.Approve)
	x.sign("tried", "bob", release.ApproveExcept)
	x.sign("legal", "eve", release.Approve)
	x.must(release.Shipped{})
}

func (x *story) signs(message []byte) ([]byte, error) {
	sum := sha256.Sum256(message)
	return ecdsa.SignASN1(rand.Reader, x.key, sum[:])
}

func (x *story) bundle() fstest.MapFS {
	x.t.Helper()
	b, err := Assemble(x.material())
	if err != nil {
		x.t.Fatal(err)
	}
	files := fstest.MapFS{}
	for name, data := range b.Files {
		files[name] = &fstest.MapFile{Data: data, Mode: 0o644}
	}
	for name, a := range b.Artifacts {
		files[name] = &fstest.MapFile{Data: x.blobs[a.Digest], Mode: 0o644}
	}
	return files
}

func (x *story) material() Material {
	x.t.Helper()
	return Material{
		Lines: x.lines, Checkpoint: []byte(x.checkpoint()), LogKey: x.logKey, Key: &x.key.PublicKey, Sign: x.signs,
		Blobs: func(d string) ([]byte, error) {
			if data, ok := x.blobs[d]; ok {
				return data, nil
			}
			return nil, fmt.Errorf("no blob %s", d)
		},
		Files: map[string][]byte{"drill/two-servers-lost/report.md": []byte("# Passed\n")},
	}
}

func (x *story) trust() Trust { return Trust{Key: &x.key.PublicKey, LogKey: x.logKey} }
