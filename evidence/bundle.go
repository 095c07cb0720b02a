package evidence

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"trysail/release"
)

// The files of a bundle.
const (
	sumsFile       = "SHA256SUMS"
	sumsSignature  = "SHA256SUMS.sig"
	readmeFile     = "README.txt"
	runbookFile    = "runbook.md"
	runbooksDir    = "runbooks" // each that was in force before, by digest
	eventsFile     = "ledger/events.jsonl"
	checkpointFile = "ledger/checkpoint.note"
	logKeyFile     = "ledger/key.txt"
	goldFile       = "ledger/gold.jsonl" // the files that ship, one a line, where they are many
	// CheckpointFile is what a time stamp (RFC 3161) in StampFile is of.
	CheckpointFile = checkpointFile
	StampFile      = "ledger/checkpoint.note.tsr"
	provenanceFile = "attest/provenance.sigstore.json"
	summaryFile    = "attest/summary.sigstore.json"
	summaryLine    = "attest/summary.dsse.json"
	releaseKeyFile = "trust/release.pub"
	releaseSigners = "trust/release_signers"
	allowedFile    = "trust/allowed_signers"
	revokedFile    = "trust/revoked"
	signersDir     = "trust/signers" // each that was in force, by digest
	signOffDir     = "signoffs"
	artifactDir    = "artifacts"
	blueprintDir   = "blueprint"
	sbomDir        = "sbom"
	shippedFile    = "sbom/shipped.cdx.json"
	drillDir       = "drill"
	// ReleasePrincipal is whom the release key's SSH signature is by.
	ReleasePrincipal = "release"
)

// Material is what a bundle is made of.
type Material struct {
	Lines      [][]byte // of the ledger, as they are
	Checkpoint []byte   // the signed note over all of them
	// Pending is the line by which the release would ship, before anybody appended it. It
	// follows Lines, and Checkpoint does not speak of it yet.
	Pending []byte
	LogKey  string // its verifier
	// Blobs gives what the ledger names by digest: the runbook, signers.
	Blobs func(digest string) ([]byte, error)
	// Files are those of blueprint/ROLE/, sbom/, drill/ and of whoever has more to say,
	// by name.
	Files map[string][]byte
	Key   *ecdsa.PublicKey
	Sign  Sign
}

// Bundle is what is to be written.
type Bundle struct {
	Version   string
	Files     map[string][]byte
	Artifacts map[string]release.Artifact // by name in the bundle; their bytes are elsewhere
}

// Stream names a release's ledger.
func Stream(version string) string { return "release." + version }

// parseLines reads the ledger's lines.
func parseLines(lines [][]byte) ([]release.Event, error) {
	var list []release.Event
	for i, line := range lines {
		var e release.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("event %d: %w", i+1, err)
		}
		list = append(list, e)
	}
	return list, nil
}

// Assemble makes a bundle of a release that shipped.
func Assemble(m Material) (*Bundle, error) {
	verifier, err := note.NewVerifier(m.LogKey)
	if err != nil {
		return nil, fmt.Errorf("the ledger's key: %w", err)
	}
	all := m.Lines
	if m.Pending != nil {
		all = append(slices.Clone(all), m.Pending)
	}
	events, err := parseLines(all)
	if err != nil {
		return nil, err
	}
	var list []byte
	h, err := newHistory(events, verifier.Name(), func(digest string) (_ io.ReadCloser, err error) {
		list, err = m.Blobs(digest)
		return io.NopCloser(bytes.NewReader(list)), err
	})
	if err != nil {
		return nil, err
	}
	version := h.state.Started.Version
	tree := &Tree{}
	for _, line := range all {
		if err := tree.Add(line); err != nil {
			return nil, err
		}
	}
	if err := matches(m.Checkpoint, verifier, version, tree, int64(len(m.Lines))); err != nil {
		return nil, err
	}
	b := &Bundle{Version: version, Files: map[string][]byte{}, Artifacts: map[string]release.Artifact{}}
	for name, data := range m.Files {
		if !FileName(name) {
			return nil, fmt.Errorf("%q is no name of a file in a bundle", name)
		}
		b.Files[name] = data
	}
	for _, a := range h.gold() {
		b.Artifacts[path.Join(artifactDir, a.Path)] = a
	}
	if list != nil {
		b.Files[goldFile] = list
	}
	if b.Files[runbookFile], err = m.Blobs(h.state.Runbook); err != nil {
		return nil, fmt.Errorf("the runbook: %w", err)
	}
	for _, d := range h.runbooks {
		if d == h.state.Runbook {
			continue
		}
		if b.Files[runbooksFile(d)], err = m.Blobs(d); err != nil {
			return nil, fmt.Errorf("an earlier runbook: %w", err)
		}
	}
	b.Files[eventsFile] = append(bytes.Join(all, []byte("\n")), '\n')
	b.Files[checkpointFile], b.Files[logKeyFile] = m.Checkpoint, []byte(m.LogKey+"\n")
	if err := b.signOffs(h, tree); err != nil {
		return nil, err
	}
	if err := b.trust(h, m); err != nil {
		return nil, err
	}
	if err := b.attest(h, m); err != nil {
		return nil, err
	}
	if b.Files[readmeFile], err = readme(h, b, m.Key); err != nil {
		return nil, err
	}
	sums := map[string]string{}
	for name, a := range b.Artifacts {
		if _, twice := b.Files[name]; twice || !FileName(name) {
			return nil, fmt.Errorf("the artifact %q has no place in a bundle", a.Path)
		}
		sums[name] = strings.TrimPrefix(a.Digest, sha256Algorithm+":")
	}
	for name, data := range b.Files {
		sums[name] = sum(data)
	}
	b.Files[sumsFile] = writeSums(sums)
	b.Files[sumsSignature], err = sshSign(b.Files[sumsFile], NamespaceBundle, m.Key, m.Sign)
	return b, err
}

// Rehearse makes the bundle of a release that is about to ship, by [Material.Pending], and
// says what of it would not verify. It asks for no artifact: the caller who has them sees whether
// they are there.
func Rehearse(m Material) (*Report, error) {
	b, err := Assemble(m)
	if err != nil {
		return nil, err
	}
	c := newCheck(Trust{Key: m.Key, LogKey: m.LogKey, Pending: m.Pending != nil}, func(name string) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b.Files[name])), nil
	})
	for name, data := range b.Files {
		c.sums[name], c.sizes[name] = sum(data), int64(len(data))
	}
	for name, a := range b.Artifacts {
		c.sums[name], c.sizes[name] = strings.TrimPrefix(a.Digest, sha256Algorithm+":"), a.Size
	}
	return c.all(), nil
}

// matches holds a checkpoint against the ledger, of whose first n events it has to speak.
func matches(signed []byte, key note.Verifier, version string, tree *Tree, n int64) error {
	c, err := ReadNote(signed, key)
	if err != nil {
		return fmt.Errorf("the ledger's checkpoint: %w", err)
	}
	root, err := tree.Root(n)
	switch {
	case err != nil:
		return err
	case c.Stream != Stream(version):
		return fmt.Errorf("the checkpoint belongs to the ledger of %s, and this is the ledger of %s", c.Stream, Stream(version))
	case c.Size != n:
		return fmt.Errorf("the checkpoint covers %d events, and the ledger has %d", c.Size, n)
	case c.Root != root:
		return fmt.Errorf("the ledger is not the one of which the checkpoint speaks")
	}
	return nil
}

// inclusion proves that a line is among those of the checkpoint.
type inclusion struct {
	Event  int64       `json:"event"` // from 1
	Size   int64       `json:"size"`
	Hashes []tlog.Hash `json:"hashes"` // RFC 6962, audit path
}

// signOffName is that of an event's files, without their ends.
func signOffName(e release.Event, b release.Personal) string {
	what := e.Type
	if x, ok := b.(release.Signed); ok {
		what = x.Item
	}
	return fmt.Sprintf("%s/%04d-%s-%s", signOffDir, e.Seq, clean(what), clean(b.Decider()))
}

// signOffFiles are those of each sign-off and decision that was signed.
func signOffFiles(h *history, tree *Tree) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, x := range h.signed {
		included, err := tree.Includes(x.event.Seq - 1)
		if err != nil {
			return nil, err
		}
		text, err := render(inclusion{x.event.Seq, tree.Size(), included})
		if err != nil {
			return nil, err
		}
		name, proof := signOffName(x.event, x.body), x.body.Signed()
		files[name+".json"], files[name+".json.sig"], files[name+".proof.json"] = []byte(proof.Statement), []byte(proof.Signature), text
	}
	return files, nil
}

func (b *Bundle) signOffs(h *history, tree *Tree) error {
	files, err := signOffFiles(h, tree)
	for name, data := range files {
		b.Files[name] = data
	}
	return err
}

func runbooksFile(digest string) string {
	return path.Join(runbooksDir, strings.TrimPrefix(digest, sha256Algorithm+":")+".md")
}

func signersFile(digest string) string {
	return path.Join(signersDir, strings.TrimPrefix(digest, sha256Algorithm+":"))
}

// trust lays the keys beside the evidence: a convenience, and no proof.
func (b *Bundle) trust(h *history, m Material) error {
	for _, d := range h.signers {
		data, err := m.Blobs(d)
		if err != nil {
			return fmt.Errorf("who may sign: %w", err)
		}
		b.Files[signersFile(d)] = data
	}
	for name, d := range map[string]string{allowedFile: h.state.Signers, revokedFile: h.state.Revoked} {
		if d != "" {
			b.Files[name] = b.Files[signersFile(d)]
		}
	}
	k, err := ssh.NewPublicKey(m.Key)
	if err != nil {
		return err
	}
	b.Files[releaseSigners] = fmt.Appendf(nil, "%s namespaces=%q %s", ReleasePrincipal, NamespaceBundle, ssh.MarshalAuthorizedKey(k))
	b.Files[releaseKeyFile], err = PublicPEM(m.Key)
	return err
}

func (b *Bundle) attest(h *history, m Material) error {
	p, err := h.provenance()
	if err != nil {
		return err
	}
	if _, b.Files[provenanceFile], err = seal(p, m.Key, m.Sign); err != nil {
		return fmt.Errorf("sign the provenance: %w", err)
	}
	s, err := h.summary(b.Files[provenanceFile])
	if err != nil {
		return err
	}
	b.Files[summaryLine], b.Files[summaryFile], err = seal(s, m.Key, m.Sign)
	if err != nil {
		return fmt.Errorf("sign the summary: %w", err)
	}
	return nil
}
