package compare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"trysail/blueprint"
	"trysail/internal/tree"
)

// Open opens one version of an output; done releases it.
type Open func(ctx context.Context, o blueprint.Output) (f File, done func(), err error)

// Builds is what two builds made, and perhaps a third: the captured build, the
// other one, and the captured build's repetition on its own machine.
type Builds struct {
	Made, Other         []blueprint.Output
	OpenMade, OpenOther Open
	// Repeated says that the captured machine built twice; then Differs is what
	// that showed, and OpenAgain opens what the second build made where a Made
	// output has an Again digest.
	Repeated  bool
	Differs   []blueprint.Difference
	OpenAgain Open
	Scratch   string // directory for expanded content
}

// Pair is one output in both builds.
type Pair struct {
	// Made or Other is nil if only the other build has it.
	Made, Other *blueprint.Output
	Identical   bool
	// Beyond are the differences that the repetition does not excuse, Excused
	// those that it does. Without a repetition all are beyond.
	Beyond, Excused []blueprint.Difference
	own             int // how many of Beyond are about the file itself, not its content
}

// Itself lists where a build differs from its repetition, for a blueprint:
// everything about files themselves, and a bounded list of what is in them.
func Itself(pairs []Pair) []blueprint.Difference {
	var list []blueprint.Difference
	content, more := 0, 0
	for _, p := range pairs {
		list = append(list, p.Beyond[:p.own]...)
		for _, d := range p.Beyond[p.own:] {
			if content++; content <= maxDifferences {
				list = append(list, d)
			} else {
				more++
			}
		}
	}
	if more > 0 {
		list = append(list, blueprint.Difference{Path: "…", What: fmt.Sprintf("and %d more differences", more)})
	}
	return list
}

// Differences lists all of a pair's, those that matter first.
func (p *Pair) Differences() []blueprint.Difference {
	return append(slices.Clone(p.Beyond), p.Excused...)
}

// Outputs compares what two builds made, file by file.
func Outputs(ctx context.Context, o Builds) ([]Pair, error) {
	names := func(list []blueprint.Output) []member {
		var m []member
		for _, x := range list {
			m = append(m, member{name: x.Path})
		}
		return m
	}
	pairs, _ := match(names(o.Made), names(o.Other))
	var list []Pair
	for i := range o.Made {
		p := Pair{Made: &o.Made[i]}
		if pairs[i] >= 0 {
			p.Other = &o.Other[pairs[i]]
		}
		if err := o.pair(ctx, &p); err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	both := map[int]bool{}
	for _, j := range pairs {
		both[j] = true
	}
	for j := range o.Other {
		if !both[j] {
			x := &o.Other[j]
			list = append(list, Pair{Other: x, own: 1, Beyond: []blueprint.Difference{{Path: x.Path, What: "only the other build made it"}}})
		}
	}
	return list, nil
}

func (o *Builds) pair(ctx context.Context, p *Pair) error {
	m, x := p.Made, p.Other
	// Differences of the file itself are excused by the very same one.
	same := func(have blueprint.Difference, d blueprint.Difference) bool { return have == d }
	stamped := func(have blueprint.Difference, d blueprint.Difference) bool {
		verb, _, _ := strings.Cut(d.What, " ")
		return have.Path == d.Path && have.Cause == CauseTime && d.Cause == CauseTime && strings.HasPrefix(have.What, verb+" ")
	}
	note := func(excuse func(have, d blueprint.Difference) bool, cause, what string) {
		d := blueprint.Difference{Path: m.Path, What: what, Cause: cause}
		if o.Repeated && slices.ContainsFunc(o.Differs, func(have blueprint.Difference) bool { return excuse(have, d) }) {
			p.Excused = append(p.Excused, d)
		} else {
			p.Beyond = append(p.Beyond, d)
		}
	}
	if x == nil {
		note(same, "", "the other build did not make it")
		p.own = len(p.Beyond)
		return nil
	}
	if m.Path != x.Path {
		note(stamped, nameCause(m.Path, x.Path), "named "+excerpt(x.Path)+" instead of "+excerpt(m.Path))
	}
	switch {
	case (m.Link == "") != (x.Link == ""):
		note(func(_, _ blueprint.Difference) bool { return false }, "", "one is a link, the other a file")
		p.own = len(p.Beyond)
	case m.Link != x.Link:
		note(stamped, nameCause(m.Link, x.Link), "links to "+excerpt(x.Link)+" instead of "+excerpt(m.Link))
		p.own = len(p.Beyond)
	case m.Link == "":
		if m.Mode != x.Mode {
			note(same, CauseMode, "mode "+x.Mode+" instead of "+m.Mode)
		}
		p.own = len(p.Beyond)
		if m.SHA256 != x.SHA256 {
			if err := o.content(ctx, p); err != nil {
				return err
			}
		}
	}
	p.Identical = len(p.Beyond)+len(p.Excused) == 0
	return nil
}

// content compares an output whose digest differs.
func (o *Builds) content(ctx context.Context, p *Pair) error {
	unknown := func(err error) error {
		var gone *GoneError
		if !errors.As(err, &gone) {
			return err
		}
		p.Beyond = append(p.Beyond, blueprint.Difference{Path: p.Made.Path, What: "its bytes differ; where cannot be told: " + err.Error()})
		return nil
	}
	a, done, err := o.OpenMade(ctx, *p.Made)
	if err != nil {
		return unknown(err)
	}
	defer done()
	opt := Options{Scratch: o.Scratch}
	if o.Repeated {
		opt.Itself = &Report{} // the captured machine made the same twice
		if p.Made.Again != "" {
			b, done, err := o.OpenAgain(ctx, *p.Made)
			if err != nil {
				return unknown(err)
			}
			defer done()
			if opt.Itself, err = Files(ctx, p.Made.Path, a, b, Options{Scratch: o.Scratch}); err != nil {
				return err
			}
		}
	}
	c, doneC, err := o.OpenOther(ctx, *p.Other)
	if err != nil {
		return unknown(err)
	}
	defer doneC()
	r, err := Files(ctx, p.Made.Path, a, c, opt)
	if err != nil {
		return err
	}
	p.Beyond, p.Excused = append(p.Beyond, r.Beyond...), append(p.Excused, r.Excused...)
	return nil
}

// GoneError says that a version of an output is not to be had any more.
type GoneError struct{ What string }

func (e *GoneError) Error() string { return e.What }

// Store gives content by its digest; a depot is one.
type Store interface {
	Has(digest string) bool
	Get(ctx context.Context, digest string) (io.ReadCloser, error)
}

// From opens outputs in a store, by the digest that which gives.
func From(s Store, scratch string, which func(blueprint.Output) string) Open {
	return func(ctx context.Context, o blueprint.Output) (File, func(), error) {
		digest := which(o)
		if !s.Has(digest) {
			return File{}, nil, &GoneError{"what the captured machine made (" + digest + ") is not in the depot"}
		}
		r, err := s.Get(ctx, digest)
		if err != nil {
			return File{}, nil, err
		}
		defer r.Close()
		return spoolFile(scratch, r)
	}
}

// spoolFile copies a stream into an unlinked scratch file.
func spoolFile(dir string, r io.Reader) (f File, done func(), err error) {
	t, err := os.CreateTemp(dir, "compare-")
	if err != nil {
		return f, nil, fmt.Errorf("scratch file: %w", err)
	}
	if err := os.Remove(t.Name()); err != nil {
		t.Close()
		return f, nil, err
	}
	n, err := io.Copy(t, r)
	if err != nil {
		t.Close()
		return f, nil, err
	}
	return File{t, n}, func() { t.Close() }, nil
}

// In opens outputs below a directory, through no link.
func In(dir string) Open {
	return func(_ context.Context, o blueprint.Output) (File, func(), error) {
		d, err := tree.Open(dir)
		if err != nil {
			return File{}, nil, err
		}
		defer d.Close()
		f, err := d.Open(o.Path)
		if err != nil {
			return File{}, nil, err
		}
		info, err := f.Stat()
		if err != nil {
			f.Close()
			return File{}, nil, err
		}
		return File{f, info.Size()}, func() { f.Close() }, nil
	}
}
