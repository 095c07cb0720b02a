package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sync/errgroup"

	"trysail/internal/api"
	"trysail/internal/control"
	"trysail/internal/ledger"
	"trysail/internal/limit"
	"trysail/internal/lock"
	"trysail/internal/notify"
	"trysail/internal/secret"
	"trysail/internal/tree"
	"trysail/internal/witness"
)

type serveOptions struct {
	listen, peer string
	names        []string
	etcd         []string
	from, join   string
	notify       string
	checkpoints  string // a working copy
	stamp        string // address of a time stamping authority
	recipients   []string
	identity     string // file
	newAuthority bool
	unproven     bool
}

func (a *app) serveCommand() *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run control: the ledger, and what decides who builds what",
		Long: "Serve runs control with a ledger of its own (embedded etcd, synced before anything is acknowledged).\n" +
			"It listens on loopback unless told otherwise, always with TLS. Machines join with trysail agent --join.\n" +
			"Three controls go on when one of them dies: the second and third begin with --join." + exitHelp,
		Example: "  sudo trysail serve\n  sudo trysail serve --listen 10.0.0.5:7440\n" +
			"  sudo trysail serve --listen 10.0.0.6:7440 --join link\n" +
			"  sudo trysail serve --recover /var/lib/trysail/agent/ledger",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.serve(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:7440", "`ADDRESS` to listen on")
	f.StringVar(&o.peer, "peer", "", "`ADDRESS` where other controls reach this one's ledger (default: the port after that of --listen)")
	f.StringArrayVar(&o.names, "name", nil, "further `NAME` or address by which machines reach this control (repeatable)")
	f.StringArrayVar(&o.etcd, "etcd", nil, "use the etcd cluster at this `URL` instead of the embedded one (repeatable)")
	f.StringVar(&o.from, "recover", "", "begin a lost ledger again from an agent's copy in `DIR`")
	f.StringVar(&o.join, "join", "", "become one of several controls, with the `LINK` of trysail fleet token --for-control, or a file that holds it")
	f.StringVar(&o.notify, "notify", "", "notify people as this `FILE` says (docs/notices.md)")
	f.StringVar(&o.checkpoints, "checkpoints", "", "commit a checkpoint of each ledger after each decision, in the git or Subversion working copy `DIR`, and send it on")
	f.StringVar(&o.stamp, "stamp", "", "time-stamp these checkpoints at the authority at `URL` (RFC 3161)")
	f.StringArrayVar(&o.recipients, "recipient", nil, "keep the fleet's authority in the ledger, sealed to this age recipient or SSH public `KEY`, or a file of them, so that --recover has it on a new disk (repeatable)")
	f.StringVar(&o.identity, "identity", "", "`FILE` that opens the authority that was sealed: an age identity or an SSH private key (with --recover or --etcd)")
	f.BoolVar(&o.newAuthority, "new-authority", false, "begin without the authority that was lost: every machine joins again (with --recover or --etcd)")
	f.BoolVar(&o.unproven, "unproven", false, "accept a copy that control did not sign (with --recover)")
	cmd.MarkFlagsMutuallyExclusive("identity", "new-authority")
	cmd.MarkFlagsMutuallyExclusive("etcd", "recover", "join")
	cmd.MarkFlagsMutuallyExclusive("etcd", "peer")
	return cmd
}

func (a *app) controlDir() string { return filepath.Join(a.state, "control") }

// place is where a control is.
type place struct {
	name  string   // address by which machines and other controls reach its API
	peer  string   // and other controls its ledger; "" if they cannot
	names []string // all by which it is reached
	host  string   // name of this machine
}

// where finds out what --listen, --peer and --name amount to, once the listener
// stands at an address.
func where(o serveOptions, at net.Addr) (*place, error) {
	host, asked, err := net.SplitHostPort(o.listen)
	if err != nil {
		return nil, usage("--listen %s: %v", o.listen, err)
	}
	hostname, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(at.String())
	if err != nil {
		return nil, err
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = append(slices.Clone(o.names), hostname)[0] // all addresses is none that anybody reaches
	}
	p := &place{name: net.JoinHostPort(host, port), peer: o.peer, host: hostname, names: append([]string{"127.0.0.1", "::1", "localhost", hostname, host}, o.names...)}
	if o.peer != "" {
		peerHost, _, err := net.SplitHostPort(o.peer)
		if err != nil {
			return nil, usage("--peer %s: %v", o.peer, err)
		}
		p.names = append(p.names, peerHost)
	}
	if n, err := strconv.Atoi(port); err == nil && o.peer == "" && asked != "0" {
		p.peer = net.JoinHostPort(host, strconv.Itoa(n+1))
	}
	return p, nil
}

// witness refuses a place for checkpoints where none could be committed.
func (o serveOptions) witness(ctx context.Context) (ask func(context.Context, []byte) ([]byte, error), err error) {
	if o.stamp != "" {
		if o.checkpoints == "" {
			return nil, usage("--stamp needs --checkpoints")
		}
		ask = stamper(o.stamp)
	}
	if o.checkpoints == "" {
		return nil, nil
	}
	return ask, witness.Usable(ctx, o.checkpoints)
}

func (a *app) serve(ctx context.Context, o serveOptions) (err error) {
	dir := a.controlDir()
	for _, d := range []string{a.state, dir} {
		if err := tree.Private(d); err != nil {
			return err
		}
	}
	if (o.identity != "" || o.newAuthority) && o.from == "" && len(o.etcd) == 0 {
		return usage("--identity and --new-authority go with --recover or --etcd: a ledger that is here has its authority beside it")
	}
	if o.unproven && o.from == "" {
		return usage("--unproven needs --recover")
	}
	if o.recipients, err = recipientsOf(o.recipients); err != nil {
		return err
	}
	if _, err := secret.Recipients(o.recipients); err != nil {
		return err
	}
	var told *notify.Config
	if o.notify != "" {
		if told, err = readNotify(o.notify); err != nil {
			return err
		}
	}
	keep, err := o.witness(ctx)
	if err != nil {
		return err
	}
	held, err := lock.Take(dir, "trysail serve")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.Close()) }()
	d, err := a.openDepot()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	defer l.Close()
	at, err := where(o, l.Addr())
	if err != nil {
		return err
	}
	cluster, err := a.cluster(ctx, o, at)
	if err != nil {
		return err
	}
	store, id, err := a.openLedger(ctx, o, at, cluster)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	options := control.Options{Depot: d, Dir: dir, Identity: id, Name: at.name, Actor: "control " + at.host, Log: a.log, Now: a.clock.Now, Boot: a.clock.Boot, Notify: told, Checkpoints: o.checkpoints, Stamp: keep, Lab: a.drillClock != ""}
	if at.peer != "" && len(o.etcd) == 0 {
		options.Cluster = store
	}
	door := &control.Door{}
	srv := control.Server(door, id, a.log)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return control.Serve(gctx, options, store, door,
			func(c *control.Control) error { return a.decides(gctx, c, id, at, o.recipients) },
			func() { a.printf("Control at https://%s stands by: another decides\n", at.name) })
	})
	g.Go(func() error { return store.Maintain(gctx, a.log) })
	g.Go(func() error { return id.RenewCertificate(gctx, a.log) })
	g.Go(func() error {
		if err := srv.ServeTLS(limit.Listen(l, limit.Defaults()), "", ""); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-gctx.Done()
		return srv.Close()
	})
	err = g.Wait()
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil // asked to stop, and stopped
	}
	return err
}

// openLedger starts the ledger, and opens the authority of its fleet. Where control's disk
// was lost the authority comes out of what is left of the ledger.
func (a *app) openLedger(ctx context.Context, o serveOptions, at *place, cluster string) (store *ledger.Store, id *control.Identity, err error) {
	dir := a.controlDir()
	defer func() {
		if err != nil && store != nil {
			err = errors.Join(err, store.Close())
		}
	}()
	start := ledger.StartOptions{Dir: filepath.Join(dir, "etcd"), Endpoints: o.etcd, Log: a.log}
	if len(o.etcd) > 0 {
		if store, err = ledger.Start(ctx, start); err != nil {
			return nil, nil, err
		}
	}
	if !o.newAuthority {
		if err := a.restore(ctx, o, store); err != nil {
			return store, nil, err
		}
	}
	if id, err = control.OpenIdentity(dir, at.names, a.clock.Now); err != nil || store != nil {
		return store, id, err
	}
	if at.peer != "" {
		if start.Peer, err = id.Peer(at.name, at.peer, cluster); err != nil {
			return nil, nil, err
		}
	}
	if store, err = ledger.Start(ctx, start); err != nil || o.from == "" {
		return store, id, err
	}
	var by note.Verifier
	if !o.unproven && !o.newAuthority { // which has signed nothing yet
		if by, err = id.LedgerVerifier(); err != nil {
			return store, id, err
		}
	}
	if err = store.Recover(ctx, o.from, control.Known, by); err == nil {
		// Whoever wrote the copy may have sealed another authority to the same people.
		a.log.Warn("compare this authority with the one in a link that was printed before the loss; if they differ, stop control, and recover from another machine's copy", "authority", id.Fingerprint())
		// Nothing keeps a majority of the old ones from deciding as well.
		a.log.Warn("the ledger begins again with this control alone; other controls that it had must never start again from what they hold: remove etcd below the state's control of each, and let it join anew with trysail serve --join", "from", o.from)
	}
	return store, id, err
}

// restore brings the authority of a fleet back that is not in control's directory.
func (a *app) restore(ctx context.Context, o serveOptions, store *ledger.Store) error {
	if o.from != "" {
		return control.RestoreFrom(a.controlDir(), o.from, o.identity)
	}
	if store == nil {
		return nil
	}
	lines, err := store.Read(ctx, control.AccessStream, 0)
	if err != nil || len(lines) == 0 {
		return err // or no fleet was there yet
	}
	return control.Restore(a.controlDir(), lines, o.identity)
}

// decides says that this control does, and leaves the link for whoever is root here.
func (a *app) decides(ctx context.Context, c *control.Control, id *control.Identity, at *place, recipients []string) error {
	secret, err := c.LocalToken(ctx)
	if err != nil {
		return err
	}
	if len(recipients) > 0 {
		if err := c.Seal(ctx, recipients); err != nil {
			return err
		}
	}
	if err := a.writeLink(at.name, id.Fingerprint(), secret); err != nil {
		return err
	}
	a.ui.end()
	if a.json {
		if err := a.printJSON(struct {
			Address     string `json:"address"`
			Fingerprint string `json:"fingerprint"`
		}{at.name, id.Fingerprint()}); err != nil {
			return err
		}
	}
	a.printf("Control is at https://%s\n", at.name)
	a.printf("A machine joins with the link that this prints: trysail fleet token\n")
	if c.OnThisDiskAlone() {
		a.printf("If this disk is lost, every machine joins again. Keep %s elsewhere, or give --recipient\n", filepath.Join(a.controlDir(), "authority.*"))
	}
	return nil
}

func (a *app) writeLink(address, fingerprint, secret string) error {
	link := api.Link{Address: address, Fingerprint: fingerprint, Secret: secret}
	return tree.WriteFile(filepath.Join(a.controlDir(), "link"), []byte(link.String()+"\n"), 0o600)
}

// cluster is what this control joined, or joins now; "" if it began its own.
func (a *app) cluster(ctx context.Context, o serveOptions, at *place) (string, error) {
	file := filepath.Join(a.controlDir(), "cluster")
	if o.from != "" {
		if err := ledger.Alone(filepath.Join(a.controlDir(), "etcd")); err != nil {
			return "", err
		}
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		return "", nil // a ledger that is recovered is one of its own
	}
	data, err := tree.ReadFile(file, maxDocument)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	joined := err == nil
	// Who moved its etcd away joins anew: what it was a member of is void.
	etcd := filepath.Join(a.controlDir(), "etcd")
	_, err = tree.Stat(etcd)
	holds := err == nil
	if o.join == "" || (joined && holds) {
		return strings.TrimSpace(string(data)), nil
	}
	if at.peer == "" {
		return "", usage("--join: give the port of --listen, or --peer, so that other controls reach this one")
	}
	if holds {
		return "", &control.OwnFleetError{Dir: a.controlDir()}
	}
	text := a.linkText(o.join)
	link, err := api.ParseLink(text)
	if err != nil {
		return "", usageError{err}
	}
	c := api.NewClient(link.Addresses(), link.Secret, api.TrustFingerprint(link.Fingerprint, a.clock.Now))
	var answer api.ControlJoined
	if err := c.Do(ctx, http.MethodPost, "/controls", api.JoinControl{Token: link.Secret, Name: at.name, Peer: at.peer}, &answer); err != nil {
		return "", err
	}
	if err := control.AdoptAuthority(a.controlDir(), answer.Authority, answer.AuthorityKey); err != nil {
		return "", err
	}
	if err := tree.WriteFile(filepath.Join(a.controlDir(), "token"), []byte(answer.Secret+"\n"), 0o600); err != nil {
		return "", err
	}
	if err := a.writeLink(strings.Join(append([]string{at.name}, c.Addresses()...), ","), link.Fingerprint, answer.Secret); err != nil {
		return "", err
	}
	if err := tree.WriteFile(file, []byte(answer.Cluster+"\n"), 0o600); err != nil {
		return "", err
	}
	return answer.Cluster, tree.MakeDir(etcd, 0o700) // it has joined: the link is spent
}

// linkText reads the file that holds a link. Whoever gives the link itself shows
// it to every user of this machine, and is told.
func (a *app) linkText(flag string) string {
	if data, err := tree.ReadFile(flag, maxDocument); err == nil {
		return string(data)
	}
	if _, err := api.ParseLink(flag); err == nil {
		a.log.Warn("every user of this machine can read a command line, and this one holds a secret link: put the link into a file and give the file's name")
	}
	return flag
}

// client speaks to the control that the user means.
func (a *app) client() (*api.Client, error) {
	text := a.control
	if text == "" {
		text = os.Getenv("TRYSAIL_CONTROL")
	}
	if text == "" {
		data, err := tree.ReadFile(filepath.Join(a.controlDir(), "link"), maxDocument)
		if err != nil {
			return nil, &noControlError{err}
		}
		text = string(data)
	} else if a.control != "" {
		text = a.linkText(text)
	} else if data, err := tree.ReadFile(text, maxDocument); err == nil {
		text = string(data) // a file that holds the link
	}
	l, err := api.ParseLink(text)
	if err != nil {
		return nil, usageError{err}
	}
	a.fingerprint = l.Fingerprint
	return api.NewClient(l.Addresses(), l.Secret, api.TrustFingerprint(l.Fingerprint, a.clock.Now)), nil
}

// noControlError says that nothing says where control is.
type noControlError struct{ err error }

func (e *noControlError) Error() string { return fmt.Sprintf("no control is known here: %v", e.err) }

func (e *noControlError) Hint() string {
	return "start one: sudo trysail serve; or give the link that trysail fleet token printed: --control FILE"
}
