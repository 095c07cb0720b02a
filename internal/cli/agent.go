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

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"trysail/fleet"
	"trysail/internal/agent"
	"trysail/internal/api"
)

type agentOptions struct {
	join, name, rank string
	serves           []string
	plain            bool
	slots            int
}

func (a *app) agentCommand() *cobra.Command {
	var o agentOptions
	cmd := &cobra.Command{
		Use:     "agent [--join LINK]",
		Short:   "Make this machine build for control",
		Long:    "Agent runs steps that control gives to this machine, inside rebuilt servers. The first time it joins\nwith a link from trysail fleet token; after that it needs nothing." + exitHelp,
		Example: "  sudo trysail agent --join link --rank backup\n  sudo trysail agent",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.agent(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.join, "join", "", "`LINK` from trysail fleet token, or a file that holds it")
	f.StringVar(&o.name, "name", "", "the machine's name (default: its host name)")
	f.StringVar(&o.rank, "rank", "primary", "primary, backup or spare")
	f.StringArrayVar(&o.serves, "serves", nil, "run only steps of this `ROLE` (repeatable)")
	f.BoolVar(&o.plain, "plain", false, "also run steps of roles without a blueprint, plainly on this host, as root")
	f.IntVar(&o.slots, "slots", 1, "how many steps at once")
	return cmd
}

// identity is what an agent keeps of its joining.
type identity struct {
	Name     string   `json:"name"`
	Controls []string `json:"controls"` // addresses; the one that answered last is the first
}

func (i identity) write(dir string) error {
	data, err := json.Marshal(i)
	if err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(dir, "identity.json"), append(data, '\n'), 0o600)
}

func (a *app) agent(ctx context.Context, o agentOptions) error {
	dir := filepath.Join(a.state, "agent")
	st, err := a.openState(ctx)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if o.join != "" {
		if err := a.join(ctx, dir, o); err != nil {
			return err
		}
	}
	who, client, cert, err := joined(dir, a.clock.Now, a.log)
	if err != nil {
		return err
	}
	d, err := a.openDepot()
	if err != nil {
		return err
	}
	a.ui.end()
	a.printf("%s works for control at https://%s\n", who.Name, who.Controls[0])
	ag, err := agent.New(agent.Options{
		Name: who.Name, Client: client, State: st, Depot: d, Dir: dir, Log: a.log, Now: a.clock.Now, Drill: a.drillClock != "",
		Renew:    func(ctx context.Context) error { return cert.renew(ctx, client) },
		Remember: func(controls []string) error { return identity{who.Name, controls}.write(dir) },
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
	text := o.join
	if data, err := os.ReadFile(text); err == nil {
		text = string(data)
	}
	l, err := api.ParseLink(text)
	if err != nil {
		return usageError{err}
	}
	if !slices.Contains(fleet.Ranks(), fleet.Rank(o.rank)) {
		return usage("--rank %s: a machine is primary, backup or spare", o.rank)
	}
	if o.name == "" {
		if o.name, err = os.Hostname(); err != nil {
			return err
		}
	}
	if o.slots < 1 {
		o.slots = runtime.NumCPU()
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return err
	}
	c := api.NewClient(l.Addresses(), "", api.TrustFingerprint(l.Fingerprint, a.clock.Now))
	var answer api.Enrolled
	err = c.Do(ctx, http.MethodPost, "/enrol", api.Enrol{
		Token: l.Secret, Name: o.name, Rank: fleet.Rank(o.rank), Serves: o.serves, Plain: o.plain, Slots: o.slots, Request: request,
	}, &answer)
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
		if err := renameio.WriteFile(filepath.Join(dir, f.name), f.data, 0o600); err != nil {
			return err
		}
	}
	return identity{o.name, c.Addresses()}.write(dir)
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
	data, err := os.ReadFile(filepath.Join(dir, "identity.json"))
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
	authority, err := os.ReadFile(filepath.Join(dir, "authority.pem"))
	if err != nil {
		return nil, nil, nil, err
	}
	h, err := api.TrustAuthority(authority, k.current, now)
	if err != nil {
		return nil, nil, nil, err
	}
	return who, api.NewClient(who.Controls, "", h), k, nil
}
