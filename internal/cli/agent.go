package cli

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"trysail/fleet"
	"trysail/internal/agent"
	"trysail/internal/api"
	"trysail/internal/lock"
	"trysail/internal/tree"
)

type agentOptions struct {
	join, name, rank string
	serves           []string
	plain            bool
	slots            int
	permits          permitFlags
	given            func(flag string) bool // on the command line
}

func (a *app) agentCommand() *cobra.Command {
	var o agentOptions
	cmd := &cobra.Command{
		Use:   "agent [--join LINK]",
		Short: "Make this machine build for control",
		Long: "Agent runs steps that control gives to this machine, inside rebuilt servers. The first time it joins\n" +
			"with a link from trysail fleet token; later starts need no link. --rank, --role, --plain and --slots count at\n" +
			"each start; without a flag its last value stays. --allow is valid until the agent ends. One agent at a time\n" +
			"works on a state directory." + exitHelp,
		Example:     "  sudo trysail agent --join link --rank backup\n  sudo trysail agent\n  sudo trysail agent --role office --plain=false\n  sudo trysail agent --allow tcp=licence.example.com:27000",
		Annotations: map[string]string{rootlessKey: rootlessHere},
		Args:        cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.given = cmd.Flags().Changed
			return a.agent(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "serves" { // as it was called before
			name = "role"
		}
		return pflag.NormalizedName(name)
	})
	f.StringVar(&o.join, "join", "", "`LINK` from trysail fleet token, or a file that holds it")
	f.StringVar(&o.name, "name", "", "the machine's name (default: its host name)")
	f.StringVar(&o.rank, "rank", "primary", "primary, backup or spare")
	f.StringArrayVar(&o.serves, "role", nil, "run only steps of this `ROLE` (repeatable; \"\": of every role again)")
	f.BoolVar(&o.plain, "plain", false, "also run steps of roles without a blueprint, plainly on this host, as root")
	f.IntVar(&o.slots, "slots", 1, "how many steps at once (0: as many as the machine has processors)")
	o.permits.add(f)
	return cmd
}

// identity is what an agent keeps of its joining.
type identity struct {
	Name     string   `json:"name"`
	Controls []string `json:"controls"`        // addresses; the one that answered last is the first
	Plain    bool     `json:"plain,omitempty"` // steps may be root of this machine: control's word alone is not enough
	// As control was told last. An older Trysail did not keep them: then they are told again.
	Rank   fleet.Rank `json:"rank,omitempty"`
	Serves []string   `json:"serves,omitempty"`
	Slots  int        `json:"slots,omitempty"`
}

func (i identity) write(dir string) error {
	data, err := json.Marshal(i)
	if err != nil {
		return err
	}
	return tree.WriteFile(filepath.Join(dir, "identity.json"), append(data, '\n'), 0o600)
}

func (a *app) agent(ctx context.Context, o agentOptions) (err error) {
	permits, err := a.permits(o.permits)
	if err != nil {
		return err
	}
	dir := filepath.Join(a.state, "agent")
	st, err := a.openState(ctx)
	if err != nil {
		return err
	}
	if err := tree.Private(dir); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	held, err := lock.Take(dir, "trysail agent") // before it joins, which replaces its key
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.Close()) }()
	if o.join != "" {
		if err := a.join(ctx, dir, o); err != nil {
			return err
		}
	}
	who, client, cert, err := joined(dir, a.clock.Now, a.log)
	if err != nil {
		return err
	}
	if err := o.settle(ctx, dir, who, client); err != nil {
		return err
	}
	d, err := a.openDepot()
	if err != nil {
		return err
	}
	a.ui.end()
	a.printf("%s works for control at https://%s\n", who.Name, who.Controls[0])
	ag, err := agent.New(agent.Options{
		Name: who.Name, Client: client, State: st, Depot: d, Dir: dir, Log: a.log, Now: a.clock.Now, Drill: a.drillClock != "", Permits: permits, Plain: who.Plain,
		Renew: func(ctx context.Context) error { return cert.renew(ctx, client) },
		Remember: func(controls []string) error {
			now := *who
			now.Controls = controls
			return now.write(dir)
		},
	})
	if err != nil {
		return err
	}
	err = ag.Run(ctx)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// join asks control for a certificate and keeps it.
func (a *app) join(ctx context.Context, dir string, o agentOptions) error {
	l, err := api.ParseLink(a.linkText(o.join))
	if err != nil {
		return usageError{err}
	}
	if o.name == "" {
		if o.name, err = os.Hostname(); err != nil {
			return err
		}
	}
	if err := api.CheckMachineName(o.name); err != nil {
		return usage("%w; give another: --name NAME", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return err
	}
	c := api.NewClient(l.Addresses(), l.Secret, api.TrustFingerprint(l.Fingerprint, a.clock.Now))
	var answer api.Enrolled
	err = c.Do(ctx, http.MethodPost, "/enrol", api.Enrol{
		Token: l.Secret, Name: o.name, Rank: fleet.Rank(o.rank), Serves: o.serves, Plain: o.plain, Slots: o.slots, Request: request,
	}, &answer)
	var p *api.Problem
	if _, here := tree.Stat(filepath.Join(dir, "identity.json")); here == nil && errors.As(err, &p) && p.Code == "denied" {
		return &joinedError{err}
	}
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{
		{"key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})},
		{"cert.pem", answer.Certificate},
		{"authority.pem", answer.Authority},
	} {
		if err := tree.WriteFile(filepath.Join(dir, f.name), f.data, 0o600); err != nil {
			return err
		}
	}
	return identity{o.name, c.Addresses(), o.plain, fleet.Rank(o.rank), o.serves, o.slots}.write(dir)
}

// check reads the flags, whether the machine joins now or has joined before.
func (o *agentOptions) check() error {
	if !slices.Contains(fleet.Ranks(), fleet.Rank(o.rank)) {
		return usage("--rank %s: a machine is primary, backup or spare", o.rank)
	}
	if o.slots < 0 {
		return usage("--slots %d: a machine runs one step at once, or more", o.slots)
	}
	if o.slots == 0 {
		o.slots = runtime.NumCPU()
	}
	o.serves = slices.DeleteFunc(o.serves, func(role string) bool { return role == "" })
	return nil
}

// settle holds the flags that were given against what control was told of the machine last,
// and tells it what is new.
func (o *agentOptions) settle(ctx context.Context, dir string, who *identity, c *api.Client) error {
	if o.given("name") && o.name != who.Name {
		return usageError{&otherNameError{who.Name, o.name}}
	}
	asks := api.Terms{}
	if o.given("rank") && fleet.Rank(o.rank) != who.Rank {
		asks.Rank = fleet.Rank(o.rank)
	}
	if o.given("role") && (!slices.Equal(o.serves, who.Serves) || who.Rank == "") {
		asks.Serves = &o.serves
	}
	if o.given("plain") && (o.plain != who.Plain || who.Rank == "") {
		asks.Plain = &o.plain
	}
	if o.given("slots") && o.slots != who.Slots {
		asks.Slots = o.slots
	}
	if asks == (api.Terms{}) {
		return nil
	}
	var now api.Terms
	if err := c.Do(ctx, http.MethodPost, "/terms", asks, &now); err != nil {
		return fmt.Errorf("tell control what this machine is for now: %w", err)
	}
	who.Rank, who.Slots = now.Rank, now.Slots
	if now.Serves != nil {
		who.Serves = *now.Serves
	}
	if now.Plain != nil && (asks.Plain != nil || !*now.Plain) { // control's word alone makes nobody root here
		who.Plain = *now.Plain
	}
	return who.write(dir)
}

// otherNameError refuses a name that is not the one that the machine joined with.
type otherNameError struct{ has, asked string }

func (e *otherNameError) Error() string {
	return fmt.Sprintf("--name %s: this machine joined as %s", e.asked, e.has)
}

func (e *otherNameError) Hint() string {
	return "leave --name out; or join again: on control: trysail fleet token > link; here, with that file: sudo trysail agent --join link --name " + e.asked + "; then on control: trysail fleet retire " + e.has
}

// joinedError says that a machine of a fleet asks to join with a link that is spent.
type joinedError struct{ err error }

func (e *joinedError) Error() string { return e.err.Error() }

func (e *joinedError) Unwrap() error { return e.err }

func (e *joinedError) Hint() string {
	return "this machine has joined already: sudo trysail agent; to join again: trysail fleet token, on control"
}

// notJoinedError says that this machine belongs to no fleet.
type notJoinedError struct{}

func (*notJoinedError) Error() string { return "this machine has not joined a fleet" }

func (*notJoinedError) Hint() string {
	return "on control: trysail fleet token; here: sudo trysail agent --join LINK"
}

// joined gives what this machine keeps of its joining, and a client that shows its
// certificate.
func joined(dir string, now func() time.Time, log *slog.Logger) (*identity, *api.Client, *certificate, error) {
	data, err := tree.ReadFile(filepath.Join(dir, "identity.json"), maxDocument)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil, &notJoinedError{}
	}
	if err != nil {
		return nil, nil, nil, err
	}
	who := &identity{}
	if err := json.Unmarshal(data, who); err != nil {
		return nil, nil, nil, fmt.Errorf("identity.json: %w", err)
	}
	if len(who.Controls) == 0 {
		return nil, nil, nil, &notJoinedError{}
	}
	k, err := openCertificate(dir, now, log)
	if err != nil {
		return nil, nil, nil, err
	}
	authority, err := tree.ReadFile(filepath.Join(dir, "authority.pem"), maxDocument)
	if err != nil {
		return nil, nil, nil, err
	}
	h, err := api.TrustAuthority(authority, k.current, now)
	if err != nil {
		return nil, nil, nil, err
	}
	return who, api.NewClient(who.Controls, "", h), k, nil
}
