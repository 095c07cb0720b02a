package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"trysail/internal/api"
	"trysail/internal/control"
	"trysail/internal/ledger"
	"trysail/internal/notify"
)

type serveOptions struct {
	listen string
	names  []string
	etcd   []string
	from   string
	notify string
}

func (a *app) serveCommand() *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:     "serve",
		Short:   "Run control: the ledger, and what decides who builds what",
		Long:    "Serve runs control with a ledger of its own (embedded etcd, synced before anything is acknowledged).\nIt listens on loopback unless told otherwise, always with TLS. Machines join with trysail agent --join." + exitHelp,
		Example: "  sudo trysail serve\n  sudo trysail serve --listen 10.0.0.5:7440\n  sudo trysail serve --recover /var/lib/trysail/agent/ledger",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.serve(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:7440", "`ADDRESS` to listen on")
	f.StringArrayVar(&o.names, "name", nil, "further `NAME` or address by which machines reach this control (repeatable)")
	f.StringArrayVar(&o.etcd, "etcd", nil, "use the etcd cluster at this `URL` instead of an own one (repeatable)")
	f.StringVar(&o.from, "recover", "", "begin a lost ledger again from an agent's copy in `DIR`")
	f.StringVar(&o.notify, "notify", "", "tell people what they must know, as this `FILE` says (docs/notices.md)")
	cmd.MarkFlagsMutuallyExclusive("etcd", "recover")
	return cmd
}

func (a *app) controlDir() string { return filepath.Join(a.state, "control") }

func (a *app) serve(ctx context.Context, o serveOptions) (err error) {
	dir := a.controlDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(o.listen)
	if err != nil {
		return usage("--listen %s: %v", o.listen, err)
	}
	var told *notify.Config
	if o.notify != "" {
		if told, err = notify.Load(o.notify); err != nil {
			return err
		}
	}
	d, err := a.openDepot()
	if err != nil {
		return err
	}
	store, err := ledger.Start(ctx, ledger.StartOptions{Dir: filepath.Join(dir, "etcd"), Endpoints: o.etcd, Log: a.log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if o.from != "" {
		if err := store.Recover(ctx, o.from); err != nil {
			return err
		}
	}
	hostname, err := os.Hostname()
	if err != nil {
		return err
	}
	c, err := control.New(control.Options{Ledger: store.Ledger, Depot: d, Dir: dir, Actor: "control " + hostname, Log: a.log, Now: now, Notify: told})
	if err != nil {
		return err
	}
	secret, err := c.LocalToken()
	if err != nil {
		return err
	}
	tls, err := c.TLS(append([]string{"127.0.0.1", "::1", "localhost", hostname, host}, o.names...))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	address := l.Addr().String()
	link := api.Link{Address: address, Fingerprint: c.Fingerprint(), Secret: secret}
	if err := renameio.WriteFile(filepath.Join(dir, "link"), []byte(link.String()+"\n"), 0o600); err != nil {
		return err
	}
	srv := &http.Server{Handler: c.Handler(), TLSConfig: tls, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.Run(gctx) })
	g.Go(func() error { return store.Tend(gctx, a.log) })
	g.Go(func() error {
		if err := srv.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-gctx.Done()
		return srv.Close()
	})
	a.ui.end()
	if a.json {
		if err := a.printJSON(struct {
			Address     string `json:"address"`
			Fingerprint string `json:"fingerprint"`
		}{address, c.Fingerprint()}); err != nil {
			return err
		}
	}
	a.printf("Control is at https://%s\n", address)
	a.printf("A machine joins with the link that this prints: trysail fleet token\n")
	err = g.Wait()
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil // asked to stop, and stopped
	}
	return err
}

// client speaks to the control that the user means.
func (a *app) client() (*api.Client, error) {
	text := a.control
	if text == "" {
		text = os.Getenv("TRYSAIL_CONTROL")
	}
	if text == "" {
		data, err := os.ReadFile(filepath.Join(a.controlDir(), "link"))
		if err != nil {
			return nil, &noControlError{err}
		}
		text = string(data)
	} else if data, err := os.ReadFile(text); err == nil {
		text = string(data) // a file that holds the link
	}
	l, err := api.ParseLink(text)
	if err != nil {
		return nil, usageError{err}
	}
	return &api.Client{URL: "https://" + l.Address, Token: l.Secret, HTTP: api.TrustFingerprint(l.Fingerprint)}, nil
}

// noControlError says that nothing says where control is.
type noControlError struct{ err error }

func (e *noControlError) Error() string { return fmt.Sprintf("no control is known here: %v", e.err) }

func (e *noControlError) Hint() string {
	return "start one: sudo trysail serve; or give the link that trysail fleet token printed: --control FILE"
}
