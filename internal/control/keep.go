package control

import (
	"context"
	"fmt"
	"io"
	"time"

	"trysail/fleet"
	"trysail/internal/depot"
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
	for _, m := range st.Machines {
		if m.Blueprint != "" {
			inputs = append(inputs, depot.Item{Name: m.Role + "/blueprint.yaml", Digest: m.Blueprint}, depot.Item{Name: m.Role + "/blueprint.sum", Digest: m.Sum})
		}
	}
	sets := map[string][]depot.Item{base: inputs}
	if only != "" {
		delete(sets, base)
	}
	for name, p := range st.Progress {
		r := p.Result
		if r == nil || (only != "" && name != only) {
			continue
		}
		var list []depot.Item
		if r.Log != "" {
			list = append(list, depot.Item{Name: "log", Digest: r.Log})
		}
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

func (c *Control) tag(ctx context.Context, name string, at time.Time, list []depot.Item) error {
	if old, err := c.o.Depot.Resolve(ctx, name); err == nil && same(old.Items, list) {
		return nil
	}
	_, err := c.o.Depot.Tag(ctx, name, at, list)
	return err
}

func same(a, b []depot.Item) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Name != b[i].Name || a[i].Digest != b[i].Digest {
			return false
		}
	}
	return true
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
