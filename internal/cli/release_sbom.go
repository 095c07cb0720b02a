package cli

import (
	"context"
	"fmt"
	"io"
	"path"

	"trysail/blueprint"
	"trysail/internal/api"
	"trysail/internal/recorder"
	"trysail/internal/sbom"
	"trysail/internal/tree"
	"trysail/release"
)

// billsOfMaterials are what a release ships, from its artifacts below dir, and what the
// servers of its roles are made of.
func (a *app) billsOfMaterials(ctx context.Context, c *api.Client, l *api.Ledger, gold []release.Artifact, bundle *tree.Dir, files map[string][]byte) error {
	a.ui.Step("listing what is in it")
	s := l.State
	o := sbom.Options{Time: s.Begun, Tool: Version(), Scratch: "/var/tmp"}
	var list []sbom.Artifact
	for _, x := range gold {
		if x.Digest != "" {
			list = append(list, sbom.Artifact{Path: x.Path, SHA256: x.Digest, Size: x.Size, Open: func() (io.ReadCloser, error) { return opened(bundle.Open(path.Join("artifacts", x.Path))) }})
		}
	}
	bill, err := sbom.Shipped(ctx, sbom.Release{Version: s.Started.Version, Revision: s.Source.Revision, URL: s.Source.URL, List: "ledger/gold.jsonl", ListSHA256: s.Gold.Tree}, list, o)
	if err != nil {
		return err
	}
	if files["sbom/shipped.cdx.json"], err = sbom.Marshal(bill); err != nil {
		return err
	}
	for _, m := range s.Machines {
		if m.Blueprint == "" {
			continue
		}
		bill, err := serverBill(ctx, c, m, files, o)
		if err != nil {
			return fmt.Errorf("the server of role %s: %w", m.Role, err)
		}
		if files[path.Join("sbom", "server-"+m.Role+".cdx.json")], err = sbom.Marshal(bill); err != nil {
			return err
		}
	}
	return nil
}

// serverBill lists a server from its blueprint, which files has, and from what its
// builds have downloaded.
func serverBill(ctx context.Context, c *api.Client, m release.Machine, files map[string][]byte, o sbom.Options) (*sbom.BOM, error) {
	dir := path.Join("blueprint", m.Role)
	b, err := blueprint.Parse("blueprint.yaml", files[path.Join(dir, "blueprint.yaml")])
	if err != nil {
		return nil, err
	}
	sum, err := blueprint.ParseSum("blueprint.sum", files[path.Join(dir, "blueprint.sum")])
	if err != nil {
		return nil, err
	}
	var downloads []sbom.Download
	for _, x := range b.Builds {
		if x.Downloads == "" {
			continue
		}
		data, err := readBlob(ctx, c, x.Downloads)
		if err != nil {
			return nil, fmt.Errorf("what it downloads: %w", err)
		}
		r, err := recorder.ParseRecording(data)
		if err != nil {
			return nil, err
		}
		for _, e := range r.Exchanges {
			if e.Method == "GET" && e.Status >= 200 && e.Status < 300 {
				downloads = append(downloads, sbom.Download{URL: e.URL, SHA256: e.Body, Size: e.Size})
			}
		}
	}
	return sbom.Server(b, sum, downloads, o)
}
