package cli

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hiddeco/sshsig"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/mod/sumdb/note"

	"trysail/evidence"
	"trysail/internal/api"
	"trysail/internal/tree"
	"trysail/release"
)

// signOptions say how a sign-off is signed.
type signOptions struct {
	key       string // fingerprint or comment of a key in the agent
	statement string // file to write, or that was signed
	signature string // file with the SSH signature; -: standard input
	yes       bool
	except    bool
}

func (o *signOptions) flags(c *cobra.Command, approves bool) {
	f := c.Flags()
	f.StringVar(&o.key, "key", "", "the key of the SSH agent to sign with: `FINGERPRINT` or comment (default: the one that is allowed)")
	f.StringVar(&o.statement, "statement", "", "write the whole statement to `FILE` (-: standard output), and stop; with --signature: what was signed")
	f.StringVar(&o.signature, "signature", "", "send the signature of --statement that ssh-keygen -Y sign made, from `FILE` (-: standard input)")
	f.BoolVar(&o.yes, "yes", false, "sign without asking")
	if approves {
		f.BoolVar(&o.except, "with-exception", false, "say yes, but for what --reason says")
	}
}

// lasts is for how long a statement is good that was signed and has not arrived.
const lasts = 24 * time.Hour

// releaseSign says a person's word: with an SSH key, where the release has signers.
func (a *app) releaseSign(ctx context.Context, version, item string, d release.Decision, o releaseOptions) error {
	if o.signing.except && d == release.Approve {
		d = release.ApproveExcept
	}
	_, s, err := a.statusOf(ctx, version)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(s.Asks, func(k api.Ask) bool { return k.Item == item && k.Type == "sign" })
	if i < 0 {
		return usage("nobody is asked to sign %s now: trysail release status %s", item, version)
	}
	return a.decide(ctx, version, a.signOff(item, d, s.Asks[i].Subject, o), o)
}

func (a *app) signOff(item string, d release.Decision, subject string, o releaseOptions) decision {
	return decision{
		path: "sign", command: verb(d), words: item, done: string(d), item: item, people: signersFor(item),
		event: func(who string) release.Personal {
			return release.Signed{Item: item, Person: who, Decision: d, Subject: subject, Reason: o.reason, Spent: o.spent}
		},
		body: func(b release.Personal) any { return api.DecideOf(b.(release.Signed)) },
		show: func(_ context.Context, _ *api.Client, s *release.State, b release.Personal) error {
			if s.Subject(s.Item(item)) != subject {
				return errors.New("control asks about other bytes than its ledger says: nothing is signed")
			}
			a.brief(s, b.(release.Signed))
			a.whereToLook(s, item)
			return nil
		},
	}
}

// decideSigned has a person look at a decision and sign it, here or by hand, and sends it.
func (a *app) decideSigned(ctx context.Context, version string, c *api.Client, l *api.Ledger, d decision, o releaseOptions) error {
	if o.signing.signature != "" {
		return a.sendSignature(ctx, version, d, o)
	}
	allowed, revoked, err := signersOf(ctx, c, l.State)
	if err != nil {
		return err
	}
	var signer ssh.Signer
	who := o.as
	if o.signing.statement == "" {
		var done func()
		if signer, who, done, err = pickKey(ctx, allowed, revoked, l.State, d, o); err != nil {
			return err
		}
		defer done()
	} else if who == "" {
		return usage("say whose statement it is: --as NAME")
	}
	b := d.event(who)
	nonce, err := newNonce()
	if err != nil {
		return err
	}
	text, err := evidence.Draft(l.State, b, evidence.SigningAt(a.clock.Now(), lasts, nonce, l.Note))
	if err != nil {
		return err
	}
	if o.signing.statement == "-" {
		a.print(string(text))
		return nil
	}
	if o.signing.statement == "" || !a.json {
		if err := d.show(ctx, c, l.State, b); err != nil {
			return err
		}
	}
	if o.signing.statement != "" {
		return a.writeStatement(version, who, d, text, o.signing.statement)
	}
	if err := a.showBeforeSigning(text, signer.PublicKey(), o.signing.yes); err != nil {
		return err
	}
	sig, err := sshsig.Sign(bytes.NewReader(text), signer, sshsig.HashSHA512, evidence.NamespaceSignOff)
	if err != nil {
		return fmt.Errorf("the SSH agent did not sign: %w", err)
	}
	b = b.Prove(&release.Proof{Statement: string(text), Signature: string(sshsig.Armor(sig)), Nonce: nonce})
	return a.tell(ctx, version, d.path, d.request(b), d.done, d.item)
}

// writeStatement writes what is to be signed by hand, and says how.
func (a *app) writeStatement(version, who string, d decision, text []byte, file string) error {
	if err := tree.WriteFile(file, text, 0o644); err != nil {
		return err
	}
	words := strings.Join(strings.Fields(d.name()+" "+version+" "+d.words), " ")
	next := []string{
		fmt.Sprintf("ssh-keygen -Y sign -n %s -f KEY %s", evidence.NamespaceSignOff, file),
		fmt.Sprintf("trysail release %s --as %s --statement %s --signature %s.sig", words, who, file, file),
	}
	if a.json {
		return a.printJSON(struct {
			Statement string   `json:"statement"`
			Digest    string   `json:"digest"`
			Next      []string `json:"next"`
		}{file, digest.FromBytes(text).String(), next})
	}
	a.printf("%s is the statement of %s. Read it, then type:\n  %s\n  %s\n", file, who, next[0], next[1])
	return nil
}

// brief says in five lines what is signed.
func (a *app) brief(s *release.State, b release.Signed) {
	a.ui.end()
	for _, line := range evidence.Brief(s, b) {
		fmt.Fprintln(a.stderr, plainLine(line))
	}
}

// whereToLook says how to get what a sign-off is about.
func (a *app) whereToLook(s *release.State, item string) {
	for _, need := range s.Item(item).Needs {
		if _, err := madeBy(s, need); err == nil {
			fmt.Fprintf(a.stderr, "It is about what %s made: trysail release fetch %s %s --into DIR\n", need, s.Started.Version, need)
		}
	}
}

func verb(d release.Decision) string {
	if d == release.Reject {
		return "reject"
	}
	return "sign"
}

func newNonce() (string, error) {
	b := make([]byte, 16)
	_, err := rand.Read(b)
	return hex.EncodeToString(b), err
}

// sendSignature sends what was signed by hand. What it says is what counts.
func (a *app) sendSignature(ctx context.Context, version string, d decision, o releaseOptions) error {
	file := o.signing.statement
	if file == "" {
		return usage("a signature is of a statement: --statement FILE")
	}
	text, err := tree.ReadFile(file, maxDocument)
	if err != nil {
		return err
	}
	signed, b, g, err := evidence.ReadStatement(text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	var sig []byte
	if o.signing.signature == "-" {
		sig, err = io.ReadAll(io.LimitReader(a.stdin, 64<<10))
	} else {
		sig, err = tree.ReadFile(o.signing.signature, maxDocument)
	}
	if err != nil {
		return err
	}
	sig = bytes.ReplaceAll(sig, []byte("\r\n"), []byte("\n")) // mail and editors of other systems write it so
	if asked := evidence.Title(d.event(b.Decider())); evidence.Title(b) != asked || signed != version {
		return usage("%s is a statement on the %s of release %s, and not on the %s of release %s", file, evidence.Title(b), signed, asked, version)
	}
	b = b.Prove(&release.Proof{Statement: string(text), Signature: string(sig), Nonce: g.Nonce})
	done := d.done
	if x, ok := b.(release.Signed); ok {
		done = string(x.Decision)
	}
	return a.tell(ctx, version, d.path, d.request(b), done, d.item)
}

// showBeforeSigning names the very bytes by their digest, shows them to a person who wants to see
// them, and asks.
func (a *app) showBeforeSigning(text []byte, key ssh.PublicKey, yes bool) error {
	a.ui.end()
	fmt.Fprintf(a.stderr, "The statement that says so is %s; it is signed with %s\n", digest.FromBytes(text), ssh.FingerprintSHA256(key))
	if yes {
		return nil
	}
	if f, ok := a.stdin.(*os.File); !ok || !isTerminal(f) {
		return usage("nothing was signed: standard input is no terminal; add --yes to sign without looking")
	}
	for in := bufio.NewReader(a.stdin); ; {
		fmt.Fprint(a.stderr, "Sign it? [y/N, s: show the statement] ")
		line, err := in.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "y", "yes":
			return nil
		case "s":
			fmt.Fprint(a.stderr, plainLines(string(text)))
		default:
			return errors.New("nothing was signed")
		}
	}
}

// pickKey finds the one key of the SSH agent that is allowed to sign a decision, and
// whose it is.
func pickKey(ctx context.Context, allowed evidence.Signers, revoked []ssh.PublicKey, s *release.State, d decision, o releaseOptions) (ssh.Signer, string, func(), error) {
	const remedy = "ssh-add KEY; or sign by hand: --statement FILE says how"
	socket := os.Getenv("SSH_AUTH_SOCK")
	if socket == "" {
		return nil, "", nil, usage("there is no SSH agent ($SSH_AUTH_SOCK is empty): start one and %s", remedy)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, "", nil, fmt.Errorf("the SSH agent at %s does not answer (%s): %w", socket, remedy, err)
	}
	done := func() { _ = conn.Close() } // nothing was written that could be lost
	ag := agent.NewClient(conn)
	keys, err := ag.List()
	if err != nil {
		done()
		return nil, "", nil, fmt.Errorf("the SSH agent: %w", err)
	}
	signers, err := ag.Signers()
	if err != nil {
		done()
		return nil, "", nil, fmt.Errorf("the SSH agent: %w", err)
	}
	type match struct {
		signer ssh.Signer
		person string
		print  string
	}
	var found []match
	for i, k := range keys {
		print := ssh.FingerprintSHA256(k)
		if i >= len(signers) || o.signing.key != "" && o.signing.key != print && o.signing.key != k.Comment {
			continue
		}
		if slices.ContainsFunc(revoked, func(r ssh.PublicKey) bool { return bytes.Equal(r.Marshal(), k.Marshal()) }) {
			continue
		}
		for _, person := range d.people(s) {
			if o.as != "" && o.as != person {
				continue
			}
			if slices.ContainsFunc(allowed, func(x evidence.Signer) bool {
				return bytes.Equal(x.Key.Marshal(), k.Marshal()) && (x.Namespaces == nil || slices.Contains(x.Namespaces, evidence.NamespaceSignOff)) &&
					slices.ContainsFunc(x.Principals, func(p string) bool { return p == person || p != "" && p == s.Person(person).Email })
			}) {
				found = append(found, match{signers[i], person, print})
			}
		}
	}
	switch len(found) {
	case 1:
		return found[0].signer, found[0].person, done, nil
	case 0:
		done()
		return nil, "", nil, usage("none of the %d key(s) in the SSH agent is allowed to sign this (trysail release %s): %s", len(keys), d.name(), remedy)
	}
	done()
	return nil, "", nil, usage("several keys of the SSH agent may sign this: say --key FINGERPRINT or --as NAME")
}

// readLedger reads a ledger whole, and remembers its checkpoint: a control that shows
// another history the next time is found out.
func (a *app) readLedger(ctx context.Context, c *api.Client, version string) (*api.Ledger, error) {
	l, err := api.ReadLedger(ctx, c, version, a.fingerprint)
	if err != nil {
		return nil, err
	}
	return l, a.remember(l, version)
}

// remember holds the ledger against the checkpoint that was seen last, and keeps this
// one instead.
func (a *app) remember(l *api.Ledger, version string) error {
	key, err := note.NewVerifier(l.Key)
	if err != nil {
		return err
	}
	file := filepath.Join(a.state, "checkpoints", key.Name(), version+".note")
	last, err := tree.ReadFile(file, maxDocument)
	if err == nil {
		was, err := evidence.ReadNote(last, key)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		root, err := l.Tree.Root(was.Size)
		if err != nil || root != was.Root || was.Stream != evidence.Stream(version) {
			return &evidence.Error{
				What:   fmt.Sprintf("the ledger of release %s is not what it was: %s holds a checkpoint of %d events that it does not follow", version, file, was.Size),
				Remedy: "sign nothing, and ask whoever runs control; trysail release checkpoint " + version + " --since " + file,
			}
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := tree.MakeDir(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return tree.WriteFile(file, []byte(l.Note), 0o600)
}

// signersOf are those in force.
func signersOf(ctx context.Context, c *api.Client, s *release.State) (evidence.Signers, []ssh.PublicKey, error) {
	data, err := readBlob(ctx, c, s.Signers)
	if err != nil {
		return nil, nil, err
	}
	allowed, err := evidence.ParseSigners("allowed_signers", data)
	if err != nil {
		return nil, nil, err
	}
	if s.Revoked == "" {
		return allowed, nil, nil
	}
	if data, err = readBlob(ctx, c, s.Revoked); err != nil {
		return nil, nil, err
	}
	revoked, err := evidence.ParseRevoked("revoked", data)
	return allowed, revoked, err
}

// maxSmall bounds what is read into memory of a depot, in bytes.
const maxSmall = 64 << 20

// readBlob gives a small blob of control's depot, checked.
func readBlob(ctx context.Context, c *api.Client, dg string) ([]byte, error) {
	return readBlobTo(ctx, c, dg, maxSmall)
}

// readBlobTo is readBlob for one of at most so many bytes.
func readBlobTo(ctx context.Context, c *api.Client, dg string, most int64) ([]byte, error) {
	r, err := c.GetBlob(ctx, dg)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, most+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(data)) > most:
		return nil, fmt.Errorf("%s has more than %d MB", dg, most>>20)
	case digest.FromBytes(data).String() != dg:
		return nil, fmt.Errorf("control gave other bytes than those of %s", dg)
	}
	return data, nil
}
