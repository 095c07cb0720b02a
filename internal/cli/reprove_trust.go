package cli

import (
	"fmt"
	"slices"
	"strings"

	"trysail/evidence"
	"trysail/release"
)

// bundleSigner is what a bundle says of itself: who signed it, with which keys, and what
// making its release again would run here. Whoever reads it decides whom to trust.
type bundleSigner struct {
	ReleaseKey string         `json:"release_key"` // fingerprint, SHA256:…
	LedgerKey  string         `json:"ledger_key"`
	SignOffs   []bundlePerson `json:"sign_offs"`
	Repository string         `json:"repository,omitempty"`
	Revision   string         `json:"revision"`
	Author     string         `json:"author,omitempty"`
	Steps      []bundleStep   `json:"steps"`
	Network    bool           `json:"network"` // of steps: always false
	// LiveDependencies are what blueprints ask for; a disposable machine has none.
	LiveDependencies []string `json:"live_dependencies"`
	Command          string   `json:"command"` // that trusts this key
}

type bundlePerson struct {
	Person string `json:"person"`
	Key    string `json:"key,omitempty"` // fingerprint
}

type bundleStep struct {
	Name     string `json:"name"`
	Role     string `json:"role"`
	Language string `json:"language"`
	Script   string `json:"script"`
}

// fingerprints checks what was given with --trust.
func (o reproveOptions) fingerprints() error {
	for _, f := range o.trusted {
		if digest, ok := strings.CutPrefix(f, "SHA256:"); !ok || len(digest) != 43 {
			return usage("--trust %s: give the fingerprint of a release key, SHA256:… (trysail key show KEY prints it)", f)
		}
	}
	return nil
}

// knows tells whether the caller vouches for who signed a bundle that verifies. With the
// release key everything in it is signed; with the ledger's key, the steps and the digests
// of source and blueprints are. Signers of sign-offs vouch for neither.
func (o reproveOptions) knows(r *evidence.Report, t evidence.Trust) bool {
	return t.Key != nil || t.LogKey != "" || slices.Contains(o.trusted, r.Key)
}

// signerOf collects what a person needs to decide about a bundle that verifies.
func signerOf(dir string, r *evidence.Report, st release.Started, live []string) *bundleSigner {
	b := &bundleSigner{
		ReleaseKey: r.Key, LedgerKey: r.LogKey, SignOffs: []bundlePerson{}, Repository: st.Source.URL, Revision: st.Source.Revision, Author: st.Source.Author,
		Steps: []bundleStep{}, LiveDependencies: nonNil(live), Command: "trysail reprove " + shellWord(dir) + " --trust " + r.Key,
	}
	for _, s := range r.SignOffs {
		if p := (bundlePerson{s.Person, s.Key}); !slices.Contains(b.SignOffs, p) {
			b.SignOffs = append(b.SignOffs, p)
		}
	}
	for _, x := range st.Items {
		b.Steps = append(b.Steps, bundleStep{x.Name, x.Role, x.Language, x.Script})
	}
	return b
}

// mostLines is how much of a step's script is shown; --json has all of it.
const mostLines = 20

func (a *app) printSigner(b *bundleSigner) {
	a.printf("  release key  %s\n  ledger key   %s\n", b.ReleaseKey, b.LedgerKey)
	for _, p := range b.SignOffs {
		key := p.Key
		if key == "" {
			key = "no signature"
		}
		a.printf("  signed off   %s (%s)\n", p.Person, key)
	}
	a.printf("  source       %s, revision %s, last changed by %s\n", b.Repository, b.Revision, b.Author)
	for _, s := range b.Steps {
		a.printf("  would run    step %s (%s), in the build server %s, without a network:\n", s.Name, s.Language, s.Role)
		lines := strings.Split(strings.TrimRight(s.Script, "\n"), "\n")
		for i, l := range lines {
			if i == mostLines {
				a.printf("                 %s\n", fmt.Sprintf("… %d more lines: --json has them", len(lines)-i))
				break
			}
			a.printf("                 %s\n", l)
		}
	}
	for _, l := range b.LiveDependencies {
		a.printf("  asks for     %s, which the disposable machine does not have\n", l)
	}
	a.printf("Compare the release key with what the signer gave you another way. To trust it:\n  %s\n", b.Command)
}
