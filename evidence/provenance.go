package evidence

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"trysail/release"
)

// history is a release's ledger, folded, with what provenance says besides.
type history struct {
	events  []release.Event
	state   *release.State
	begun   time.Time // when the lease of gold was granted
	made    time.Time // when gold was committed
	shipped time.Time
	fleet   string   // the name of the ledger's key
	signers []string // digests of the files that said who may sign, and who not
	// runbooks are the digests of those that were in force.
	runbooks []string
	signed   []signedOff
	files    []release.Artifact // gold's
}

// signedOff is a sign-off or a decision that was signed, by whom, and the digests of who
// could then.
type signedOff struct {
	event            release.Event
	body             release.Personal
	person           release.Person
	allowed, revoked string
}

// provenance is SLSA's, version 1.
type provenance struct {
	Definition struct {
		Type     string         `json:"buildType"`
		External map[string]any `json:"externalParameters"`
		Internal map[string]any `json:"internalParameters"`
		Resolved []Resource     `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	Details struct {
		Builder struct {
			ID string `json:"id"`
		} `json:"builder"`
		Metadata struct {
			Invocation string    `json:"invocationId"`
			Started    time.Time `json:"startedOn"`
			Finished   time.Time `json:"finishedOn"`
		} `json:"metadata"`
		Byproducts []Resource `json:"byproducts,omitempty"`
	} `json:"runDetails"`
}

// summary is SLSA's verification summary.
type summary struct {
	Verifier struct {
		ID string `json:"id"`
	} `json:"verifier"`
	Time     time.Time  `json:"timeVerified"`
	Resource string     `json:"resourceUri"`
	Policy   Resource   `json:"policy"`
	Inputs   []Resource `json:"inputAttestations"`
	Result   string     `json:"verificationResult"`
	Levels   []string   `json:"verifiedLevels"`
	Version  string     `json:"slsaVersion"`
}

// What verification summaries say of a release: verifiers are told to ask for these.
const (
	LevelBuilt      = "SLSA_BUILD_LEVEL_1"
	LevelIdentical  = "TRYSAIL_GOLD_IDENTICAL"  // a second machine made the same bytes
	LevelEquivalent = "TRYSAIL_GOLD_EQUIVALENT" // or such with differences that a person accepted
)

// ResourceURI names a release in a verification summary, and VerifierID who says so.
func ResourceURI(version string) string { return "tag:trysail,2026:release/" + version }

// VerifierID names a fleet, by the name of its ledger's key.
func VerifierID(fleet string) string { return "tag:trysail,2026:fleet/" + fleet }

var commit = regexp.MustCompile(`^[0-9a-f]{40}$`)

// sourceOf is the source as SLSA names it.
func sourceOf(s release.Source) Resource {
	r := resource("source", s.Original)
	if s.URL != "" {
		r.URI = s.VCS + "+" + s.URL + "@" + s.Revision
	}
	if s.VCS == "git" && commit.MatchString(s.Revision) {
		r.Digest["gitCommit"] = s.Revision
	}
	return r
}

// gold are the artifacts that ship. A link has no bytes of its own.
func (h *history) gold() []release.Artifact {
	var list []release.Artifact
	for _, a := range h.files {
		if a.Digest != "" {
			list = append(list, a)
		}
	}
	return list
}

// subjects are what ships: each file, or the list of them where the ledger has its digest.
func (h *history) subjects() []Resource {
	if h.state.Gold.Tree != "" {
		return []Resource{resource(goldFile, h.state.Gold.Tree)}
	}
	var list []Resource
	for _, a := range h.gold() {
		list = append(list, resource(a.Path, a.Digest))
	}
	return list
}

// goldStep is the result that is gold, and its name.
func (h *history) goldStep() (name string, p *release.Progress) {
	for _, x := range h.state.Items {
		if x.Gold {
			return x.Name, h.state.Progress[x.Name]
		}
	}
	return "", nil
}

// provenance says how gold was made.
func (h *history) provenance() ([]byte, error) {
	name, gold := h.goldStep()
	x, s := h.state.Item(name), h.state
	m := s.Machine(x.Role)
	var p provenance
	p.Definition.Type = buildType
	p.Definition.External = map[string]any{"release": s.Started.Version, "revision": s.Source.Revision, "step": name, "source": s.Source.URL}
	p.Definition.Internal = map[string]any{"role": x.Role, "script": x.Script, "language": x.Language, "network": x.Network, "root": gold.Result.Root, "candidate": s.Candidate, "machine": s.Gold.Machine}
	p.Definition.Resolved = []Resource{sourceOf(s.Source), resource("runbook", s.Gold.Runbook)}
	if m.Blueprint != "" {
		p.Definition.Resolved = append(p.Definition.Resolved, resource("blueprint.yaml", m.Blueprint), resource("blueprint.sum", m.Sum))
	}
	for _, a := range s.Inputs(x) {
		if a.Digest != "" {
			p.Definition.Resolved = append(p.Definition.Resolved, resource(a.Path, a.Digest))
		}
	}
	for _, t := range s.Takes(x) {
		if t.Made.Tree != "" {
			p.Definition.Resolved = append(p.Definition.Resolved, resource("list of the files of "+t.Item, t.Made.Tree))
		}
	}
	p.Details.Builder.ID = VerifierID(h.fleet)
	p.Details.Metadata.Invocation = fmt.Sprintf("release/%s/%s/%d", s.Started.Version, name, gold.Result.Epoch)
	p.Details.Metadata.Started, p.Details.Metadata.Finished = h.begun, h.made
	if gold.Result.Log != "" {
		p.Details.Byproducts = append(p.Details.Byproducts, resource("log", gold.Result.Log))
	}
	if c := s.Gold.Confirmed; c != nil && c.Log != "" {
		p.Details.Byproducts = append(p.Details.Byproducts, resource("log of the second build", c.Log))
	}
	return render(Statement[provenance]{statementType, h.subjects(), provenanceType, p})
}

// summary says that the release was held against its runbook and passed. provenance is
// the file of that name, of which it speaks.
func (h *history) summary(provenance []byte) ([]byte, error) {
	s := h.state
	var v summary
	v.Verifier.ID, v.Time, v.Resource = VerifierID(h.fleet), h.shipped, ResourceURI(s.Started.Version)
	v.Policy = resource("", s.Runbook)
	v.Policy.URI = "runbook.md"
	v.Inputs = []Resource{{URI: provenanceFile, Digest: map[string]string{sha256Algorithm: sum(provenance)}}}
	v.Result, v.Version, v.Levels = "PASSED", "1.0", []string{LevelBuilt}
	if c := s.Gold.Confirmed; c != nil {
		switch c.Verdict {
		case release.Identical:
			v.Levels = append(v.Levels, LevelIdentical)
		case release.Equivalent:
			v.Levels = append(v.Levels, LevelEquivalent)
		}
	}
	return render(Statement[summary]{statementType, h.subjects(), summaryType, v})
}

// newHistory folds a release that shipped. fleet is the name of the ledger's key; list opens
// the list of gold's files, where the ledger has its digest.
func newHistory(events []release.Event, fleet string, list func(digest string) (io.ReadCloser, error)) (*history, error) {
	h := &history{events: events, state: release.Empty(), fleet: fleet}
	for _, e := range events {
		if b, ok := e.Body.(release.Personal); ok && b.Signed() != nil {
			h.signed = append(h.signed, signedOff{e, b, h.state.Person(b.Decider()), h.state.Signers, h.state.Revoked})
		}
		if err := h.state.Apply(e); err != nil {
			return nil, fmt.Errorf("event %d (%s): %w", e.Seq, e.Type, err)
		}
		switch e.Body.(type) {
		case release.Committed:
			h.made = e.Time
		case release.Shipped:
			h.shipped = e.Time
		}
		if d := h.state.Runbook; !slices.Contains(h.runbooks, d) {
			h.runbooks = append(h.runbooks, d)
		}
		for _, d := range []string{h.state.Signers, h.state.Revoked} {
			if d != "" && !slices.Contains(h.signers, d) {
				h.signers = append(h.signers, d)
			}
		}
	}
	s := h.state
	if s.Phase != release.Done || s.Gold == nil {
		return nil, &Error{fmt.Sprintf("release %s is %s: evidence is of what has shipped", s.Started.Version, s.Phase), "trysail release ship " + s.Started.Version}
	}
	if _, gold := h.goldStep(); gold == nil || gold.Result == nil || gold.Result.Epoch < 1 || gold.Result.Epoch > int64(len(events)) {
		return nil, fmt.Errorf("release %s has no step that made gold", s.Started.Version)
	} else {
		h.begun = events[gold.Result.Epoch-1].Time
	}
	err := s.Gold.Made().Each(list, func(a release.Artifact) error {
		h.files = append(h.files, a)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("what is gold: %w", err)
	}
	return h, nil
}

// clean makes a name of a file of what may hold anything.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r) {
			return r
		}
		return '-'
	}, s)
}
