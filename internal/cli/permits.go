package cli

import (
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"trysail/blueprint"
	"trysail/internal/build"
)

// permitFlags are what this machine opens to builds; commands that run builds of a
// blueprint share them.
type permitFlags struct{ allow []string }

func (p *permitFlags) add(f *pflag.FlagSet) {
	f.StringArrayVar(&p.allow, "allow", nil, "let builds reach this live dependency of their blueprint: `KIND=ADDRESS`, such as device=/dev/hidraw0 or tcp=HOST:PORT (repeatable)")
}

// permits reads the flags. Builds never see Trysail's own files or the caller's SSH agent.
func (a *app) permits(p permitFlags) (build.Permits, error) {
	list := build.Permits{}
	for _, own := range []string{a.state, a.depotDir, a.runDirectory(), os.Getenv("SSH_AUTH_SOCK")} {
		if own == "" {
			continue
		}
		own, err := filepath.Abs(own)
		if err != nil {
			return list, err
		}
		list.Private = append(list.Private, own)
	}
	for _, text := range p.allow {
		x, err := blueprint.ParsePermission(text)
		if err != nil {
			return list, usage("--allow: %v", err)
		}
		list.Allow = append(list.Allow, x)
	}
	return list, nil
}
