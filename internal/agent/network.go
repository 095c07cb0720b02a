package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"trysail/blueprint"
	"trysail/internal/build"
	"trysail/internal/rebuild"
	"trysail/internal/recorder"
)

// network is that of a step in a rebuilt server: the recorded downloads, or others' hosts,
// or (nil) the machine's own. The first two reach neither this machine nor control, but for
// live dependencies that the machine permits.
func (s *step) network(ctx context.Context, b *blueprint.Blueprint, x *blueprint.Build) (build.Network, func(), error) {
	if s.as.Step.HostNetwork {
		return nil, func() {}, nil
	}
	var rec *recorder.Recorder
	var err error
	if allow := s.a.o.Permits.Allow; s.as.Step.Network {
		open, _ := allow.Remote(b.LiveDependencies)
		rec, err = recorder.Start(ctx, recorder.Options{Pass: true, Live: open, Wall: s.wall(), UID: recorder.Nobody, Log: s.a.o.Log})
	} else {
		rec, err = rebuild.Network(ctx, s.a.o.Depot, b, x, allow, s.a.o.Log)
	}
	if err != nil {
		return nil, nil, err
	}
	return rec, func() { _, _ = rec.Stop() }, nil // what the step did is more to the point
}

// mostSaid bounds the addresses of which a step's log says that the step did not reach them.
const mostSaid = 1000

// wall keeps a step from this machine and from every control, and says so once for each
// address in the step's log.
func (s *step) wall() recorder.Wall {
	outside := recorder.Outside(func() []string {
		var hosts []string
		for _, at := range s.a.o.Client.Addresses() {
			if host, _, err := net.SplitHostPort(at); err == nil {
				hosts = append(hosts, host)
			}
		}
		return hosts
	})
	var mu sync.Mutex
	said := map[netip.Addr]bool{}
	return func(ctx context.Context, ip netip.Addr) error {
		ip = ip.Unmap()
		err := outside(ctx, ip)
		if err == nil {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if !said[ip] && len(said) < mostSaid {
			said[ip] = true
			fmt.Fprintf(s.log, "[trysail] no way to %s: %v; a step with \"network\":\"host\" has its machine's own network\n", ip, err)
		}
		return err
	}
}
