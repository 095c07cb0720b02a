package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"trysail/internal/api"
	"trysail/internal/depot"
	"trysail/release"
)

// An event names the files that a step made where they are few, and the digest of their
// list where they are many ([release.WriteList]). The list is a blob like what is in it: control
// looks at each line before it takes the result, and never holds a list as a whole.

// lists are those that were looked at. The zero value is ready.
type lists struct {
	one   sync.Mutex // at a time is looked at: it may be as large as a disk
	mu    sync.Mutex
	known map[string]bool // by digest: whether the depot has all that is in it
	due   []named         // results whose lists are yet to be named in the depot
}

// named is the result of one item.
type named struct{ release, item string }

// has tells whether all of a list was there when it was looked at.
func (l *lists) has(dg string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known[dg]
}

// torn tells whether something of a list was missing.
func (l *lists) torn(dg string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	has, known := l.known[dg]
	return known && !has
}

func (l *lists) found(dg string, all bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil {
		l.known = map[string]bool{}
	}
	l.known[dg] = all
}

// doubt has all lists looked at again: the depot has lost something.
func (l *lists) doubt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for dg, all := range l.known {
		if all {
			delete(l.known, dg)
		}
	}
}

// complete says what is missing of what a step made. want tells whether something is.
func (l *lists) complete(m release.Made, want func(digest string) bool, files func(release.Made, func(release.Artifact) error) error) {
	if m.Tree != "" && (l.has(m.Tree) || want(m.Tree)) {
		return
	}
	all := true
	err := files(m, func(a release.Artifact) error {
		if want(a.Digest) {
			all = false
		}
		return nil
	})
	if m.Tree != "" {
		l.found(m.Tree, all && err == nil)
	}
}

// files visits what a step made.
func (c *Control) files(ctx context.Context, m release.Made, visit func(release.Artifact) error) error {
	return m.Each(func(dg string) (io.ReadCloser, error) { return c.o.Depot.Get(ctx, dg) }, visit)
}

// unfitError says why a result can never be taken.
type unfitError struct{ err error }

func (e *unfitError) Error() string { return "this result cannot be taken: " + e.err.Error() }
func (e *unfitError) Unwrap() error { return e.err }

// failed is a report of a step that failed because its result cannot be taken.
func failed(r release.Report, why error) release.Report {
	f := release.Report{Machine: r.Machine}
	f.Item, f.Epoch, f.Took, f.Status, f.Exit, f.Why = r.Item, r.Epoch, r.Took, r.Status, 1, why.Error()
	if len(f.Why) > mostWhy {
		f.Why = fmt.Sprintf("%.4000q…", f.Why)
	}
	return f
}

// mostWhy bounds a reason that a machine gives, in bytes.
const mostWhy = 20_000

// fit says why a result can never be taken; another error is one that may pass. More files
// than an event names go to the depot as a list.
func (c *Control) fit(ctx context.Context, r *release.Report) error {
	no := func(format string, args ...any) error { return &unfitError{fmt.Errorf(format, args...)} }
	if err := r.Over(); err != nil {
		return &unfitError{err}
	}
	if r.Log != "" && !c.o.Depot.Has(r.Log) {
		return no("its log (%.80q) is not in the depot", r.Log)
	}
	if len(r.Why) > mostWhy || len(r.Root) > 100 || len(r.Signal) > 100 {
		return no("its reason has %d bytes, and %d is the most", len(r.Why), mostWhy)
	}
	size := 0
	for _, d := range r.Differences {
		size += len(d)
	}
	if size > mostDifferences {
		return no("its %d differences have %d bytes, and %d is the most", len(r.Differences), size, mostDifferences)
	}
	if r.Exit != 0 || r.Compared != "" {
		return nil
	}
	if r.Tree == "" {
		for _, a := range r.Outputs {
			if a.Digest != "" && !c.o.Depot.Has(a.Digest) {
				return no("output %q (%s) is not in the depot", a.Path, a.Digest)
			}
		}
		return c.listOutputs(ctx, r)
	}
	if len(r.Outputs) > 0 {
		return no("it names its files and a list of them")
	}
	c.lists.one.Lock()
	defer c.lists.one.Unlock()
	if c.lists.has(r.Tree) {
		return c.counted(ctx, r)
	}
	if !c.o.Depot.Has(r.Tree) {
		return no("the list of its files (%.80q) is not in the depot", r.Tree)
	}
	return c.counted(ctx, r)
}

// mostDifferences bounds the text of the differences of a second build, in bytes: a person
// signs for each.
const mostDifferences = 200_000

// counted reads a list, and looks whether all of it is in the depot.
func (c *Control) counted(ctx context.Context, r *release.Report) error {
	known := c.lists.has(r.Tree)
	err := c.files(ctx, r.Made(), func(a release.Artifact) error {
		if a.Digest != "" && !known && !c.o.Depot.Has(a.Digest) {
			return fmt.Errorf("output %q (%s) is not in the depot", a.Path, a.Digest)
		}
		return nil
	})
	var damaged *depot.DigestError
	if errors.As(err, &damaged) {
		return err
	}
	if err != nil {
		return &unfitError{err}
	}
	c.lists.found(r.Tree, true)
	return nil
}

// listOutputs puts the list of files into the depot that a machine named one by one, where they
// are more than an event names: agents of before do so.
func (c *Control) listOutputs(ctx context.Context, r *release.Report) error {
	if release.FitsEvent(r.Outputs) {
		return nil
	}
	var m release.Made
	_, _, err := c.o.Depot.PutWritten(ctx, func(w io.Writer) (err error) {
		m, err = release.WriteList(w, r.Outputs)
		return err
	})
	if err != nil {
		return err
	}
	r.Outputs, r.List = nil, m.List
	c.lists.found(m.Tree, true)
	return nil
}

// keepResult names what a step made in the depot. A list takes long: the loop of missing.go
// does it, and nothing of it is pruned for an hour.
func (c *Control) keepResult(ctx context.Context, version string, r release.Report) error {
	if r.Tree == "" {
		return c.keep(ctx, version, r.Item)
	}
	c.lists.mu.Lock()
	defer c.lists.mu.Unlock()
	c.lists.due = append(c.lists.due, named{version, r.Item})
	return nil
}

// nameLists names the lists that came since.
func (c *Control) nameLists(ctx context.Context) {
	c.lists.mu.Lock()
	due := c.lists.due
	c.lists.due = nil
	c.lists.mu.Unlock()
	for _, n := range due {
		if err := c.keep(ctx, n.release, n.item); err != nil {
			c.o.Log.Error("keep", "release", n.release, "item", n.item, "err", err)
		}
	}
}

// missingBlobs answers which of some blobs are not in the depot.
func (c *Control) missingBlobs(_ context.Context, _ *caller, r *http.Request) (any, error) {
	q, err := body[api.Blobs](r)
	if err != nil {
		return nil, err
	}
	if len(q.Digests) > api.MostBlobs {
		return nil, &badRequest{fmt.Errorf("%d blobs, and %d is the most", len(q.Digests), api.MostBlobs)}
	}
	answer := api.Blobs{Digests: []string{}}
	for _, dg := range q.Digests {
		if !c.o.Depot.Has(dg) {
			answer.Digests = append(answer.Digests, dg)
		}
	}
	return answer, nil
}
