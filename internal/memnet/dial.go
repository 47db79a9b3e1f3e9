package memnet

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// DialContext opens a connection to address, an "addr:port" of literals, over the network tcp or udp (or tcp4, udp6 and
// so on). A TCP port without a listener is ECONNREFUSED; an address without a host, a host that is down, a full backlog
// and a stalled link hang until ctx ends or that changes. A udp connection also is a net.PacketConn, as in package net;
// it opens at once, and datagrams that nobody receives are lost.
func (h *Host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	to, err := parseTarget(network, address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	if strings.HasPrefix(network, "udp") {
		return h.dialUDP(ctx, network, to)
	}
	h.up()
	d := dial{host: h, network: network, to: to}
	if err := d.travel(ctx); err != nil {
		return nil, d.opError(err)
	}
	c, err := d.connect(ctx)
	// There and back: a dial takes a round trip, refused or not.
	if back := d.travel(ctx); err == nil && back != nil {
		err = back
		c.Close()
	}
	if err != nil {
		return nil, d.opError(err)
	}
	return c, nil
}

func parseTarget(network, address string) (netip.AddrPort, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return netip.AddrPort{}, &net.AddrError{Err: "not an addr:port of literals", Addr: address}
	}
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	switch network {
	case "tcp", "udp":
	case "tcp4", "udp4", "tcp6", "udp6":
		if to.Addr().Is4() != strings.HasSuffix(network, "4") {
			return netip.AddrPort{}, &net.AddrError{Err: "no suitable address", Addr: address}
		}
	default:
		return netip.AddrPort{}, net.UnknownNetworkError(network)
	}
	return to, nil
}

// A dial is one attempt to open a TCP connection.
type dial struct {
	host    *Host
	network string
	to      netip.AddrPort
}

func (d dial) opError(err error) error {
	return opError("dial", d.network, nil, tcpAddr(d.to.Addr(), d.to.Port()), err)
}

// travel takes as long as a packet does one way.
func (d dial) travel(ctx context.Context) error {
	d.host.net.mu.Lock()
	delay := d.host.net.delayLocked(d.host, d.host.remoteLocked(d.to.Addr()))
	d.host.net.mu.Unlock()
	if delay <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// connect waits until the far side has an answer. It waits on one cond for all dials of the network: a firewall that
// opens, a host that comes up and a link that heals are all a change.
func (d dial) connect(ctx context.Context) (net.Conn, error) {
	n := d.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	// A cond cannot wait for a context. The lock makes sure that nobody is between looking and waiting.
	stop := context.AfterFunc(ctx, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.changed.Broadcast()
	})
	defer stop()
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if d.host.down {
			return nil, syscall.ENETDOWN
		}
		from, ok := d.host.sourceLocked(d.to.Addr())
		if !ok {
			return nil, syscall.ENETUNREACH
		}
		switch d.verdictLocked(from) {
		case Pass:
			return d.enqueueLocked(from), nil
		case Reject:
			return nil, syscall.ECONNREFUSED
		}
		n.changed.Wait()
	}
}

// verdictLocked asks the firewall first: a packet that it drops never reaches a host, whether there is one or not.
func (d dial) verdictLocked(from netip.Addr) Verdict {
	n, remote := d.host.net, d.host.remoteLocked(d.to.Addr())
	if n.firewall != nil && remote != d.host {
		if v := n.firewall(from, d.to); v != Pass {
			return v
		}
	}
	// No host answers for the address, and so nobody says that it is not there.
	if remote == nil {
		return Drop
	}
	l := remote.listeners[d.to.Port()]
	switch fault := n.links[link{d.host, remote}]; {
	case fault == cut:
		return Reject
	case fault == stalled, remote.down:
		return Drop
	case l == nil:
		return Reject
	case len(l.queue) == Backlog:
		return Drop
	}
	return Pass
}

func (d dial) enqueueLocked(from netip.Addr) net.Conn {
	remote := d.host.remoteLocked(d.to.Addr())
	near, far := newPair(d.host, remote, tcpAddr(from, d.host.ephemeralLocked()), tcpAddr(d.to.Addr(), d.to.Port()))
	l := remote.listeners[d.to.Port()]
	l.queue = append(l.queue, far)
	l.cond.Broadcast()
	return near
}

func (h *Host) dialUDP(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	remote := udpAddr(to.Addr(), to.Port())
	if err := ctx.Err(); err != nil {
		return nil, opError("dial", network, nil, remote, err)
	}
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.upLocked()
	from, ok := h.sourceLocked(to.Addr())
	if !ok {
		return nil, opError("dial", network, nil, remote, fmt.Errorf("no source address: %w", syscall.ENETUNREACH))
	}
	p := h.newSocketLocked(udpAddr(from, h.ephemeralLocked()))
	p.remote, p.peer = remote, remote.AddrPort()
	return p, nil
}
