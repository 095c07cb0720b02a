package control

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"trysail/fleet"
	"trysail/internal/depot"
	"trysail/release"
)

// keep names in the depot all that a release is made of and has made, so that
// nothing of it is pruned: the runbook, the source, the blueprints, and what each
// step made, with its log; or what one item made only. It is safe to repeat.
func (c *Control) keep(ctx context.Context, version, only string) error {
	st := c.state(version)
	if st == nil {
		return nil
	}
	base := "release/" + plainName(version)
	inputs := []depot.Item{{Name: "runbook.md", Digest: st.Runbook}, {Name: "source.tar.zst", Digest: st.Source.Original}}
	for name, dg := range map[string]string{"allowed_signers": st.Signers, "revoked": st.Revoked} {
		if dg != "" {
			inputs = append(inputs, depot.Item{Name: name, Digest: dg})
		}
	}
	slices.SortFunc(inputs, func(a, b depot.Item) int { return strings.Compare(a.Name, b.Name) })
	for _, m := range st.Machines {
		if m.Blueprint != "" {
			inputs = append(inputs, depot.Item{Name: m.Role + "/blueprint.yaml", Digest: m.Blueprint}, depot.Item{Name: m.Role + "/blueprint.sum", Digest: m.Sum})
		}
		for _, it := range c.originals(ctx, m) {
			inputs = append(inputs, depot.Item{Name: m.Role + "/" + it.Name, Digest: it.Digest})
		}
	}
	sets := map[string][]depot.Item{base: inputs}
	if only != "" {
		delete(sets, base)
	}
	for name, p := range st.Progress {
		if p.Result == nil || (only != "" && name != only) {
			continue
		}
		list := logs(st, name)
		for _, a := range st.Outputs(name) {
			if a.Link == "" {
				list = append(list, depot.Item{Name: "out/" + a.Path, Digest: a.Digest})
			}
		}
		sets[base+"/"+name] = list
	}
	for name, list := range sets {
		if err := c.tag(ctx, name, st.Begun, list); err != nil {
			return err
		}
	}
	return nil
}

// logs are those of an item's last result, and of the second build of gold.
func logs(st *release.State, name string) []depot.Item {
	var list []depot.Item
	if r := st.Progress[name].Result; r != nil && r.Log != "" {
		list = append(list, depot.Item{Name: "log", Digest: r.Log})
	}
	if x := st.Item(name); x != nil && x.Gold && st.Gold != nil && st.Gold.Confirmed != nil && st.Gold.Confirmed.Log != "" {
		list = append(list, depot.Item{Name: "log-of-second-build", Digest: st.Gold.Confirmed.Log})
	}
	return list
}

func (c *Control) tag(ctx context.Context, name string, at time.Time, list []depot.Item) error {
	same := func(a, b depot.Item) bool { return a.Name == b.Name && a.Digest == b.Digest }
	if old, err := c.o.Depot.Resolve(ctx, name); err == nil && slices.EqualFunc(old.Items, list, same) {
		return nil
	}
	_, err := c.o.Depot.Tag(ctx, name, at, list)
	return err
}

// plainName writes a version so that it is part of a reference, and two versions
// never the same: 4.2-rc1 is v4.2-rc1, 4.2+B is v4.2_x2b_x42.
func plainName(version string) string {
	plain := func(i int) bool {
		return i < len(version) && (version[i] >= 'a' && version[i] <= 'z' || version[i] >= '0' && version[i] <= '9')
	}
	b := []byte("v")
	for i := range len(version) {
		switch c := version[i]; {
		case plain(i), (c == '.' || c == '-') && plain(i+1):
			b = append(b, c)
		default:
			b = fmt.Appendf(b, "_x%02x", c)
		}
	}
	return string(b)
}

// whole reads a blob to its end, which checks it.
func (c *Control) whole(ctx context.Context, dg string) error {
	f, err := c.o.Depot.Get(ctx, dg)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.Discard, f)
	return err
}

// alive tells whether a machine of a name was heard of lately.
func (c *Control) alive(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.members[name]
	return m != nil && m.set != fleet.Retired && !m.heard.IsZero() && time.Since(m.heard) < fleet.LostAfter
}
