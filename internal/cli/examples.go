package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

// examples are what help shows of each command that has no example beside its flags, by the
// command's path without the program. A test reads each as a command line.
func examples() map[string]string {
	return map[string]string{
		"drift":              "sudo trysail drift",
		"depot ls":           "trysail depot ls blueprint/app",
		"depot verify":       "trysail depot verify",
		"depot pull":         "trysail depot pull registry.example.com/build/app:2026-11 blueprint/app",
		"depot forget":       "trysail depot forget blueprint/app",
		"depot prune":        "trysail depot prune",
		"runbook check":      "trysail runbook check --fleet RELEASE.md",
		"runbook show":       "trysail runbook show RELEASE.md",
		"runbook init":       "trysail runbook init RELEASE.md",
		"runbook phases":     "trysail runbook phases licences --who lee",
		"release start":      "trysail release start 4.2 --ship 2026-12-01T09:00:00+01:00",
		"release list":       "trysail release list",
		"release status":     "trysail release status 4.2",
		"release watch":      "trysail release watch 4.2",
		"release wait":       "trysail release wait 4.2",
		"release events":     "trysail release events 4.2",
		"release checkpoint": "trysail release checkpoint 4.2 --into trysail/checkpoints --commit",
		"release report":     "trysail release report 4.2 --into report",
		"release log":        "trysail release log 4.2 suite --follow",
		"release fetch":      "trysail release fetch 4.2 gold --into gold",
		"release sign":       "trysail release sign 4.2 tested --key ~/.ssh/id_ed25519",
		"release reject":     "trysail release reject 4.2 tested --reason 'the installer fails on Windows'",
		"release amend":      "trysail release amend 4.2 --source --reason 'fix of the installer'",
		"release agree":      "trysail release agree 4.2",
		"release except":     "trysail release except 4.2 --reason 'time stamps only'",
		"release withdraw":   "trysail release withdraw 4.2 tested --reason 'signed too early'",
		"release waive":      "trysail release waive 4.2 suite 'TestPrinter/duplex' --reason 'the printer is broken'",
		"release retry":      "trysail release retry 4.2 suite --reason 'the mirror is back'",
		"release hold":       "trysail release hold 4.2 --reason 'a customer reports data loss'",
		"release resume":     "trysail release resume 4.2",
		"release abort":      "trysail release abort 4.2 --reason 'the wrong branch'",
		"release ship":       "trysail release ship 4.2 --bundle evidence --key release.age",
		"release bundle":     "trysail release bundle 4.2 --into evidence --key release.age",
		"diligence licences": "trysail diligence licences dist/app.tar.gz",
		"diligence changes":  "trysail diligence changes --since evidence-4.1/sbom/shipped.cdx.json dist/app.tar.gz",
		"diligence secrets":  "trysail diligence secrets dist/app.tar.gz",
		"drill run":          "sudo trysail drill run drills/two-servers-lost.yaml",
		"drill check":        "trysail drill check drills/two-servers-lost.yaml",
		"drill init":         "trysail drill init RELEASE.md",
		"drill schema":       "trysail drill schema > scenario.schema.json",
		"drill faults":       "trysail drill faults",
		"drill stranger":     "trysail drill stranger --owner ann",
		"drill clean":        "sudo trysail drill clean",
		"drill list":         "trysail drill list",
		"drill report":       "trysail drill report two-servers-lost-20261126-102202",
		"drill trend":        "trysail drill trend two-servers-lost",
		"drill hosts":        "trysail drill hosts hosts.yaml",
		"drill schedule":     "trysail drill schedule drills/two-servers-lost.yaml --day sunday --at 03:00 --systemd",
		"verify":             "trysail verify evidence --release-key release.pub --signers trysail/allowed_signers",
		"reprove":            "trysail reprove 4.2 --bundles /srv/evidence --release-key release.pub",
		"reprove schedule":   "trysail reprove schedule --bundles /srv/evidence --release-key release.pub --systemd",
		"key new":            "trysail key new release.age --recipient ~/.ssh/id_ed25519.pub",
		"key show":           "trysail key show release.age",
		"fleet drain":        "trysail fleet drain backup --reason 'a new disk'",
		"fleet retire":       "trysail fleet retire backup --reason 'the machine is sold'",
		"fleet readmit":      "trysail fleet readmit backup",
		"fleet revoke":       "trysail fleet revoke ann",
		"fleet controls":     "trysail fleet controls",
		"fleet dismiss":      "trysail fleet dismiss third",
	}
}

// addExamples gives commands their examples.
func addExamples(root *cobra.Command) {
	all := examples()
	for _, c := range root.Commands() {
		for _, x := range append(c.Commands(), c) {
			if text := all[strings.TrimPrefix(x.CommandPath(), root.Name()+" ")]; text != "" {
				x.Example = "  " + text
			}
		}
	}
}
