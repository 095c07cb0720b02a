package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"trysail/internal/api"
	"trysail/internal/tree"
	"trysail/runbook"
)

func (a *app) fleetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fleet",
		Short: "The machines: state, drain, retire, readmit, tokens",
		Long:  "Fleet lists the machines: rank, state, the roles that each serves, whether steps may run plainly on it (outside of\na rebuilt server, as root), what it runs, which rebuilt servers are ready there." + exitHelp,
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return a.fleetList(cmd.Context()) },
	}
	for _, x := range []struct{ name, short string }{
		{"drain", "Let a machine finish its steps, and give it no new ones"},
		{"retire", "Take a machine out of the fleet"},
		{"readmit", "Let a drained or retired machine work again, once it has proved itself"},
	} {
		var b api.SetMachine
		c := &cobra.Command{
			Use: x.name + " MACHINE", Short: x.short, Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.fleetSet(cmd.Context(), x.name, args[0], b)
			},
		}
		c.Flags().StringVar(&b.Reason, "reason", "", "why")
		if x.name == "readmit" {
			c.Long = "Readmit asks a machine to look at itself: it reads its originals again, makes the servers of the releases that run,\nor of the last one, anew, and builds what was captured in one of them. If that is good, it works again; else it\nis retired, and trysail fleet says why." + exitHelp
			c.Flags().BoolVar(&b.WithoutProof, "without-proof", false, "let it work at once; the ledger keeps that, and --reason")
		}
		cmd.AddCommand(c)
	}
	var t api.Token
	var out string
	token := &cobra.Command{
		Use: "token", Short: "Print a link for one machine to join with, or for a person", Args: cobra.NoArgs,
		Long:    "Token prints a link: for one machine, once, within the hour; or, with --person, for a person's own use.\nThe link is a secret: anybody who has it can join the fleet, or sign as that person. --out writes it to a file that nobody else can read." + exitHelp,
		Example: "  trysail fleet token --out link",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.fleetToken(cmd.Context(), t, out) },
	}
	token.Flags().StringVar(&out, "out", "", "write the link to the new `FILE`, which only you can read (mode 0600)")
	token.Flags().BoolVar(&t.Control, "for-control", false, "for another control: trysail serve --join LINK")
	token.Flags().StringVar(&t.Person, "person", "", "the person, as the runbook names them")
	token.Flags().StringVar(&t.Role, "role", "approver", "what the person may do: viewer, operator or approver")
	token.MarkFlagsMutuallyExclusive("for-control", "person")
	cmd.AddCommand(token)
	cmd.AddCommand(&cobra.Command{
		Use: "revoke PERSON", Short: "Revoke all links of a person; their signatures stay", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.fleetRevoke(cmd.Context(), args[0]) },
	}, &cobra.Command{
		Use: "controls", Short: "List the controls: leader, members, who answers", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.controls(cmd.Context()) },
	}, &cobra.Command{
		Use: "dismiss CONTROL", Short: "Take a control that does not come back out of the cluster", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.dismiss(cmd.Context(), args[0]) },
	})
	return cmd
}

func (a *app) controls(ctx context.Context) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	var list []api.ControlStatus
	if err := c.Do(ctx, http.MethodGet, "/controls", nil, &list); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(list)
	}
	votes, answer := 0, 0
	for _, x := range list {
		word := "stands by"
		switch {
		case x.Name == "":
			x.Name, word = x.Peer, "has not begun"
		case !x.Answers:
			word = "does not answer"
		case x.Leads:
			word = "decides"
		case !x.Votes:
			word = "fetches what the others have"
		}
		if x.Votes {
			votes++
			if x.Answers {
				answer++
			}
		}
		a.printf("%-24s %s\n", x.Name, word)
	}
	switch lose := answer - votes/2 - 1; {
	case votes < 2:
		a.printf("One control: two more survive the loss of any. Here: trysail fleet token --for-control --out link; on another machine, with that file: sudo trysail serve --listen ADDRESS --join link\n")
	case lose <= 0:
		a.printf("%d of %d controls answer: if one more goes, nothing moves until it is back\n", answer, votes)
	default:
		a.printf("%d of %d controls answer: %d of them may go\n", answer, votes, lose)
	}
	return nil
}

func (a *app) dismiss(ctx context.Context, name string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	if err := c.Do(ctx, http.MethodPost, "/controls/"+url.PathEscape(name)+"/dismiss", struct{}{}, nil); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(struct {
			Control string `json:"control"`
			Done    string `json:"done"`
		}{name, "dismiss"})
	}
	a.printf("%s is no control any more\n", name)
	return nil
}

func (a *app) fleetList(ctx context.Context) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	var list []api.MachineStatus
	if err := c.Do(ctx, http.MethodGet, "/fleet", nil, &list); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(list)
	}
	if len(list) == 0 {
		a.printf("No machine has joined. Here: trysail fleet token --out link; on it, with that file: sudo trysail agent --join link\n")
	}
	for _, m := range list {
		heard := "never heard of"
		if m.Heard >= 0 {
			heard = "heard " + runbook.FormatSeconds(m.Heard) + " ago"
		}
		var runs []string
		for _, h := range m.Running {
			runs = append(runs, h.Release+" "+h.Item)
		}
		if len(runs) == 0 {
			runs = []string{"idle"}
		}
		a.printf("%-16s %-8s %-9s %s; %s; %s; %d server(s) ready\n", m.Name, m.Rank, m.Condition, serves(m.Serves, m.Plain), heard, strings.Join(runs, ", "), len(m.Warm))
		if m.Why != "" {
			a.printf("  %s\n", m.Why)
		}
		if m.Skew > wrongClock || m.Skew < -wrongClock {
			a.printf("  its clock is %s\n", off(m.Skew))
		}
	}
	return nil
}

// serves says which steps a machine is for.
func serves(roles []string, plain bool) string {
	text := "any role"
	if len(roles) == 1 {
		text = "role " + roles[0]
	} else if len(roles) > 1 {
		text = "roles " + strings.Join(roles, ", ")
	}
	if plain {
		text += ", plain"
	}
	return text
}

// wrongClock is how many seconds a machine's clock may be off before people are told.
const wrongClock = 30

func off(ahead float64) string {
	if ahead < 0 {
		return runbook.FormatSeconds(-ahead) + " behind control's"
	}
	return runbook.FormatSeconds(ahead) + " ahead of control's"
}

func (a *app) fleetSet(ctx context.Context, what, name string, b api.SetMachine) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	if err := c.Do(ctx, http.MethodPost, "/fleet/"+name+"/"+what, b, nil); err != nil {
		return err
	}
	proves := what == "readmit" && !b.WithoutProof
	if a.json {
		return a.printJSON(struct {
			Machine string `json:"machine"`
			Done    string `json:"done"`
			Proves  bool   `json:"proves,omitempty"` // itself first
		}{name, what, proves})
	}
	a.printf("%s: %s\n", name, what)
	if proves {
		a.printf("It proves itself first: trysail fleet\n")
	}
	return nil
}

func (a *app) fleetRevoke(ctx context.Context, person string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	if err := c.Do(ctx, http.MethodPost, "/tokens/revoke", api.Revoke{Person: person}, nil); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(struct {
			Person string `json:"person"`
			Done   string `json:"done"`
		}{person, "revoke"})
	}
	a.printf("No link of %s is good any more\n", person)
	return nil
}

func (a *app) fleetToken(ctx context.Context, t api.Token, out string) (err error) {
	var file *os.File // made first: a link that cannot be kept is not asked for
	if out != "" {
		dir, err := tree.Open(filepath.Dir(out))
		if err != nil {
			return err
		}
		defer dir.Close()
		if file, err = dir.Create(filepath.Base(out), 0o600); errors.Is(err, fs.ErrExist) {
			return usage("%s is there already: name another file, or remove it", out)
		} else if err != nil {
			return err
		}
		defer func() {
			if err = errors.Join(err, file.Close()); err != nil {
				err = errors.Join(err, dir.Remove(filepath.Base(out)))
			}
		}()
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	if t.Person == "" {
		t = api.Token{Join: true, Control: t.Control}
	}
	var made api.TokenMade
	if err := c.Do(ctx, http.MethodPost, "/tokens", t, &made); err != nil {
		return err
	}
	l := api.Link{Address: strings.Join(c.Addresses(), ","), Fingerprint: made.Fingerprint, Secret: made.Secret}
	if file != nil {
		if _, err := fmt.Fprintln(file, l.String()); err != nil {
			return err
		}
		if a.json {
			return a.printJSON(struct {
				File string `json:"file"`
			}{out})
		}
		a.printf("Wrote the link to %s. It is a secret: anybody who has it can join the fleet, or sign as that person\n", out)
		return nil
	}
	if a.json {
		return a.printJSON(struct {
			Link string `json:"link"`
		}{l.String()})
	}
	fmt.Fprintln(a.stdout, l.String())
	return nil
}
