package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
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
		list, m := logs(st, name), st.Made(name)
		if m.Tree != "" {
			list = append(list, depot.Item{Name: "files.jsonl", Digest: m.Tree})
		}
		err := c.files(ctx, m, func(a release.Artifact) error {
			if a.Digest != "" {
				list = append(list, depot.Item{Name: outName(a.Path), Digest: a.Digest})
			}
			return nil
		})
		if err != nil {
			return err
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

// outName is that of an output in a reference, which holds no control characters.
func outName(name string) string {
	if strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "escaped/" + url.PathEscape(name)
	}
	return "out/" + name
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

// verifyBlob reads a blob to its end, which checks it.
func (c *Control) verifyBlob(ctx context.Context, dg string) error {
	f, err := c.o.Depot.Get(ctx, dg)
	if err != nil {
		return err
	}
	defer f.Close()
	// Who asked may be gone, and a blob is as large as a disk.
	for buf := make([]byte, 256<<10); err == nil && ctx.Err() == nil; {
		_, err = f.Read(buf)
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return errors.Join(err, ctx.Err())
}

// reachable tells whether a machine of a name was heard of lately.
func (c *Control) reachable(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.members[name]
	return m != nil && m.set != fleet.Retired && !m.heard.IsZero() && time.Since(m.heard) < fleet.LostAfter
}
