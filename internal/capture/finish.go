package capture

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"trysail/blueprint"
	"trysail/internal/debian"
	"trysail/internal/depot"
	"trysail/internal/recorder"
	"trysail/internal/tree"
)

// alternatives keeps the groups that the build came through, and those that the
// administrator set by hand to something that is kept.
func (c *capture) alternatives() error {
	all, err := debian.ReadAlternatives("/")
	if err != nil {
		return err
	}
	used := map[string]bool{}
	for _, o := range c.draft.Observation {
		if o.Class == blueprint.ClassAlternative {
			used[o.Item] = true
		}
	}
	kept := map[string]bool{}
	for _, p := range c.b.Packages {
		kept[p.Key()] = true
	}
	provided := func(p string) bool {
		return slices.ContainsFunc(c.db.Owners(p), func(o debian.Ownership) bool { return kept[o.Package.Key()] }) ||
			slices.ContainsFunc(c.b.Software, func(s blueprint.Software) bool { return below(p, s.Path) })
	}
	for _, a := range all {
		if !used[a.Name] && !(a.Manual && provided(a.Value)) {
			continue
		}
		alt := blueprint.Alternative{Name: a.Name, Link: a.Link, Value: a.Value, Manual: a.Manual}
		if choice := a.Choice(); choice != nil {
			alt.Priority = choice.Priority
			for i, s := range a.Slaves {
				// A machine without documentation has no link for a manual page.
				if i < len(choice.Slaves) && choice.Slaves[i] != "" && statPath(s.Link).Type != "" {
					alt.Slaves = append(alt.Slaves, blueprint.Slave{Name: s.Name, Link: s.Link, Path: choice.Slaves[i]})
				}
			}
		}
		c.b.Alternatives = append(c.b.Alternatives, alt)
	}
	return nil
}

// finish completes the draft and names the set of originals in the depot.
func (c *capture) finish(ctx context.Context) error {
	if err := c.collect(ctx); err != nil {
		return err
	}
	if err := c.overrides(ctx); err != nil {
		return err
	}
	if err := c.alternatives(); err != nil {
		return err
	}
	for _, d := range c.db.Diversions() {
		if d.By == ":" {
			c.b.Diversions = append(c.b.Diversions, blueprint.Diversion{From: d.From, To: d.To})
		}
	}
	touched := map[string]bool{}
	for _, o := range c.draft.Observation {
		if o.Provided() && o.Class != blueprint.ClassDirectory {
			touched[o.Path] = o.Class == blueprint.ClassConfig || o.Class == blueprint.ClassSoftware
		}
	}
	c.b.Units = readUnits("/", touched, func(p string) bool { return len(c.db.Owners(p)) > 0 }, c.rights.readFile)
	if err := c.connections(); err != nil {
		return err
	}
	c.x.NoNewPrivileges = !blueprint.GainsPrivileges(c.draft.Observation)
	if err := c.keepMade(ctx); err != nil {
		return err
	}
	data, err := blueprint.MarshalObservation(c.draft.Observation)
	if err != nil {
		return err
	}
	if c.x.Observation, err = c.Depot.PutBytes(ctx, data); err != nil {
		return err
	}
	c.draft.Sum[c.x.ObservationName()] = c.x.Observation
	c.draft.Stats.Packages, c.draft.Stats.Software, c.draft.Stats.Config = len(c.b.Packages), len(c.b.Software), len(c.b.Config)
	c.b.Sort()
	if err := c.merge(); err != nil {
		return err
	}
	// What cannot be read back must not be written.
	return c.draft.Blueprint.Validate()
}

// keepMade puts what the build made into the depot.
func (c *capture) keepMade(ctx context.Context) error {
	checkout, err := tree.Open(c.checkout)
	if err != nil {
		return err
	}
	defer checkout.Close()
	for _, out := range c.x.Made {
		if out.SHA256 == "" {
			continue
		}
		f, err := checkout.Open(out.Path)
		if err != nil {
			return err
		}
		_, err = c.Depot.PutExpected(ctx, f, out.SHA256)
		f.Close()
		if err != nil {
			return fmt.Errorf("keep %s: %w", out.Path, err)
		}
	}
	return nil
}

// connections proposes live dependencies for what the build reached outside of
// the machine by other ways than a download, and looks at those it has.
func (c *capture) connections() error {
	for _, l := range c.b.LiveDependencies {
		if why, remedy := l.Trouble(c.Now()); why != "" && !l.Proposed {
			c.attention(l.Name, why, remedy)
		}
	}
	propose := func(l blueprint.LiveDependency, remedy string) {
		for _, have := range c.b.LiveDependencies {
			if have.Kind == l.Kind && have.Address == l.Address {
				if have.Proposed {
					c.attention(l.Address, l.Why, remedy)
				}
				return
			}
		}
		l.Proposed = true
		base := l.Name
		for n := 2; slices.ContainsFunc(c.b.LiveDependencies, func(have blueprint.LiveDependency) bool { return have.Name == l.Name }); n++ {
			l.Name = fmt.Sprintf("%s-%d", base, n)
		}
		c.b.LiveDependencies = append(slices.Clip(c.b.LiveDependencies), l)
		c.attention(l.Address, l.Why, remedy)
	}
	formats, err := foreignFormats("/proc/sys/fs/binfmt_misc")
	if err != nil {
		return err
	}
	for _, f := range formats {
		if slices.ContainsFunc(c.draft.Observation, func(o blueprint.Observed) bool {
			return strings.Contains(o.Ops, "exec") && f.is(c.beginning(o.Path), o.Path)
		}) {
			propose(blueprint.LiveDependency{
				Name: safeName("binfmt-" + f.name), Kind: "other", Address: "binfmt_misc " + f.name,
				Why: "the kernel of this machine starts programs of the build by " + f.interpreter + " (binfmt_misc " + f.name + "); a rebuilt machine runs on the kernel of its host, which may not",
			}, "register it on each host that rebuilds (update-binfmts, systemd-binfmt), or call the interpreter by name in the build; then confirm this under live_dependencies (owner, fallback)")
		}
	}
	for _, x := range c.recording.Connections {
		if x.Allowed {
			continue
		}
		switch x.Why {
		case "ssh":
			propose(blueprint.LiveDependency{Name: safeName(x.Address), Kind: "tcp", Address: x.Address, Why: "the build fetches by ssh, which cannot be recorded"}, "fetch by https instead (git config url.https://….insteadOf), or confirm it under live_dependencies")
		case recorder.TLSRefused:
			c.attention(x.Address, "a program does not trust the recorder, so its download is not recorded", "tell the program to use the system's certificate authorities, or fetch the file another way")
		default:
			propose(blueprint.LiveDependency{Name: safeName(x.Address), Kind: "tcp", Address: x.Address, Why: "the build connects to this by a protocol that cannot be recorded (a licence server, a database?)"}, "if the release needs it, confirm it under live_dependencies (owner, expires, fallback) and remove \"proposed\"; else build without it")
		}
	}
	if n := c.result.Trace.Rings; n > 0 {
		c.attention("io_uring", fmt.Sprintf("the build made %d io_uring ring(s), through which it may open files unseen", n), "turn them off while capturing (sysctl kernel.io_uring_disabled=2; for Node UV_USE_IO_URING=0) and see that nothing else is found")
	}
	if c.dropped > 0 {
		c.attention("UDP", fmt.Sprintf("%d packet(s) of the build that were neither TCP nor a question for a name were dropped", c.dropped), "if the build needs the answer, let it ask by TCP; else build without it")
	}
	for _, o := range c.draft.Observation {
		if o.Class != blueprint.ClassLive {
			continue
		}
		kind, what := "unix", "the build talks to a service outside of it"
		if below(o.Path, "/dev") {
			kind, what = "device", "the build opened a device that cannot be captured"
		}
		if engine := containerEngine(o.Path); engine != "" {
			what = "the build uses the container engine " + engine + ", whose work is not seen"
		}
		propose(blueprint.LiveDependency{Name: safeName(path.Base(o.Path)), Kind: kind, Address: o.Path, Why: what}, "if the release needs it, confirm it under live_dependencies (owner, expires, fallback) and remove \"proposed\"; else build without it")
	}
	return nil
}

func containerEngine(p string) string {
	for _, e := range []string{"docker", "podman", "containerd", "buildkit", "crio"} {
		if strings.Contains(p, e) {
			return e
		}
	}
	return ""
}

// merge is where captures of several builds become one machine.
func (c *capture) merge() error {
	if c.Into == nil {
		return nil
	}
	merged := *c.Into
	if err := merged.Merge(c.b); err != nil {
		return err
	}
	// Digests of what the other builds still need.
	for _, name := range merged.Names() {
		if c.draft.Sum[name] == "" {
			c.draft.Sum[name] = c.IntoSum[name]
		}
	}
	for name, digest := range c.IntoSum {
		if strings.HasPrefix(name, "downloads/bodies/") && c.draft.Sum[name] == "" && len(merged.Builds) > 1 {
			c.draft.Sum[name] = digest
		}
	}
	c.draft.Blueprint = &merged
	return nil
}

// Reference names the draft's originals in the depot.
func (d *Draft) tag(ctx context.Context) error {
	var items []depot.Item
	// What the builds made, so that a proof elsewhere can say where it differs.
	for _, x := range d.Blueprint.Builds {
		for _, out := range x.Made {
			for kind, digest := range map[string]string{"made": out.SHA256, "again": out.Again} {
				if d.depot.Has(digest) {
					items = append(items, depot.Item{Name: kind + "/" + x.Name + "/" + out.Path, Digest: digest})
				}
			}
		}
	}
	for name, digest := range d.Sum {
		items = append(items, depot.Item{Name: name, Digest: digest})
	}
	files, err := d.files()
	if err != nil {
		return err
	}
	for file, data := range files {
		digest, err := d.depot.PutBytes(ctx, data)
		if err != nil {
			return err
		}
		items = append(items, depot.Item{Name: file, Digest: digest, Size: int64(len(data))})
	}
	slices.SortFunc(items, func(a, b depot.Item) int { return strings.Compare(a.Name, b.Name) })
	_, err = d.depot.Tag(ctx, d.Blueprint.Reference(), d.Blueprint.Captured, items)
	return err
}

// files renders the blueprint's own files.
func (d *Draft) files() (map[string][]byte, error) {
	yaml, err := d.Blueprint.Marshal()
	if err != nil {
		return nil, err
	}
	return map[string][]byte{"blueprint.yaml": yaml, "blueprint.sum": d.Sum.Marshal(), "REBUILD.md": []byte(d.Blueprint.RebuildDocument())}, nil
}

// Write writes the blueprint's files below dir, each whole or not at all, and
// names the originals in the depot.
func (d *Draft) Write(ctx context.Context, dir string) error {
	if err := d.tag(ctx); err != nil {
		return err
	}
	files, err := d.files()
	if err != nil {
		return err
	}
	private := map[string]bool{}
	for _, f := range d.Blueprint.Config {
		mode, err := strconv.ParseUint(f.Mode, 8, 32)
		private[f.ConfigName()] = err == nil && mode&0o004 == 0 && !f.Encrypted
	}
	return writeFiles(dir, files, d.Config, private)
}
