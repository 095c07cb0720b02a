package cli

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"trysail/internal/tree"
)

// addReproveSchedule adds what makes every shipped release again by itself.
func (a *app) addReproveSchedule(parent *cobra.Command) {
	var o scheduleOptions
	var bundles, key, log string
	var trusted []string
	c := &cobra.Command{
		Use:   "schedule",
		Short: "Print a schedule that reproves every shipped release: a line of cron, or a systemd timer and service",
		Long: "Schedule prints a line for /etc/cron.d, or with --systemd a service and its timer, that run trysail reprove --all,\n" +
			"as root. If one release cannot be made again with the same bytes, it ends with status 3: the service has failed." + exitHelp,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			dir, err := filepath.Abs(bundles)
			if err != nil {
				return err
			}
			if _, err := tree.Stat(dir); err != nil {
				return err
			}
			at, command, err := a.wholeCommand("reprove", "--all", "--bundles", dir)
			if err != nil {
				return err
			}
			for _, x := range []struct{ flag, file string }{{"--release-key", key}, {"--ledger-key", log}} {
				if x.file == "" {
					continue
				}
				file, err := filepath.Abs(x.file)
				if err != nil {
					return err
				}
				if _, err := tree.Stat(file); err != nil {
					return err
				}
				command = append(command, x.flag, file)
			}
			if key == "" && log == "" && len(trusted) == 0 {
				return usage("this runs the steps of releases: name who signs those releases by --release-key FILE, --ledger-key FILE or --trust SHA256:…")
			}
			if err := (reproveOptions{trusted: trusted}).fingerprints(); err != nil {
				return err
			}
			for _, f := range trusted {
				command = append(command, "--trust", f)
			}
			return a.schedule("trysail-reprove", "Make every shipped release again", at, command, o)
		},
	}
	o.flags(c.Flags())
	c.Flags().StringVar(&bundles, "bundles", "bundles", "`DIR` that holds the bundles, one directory each")
	c.Flags().StringVar(&key, "release-key", "", "the release key, PEM in `FILE`")
	c.Flags().StringVar(&log, "ledger-key", "", "`FILE` with the ledger's key")
	c.Flags().StringArrayVar(&trusted, "trust", nil, "run what this release key has signed: its `FINGERPRINT`, SHA256:… (repeatable)")
	parent.AddCommand(c)
}
