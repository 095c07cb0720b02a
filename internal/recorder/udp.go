package recorder

import (
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"
)

// idle is how long a client of a live dependency may be silent before its way
// back is forgotten.
const idle = 2 * time.Minute

// datagrams gives the addresses, as the build sees them, of the confirmed live
// dependencies that speak UDP.
func (r *Recorder) datagrams() ([]*net.UDPAddr, error) {
	var list []*net.UDPAddr
	for _, l := range r.o.Live {
		if l.Kind != "udp" || l.Proposed {
			continue
		}
		host, port, err := net.SplitHostPort(l.Address)
		var n uint64
		if err == nil {
			n, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil || n == 0 {
			return nil, fmt.Errorf("live dependency %s: %q is not HOST:PORT", l.Name, l.Address)
		}
		ip := net.ParseIP(host).To4()
		if ip == nil {
			ip = r.address(host).To4()
		}
		list = append(list, &net.UDPAddr{IP: ip, Port: int(n)})
	}
	return list, nil
}

// relay passes datagrams to a live dependency and back, until the listener is
// closed. Each client has a socket of its own, so that answers find it.
func (r *Recorder) relay(c net.PacketConn) {
	address := r.realAddress(c.LocalAddr().(*net.UDPAddr))
	var mu sync.Mutex
	ways := map[string]net.Conn{}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		for _, up := range ways {
			up.Close()
		}
	}()
	buf := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return // closed
		}
		mu.Lock()
		up := ways[from.String()]
		if up == nil && len(ways) >= mostClients {
			mu.Unlock()
			continue // a datagram may be lost
		}
		if up == nil {
			if up, err = r.dialLive(r.ctx, "udp", address); err != nil {
				mu.Unlock()
				r.o.Log.Warn("live dependency", "address", address, "err", err)
				continue
			}
			ways[from.String()] = up
			wg.Go(func() {
				answers(c, from, up)
				mu.Lock()
				defer mu.Unlock()
				up.Close()
				delete(ways, from.String())
			})
		}
		mu.Unlock()
		_ = up.SetReadDeadline(time.Now().Add(idle))
		if _, err := up.Write(buf[:n]); err != nil {
			r.o.Log.Debug("live dependency", "address", address, "err", err) // a datagram may be lost
		}
	}
}

// answers passes what a live dependency says to one client.
func answers(c net.PacketConn, to net.Addr, up net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := up.Read(buf)
		if err != nil {
			return
		}
		if _, err := c.WriteTo(buf[:n], to); err != nil {
			return
		}
	}
}

// realAddress is what an address of the build's network stands for.
func (r *Recorder) realAddress(a *net.UDPAddr) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	host := a.IP.String()
	if name := r.names[host]; name != "" {
		host = name
	}
	return net.JoinHostPort(host, strconv.Itoa(a.Port))
}
