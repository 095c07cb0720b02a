package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"trysail/internal/tree"
)

type scheduleOptions struct {
	day, at string
	systemd bool
	into    string
	notify  string
}

func (a *app) addSchedule(parent *cobra.Command) {
	var o scheduleOptions
	cmd := &cobra.Command{
		Use:   "schedule FILE",
		Short: "Print a schedule for a drill: a line of cron, or a systemd timer and service",
		Long: "Schedule prints a line for /etc/cron.d, or with --systemd a service and its timer, that run a scenario in this working\n" +
			"copy, as root. A drill whose verdict is not pass ends with status 3: the service has failed, and --notify tells people." + exitHelp,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.drillSchedule(args[0], o) },
	}
	o.flags(cmd.Flags())
	cmd.Flags().StringVar(&o.notify, "notify", "", "tell people the verdict as this `FILE` says (docs/notices.md)")
	parent.AddCommand(cmd)
}

func (o *scheduleOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.day, "day", "mon", "`DAY`: mon, tue, wed, thu, fri, sat, sun, or daily")
	f.StringVar(&o.at, "at", "03:00", "`HH:MM`, by the clock of this machine")
	f.BoolVar(&o.systemd, "systemd", false, "a service and a timer instead of a line of cron")
	f.StringVar(&o.into, "into", "", "write into `DIR` (such as /etc/cron.d or /etc/systemd/system) instead of printing")
}

var clockForm = regexp.MustCompile(`^([01]\d|2[0-3]):([0-5]\d)$`)

// scheduled is a file of a schedule.
type scheduled struct {
	File string `json:"file"`
	Text string `json:"text"`
}

func (a *app) drillSchedule(file string, o scheduleOptions) error {
	p, _, err := readScenario(file)
	if err != nil {
		return err
	}
	book, _, err := readRunbook(p.Release.Runbook)
	if err != nil {
		return err
	}
	if err := p.Against(book); err != nil {
		return err
	}
	dir, command, err := a.command(file, o.notify)
	if err != nil {
		return err
	}
	// cron reads no file with a dot
	return a.schedule("trysail-drill-"+strings.ReplaceAll(p.Name, ".", "-"), "Drill "+p.Name, dir, command, o)
}

// schedule gives what runs a command by itself: what says to people what it is.
func (a *app) schedule(name, what, dir string, command []string, o scheduleOptions) error {
	days := []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
	clock := clockForm.FindStringSubmatch(o.at)
	switch {
	case o.day != "daily" && !slices.Contains(days, o.day):
		return usage("--day %q is none of %s, daily", o.day, strings.Join(days, ", "))
	case clock == nil:
		return usage("--at %q is no time of day such as 03:00", o.at)
	}
	for _, s := range append([]string{dir}, command...) {
		if strings.ContainsFunc(s, unicode.IsControl) {
			return usage("%q: neither cron nor systemd takes such a name", s)
		}
	}
	when := map[bool]string{true: "*", false: fmt.Sprint(slices.Index(days, o.day))}[o.day == "daily"]
	files := []scheduled{{name, fmt.Sprintf("# %s, %s\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n%s %s * * %s root cd %s && %s\n", what, o.day, clock[2], clock[1], when, forCron([]string{dir}), forCron(command))}}
	if o.systemd {
		on := "*-*-*"
		if o.day != "daily" {
			on = strings.ToUpper(o.day[:1]) + o.day[1:] + " *-*-*"
		}
		files = []scheduled{
			{name + ".service", fmt.Sprintf("[Unit]\nDescription=%s\nWants=network-online.target\nAfter=network-online.target\n\n"+
				"[Service]\nType=oneshot\nWorkingDirectory=%s\nExecStart=%s\n", what, strings.ReplaceAll(dir, "%", "%%"), forSystemd(command))},
			{name + ".timer", fmt.Sprintf("[Unit]\nDescription=%s, %s\n\n[Timer]\nOnCalendar=%s %s:00\nPersistent=true\n\n[Install]\nWantedBy=timers.target\n", what, o.day, on, o.at)},
		}
	}
	return a.giveSchedule(files, o, name)
}

func (a *app) giveSchedule(files []scheduled, o scheduleOptions, name string) error {
	for i, f := range files {
		if o.into == "" {
			if o.systemd {
				a.printf("# %s\n", f.File)
			}
			a.print(f.Text)
			if i+1 < len(files) {
				a.printf("\n")
			}
			continue
		}
		files[i].File = filepath.Join(o.into, f.File)
		if err := tree.WriteFile(files[i].File, []byte(f.Text), 0o644); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return usage("%s is no directory: make it first", o.into)
			}
			return err
		}
		a.printf("%s\n", files[i].File)
	}
	if a.json {
		return a.printJSON(files)
	}
	if o.systemd {
		fmt.Fprintf(a.stderr, "To begin: systemctl daemon-reload && systemctl enable --now %s.timer\n", name)
	}
	return nil
}

// command is what runs a scenario.
func (a *app) command(file, notice string) (dir string, args []string, err error) {
	if dir, args, err = a.wholeCommand("drill", "run"); err != nil {
		return "", nil, err
	}
	if notice != "" {
		if _, err := readNotify(notice); err != nil {
			return "", nil, err
		}
		if notice, err = filepath.Abs(notice); err != nil {
			return "", nil, err
		}
		args = append(args, "--notify", notice)
	}
	if strings.HasPrefix(file, "-") {
		args = append(args, "--")
	}
	return dir, append(args, file), nil
}

// wholeCommand is one of this program's, whole: who runs it has another directory and
// another environment.
func (a *app) wholeCommand(words ...string) (dir string, args []string, err error) {
	if dir, err = os.Getwd(); err != nil {
		return "", nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	state, err := filepath.Abs(a.state)
	if err != nil {
		return "", nil, err
	}
	args = []string{program, "--state", state}
	if a.depotDir != filepath.Join(a.state, "depot") {
		depot, err := filepath.Abs(a.depotDir)
		if err != nil {
			return "", nil, err
		}
		args = append(args, "--depot", depot)
	}
	return dir, append(args, words...), nil
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:=,+-]+$`)

// forCron quotes words for the shell, and then for cron, to which % ends a line.
func forCron(words []string) string {
	list := make([]string, len(words))
	for i, w := range words {
		if !plainWord.MatchString(w) {
			w = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		list[i] = strings.ReplaceAll(w, "%", `\%`)
	}
	return strings.Join(list, " ")
}

// forSystemd quotes words for a unit, where % and $ mean something too.
func forSystemd(words []string) string {
	list := make([]string, len(words))
	for i, w := range words {
		w = strings.NewReplacer("%", "%%", "$", "$$").Replace(w)
		if !plainWord.MatchString(w) {
			w = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(w) + `"`
		}
		list[i] = w
	}
	return strings.Join(list, " ")
}
