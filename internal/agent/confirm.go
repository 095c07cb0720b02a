package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"trysail/blueprint"
	"trysail/internal/api"
	"trysail/internal/compare"
	"trysail/internal/mask"
	"trysail/release"
)

const (
	mostNamed = 100 // differences in a report; a person must read and sign for each
	longest   = 400 // bytes of one
)

// confirm says whether this machine made gold again. Where it made other bytes
// it builds once more, in a server and a workspace of its own, to learn where the
// build differs from itself: there, and nowhere else, a difference is equivalent.
// If that build fails nothing is known, and the whole of it is to be tried again.
func (s *step) confirm(ctx context.Context, r *api.Report, list []release.Artifact) (err error) {
	ships := s.as.Gold
	if s.as.GoldList != nil {
		if ships, err = s.a.files(ctx, *s.as.GoldList, func(string) bool { return true }); err != nil {
			return err
		}
	}
	if slices.EqualFunc(list, ships, sameArtifact) {
		r.Compared = release.Identical
		return nil
	}
	made, madeDirs := splitOutputs(list)
	gold, goldDirs := splitOutputs(ships)
	var digests []string
	for _, g := range gold {
		digests = append(digests, g.SHA256)
	}
	if err := s.a.fetch(ctx, digests...); err != nil {
		return err
	}
	n, err := s.a.o.State.Begin()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	fmt.Fprintln(s.log, "[trysail] other bytes than gold: building once more, to see where the build differs from itself")
	again := &step{a: s.a, as: s.as, n: n, log: s.log, secrets: s.secrets, mask: s.mask}
	r2, err := again.once(ctx)
	if err != nil {
		return err
	}
	var madeAgain []blueprint.Output
	if r2.Exit == 0 {
		list, err := again.outputs(r2)
		if err != nil {
			return err
		}
		madeAgain, _ = splitOutputs(list)
	}
	if r2.Exit != 0 {
		r.Exit, r.Why = r2.Exit, "it made other bytes than gold; built once more, to see where the build differs from itself: "+r2.Why
		return nil
	}
	b := builds{
		made: made, again: madeAgain, gold: gold, madeDirs: madeDirs, goldDirs: goldDirs, madeProperties: allProperties(list), goldProperties: allProperties(ships), scratch: n.Dir, mask: s.mask,
		openMade: compare.In(s.checkout), openAgain: compare.In(again.checkout),
	}
	stored := compare.From(s.a.o.Depot, n.Dir, func(o blueprint.Output) string { return o.SHA256 })
	b.openGold = func(ctx context.Context, o blueprint.Output) (f compare.File, done func(), err error) {
		err = s.a.undamaged(ctx, o.SHA256, func() error {
			f, done, err = stored(ctx, o)
			return err
		})
		return f, done, err
	}
	r.Compared, r.Differences, err = b.judge(ctx)
	return err
}

// sameArtifact tells whether two builds made the same, be it at other times.
func sameArtifact(a, b release.Artifact) bool {
	return a.Path == b.Path && a.Digest == b.Digest && a.Mode == b.Mode && a.Link == b.Link && a.Dir == b.Dir && properties(a) == properties(b)
}

// properties says what an artifact has beside bytes, mode and time; "" if nothing.
func properties(a release.Artifact) string {
	var list []string
	if a.Owner != "" {
		list = append(list, "owner "+a.Owner)
	}
	if a.HardLink != "" {
		list = append(list, "hard link to "+a.HardLink)
	}
	for _, name := range slices.Sorted(maps.Keys(a.Attributes)) {
		list = append(list, fmt.Sprintf("attribute %s=%x", name, a.Attributes[name]))
	}
	return strings.Join(list, ", ")
}

// builds are the three that a verdict needs: two of this machine, and gold.
type builds struct {
	made, again, gold              []blueprint.Output
	madeDirs, goldDirs             map[string]string // modes of directories
	madeProperties, goldProperties map[string]string
	openMade, openAgain, openGold  compare.Open
	scratch                        string
	mask                           *mask.Mask // the ledger keeps for ever what is named
}

// judge compares place by place. All is measured on what this machine made first,
// the one build that both others are compared with: gold may differ from it where
// its repetition does. So each difference says what gold has instead of what was
// made here.
func (b *builds) judge(ctx context.Context) (release.Verdict, []string, error) {
	itself, err := compare.Outputs(ctx, compare.Builds{
		Made: b.made, Other: b.again, OpenMade: b.openMade, OpenOther: b.openAgain, Scratch: b.scratch,
	})
	if err != nil {
		return "", nil, err
	}
	again := map[string]blueprint.Output{} // by the path of what was made first
	for _, p := range itself {
		if p.Made != nil && p.Other != nil && p.Made.SHA256 != p.Other.SHA256 && p.Made.Link == "" && p.Other.Link == "" {
			p.Made.Again, again[p.Made.Path] = p.Other.SHA256, *p.Other
		}
	}
	pairs, err := compare.Outputs(ctx, compare.Builds{
		Made: b.made, Other: b.gold, OpenMade: b.openMade, OpenOther: b.openGold, Scratch: b.scratch,
		Repeated: true, Differs: compare.Itself(itself),
		OpenAgain: func(ctx context.Context, o blueprint.Output) (compare.File, func(), error) {
			return b.openAgain(ctx, again[o.Path])
		},
	})
	if err != nil {
		return "", nil, err
	}
	var beyond, excused []string
	for _, p := range pairs {
		switch {
		case p.Made == nil:
			beyond = append(beyond, named(b.mask, p.Other.Path, "only gold has it", ""))
		case p.Other == nil && len(p.Excused) > 0:
			excused = append(excused, named(b.mask, p.Made.Path, "gold has it not", ""))
		case p.Other == nil:
			beyond = append(beyond, named(b.mask, p.Made.Path, "gold has it not", ""))
		default:
			for _, d := range p.Beyond {
				beyond = append(beyond, named(b.mask, d.Path, d.What, d.Cause))
			}
			for _, d := range p.Excused {
				excused = append(excused, named(b.mask, d.Path, d.What, d.Cause))
			}
		}
	}
	const plain = "no owner, hard link or attributes of its own"
	for _, p := range slices.Sorted(maps.Keys(b.madeProperties)) {
		if gold, ok := b.goldProperties[p]; ok && gold != b.madeProperties[p] {
			beyond = append(beyond, named(b.mask, p, cmp.Or(gold, plain)+" instead of "+cmp.Or(b.madeProperties[p], plain), ""))
		}
	}
	for _, p := range slices.Sorted(maps.Keys(b.goldDirs)) {
		if mode, ok := b.madeDirs[p]; !ok {
			beyond = append(beyond, named(b.mask, p, "only gold has this directory", ""))
		} else if mode != b.goldDirs[p] {
			beyond = append(beyond, named(b.mask, p, "mode "+b.goldDirs[p]+" instead of "+mode, ""))
		}
	}
	for _, p := range slices.Sorted(maps.Keys(b.madeDirs)) {
		if _, ok := b.goldDirs[p]; !ok {
			beyond = append(beyond, named(b.mask, p, "gold has not this directory", ""))
		}
	}
	v, list := release.Equivalent, append(beyond, excused...)
	switch {
	case len(list) == 0:
		return release.Identical, nil, nil
	case len(beyond) > 0:
		v = release.Different
	case len(list) > mostNamed:
		v = release.Different // nobody can sign for what is not named
	}
	if more := len(list) - mostNamed; more > 0 {
		list = append(list[:mostNamed], fmt.Sprintf("and %d more differences, too many to name", more))
	}
	return v, list, nil
}

// named is one difference, fit to be read on a line, typed, and signed for.
func named(m *mask.Mask, path, what, cause string) string {
	text := path + ": " + what
	if cause != "" {
		text += " (" + cause + ")"
	}
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, m.String(text))
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + "…"
	}
	return text
}
