package recorder

import (
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/miekg/dns"
	"golang.org/x/net/netutil"
)

func (r *Recorder) serveDNS() {
	h := dns.HandlerFunc(r.resolve)
	for _, s := range []*dns.Server{{PacketConn: r.ns.udp, Handler: h}, {Listener: netutil.LimitListener(r.ns.tcp, mostQuestions), Handler: h}} {
		r.dns = append(r.dns, s)
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		r.wg.Go(func() {
			if err := s.ActivateAndServe(); err != nil {
				r.o.Log.Debug("resolver", "err", err)
			}
		})
		<-started
	}
}

// resolve answers the build's questions for names.
func (r *Recorder) resolve(w dns.ResponseWriter, q *dns.Msg) {
	if !r.questions.try() {
		return // as if it were lost on the way: a resolver asks again
	}
	defer r.questions.give()
	m := new(dns.Msg)
	m.SetReply(q)
	defer func() { _ = w.WriteMsg(m) }() // the client may have given up
	if len(q.Question) != 1 {
		m.Rcode = dns.RcodeFormatError
		return
	}
	question := q.Question[0]
	name := strings.ToLower(strings.TrimSuffix(question.Name, "."))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		if question.Qtype == dns.TypeA {
			m.Answer = append(m.Answer, &dns.A{Hdr: header(question), A: net.IPv4(127, 0, 0, 1)})
		}
		return
	}
	known, own := r.exists(name)
	if !known {
		m.Rcode = dns.RcodeNameError
		return
	}
	if question.Qtype == dns.TypeA {
		ip := net.IPv4(127, 0, 0, 1)
		if !own {
			ip = r.address(name)
		}
		if ip == nil {
			m.Rcode = dns.RcodeServerFailure
			return
		}
		m.Answer = append(m.Answer, &dns.A{Hdr: header(question), A: ip})
	}
}

func header(q dns.Question) dns.RR_Header {
	return dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 300}
}

// exists tells whether a name is known: to the world while recording, to the
// recording on replay; and whether it is a name of the build's own loopback.
func (r *Recorder) exists(name string) (known, own bool) {
	if strings.HasSuffix(name, ".arpa") {
		return false, false
	}
	for _, l := range r.o.Live {
		if host, _, err := net.SplitHostPort(l.Address); err == nil && !l.Proposed && strings.EqualFold(host, name) {
			return true, false
		}
	}
	if r.o.Replay != nil {
		if r.index.own[name] {
			return true, true
		}
		if r.index.hosts[name] {
			return true, false
		}
		if strings.Contains(name, ".") && !r.index.unknown[name] {
			r.block("name " + name)
		}
		return false, false
	}
	// Behind a proxy, names are the proxy's to resolve.
	var p *url.URL
	var err error
	if !r.o.Pass {
		p, err = r.o.Upstream(&url.URL{Scheme: "https", Host: name})
	}
	list := &r.rec.Unknown
	if err == nil && p != nil && strings.Contains(name, ".") {
		known, list = true, &r.rec.Names
	} else if addrs := r.o.Lookup(r.ctx, name); len(addrs) > 0 {
		known, list = true, &r.rec.Names
		if !slices.ContainsFunc(addrs, func(ip net.IP) bool { return !ip.IsLoopback() }) {
			own, list = true, &r.rec.Own
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(*list) < mostNames && !slices.Contains(*list, name) {
		*list = append(*list, name)
	}
	return known, own
}

// address gives a name its address in 198.18.0.0/15, which is set aside for
// tests and routed nowhere; none if there are too many names.
func (r *Recorder) address(name string) net.IP {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.addrs[name]; a != "" {
		return net.ParseIP(a)
	}
	if len(r.addrs) >= mostNames {
		return nil
	}
	n := len(r.addrs) + 1
	ip := net.IPv4(198, byte(18+n>>16&1), byte(n>>8), byte(n))
	r.addrs[name], r.names[ip.String()] = ip.String(), name
	return ip
}
