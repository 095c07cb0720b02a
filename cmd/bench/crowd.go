package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"trysail/fleet"
	"trysail/internal/api"
	"trysail/internal/depot"
	"trysail/release"
	"trysail/runbook"
)

// simulated is an agent as control sees one: it joined with a token, has its own
// certificate, reports each second and asks for work. It holds what it is given,
// runs nothing and keeps no copy of the ledger, so that a thousand fit beside the
// control that is measured.
type simulated struct {
	client  *api.Client
	holding atomic.Pointer[api.Holding]
	seen    atomic.Pointer[string] // mark of the last answer
	hurry   chan struct{}          // to report at once
	all     *crowd
}

// hasten reports at once.
func (a *simulated) hasten() {
	select {
	case a.hurry <- struct{}{}:
	default:
	}
}

// crowd counts what happens to all of them.
type crowd struct {
	agents          int
	beats, silent   atomic.Int64 // reports, and those not answered within a second
	holding, denied atomic.Int64 // leases given, and those that a report did not renew
	went            atomic.Pointer[error]
}

// crowding measures a control of many agents that each hold a lease.
func (b *bench) crowding(ctx context.Context, agents int, window time.Duration) error {
	c, err := b.control(ctx)
	if err != nil {
		return err
	}
	defer c.kill(syscall.SIGTERM)
	data, err := os.ReadFile(filepath.Join(b.work, "control/control/link"))
	if err != nil {
		return err
	}
	link, err := api.ParseLink(string(data))
	if err != nil {
		return err
	}
	root := api.NewClient(link.Addresses(), link.Secret, api.TrustFingerprint(link.Fingerprint, time.Now))

	begin := time.Now()
	all := &crowd{agents: agents}
	lives, end := context.WithCancel(ctx)
	var alive errgroup.Group
	defer func() { end(); _ = alive.Wait() }() // they say why in all.went
	if err := each(ctx, agents, func(ctx context.Context, i int) error {
		a, err := enrolled(ctx, root, link, "agent-"+strconv.Itoa(i))
		if err != nil {
			return err
		}
		a.all = all
		alive.Go(func() error { return a.beats(lives) })
		alive.Go(func() error { return a.polls(lives) })
		return nil
	}); err != nil {
		return fmt.Errorf("enrol: %w", err)
	}
	time.Sleep(2 * fleet.Beat) // all have reported
	say("%d agents joined in %.1f s", agents, time.Since(begin).Seconds())

	begin = time.Now()
	versions, err := b.start(ctx, root, agents)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	for all.holding.Load() < int64(agents) {
		if err := all.wrong(ctx, begin); err != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
	say("%d releases started, each with its step on a machine of its own, in %.1f s", agents, time.Since(begin).Seconds())

	time.Sleep(5 * time.Second) // what the start left to do is done
	beats, silent, used, begin := all.beats.Load(), all.silent.Load(), cpu(c.cmd.Process.Pid), time.Now()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(window):
	}
	used, took := cpu(c.cmd.Process.Pid)-used, time.Since(begin)
	peak := highWater(c.cmd.Process.Pid)
	say("in %.0f s: %.3f cores, %d MB at most; %d reports, %d of them not answered within a second", took.Seconds(), used.Seconds()/took.Seconds(), peak>>20, all.beats.Load()-beats, all.silent.Load()-silent)
	lost, err := leasesLost(ctx, root, versions)
	if err != nil {
		return err
	}
	if n := all.denied.Load(); lost > 0 || n > 0 {
		say("%d leases were lost, %d not renewed; %d reports were not answered within a second: %v", lost, n, all.silent.Load(), all.why())
	}
	name := fmt.Sprintf("control of %d agents, each with a lease: ", agents)
	b.add(name+"CPU", used.Seconds()/took.Seconds(), "one core", 1)
	b.add(name+"memory", float64(peak)/(500<<20), "500 MB", 1)
	b.add(name+"lost", float64(max(lost, int(all.denied.Load()))), "none", 0)
	return nil
}

// each does something for so many, some of them at a time.
func each(ctx context.Context, n int, do func(context.Context, int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i := range n {
		g.Go(func() error { return do(ctx, i) })
	}
	return g.Wait()
}

// enrolled makes an agent, with a token and a certificate.
func enrolled(ctx context.Context, root *api.Client, link api.Link, name string) (*simulated, error) {
	var token api.TokenMade
	if err := root.Do(ctx, http.MethodPost, "/tokens", api.Token{Join: true}, &token); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, err
	}
	var answer api.Enrolled
	if err := root.Do(ctx, http.MethodPost, "/enrol", api.Enrol{Token: token.Secret, Name: name, Rank: fleet.Primary, Plain: true, Slots: 1, Request: request}, &answer); err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(answer.Certificate, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err != nil {
		return nil, err
	}
	h, err := api.TrustAuthority(answer.Authority, func() (*tls.Certificate, error) { return &cert, nil }, time.Now)
	if err != nil {
		return nil, err
	}
	return &simulated{client: api.NewClient(link.Addresses(), "", h), hurry: make(chan struct{}, 1)}, nil
}

// beats reports each second, as long as ctx lasts.
func (a *simulated) beats(ctx context.Context) error {
	t := time.NewTicker(fleet.Beat)
	defer t.Stop()
	for mark, told := "", ""; ; {
		b := api.Beat{Holding: []api.Holding{}, Copied: mark, Control: told}
		h := a.holding.Load()
		if h != nil {
			b.Holding = append(b.Holding, *h)
		}
		var answer api.BeatAnswer
		within, cancel := context.WithTimeout(ctx, fleet.Beat)
		err := a.client.Do(within, http.MethodPost, "/beat", b, &answer)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		a.all.beats.Add(1)
		if err != nil {
			a.all.silent.Add(1)
			a.all.went.Store(&err)
		} else {
			if told = answer.Control; mark != answer.Mark {
				mark = answer.Mark
				a.seen.Store(&answer.Mark)
				a.hasten() // it has copied what there was
			}
			if !slices.Equal(answer.Renewed, b.Holding) {
				a.all.denied.Add(1)
				a.holding.CompareAndSwap(h, nil) // as an agent that stops it
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.hurry:
		case <-t.C:
		}
	}
}

// polls holds one request for work open, as long as ctx lasts.
func (a *simulated) polls(ctx context.Context) error {
	for {
		q := url.Values{}
		if seen := a.seen.Load(); seen != nil {
			q.Set("seen", *seen)
		}
		if h := a.holding.Load(); h != nil {
			q.Add("have", h.Release+" "+strconv.FormatInt(h.Epoch, 10))
		}
		var list []api.Assignment
		err := a.client.Do(ctx, http.MethodGet, "/work?"+q.Encode(), nil, &list)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			a.all.went.Store(&err)
			time.Sleep(500 * time.Millisecond)
		}
		if len(list) == 0 && err == nil { // as an agent that is a witness
			a.hasten()
			time.Sleep(10 * time.Millisecond)
		}
		for _, as := range list {
			a.holding.Store(&as.Holding)
			a.all.holding.Add(1)
		}
	}
}

// wrong says why it takes so long, once it does.
func (f *crowd) wrong(ctx context.Context, begun time.Time) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if time.Since(begun) < 5*time.Minute {
		return nil
	}
	return errors.Join(fmt.Errorf("%d of %d agents have a lease", f.holding.Load(), f.agents), f.why())
}

// why is the last thing that went wrong.
func (f *crowd) why() error {
	if last := f.went.Load(); last != nil {
		return *last
	}
	return nil
}

// start begins so many releases of one step.
func (b *bench) start(ctx context.Context, root *api.Client, n int) ([]string, error) {
	d, err := depot.Open(filepath.Join(b.work, "depot"))
	if err != nil {
		return nil, err
	}
	st, text, err := begin(ctx, d, "---\nroles:\n  host: {plain: true}\npeople:\n  ann: {}\napprovers: [ann]\n---\n## Make\n\n```sh {\"name\":\"build\",\"timeout\":\"1h\",\"out\":\"app\",\"gold\":\"true\"}\nsleep 1000\n```\n")
	if err != nil {
		return nil, err
	}
	if err := root.PutBlob(ctx, st.Runbook, bytes.NewReader(text)); err != nil {
		return nil, err
	}
	versions := make([]string, n)
	return versions, each(ctx, n, func(ctx context.Context, i int) error {
		versions[i] = "1." + strconv.Itoa(i)
		one := st
		one.Version = versions[i]
		return root.Do(ctx, http.MethodPost, "/releases", api.StartOf(one), nil)
	})
}

// begin puts a runbook into a depot, which is its own source too, and gives the start of
// a release of it, which ships tomorrow.
func begin(ctx context.Context, d *depot.Depot, doc string) (st release.Started, text []byte, err error) {
	text = []byte(doc)
	r, err := runbook.Parse("RELEASE.md", text, time.LoadLocation)
	if err != nil {
		return st, nil, err
	}
	st = release.Begin(r, "1")
	st.Ship = time.Now().Add(24 * time.Hour)
	for _, role := range r.Roles {
		st.Machines = append(st.Machines, release.Machine{Role: role.Name})
	}
	st.Runbook, err = d.PutBytes(ctx, text)
	st.Source = release.Source{VCS: "git", Revision: strings.Repeat("0", 40), Original: st.Runbook}
	return st, text, err
}

// leasesLost counts the events that say so.
func leasesLost(ctx context.Context, root *api.Client, versions []string) (int, error) {
	lost := 0
	for _, v := range versions {
		res, err := root.Open(ctx, http.MethodGet, "/releases/"+v+"/events", nil, nil)
		if err != nil {
			return 0, err
		}
		for d := json.NewDecoder(res.Body); d.More(); {
			var e release.Event
			if err := d.Decode(&e); err != nil {
				return 0, errors.Join(err, res.Body.Close())
			}
			if _, is := e.Body.(release.Lost); is {
				lost++
			}
		}
		if err := res.Body.Close(); err != nil {
			return 0, err
		}
	}
	return lost, nil
}

// cpu is the time that a process has computed, its own and the kernel's for it.
func cpu(pid int) time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0 // ended
	}
	_, rest, _ := strings.Cut(string(data), ") ") // after its name
	f := strings.Fields(rest)
	var ticks int64
	for _, s := range f[11:13] {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100
}
