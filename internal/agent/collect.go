package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sync/errgroup"

	"trysail/blueprint"
	"trysail/internal/api"
	"trysail/internal/build"
	"trysail/internal/tree"
	"trysail/release"
)

// collect puts what the step made into the depot, here and on control. A second
// build of gold is compared instead.
func (s *step) collect(ctx context.Context, r *api.Report) error {
	list, err := s.outputs(r)
	if err != nil || r.Exit != 0 {
		return err
	}
	if s.as.Confirm {
		return s.confirm(ctx, r, list)
	}
	workspace, err := tree.Open(s.checkout)
	if err != nil {
		return err
	}
	defer workspace.Close()
	for chunk := range chunks(list) {
		if err := s.keep(ctx, workspace, chunk); err != nil {
			return err
		}
	}
	m, err := s.a.list(ctx, list)
	var limit *release.LimitError
	if errors.As(err, &limit) {
		r.Exit, r.Why = 1, limit.Error()
		return nil
	}
	if r.Outputs = m.Outputs; m.Tree != "" {
		r.List = m.List
	}
	return err
}

// chunk is how many files go to control between two looks at what it has.
const chunk = 500

// chunks gives the files among artifacts, some at a time.
func chunks(list []release.Artifact) func(func([]release.Artifact) bool) {
	return func(yield func([]release.Artifact) bool) {
		var part []release.Artifact
		for i, a := range list {
			if a.Digest != "" {
				part = append(part, a)
			}
			if (len(part) == chunk || i == len(list)-1) && len(part) > 0 {
				if !yield(part) {
					return
				}
				part = part[:0]
			}
		}
	}
}

// keep puts files of a workspace into this machine's depot and control's.
func (s *step) keep(ctx context.Context, workspace *tree.Dir, list []release.Artifact) error {
	var digests []string
	for _, a := range list {
		digests = append(digests, a.Digest)
	}
	err := each(ctx, list, func(ctx context.Context, x release.Artifact) error {
		f, err := workspace.Open(x.Path)
		if err != nil {
			return fmt.Errorf("keep %s: %w", x.Path, err)
		}
		defer f.Close()
		dg, _, err := s.a.o.Depot.Put(ctx, f)
		if err == nil && dg != x.Digest {
			err = errors.New("it changed after the step ended: a process of it still writes")
		}
		if err != nil {
			return fmt.Errorf("keep %s: %w", x.Path, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.a.note(digests...)
	var missing []string
	err = again(ctx, func() (err error) {
		tried, cancel := s.a.briefly(ctx)
		defer cancel()
		missing, err = s.a.o.Client.MissingBlobs(tried, digests)
		return err
	})
	if err != nil {
		return err
	}
	return each(ctx, missing, func(ctx context.Context, dg string) error {
		return again(ctx, func() error {
			return s.a.transferred(ctx, func(ctx context.Context) error { return s.a.put(ctx, dg) })
		})
	})
}

// each does something for all of a list, some at a time.
func each[T any](ctx context.Context, list []T, do func(context.Context, T) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, x := range list {
		g.Go(func() error { return do(ctx, x) })
	}
	return g.Wait()
}

// list is what an event keeps of files. Of many it is the digest of their list, which goes
// to the depot, here and on control.
func (a *Agent) list(ctx context.Context, files []release.Artifact) (release.Made, error) {
	var m release.Made
	if release.FitsEvent(files) {
		return release.Finished{Outputs: files}.Made(), nil
	}
	dg, _, err := a.o.Depot.PutWritten(ctx, func(w io.Writer) (err error) {
		m, err = release.WriteList(w, files)
		return err
	})
	if err != nil {
		return m, err
	}
	if dg != m.Tree {
		return m, fmt.Errorf("the list of files is %s, and the depot has %s", m.Tree, dg)
	}
	a.note(dg)
	return m, again(ctx, func() error { return a.send(ctx, dg) })
}

// outputs are what the step made. A step has failed if it made nothing where it
// should, or something there that cannot be collected.
func (s *step) outputs(r *api.Report) ([]release.Artifact, error) {
	found, err := build.Collect(s.checkout, s.as.Step.Out, build.Limits{Files: release.MostFiles, Bytes: release.MostBytes}, release.CheckPath)
	var refused *build.OutputError
	if errors.As(err, &refused) {
		r.Exit, r.Why = 1, refused.Error()
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(found.Unmatched) > 0 {
		made, err := build.Made(s.checkout, s.begun)
		if err != nil {
			return nil, err
		}
		r.Exit, r.Why = 1, "it ended well and made nothing that matches "+strings.Join(found.Unmatched, ", ")+": "+made
	} else if len(found.Files) == 0 && s.as.Step.Gold {
		r.Exit, r.Why = 1, "it ended well and made no file, only directories"
	}
	return found.Artifacts(s.user), nil
}

// inputs are the artifacts that the step takes in, all of them in this machine's depot.
func (s *step) inputs(ctx context.Context) ([]release.Artifact, error) {
	list := s.as.Inputs
	for _, l := range s.as.Lists {
		picked, err := s.a.files(ctx, l.Made, l.Picks)
		if err != nil {
			return nil, err
		}
		list = append(list, picked...)
	}
	need := []string{s.as.Source.Original}
	for _, in := range list {
		if in.Digest != "" {
			need = append(need, in.Digest)
		}
	}
	if err := s.a.fetch(ctx, need...); err != nil {
		return nil, err
	}
	s.a.note(need[1:]...)
	for _, l := range s.as.Lists {
		s.a.note(l.Made.Tree)
	}
	return list, nil
}

// files are those of a list that picks wants, by their paths.
func (a *Agent) files(ctx context.Context, m release.Made, picks func(path string) bool) (list []release.Artifact, err error) {
	if err := a.fetch(ctx, m.Tree); err != nil {
		return nil, err
	}
	err = a.undamaged(ctx, m.Tree, func() error {
		list = nil
		return m.Each(func(dg string) (io.ReadCloser, error) { return a.o.Depot.Get(ctx, dg) }, func(x release.Artifact) error {
			if picks(x.Path) {
				list = append(list, x)
			}
			return nil
		})
	})
	return list, err
}

// allProperties gives what each file and directory of a build has beside bytes, mode and time.
func allProperties(list []release.Artifact) map[string]string {
	all := make(map[string]string, len(list))
	for _, a := range list {
		all[a.Path] = properties(a)
	}
	return all
}

// splitOutputs gives the files and links of a build as they are compared, and its
// directories that are empty.
func splitOutputs(list []release.Artifact) (outputs []blueprint.Output, dirs map[string]string) {
	dirs = map[string]string{}
	for _, a := range list {
		if a.Dir {
			dirs[a.Path] = a.Mode
			continue
		}
		outputs = append(outputs, blueprint.Output{Path: a.Path, SHA256: a.Digest, Size: a.Size, Mode: a.Mode, Link: a.Link})
	}
	return outputs, dirs
}
