package fleet

import (
	"errors"
	"fmt"
	"strings"
)

// Proof says what is known of a machine that came back.
type Proof string

// The proofs.
const (
	Proven    Proof = "proven"        // its rebuilt server makes what was captured
	NotProven Proof = "not proven"    // there was nothing to prove it with
	Unasked   Proof = "without proof" // a person's word was enough
	Disproved Proof = "disproved"
)

// Findings are what a machine found when it looked at itself.
type Findings struct {
	Originals int      `json:"originals"`         // of its depot, read again
	Damaged   int      `json:"damaged,omitempty"` // of these, set aside
	Dropped   int      `json:"dropped,omitempty"` // layers of servers that were ready
	Servers   []string `json:"servers,omitempty"` // names of blueprints, made anew from originals
	// What was built in the first of them, and the verdict; "" if there was none.
	Blueprint string `json:"blueprint,omitempty"`
	Build     string `json:"build,omitempty"`
	Verdict   string `json:"verdict,omitempty"` // identical, equivalent, different, failed
	Why       string `json:"why,omitempty"`     // what is wrong
}

// Readmit says what a machine that a person readmits becomes: one that has to
// prove itself first, or, where that person says why not, one that works at once.
func Readmit(name string, set Condition, withoutProof bool, why string) (Condition, Proof, error) {
	switch {
	case set != Draining && set != Retired && set != Proving:
		return "", "", fmt.Errorf("%s is neither drained nor retired", name)
	case withoutProof && why == "":
		return "", "", errors.New("to readmit a machine without proof, give a reason")
	case withoutProof:
		return Up, Unasked, nil
	case set == Proving:
		return "", "", fmt.Errorf("%s is proving itself already", name)
	}
	return Proving, "", nil
}

// Back says what a machine becomes that found so, and why, in words. Plain is one
// that runs steps on its host too.
func (f *Findings) Back(plain bool) (Condition, Proof, string) {
	of := fmt.Sprintf("build %s in the server of %s, made anew, ", f.Build, f.Blueprint)
	good := f.Verdict == "identical" || f.Verdict == "equivalent"
	var say []string
	switch {
	case f.Verdict == "failed":
		return Retired, Disproved, of + "failed" + because(f.Why)
	case f.Verdict != "" && !good:
		return Retired, Disproved, of + "is " + f.Verdict + because(f.Why)
	case f.Why != "":
		return Retired, Disproved, f.Why
	case good:
		say = append(say, of+"is "+f.Verdict)
		if plain {
			say = append(say, "what it runs plainly on its host is not proven")
		}
	case plain:
		say = append(say, "not proven: it runs steps plainly on its host, which no blueprint describes")
	default:
		say = append(say, "not proven: no release names a blueprint of a role that it serves")
	}
	say = append(say, fmt.Sprintf("%d originals read again", f.Originals))
	if f.Damaged > 0 {
		say = append(say, fmt.Sprintf("%d of them damaged and set aside", f.Damaged))
	}
	proof := NotProven
	if good {
		proof = Proven
	}
	return Up, proof, strings.Join(say, "; ")
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}
