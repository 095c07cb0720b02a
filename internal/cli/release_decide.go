package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"

	"trysail/internal/api"
	"trysail/release"
)

// decision is what a person decides of a release, and how control is asked for it.
type decision struct {
	path    string                        // of the request, below the release
	command string                        // of trysail release; "": as the path
	words   string                        // of the command that decides so, after the version
	done    string                        // said of it afterwards
	item    string                        // said of what it was
	people  func(*release.State) []string // who may decide so
	event   func(person string) release.Personal
	body    func(release.Personal) any // of the request; nil: the event itself
	show    func(ctx context.Context, c *api.Client, s *release.State, b release.Personal) error
}

func (d decision) name() string { return cmp.Or(d.command, d.path) }

func (d decision) request(b release.Personal) any {
	if d.body == nil {
		return b
	}
	return d.body(b)
}

// decide asks control for a decision: signed with the person's SSH key, where the release has
// signers.
func (a *app) decide(ctx context.Context, version string, d decision, o releaseOptions) error {
	c, s, err := a.statusOf(ctx, version)
	if err != nil {
		return err
	}
	if !s.Signed {
		if o.signing.signature != "" || o.signing.statement != "" || o.signing.key != "" {
			return usage("release %s has no allowed signers: name the file as signers: in the runbook", version)
		}
		return a.tell(ctx, version, d.path, d.request(d.event(o.as)), d.done, d.item)
	}
	l, err := a.readLedger(ctx, c, version)
	if err != nil {
		return err
	}
	if b := d.event(o.as); !l.State.Signs(b) { // it began by older rules
		return a.tell(ctx, version, d.path, d.request(b), d.done, d.item)
	}
	return a.decideSigned(ctx, version, c, l, d, o)
}

// everybody are all whom the runbook in force names.
func everybody(s *release.State) []string {
	list := slices.Clone(s.Approvers)
	for _, p := range s.People {
		list = append(list, p.Name)
	}
	for _, x := range s.Items {
		list = append(list, x.Signers...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func approvers(s *release.State) []string { return s.Approvers }

// signersFor are those who may sign an item.
func signersFor(item string) func(*release.State) []string {
	return func(s *release.State) []string {
		if x := s.Item(item); x != nil {
			return x.Signers
		}
		return nil
	}
}

func (a *app) withdrawal(item string, o releaseOptions) decision {
	return decision{
		path: "withdraw", words: item, done: "withdraw", item: item, people: signersFor(item),
		event: func(who string) release.Personal { return release.Withdrawn{Item: item, Person: who, Reason: o.reason} },
		body: func(b release.Personal) any {
			x := b.(release.Withdrawn)
			return api.Step{Item: x.Item, Person: x.Person, Reason: x.Reason, Proof: x.Proof}
		},
		show: func(_ context.Context, _ *api.Client, s *release.State, b release.Personal) error {
			for _, w := range s.Progress[item].Words {
				if s.Same(w.Person, b.Decider()) {
					a.showf("%s said %s to %s", w.Person, w.Decision, item)
				}
			}
			return nil
		},
	}
}

func (a *app) waiver(item, test string, o releaseOptions) decision {
	return decision{
		path: "waive", words: item + " " + shellWord(test), done: "waive", item: item, people: approvers,
		event: func(who string) release.Personal {
			return release.Waived{Item: item, Test: test, Person: who, Reason: o.reason}
		},
		body: func(b release.Personal) any {
			x := b.(release.Waived)
			return api.Step{Item: x.Item, Test: x.Test, Person: x.Person, Reason: x.Reason, Proof: x.Proof}
		},
		show: func(_ context.Context, _ *api.Client, s *release.State, _ release.Personal) error {
			if x := s.Item(item); x != nil && s.Progress[item].Result != nil {
				r := s.Progress[item].Result
				a.showf("%s ran %d tests; %d failed; its script ended with exit status %d", item, r.Tests, len(r.Failing), r.Status)
				a.showf("Its log: trysail release log %s %s", s.Started.Version, item)
			}
			return nil
		},
	}
}

func (a *app) exception(version string, o releaseOptions) decision {
	var differences string
	for _, d := range o.differences {
		differences += " --difference " + shellWord(d)
	}
	return decision{
		path: "except", words: strings.TrimSpace(differences), done: "signed for", item: version, people: approvers,
		event: func(who string) release.Personal {
			return release.Excepted{Person: who, Differences: o.differences, Reason: o.reason}
		},
		show: func(_ context.Context, _ *api.Client, _ *release.State, b release.Personal) error {
			a.showf("The second build of gold differs in:")
			for _, d := range b.(release.Excepted).Differences {
				a.showf("  %s", d)
			}
			return nil
		},
	}
}

// proposal is an amendment that was made of the committed revision.
func (a *app) proposal(b release.Amended, version string, o releaseOptions) decision {
	var words []string
	for flag, set := range map[string]bool{"--source": o.source, "--signers": o.signers, "--machines": o.machines, "--runbook " + shellWord(o.amended): o.amended != ""} {
		if set {
			words = append(words, flag)
		}
	}
	slices.Sort(words)
	return decision{
		path: "amend", words: strings.Join(words, " "), done: "proposed", item: version, people: everybody,
		event: func(who string) release.Personal { b.By = who; return b },
		body:  func(b release.Personal) any { return api.AmendOf(b.(release.Amended)) },
		show: func(ctx context.Context, c *api.Client, s *release.State, b release.Personal) error {
			return a.showChange(ctx, c, s, b.(release.Amended))
		},
	}
}

func (a *app) agreement(amendment int64, version string, o releaseOptions) decision {
	b, words := release.Agreed{Amendment: amendment, Decision: release.Approve, Reason: o.reason}, ""
	if o.no {
		b.Decision, words = release.Reject, "--no"
	}
	return decision{
		path: "agree", words: words, done: string(b.Decision), item: version, people: approvers,
		event: func(who string) release.Personal { b.Person = who; return b },
		show: func(ctx context.Context, c *api.Client, s *release.State, _ release.Personal) error {
			if s.Amendment == nil || s.Amendment.Seq != amendment {
				return fmt.Errorf("control names amendment %d, and its ledger does not: nothing is signed", amendment)
			}
			a.showf("%s proposes to change %s: %s", s.Amendment.By, strings.Join(s.Amendment.What, ", "), s.Amendment.Reason)
			return a.showChange(ctx, c, s, s.Amendment.Amended)
		},
	}
}

func (a *app) abort(version string, o releaseOptions) decision {
	return decision{
		path: "abort", done: "abort", item: version, people: everybody,
		event: func(who string) release.Personal { return release.Aborted{Reason: o.reason, Person: who} },
		body: func(b release.Personal) any {
			x := b.(release.Aborted)
			return api.Abort{Reason: x.Reason, Person: x.Person, Proof: x.Proof}
		},
		show: func(_ context.Context, _ *api.Client, s *release.State, _ release.Personal) error {
			if s.Gold != nil {
				a.showf("Release %s ends for good. Gold is committed, so version %s is used up", version, version)
			} else {
				a.showf("Release %s ends. There is no gold, so version %s may be started again", version, version)
			}
			return nil
		},
	}
}

// showf shows a person something before they sign.
func (a *app) showf(format string, args ...any) {
	a.ui.end()
	fmt.Fprintln(a.stderr, plainLine(fmt.Sprintf(format, args...)))
}

// showChange shows what an amendment changes, line by line.
func (a *app) showChange(ctx context.Context, c *api.Client, s *release.State, b release.Amended) error {
	texts := func(what, before, after string) error {
		if after == "" || before == after {
			return nil
		}
		var text [2][]byte
		for i, dg := range []string{before, after} {
			if dg == "" {
				continue
			}
			var err error
			if text[i], err = readBlob(ctx, c, dg); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
		}
		a.ui.end()
		fmt.Fprint(a.stderr, plainLines(string(diff.Diff(what+" in force", text[0], what+" proposed", text[1]))))
		return nil
	}
	if b.Source != nil {
		a.showf("source: revision %s by %s instead of %s by %s", b.Source.Revision, b.Source.Author, s.Source.Revision, s.Source.Author)
	}
	if err := texts("runbook", s.Runbook, b.Runbook); err != nil {
		return err
	}
	for _, m := range b.Machines {
		if err := texts("blueprint of role "+m.Role, s.Machine(m.Role).Blueprint, m.Blueprint); err != nil {
			return err
		}
	}
	if b.Signers == "" {
		return nil
	}
	if err := texts("allowed signers", s.Signers, b.Signers); err != nil {
		return err
	}
	return texts("revoked keys", s.Revoked, b.Revoked)
}

// releaseAgree approves the open amendment, or refuses it.
func (a *app) releaseAgree(ctx context.Context, version string, o releaseOptions) error {
	_, s, err := a.statusOf(ctx, version)
	if err != nil {
		return err
	}
	if s.Amendment == 0 {
		return usage("no change of release %s is proposed", version)
	}
	return a.decide(ctx, version, a.agreement(s.Amendment, version, o), o)
}

// releaseAbort ends a release. A person says why, and confirms it: nothing takes it back.
func (a *app) releaseAbort(ctx context.Context, version string, o releaseOptions) error {
	if o.reason == "" && o.signing.signature == "" {
		return usage("an abort needs a reason: --reason TEXT")
	}
	_, s, err := a.statusOf(ctx, version)
	if err != nil {
		return err
	}
	if !s.Signed && !o.signing.yes {
		if !a.attended() {
			return usage("the end of release %s needs a confirmation, and standard input is no terminal: add --yes", version)
		}
		if !a.ask("Abort release " + version + " for good?") {
			return errors.New("the release goes on")
		}
	}
	return a.decide(ctx, version, a.abort(version, o), o)
}

// releaseAmend proposes a change of the running release.
func (a *app) releaseAmend(ctx context.Context, version string, o releaseOptions) error {
	if o.amended == "" && !o.source && !o.machines && !o.signers {
		return usage("nothing changes: give --runbook FILE, --source, --machines or --signers")
	}
	if o.reason == "" && o.signing.signature == "" {
		return usage("a change needs a reason: --reason TEXT")
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	b, v, err := a.change(ctx, o)
	if err != nil {
		return err
	}
	a.ui.Step("sending originals to control")
	if err := a.send(ctx, c, v.depot, slices.Sorted(maps.Keys(v.need))); err != nil {
		return err
	}
	return a.decide(ctx, version, a.proposal(*b, version, o), o)
}
