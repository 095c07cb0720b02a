package debian

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"pault.ag/go/debian/version"
)

// Why a package has no original and a person may mend it: with apt-get update, or once
// the mirror answers.
const (
	NoIndex    = "apt has no package index on this machine"
	OldIndex   = "apt's index is older than this version" // and what it has
	NoDownload = "download failed"                        // and why
)

// whyAbsent says why apt cannot give exactly the installed version of a package: these are
// the versions that its index offers.
func whyAbsent(installed string, offered []string, index bool) string {
	newest := ""
	for _, v := range offered {
		if newest == "" || older(newest, v) {
			newest = v
		}
	}
	switch {
	case !index:
		return NoIndex
	case newest == "":
		return "no configured source has this package"
	case older(newest, installed):
		return OldIndex + ": it has " + newest
	}
	return "no configured source has this version any more: they have " + newest
}

// older compares two versions. One that cannot be read is older than none.
func older(a, b string) bool {
	x, err := version.Parse(a)
	y, yerr := version.Parse(b)
	return err == nil && yerr == nil && version.Compare(x, y) < 0
}

// absent says of each package why apt's index lacks its version.
func absent(ctx context.Context, pkgs []*Package) (map[*Package]string, error) {
	reasons := map[*Package]string{}
	if len(pkgs) == 0 {
		return reasons, nil
	}
	index, err := apt(ctx, "apt-get", "indextargets", "--format", "$(FILENAME)", "Created-By: Packages")
	if err != nil {
		return nil, fmt.Errorf("ask apt for its indexes: %w", err)
	}
	args := []string{"madison"}
	for _, p := range pkgs {
		args = append(args, p.Name+":"+p.Architecture)
	}
	offers, err := apt(ctx, "apt-cache", args...)
	if err != nil {
		return nil, fmt.Errorf("ask apt for other versions: %w", err)
	}
	offered := parseMadison(offers)
	for _, p := range pkgs {
		reasons[p] = whyAbsent(p.Version, offered[p.Name], strings.TrimSpace(index) != "")
	}
	return reasons, nil
}

// apt runs one of apt's programs. What it does not know is an exit status, and no error.
func apt(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = aptEnv()
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return "", err
	}
	return string(out), ctx.Err()
}

// parseMadison reads what apt-cache madison prints: "name | version | source".
func parseMadison(out string) map[string][]string {
	list := map[string][]string{}
	for line := range strings.Lines(out) {
		f := strings.Split(line, "|")
		if len(f) < 3 || !strings.HasSuffix(strings.TrimSpace(f[2]), "Packages") {
			continue // a source package
		}
		name, _, _ := strings.Cut(strings.TrimSpace(f[0]), ":")
		list[name] = append(list[name], strings.TrimSpace(f[1]))
	}
	return list
}
