package evidence

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"

	"trysail/blueprint"
	"trysail/internal/strict"
	"trysail/release"
)

// Trust is what whoever verifies brings along. What is left out is taken from the
// bundle, and then proves no more than that the bundle is of one piece.
type Trust struct {
	Key         *ecdsa.PublicKey // of the release
	LogKey      string           // of the ledger
	Signers     []byte           // an allowed_signers file, instead of those of the release
	Revoked     []byte           // keys that are not believed any more, whatever the release says
	Checkpoints [][]byte         // signed notes that were kept elsewhere
	// Pending: the ledger's last event is the one of [Material.Pending].
	Pending bool
}

// Problem is one thing that does not hold.
type Problem struct {
	File string `json:"file,omitempty"`
	What string `json:"what"`
}

func (p Problem) String() string {
	if p.File == "" {
		return p.What
	}
	return p.File + ": " + p.What
}

// SignedOff is one sign-off that verified.
type SignedOff struct {
	Event    int64  `json:"event"`
	Item     string `json:"item"`
	Person   string `json:"person"`
	Decision string `json:"decision"`
	At       string `json:"at"`
	Key      string `json:"key,omitempty"` // fingerprint; none: a word, not a signature
}

// Decided is a decision of the ledger beside sign-offs: a change, a waiver, an exception, an
// abort, a word that was taken back.
type Decided struct {
	Event  int64  `json:"event"`
	Type   string `json:"type"` // of the event
	Person string `json:"person"`
	What   string `json:"what"` // in words
	At     string `json:"at"`
	Key    string `json:"key,omitempty"` // fingerprint; none: a word, not a signature
}

// Report is what was found of a bundle.
type Report struct {
	Version   string      `json:"version,omitempty"`
	Verified  bool        `json:"verified"`
	Files     int         `json:"files"`
	Events    int         `json:"events"`
	Gold      []Resource  `json:"gold"`
	SignOffs  []SignedOff `json:"sign_offs"`
	Decisions []Decided   `json:"decisions"`
	// Key and LogKey are what it was verified with; FromBundle names those that came
	// with the bundle itself.
	Key        string    `json:"release_key,omitempty"`
	LogKey     string    `json:"ledger_key,omitempty"`
	FromBundle []string  `json:"from_bundle,omitempty"`
	Problems   []Problem `json:"problems"`
	// Checkpoints that were kept elsewhere, with which the ledger agrees.
	Checkpoints int    `json:"checkpoints,omitempty"`
	Stamped     string `json:"time_stamped,omitempty"` // when the ledger's checkpoint was
	// KeptStamped are checkpoints that were kept elsewhere under a time stamp.
	KeptStamped []Stamped `json:"checkpoints_time_stamped,omitempty"`
	Drills      []Drilled `json:"drills"`
	// Attention is what is no fault of the bundle and yet to be known.
	Attention []string `json:"attention,omitempty"`
	// Shipped are the files that ship, with links and empty directories.
	Shipped []release.Artifact `json:"-"`
	// Origins say of which revision runbooks, signers and blueprints were taken.
	Origins []release.Origin `json:"origins,omitempty"`
	// Unnamed is what the ledger does not say to be of a revision: it cannot be compared with one.
	Unnamed []string `json:"-"`
	// State is what the ledger comes to; nil if it could not be read.
	State *release.State `json:"-"`
}

// Stamped says when a file was there as it is, by a time stamping authority.
type Stamped struct {
	File string `json:"file"`
	At   string `json:"at"` // RFC 3339
}

// Refuse adds a problem that somebody else has found.
func (r *Report) Refuse(file, what string) {
	r.Problems, r.Verified = append(r.Problems, Problem{file, what}), false
}

// maxList is the most that a file may have which has an entry for each artifact, in bytes.
const maxList = release.MostList

// maxPart is the most that one file may have that is read as a whole, in bytes.
const maxPart = 64 << 20

// check is one verification.
type check struct {
	open  func(name string) (io.ReadCloser, error)
	trust Trust
	r     *Report
	sums  map[string]string // by name: digests of what is there
	sizes map[string]int64
	key   *ecdsa.PublicKey
	log   note.Verifier
}

func (c *check) fail(file, format string, args ...any) {
	c.r.Problems = append(c.r.Problems, Problem{file, fmt.Sprintf(format, args...)})
}

// Verify reads a bundle and says what of it does not hold. It reads nothing else. A
// directory's links are not followed: none may be in it.
func Verify(bundle fs.FS, t Trust) *Report {
	c := newCheck(t, func(name string) (io.ReadCloser, error) { return bundle.Open(name) })
	c.walk(bundle)
	return c.all()
}

func newCheck(t Trust, open func(name string) (io.ReadCloser, error)) *check {
	return &check{
		open: open, trust: t, sums: map[string]string{}, sizes: map[string]int64{},
		r: &Report{Problems: []Problem{}, Gold: []Resource{}, SignOffs: []SignedOff{}, Decisions: []Decided{}, Drills: []Drilled{}},
	}
}

// all says what of the files that are there does not hold.
func (c *check) all() *Report {
	c.r.Files = len(c.sums)
	c.keys()
	c.checksums()
	h, tree := c.ledger()
	if h != nil {
		c.r.State = h.state
		c.r.Version, c.r.Gold, c.r.Shipped = h.state.Started.Version, h.subjects(), h.files
		c.artifacts(h)
		c.signOffs(h, tree)
		c.origins(h)
		c.attestations(h)
		c.documents(h)
		c.secondBuilds(h)
		c.links(h)
		c.blueprints(h)
		c.shipped(h)
		c.known()
		c.times(h)
	}
	if c.r.Events == 0 && len(c.r.Problems) == 0 {
		c.fail(eventsFile, "there is no ledger, and so no evidence")
	}
	if c.r.Verified = len(c.r.Problems) == 0; c.r.Verified {
		c.drills(h)
		c.r.Verified = len(c.r.Problems) == 0
	}
	return c.r
}

// read gives a whole file, or says what is wrong with it.
func (c *check) read(name string) []byte { return c.readTo(name, maxPart) }

// readTo is read for a file that may be as large as its number of entries wants.
func (c *check) readTo(name string, most int64) []byte {
	if c.sums[name] == "" {
		c.fail(name, "is not there")
		return nil
	}
	f, err := c.open(name)
	if err != nil {
		c.fail(name, "%v", reason(err))
		return nil
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	switch {
	case err != nil:
		c.fail(name, "%v", reason(err))
		return nil
	case int64(len(data)) > most:
		c.fail(name, "has more than %d MB", most>>20)
		return nil
	case sum(data) != c.sums[name]:
		c.fail(name, "changed while it was read")
		return nil
	}
	return data
}

func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// walk takes the digest of every file.
func (c *check) walk(bundle fs.FS) {
	err := fs.WalkDir(bundle, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			c.fail(p, "%v", reason(err))
			return nil
		case d.IsDir():
			return nil
		case !d.Type().IsRegular():
			c.fail(p, "is a %s, and a bundle holds files only", kind(d.Type()))
			return nil
		case !FileName(p):
			c.fail(p, "has a name that no file of a bundle may have")
			return nil
		}
		f, err := c.open(p)
		if err != nil {
			c.fail(p, "%v", reason(err))
			return nil
		}
		defer f.Close()
		h := sha256.New()
		if c.sizes[p], err = io.Copy(h, f); err != nil {
			c.fail(p, "%v", reason(err))
			return nil
		}
		c.sums[p] = hex.EncodeToString(h.Sum(nil))
		return nil
	})
	if err != nil {
		c.fail("", "%v", err)
	}
}

func kind(m fs.FileMode) string {
	switch {
	case m&fs.ModeSymlink != 0:
		return "symbolic link"
	case m&fs.ModeNamedPipe != 0:
		return "pipe"
	case m&fs.ModeSocket != 0:
		return "socket"
	}
	return "device"
}

// keys takes those that were brought along, or else those of the bundle.
func (c *check) keys() {
	if c.key = c.trust.Key; c.key == nil {
		if data := c.read(releaseKeyFile); data != nil {
			k, err := ParsePublic(data)
			if err != nil {
				c.fail(releaseKeyFile, "%v", err)
			}
			c.key = k
		}
		c.r.FromBundle = append(c.r.FromBundle, "release key")
	}
	if c.key != nil {
		print, err := Fingerprint(c.key)
		if err != nil {
			c.fail(releaseKeyFile, "%v", err)
		}
		c.r.Key = print
		if data := c.sums[releaseKeyFile]; data != "" && c.trust.Key != nil {
			if own, err := PublicPEM(c.key); err != nil || sum(own) != data {
				c.fail(releaseKeyFile, "is not the release key that was given")
			}
		}
	}
	text := c.trust.LogKey
	if text == "" {
		text = strings.TrimSpace(string(c.read(logKeyFile)))
		c.r.FromBundle = append(c.r.FromBundle, "ledger key")
	} else if own := c.read(logKeyFile); own != nil && strings.TrimSpace(string(own)) != text {
		c.fail(logKeyFile, "is not the ledger's key that was given")
	}
	if text == "" {
		c.fail(logKeyFile, "holds no key")
		return
	}
	v, err := note.NewVerifier(text)
	if err != nil {
		c.fail(logKeyFile, "%v", err)
		return
	}
	c.log, c.r.LogKey = v, text
}

// checksums holds every file against the signed list.
func (c *check) checksums() {
	list := c.readTo(sumsFile, maxList)
	if list == nil {
		return
	}
	if sig := c.read(sumsSignature); sig != nil && c.key != nil {
		k, err := ssh.NewPublicKey(c.key)
		if err == nil {
			_, err = Signers{{Principals: []string{ReleasePrincipal}, Key: k}}.Verify(list, sig, NamespaceBundle, []string{ReleasePrincipal}, time.Time{}, nil)
		}
		if err != nil {
			c.fail(sumsSignature, "%v", err)
		}
	}
	want, err := readSums(sumsFile, list)
	if err != nil {
		c.fail(sumsFile, "%v", err)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		switch got := c.sums[name]; {
		case name == sumsFile || name == sumsSignature:
			c.fail(sumsFile, "lists itself")
		case got == "":
			c.fail(name, "is listed in %s, and not there", sumsFile)
		case got != want[name]:
			c.fail(name, "is not the file of which %s speaks", sumsFile)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.sums)) {
		if _, listed := want[name]; !listed && name != sumsFile && name != sumsSignature {
			c.fail(name, "is there, and not listed in %s", sumsFile)
		}
	}
}

// ledger folds it, and holds it against its checkpoint and its rules.
func (c *check) ledger() (*history, *Tree) {
	data, signed := c.read(eventsFile), c.read(checkpointFile)
	if data == nil || signed == nil || c.log == nil {
		return nil, nil
	}
	if !bytes.HasSuffix(data, []byte("\n")) {
		c.fail(eventsFile, "the last line has no end: it is torn")
		return nil, nil
	}
	lines := bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))
	tree := &Tree{}
	for _, l := range lines {
		if err := tree.Add(l); err != nil {
			c.fail(eventsFile, "%v", err)
			return nil, nil
		}
	}
	events, err := parseLines(lines)
	if err != nil {
		c.fail(eventsFile, "%v", err)
		return nil, nil
	}
	c.r.Events = len(events)
	version := ""
	if b, ok := events[0].Body.(release.Started); ok {
		version = b.Version
	}
	n := tree.Size()
	if c.trust.Pending {
		n--
	}
	if err := matches(signed, c.log, version, tree, n); err != nil {
		c.fail(checkpointFile, "%v", err)
	}
	for i, kept := range c.trust.Checkpoints {
		if err := extends(kept, c.log, version, tree); err != nil {
			c.fail(eventsFile, "checkpoint %d that was kept: %v", i+1, err)
		} else {
			c.r.Checkpoints++
		}
	}
	h, err := newHistory(events, c.log.Name(), func(digest string) (io.ReadCloser, error) {
		if sha256Algorithm+":"+c.sums[goldFile] != digest {
			return nil, fmt.Errorf("%s is not the list %s of the ledger", goldFile, digest)
		}
		return c.open(goldFile)
	})
	if err != nil {
		c.fail(eventsFile, "%v", err)
		return nil, nil
	}
	for _, wrong := range release.Check(events, release.History{}) {
		c.fail(eventsFile, "%v", wrong)
	}
	return h, tree
}

// extends holds the ledger against an earlier word on it.
func extends(kept []byte, key note.Verifier, version string, tree *Tree) error {
	c, err := ReadNote(kept, key)
	if err != nil {
		return err
	}
	if c.Stream != Stream(version) {
		return fmt.Errorf("it is of %s", c.Stream)
	}
	if c.Size > tree.Size() {
		return fmt.Errorf("the ledger had %d events, and has %d", c.Size, tree.Size())
	}
	root, err := tree.Root(c.Size)
	if err == nil && root != c.Root {
		err = fmt.Errorf("the first %d events are not those of which it speaks: the ledger was changed", c.Size)
	}
	return err
}

// artifacts are gold, and nothing else.
func (c *check) artifacts(h *history) {
	if c.sums[goldFile] != "" && h.state.Gold.Tree == "" {
		c.fail(goldFile, "the ledger does not speak of it")
	}
	want := map[string]string{}
	for _, a := range h.gold() {
		want[path.Join(artifactDir, a.Path)] = strings.TrimPrefix(a.Digest, sha256Algorithm+":")
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		switch got := c.sums[name]; {
		case got == "":
			c.fail(name, "gold has it, and it is not there")
		case got != want[name]:
			c.fail(name, "is not gold: it was built as sha256:%s, and this is sha256:%s", want[name], got)
		}
	}
	c.nothingElse(artifactDir, want)
}

// nothingElse refuses files that nothing speaks of.
func (c *check) nothingElse(dir string, want map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(c.sums)) {
		if _, ok := want[name]; !ok && strings.HasPrefix(name, dir+"/") {
			c.fail(name, "the ledger does not speak of it")
		}
	}
}

// blobs gives what the ledger names by digest and the bundle has.
func (c *check) blob(digest, file string) ([]byte, error) {
	if digest == "" {
		return nil, nil
	}
	if got := c.sums[file]; sha256Algorithm+":"+got != digest {
		return nil, fmt.Errorf("%s is not the file %s of the ledger", file, digest)
	}
	return c.read(file), nil
}

// attestations are what the ledger makes of them, signed.
func (c *check) attestations(h *history) {
	if c.key == nil {
		return
	}
	held := func(file string, open func([]byte, *ecdsa.PublicKey) ([]byte, error), want func() ([]byte, error)) {
		data := c.read(file)
		if data == nil {
			return
		}
		got, err := open(data, c.key)
		if err != nil {
			c.fail(file, "%v", err)
			return
		}
		is, err := want()
		if err != nil {
			c.fail(file, "%v", err)
		} else if !bytes.Equal(got, is) {
			c.fail(file, "says something else than the ledger")
		}
	}
	held(provenanceFile, openSealed, h.provenance)
	provenance := c.read(provenanceFile)
	summary := func() ([]byte, error) { return h.summary(provenance) }
	held(summaryFile, openSealed, summary)
	held(summaryLine, openLine, summary)
}

// known refuses files that have no place in a bundle.
func (c *check) known() {
	for _, name := range slices.Sorted(maps.Keys(c.sums)) {
		switch dir, _, _ := strings.Cut(name, "/"); {
		case slices.Contains([]string{artifactDir, blueprintDir, drillDir, "report", runbooksDir, sbomDir, signOffDir}, dir):
		case strings.HasPrefix(name, signersDir+"/"):
		case slices.Contains([]string{
			sumsFile, sumsSignature, readmeFile, runbookFile, eventsFile, goldFile, checkpointFile, logKeyFile, StampFile, provenanceFile, summaryFile, summaryLine,
			releaseKeyFile, releaseSigners, allowedFile, revokedFile,
		}, name):
		default:
			c.fail(name, "has no place in a bundle")
		}
	}
}

// shipped holds the bill of materials against gold: each artifact is in it, as it is.
func (c *check) shipped(h *history) {
	if c.sums[shippedFile] == "" {
		return // what it was made by wrote none
	}
	var bill struct {
		Components []struct {
			Ref    string `json:"bom-ref"`
			Hashes []struct {
				Algorithm string `json:"alg"`
				Content   string `json:"content"`
			} `json:"hashes"`
		} `json:"components"`
	}
	if err := strict.PartOfJSON(c.readTo(shippedFile, maxList), maxList, &bill); err != nil {
		c.fail(shippedFile, "cannot be read: %v", err)
		return
	}
	listed := map[string]bool{} // by digest: a reference has no control characters, and a name may
	for _, x := range bill.Components {
		for _, y := range x.Hashes {
			if y.Algorithm == "SHA-256" && strings.HasPrefix(x.Ref, "artifact:") {
				listed[sha256Algorithm+":"+y.Content] = true
			}
		}
	}
	for _, x := range h.subjects() {
		if !listed[sha256Algorithm+":"+x.Digest[sha256Algorithm]] {
			c.fail(shippedFile, "does not list %s as it was shipped", x.Name)
		}
	}
}

// blueprints are those of the roles, with their configuration.
func (c *check) blueprints(h *history) {
	want := map[string]string{}
	for _, m := range h.state.Machines {
		if m.Blueprint == "" {
			c.r.Attention = append(c.r.Attention, fmt.Sprintf("role %s runs on machines that cannot be made again: not proven", m.Role))
			continue
		}
		dir := path.Join(blueprintDir, m.Role)
		for name, digest := range map[string]string{"blueprint.yaml": m.Blueprint, "blueprint.sum": m.Sum} {
			file := path.Join(dir, name)
			want[file] = ""
			if got := c.sums[file]; got == "" {
				c.fail(file, "is not there")
			} else if sha256Algorithm+":"+got != digest {
				c.fail(file, "is not the one of the release")
			}
		}
		file := path.Join(dir, "blueprint.sum")
		data := c.read(file)
		if data == nil {
			continue
		}
		list, err := blueprint.ParseSum(file, data)
		if err != nil {
			c.fail(file, "%v", err)
			continue
		}
		for name, digest := range list {
			config := path.Join(dir, name)
			if got := c.sums[config]; got != "" {
				want[config] = ""
				if sha256Algorithm+":"+got != digest {
					c.fail(config, "is not the file of %s", file)
				}
			}
		}
		want[path.Join(dir, "REBUILD.md")] = ""
	}
	c.nothingElse(blueprintDir, want)
}
