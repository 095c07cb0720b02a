package exercise

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"trysail/drill"
	"trysail/internal/api"
	"trysail/internal/lab"
	"trysail/internal/tree"
	"trysail/internal/vcs"
)

// world makes the machines, which join as any machine does.
func (r *runner) world(ctx context.Context) error {
	for _, of := range r.p.World.Services {
		if err := r.service(ctx, of); err != nil {
			return err
		}
	}
	r.o.Progress("making control")
	control, err := r.stage.Machine(lab.HostSpec{Name: "control", Disk: 8 << 30})
	if err != nil {
		return err
	}
	if err := control.Start("serve", "--listen", control.Address(Port)); err != nil {
		return err
	}
	var link api.Link
	if err := r.until(ctx, "control begins", func() error {
		data, err := control.Read("control/link")
		if err == nil {
			link, err = api.ParseLink(string(data))
		}
		return err
	}, control); err != nil {
		return err
	}
	h := api.TrustFingerprint(link.Fingerprint, r.stage.Now)
	if t, ok := h.Transport.(*http.Transport); ok {
		t.DialContext = func(ctx context.Context, _, address string) (net.Conn, error) {
			return r.stage.Dial(ctx, api.Dialer(), address)
		}
	}
	r.client, r.http = api.NewClient(link.Addresses(), link.Secret, h), h
	if err := r.until(ctx, "control answers", func() error { return r.client.Do(ctx, http.MethodGet, "/fleet", nil, nil) }, control); err != nil {
		return err
	}
	r.record(drill.Record{Kind: drill.Made, Host: "control"})
	r.link = link
	for n := 2; n <= r.p.World.Controls; n++ {
		if err := r.control(ctx, fmt.Sprint("control", n)); err != nil {
			return err
		}
	}
	for _, spec := range r.p.World.Hosts {
		r.o.Progress("making " + spec.Name)
		if err := r.host(ctx, spec); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.p.People)) {
		if err := r.badge(ctx, name); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(r.p.Method, func(a drill.Action) bool { return a.Fault == "ledger-rolled-back" }) {
		if err := control.Keep("control/etcd"); err != nil {
			return err
		}
		return r.until(ctx, "control answers", func() error { return r.client.Do(ctx, http.MethodGet, "/fleet", nil, nil) }, control)
	}
	return nil
}

// Port is where control answers in a drill.
const Port = 7440

// service makes a host that is neither control nor builds.
func (r *runner) service(ctx context.Context, of drill.Service) error {
	r.o.Progress("making " + of.Name + ", a " + string(of.Kind))
	from := filepath.Join(r.o.Root, of.From)
	if of.Kind == drill.Git {
		if _, err := os.Stat(filepath.Join(from, ".git")); err != nil {
			return fmt.Errorf("the working copy is no git repository, so there is nothing for %s to hold: %w", of.Name, err)
		}
	}
	// A link in a repository is whoever's it is that made the clone.
	root, err := tree.Open(r.o.Root)
	if err != nil {
		return err
	}
	defer root.Close()
	if of.Kind != drill.Git {
		d, err := root.Sub(of.From)
		if err != nil {
			return fmt.Errorf("what %s has: %w", of.Name, err)
		}
		d.Close()
	}
	if _, err := r.stage.Service(ctx, of, from); err != nil {
		return err
	}
	r.record(drill.Record{Kind: drill.Made, Host: of.Name})
	return nil
}

// source is a clone of what the team's version control has; "" if it is no host of
// this drill.
func (r *runner) source(ctx context.Context) (string, error) {
	for _, of := range r.p.World.Services {
		if of.Kind == drill.Git {
			dir := filepath.Join(r.stage.Scratch(), "source")
			if err := r.stage.Clone(ctx, of.Name, dir); err != nil {
				return "", err
			}
			w, err := vcs.Find(ctx, dir)
			if err != nil {
				return "", err
			}
			// On real hosts, everybody in their network may push to it.
			if want := r.o.Header.Source; w.Source.Revision != want {
				return "", fmt.Errorf("%s gives revision %s, and the working copy has %s: somebody else pushed, and nothing of it is run", of.Name, w.Source.Revision, want)
			}
			return dir, nil
		}
	}
	return "", nil
}

// badge gives a person a token of their own, which they decide with.
func (r *runner) badge(ctx context.Context, name string) error {
	var made api.TokenMade
	if err := r.client.Do(ctx, http.MethodPost, "/tokens", api.Token{Person: name, Role: "approver"}, &made); err != nil {
		return err
	}
	r.desks[name] = api.NewClient(r.client.Addresses(), made.Secret, r.http)
	return nil
}

// control makes one of several.
func (r *runner) control(ctx context.Context, name string) error {
	r.o.Progress("making " + name)
	h, err := r.stage.Machine(lab.HostSpec{Name: name, Disk: 8 << 30})
	if err != nil {
		return err
	}
	file, err := r.token(ctx, h, api.Token{Join: true, Control: true})
	if err != nil {
		return err
	}
	serve := []string{"serve", "--listen", h.Address(Port)}
	if err := h.Start(append(serve, "--join", file)...); err != nil {
		return err
	}
	if err := h.Again(serve...); err != nil {
		return err
	}
	if err := r.until(ctx, name+" has joined", func() error {
		var list []api.ControlStatus
		if err := r.client.Do(ctx, http.MethodGet, "/controls", nil, &list); err != nil {
			return err
		}
		if !slices.ContainsFunc(list, func(c api.ControlStatus) bool { return c.Name == h.Address(Port) && c.Votes && c.Answers }) {
			return fmt.Errorf("it is not among %+v", list)
		}
		return nil
	}, h); err != nil {
		return err
	}
	r.client.Learn(append(r.client.Addresses(), h.Address(Port)))
	r.record(drill.Record{Kind: drill.Made, Host: name})
	return nil
}

// token lays a link with a new token before a machine: an argument could be read by
// anybody.
func (r *runner) token(ctx context.Context, h lab.Machine, t api.Token) (file string, err error) {
	var made api.TokenMade
	if err := r.client.Do(ctx, http.MethodPost, "/tokens", t, &made); err != nil {
		return "", err
	}
	link := api.Link{Address: strings.Join(r.client.Addresses(), ","), Fingerprint: made.Fingerprint, Secret: made.Secret}
	return h.Give("join", []byte(link.String()+"\n"))
}

func (r *runner) host(ctx context.Context, spec drill.Host) error {
	size, _ := drill.Bytes(spec.Disk) // it was parsed before
	h, err := r.stage.Machine(lab.HostSpec{Name: spec.Name, Disk: size, Plain: spec.Plain, Without: spec.Without})
	if err != nil {
		return err
	}
	file, err := r.token(ctx, h, api.Token{Join: true})
	if err != nil {
		return err
	}
	args := []string{"agent", "--name", spec.Name, "--rank", spec.Rank, "--join", file}
	if spec.Plain {
		args = append(args, "--plain")
	}
	if err := h.Start(args...); err != nil {
		return err
	}
	if err := h.Again("agent"); err != nil {
		return err
	}
	if err := r.until(ctx, spec.Name+" is up", func() error {
		if err := r.look(ctx); err != nil {
			return err
		}
		if c := r.fleet[spec.Name].Condition; c != "up" {
			return fmt.Errorf("it is %q", c)
		}
		return nil
	}, h); err != nil {
		return err
	}
	r.record(drill.Record{Kind: drill.Made, Host: spec.Name})
	return nil
}

// until waits for what must come while the drill is set up.
func (r *runner) until(ctx context.Context, what string, f func() error, h lab.Machine) error {
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if err = f(); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("in vain: %s: %w\n%s", what, err, h.Tail(2000))
}
