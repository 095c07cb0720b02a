package limit

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Host is what of an address counts as one peer: an IPv4 address, or the 64 bits of an
// IPv6 address that a network is given.
func Host(a net.Addr) string {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return a.String()
	}
	ip := ap.Addr().Unmap()
	if ip.Is4() {
		return ip.String()
	}
	p, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return ip.String()
	}
	return p.String()
}

// host is what is remembered of an address.
type host struct {
	failures *rate.Limiter
	seen     time.Time // a known peer, last
}

// hosts remembers which addresses cost something, and which known peers come from.
type hosts struct {
	limits Limits
	mu     sync.Mutex
	by     map[string]*host
}

func newHosts(l Limits) *hosts { return &hosts{limits: l, by: map[string]*host{}} }

// admits tells whether a connection from an address is accepted.
func (h *hosts) admits(name string, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := h.by[name]
	return x == nil || h.familiar(x, now) || x.failures.TokensAt(now) >= 1
}

func (h *hosts) familiar(x *host, now time.Time) bool {
	return !x.seen.IsZero() && now.Sub(x.seen) < h.limits.Familiar
}

// failed counts a connection that ended without credentials.
func (h *hosts) failed(name string, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at(name, now).failures.AllowN(now, 1)
}

// known notes that a known peer came from an address.
func (h *hosts) known(name string, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at(name, now).seen = now
}

// at is the memory of an address. Where there are too many it forgets those that are
// worth least: first those that have cost nothing lately, then any that is not familiar.
func (h *hosts) at(name string, now time.Time) *host {
	x := h.by[name]
	if x != nil {
		return x
	}
	for _, all := range []bool{false, true} {
		if len(h.by) < h.limits.Hosts {
			break
		}
		for n, o := range h.by {
			if !h.familiar(o, now) && (all || o.failures.TokensAt(now) >= float64(h.limits.Failures)) {
				delete(h.by, n)
				if all {
					break
				}
			}
		}
	}
	x = &host{failures: rate.NewLimiter(h.limits.Refill, h.limits.Failures)}
	h.by[name] = x
	return x
}

// Quota counts what each of several has of something that is limited.
type Quota map[string]int

// Take takes one more, unless who has most already.
func (q Quota) Take(who string, most int) bool {
	if q[who] >= most {
		return false
	}
	q[who]++
	return true
}

// Give gives one back.
func (q Quota) Give(who string) {
	if q[who]--; q[who] <= 0 {
		delete(q, who)
	}
}
