package netcheck

import (
	"context"
	"net/netip"
	"sync"

	"hawser/transport"
)

// maxProxies is how many are tried on each port. A dead one costs its time-out on every port, of the minute that all
// have.
const maxProxies = 2

// packetSizes are those of PPPoE, of a VPN or LTE, and the least of IPv6, in bytes. Three and no search by halves: each
// is a usual tunnel, and each more would cost a handshake.
func packetSizes() []int { return []int{1492, 1400, 1280} }

// through lists the ways to a server through proxies.
func (p plan) through(s server) (all []place) {
	for _, port := range s.ports {
		proxies := p.proxies.For(s.host, port)
		for _, proxy := range proxies[:min(len(proxies), maxProxies)] {
			at := s.way(port, 0)
			at.proxy = proxy.String()
			all = append(all, at)
		}
	}
	return all
}

// try tries a candidate in the full form, and in the small one when the full one vanished behind the connect (wire §8.1):
// large packets may not pass. Where that does not help either, no other port of the address needs it.
func (r *run) try(ctx context.Context, t transport.Target, c transport.Candidate) (conn *transport.Conn, a transport.Attempt, fullReason transport.Reason) {
	conn, full := r.Dialer.Try(ctx, t, c)
	vanished := full.RTT > 0 && (full.Reason == transport.Timeout || full.Reason == transport.ResetAfterHello)
	if c.Proxy != "" || !vanished || r.paths.isHopeless(c.Addr.Addr()) {
		return conn, full, ""
	}
	c.Small = true
	conn, small := r.Dialer.Try(ctx, t, c)
	if conn == nil {
		r.paths.giveUp(c.Addr.Addr())
		return nil, full, ""
	}
	return conn, small, full.Reason
}

// packet measures the largest packet that passes to an address, once. It is a property of the path and not of a port.
func (r *run) packet(ctx context.Context, role Role, c transport.Candidate) int {
	if !r.paths.mayMeasure(c.Addr.Addr()) {
		return 0
	}
	return r.Dialer.LargestPacket(ctx, r.target(role), c, packetSizes()...)
}

// paths is what a run has learnt of the paths to addresses.
type paths struct {
	mu       sync.Mutex // guards all below
	measured map[netip.Addr]bool
	hopeless map[netip.Addr]bool // the small form does not pass, either
}

func (p *paths) isHopeless(a netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hopeless[a]
}

func (p *paths) giveUp(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hopeless[a] = true
}

// mayMeasure says once for each address that its packets are to be measured.
func (p *paths) mayMeasure(a netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := !p.measured[a]
	p.measured[a] = true
	return first
}
