package lab

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"trysail/drill"
	"trysail/internal/vcs"
)

// The faults of services. Each is seen by a client in the lab's network.

// refuse answers every connection to the service's port with a reset, as a host
// does on which the service does not run.
func (h *Host) refuse(string) (*Fault, error) {
	at := uint16(port(h.spec.Service))
	inject, undo := h.rules("service-gone", "gone", func(c *nftables.Conn, t *nftables.Table) {
		chain := c.AddChain(&nftables.Chain{Name: "gone", Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter})
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(at >> 8), byte(at)}},
			&expr.Reject{Type: unix.NFT_REJECT_TCP_RST},
		}})
	})
	return &Fault{
		Inject: inject,
		Probe: func(ctx context.Context) error {
			if err := h.Answers(ctx); err == nil {
				return fmt.Errorf("%s answers", h.Name)
			}
			// It is the service that is gone, and not the host.
			return h.lab.reaches(ctx, nil, h.IP)
		},
		Undo: undo,
	}, nil
}

// short ends every download half-way.
func (h *Host) short(string) (*Fault, error) {
	path, size, err := h.largest()
	if err != nil {
		return nil, err
	}
	return &Fault{
		Inject: func() error { return h.trouble(troubleShort) },
		Probe: func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			data, err := h.get(ctx, path)
			if err == nil || int64(len(data)) >= size {
				return fmt.Errorf("all of %s comes", path)
			}
			if len(data) == 0 {
				return fmt.Errorf("nothing of %s comes: %w", path, err)
			}
			return nil
		},
		Undo: func() error { return h.trouble("") },
	}, nil
}

// slow sends a kilobyte a second.
func (h *Host) slow(string) (*Fault, error) {
	path, size, err := h.largest()
	if err != nil {
		return nil, err
	}
	return &Fault{
		Inject: func() error { return h.trouble(troubleSlow) },
		Probe: func(ctx context.Context) error {
			// A network that is not slow brings all of it in this time, many times over.
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			data, err := h.get(ctx, path)
			if err == nil || int64(len(data)) >= size {
				return fmt.Errorf("all of %s comes within 2 s", path)
			}
			if !errors.Is(err, context.DeadlineExceeded) || len(data) == 0 {
				return fmt.Errorf("%d bytes of %s come: %w", len(data), path, err)
			}
			return nil
		},
		Undo: func() error { return h.trouble("") },
	}, nil
}

// trouble tells a mirror what to do wrong.
func (h *Host) trouble(what string) error {
	_, err := h.Give("trouble", []byte(what))
	return err
}

// wrong changes bytes of a file on a mirror.
func (h *Host) wrong(of string) (*Fault, error) {
	site, err := os.OpenRoot(h.site())
	if err != nil {
		return nil, err
	}
	data, err := site.ReadFile(of)
	if err := errors.Join(err, site.Close()); err != nil {
		return nil, err
	}
	write := func(data []byte) error {
		site, err := os.OpenRoot(h.site())
		if err != nil {
			return err
		}
		return errors.Join(site.WriteFile(of, data, 0o644), site.Close())
	}
	if len(data) == 0 {
		return nil, fmt.Errorf("%s is empty", of)
	}
	return &Fault{
		Inject: func() error {
			other := bytes.Clone(data)
			other[len(other)/2] ^= 1
			return write(other)
		},
		Probe: func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			now, err := h.get(ctx, "/"+filepath.ToSlash(of))
			if err == nil && bytes.Equal(now, data) {
				err = fmt.Errorf("%s has the bytes that it had", of)
			}
			return err
		},
		Undo: func() error { return write(data) },
	}, nil
}

// retag lets a tag of a registry name something else.
func (h *Host) retag(of string) (*Fault, error) {
	ref, err := h.tag(of)
	if err != nil {
		return nil, err
	}
	ask := func(ctx context.Context) (*remote.Descriptor, error) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return remote.Get(ref, h.remote(ctx)...)
	}
	before, err := ask(context.Background())
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", of, h.Name, err)
	}
	return &Fault{
		Inject: func() error {
			return h.push(context.Background(), of, fmt.Appendf(nil, "not what %s was: %s\n", of, before.Digest))
		},
		Probe: func(ctx context.Context) error {
			now, err := ask(ctx)
			if err == nil && now.Digest == before.Digest {
				err = fmt.Errorf("%s is %s, as before", of, now.Digest)
			}
			return err
		},
		Undo: func() error { return remote.Tag(ref, before, h.remote(context.Background())...) },
	}, nil
}

// rewrite gives every branch a history of one commit, with a file changed, and throws
// the old one away. A server's administrator can; a push cannot.
func (h *Host) rewrite(string) (*Fault, error) {
	before, err := h.branches(context.Background())
	if err != nil {
		return nil, err
	}
	git := func(args ...string) (string, error) {
		return vcs.Git(context.Background(), h.bare(), "", append([]string{"-c", "user.name=somebody", "-c", "user.email=somebody@example.org"}, args...)...)
	}
	return &Fault{
		Inject: func() error {
			// What a tag names would be kept.
			tags, err := git("for-each-ref", "--format=delete %(refname)", "refs/tags")
			if err != nil {
				return err
			}
			for line := range strings.Lines(tags) {
				if _, err := git("update-ref", "-d", strings.TrimPrefix(strings.TrimSpace(line), "delete ")); err != nil {
					return err
				}
			}
			for name, id := range before {
				other, err := git("commit-tree", "-m", "as it never was", id+"^{tree}")
				if err != nil {
					return err
				}
				if _, err := git("update-ref", name, other, id); err != nil {
					return err
				}
			}
			_, err = git("-c", "gc.reflogExpire=now", "gc", "--quiet", "--prune=now")
			return err
		},
		Probe: func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			a, err := vcs.Nobody()
			if err != nil {
				return err
			}
			dir := filepath.Join(h.dir, "probe")
			if err := a.MakeTemp(dir); err != nil {
				return err
			}
			defer os.RemoveAll(dir)
			if _, err := vcs.Git(ctx, dir, "", "init", "--quiet", "--bare", "."); err != nil {
				return err
			}
			for name, id := range before {
				if _, err := vcs.Git(ctx, dir, h.lab.network(), "fetch", "--quiet", h.url(), id); err == nil {
					return fmt.Errorf("%s still has %s, which was %s", h.Name, id, name)
				}
			}
			return h.Answers(ctx) // it is the history that is gone, and not the host
		},
	}, nil
}

// onlyOn refuses faults of other hosts.
func (h *Host) onlyOn(kind drill.Fault) error {
	is := cmp.Or(h.spec.Service, drill.Machine)
	for _, k := range drill.Faults() {
		if k.Fault == kind && !slices.Contains(k.On, is) {
			return fmt.Errorf("%s cannot happen to %s, a %s", kind, h.Name, is)
		}
	}
	return nil
}
