package cli

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"trysail/internal/api"
)

func (a *app) fleetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fleet",
		Short: "The machines: state, drain, retire, readmit, tokens",
		Long:  "Fleet lists the machines: rank, state, what each runs, which rebuilt servers are ready there." + exitHelp,
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return a.fleetList(cmd.Context()) },
	}
	for _, x := range []struct{ name, short string }{
		{"drain", "Let a machine finish what it runs, and give it nothing new"},
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
	token := &cobra.Command{
		Use: "token", Short: "Print a link for one machine to join with, or for a person", Args: cobra.NoArgs,
		Long: "Token prints a link: for one machine, once, within the hour; or, with --person, for a person's own use.\nThe link is a secret: whoever has it may join or sign." + exitHelp,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.fleetToken(cmd.Context(), t) },
	}
	token.Flags().StringVar(&t.Person, "person", "", "the person, as the runbook names them")
	token.Flags().StringVar(&t.Role, "role", "approver", "what the person may do: viewer, operator or approver")
	cmd.AddCommand(token)
	return cmd
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
		a.printf("No machine has joined. On one: sudo trysail agent --join \"$(trysail fleet token)\"\n")
	}
	for _, m := range list {
		heard := "never heard of"
		if m.Heard >= 0 {
			heard = "heard " + seconds(m.Heard) + " ago"
		}
		var runs []string
		for _, h := range m.Running {
			runs = append(runs, h.Release+" "+h.Item)
		}
		if len(runs) == 0 {
			runs = []string{"idle"}
		}
		a.printf("%-16s %-8s %-9s %s; %s; %d server(s) ready\n", m.Name, m.Rank, m.Condition, heard, strings.Join(runs, ", "), len(m.Warm))
		if m.Why != "" {
			a.printf("  %s\n", m.Why)
		}
	}
	return nil
}

func (a *app) fleetSet(ctx context.Context, what, name string, b api.SetMachine) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	if err := c.Do(ctx, http.MethodPost, "/fleet/"+name+"/"+what, b, nil); err != nil {
		return err
	}
	a.printf("%s: %s\n", name, what)
	if what == "readmit" && !b.WithoutProof {
		a.printf("It proves itself first: trysail fleet\n")
	}
	return nil
}

func (a *app) fleetToken(ctx context.Context, t api.Token) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	if t.Person == "" {
		t = api.Token{Join: true}
	}
	var made api.TokenMade
	if err := c.Do(ctx, http.MethodPost, "/tokens", t, &made); err != nil {
		return err
	}
	l := api.Link{Address: strings.TrimPrefix(c.URL, "https://"), Fingerprint: made.Fingerprint, Secret: made.Secret}
	if a.json {
		return a.printJSON(struct {
			Link string `json:"link"`
		}{l.String()})
	}
	fmt.Fprintln(a.stdout, l.String())
	return nil
}
