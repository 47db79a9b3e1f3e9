package memnet

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
)

// Backlog is how many connections wait for Accept; beyond it a dial hangs.
const Backlog = 128

type listener struct {
	host   *Host
	addr   *net.TCPAddr
	cond   *sync.Cond // on Network.mu, which guards all below
	queue  []*conn
	closed bool
}

// Listen accepts TCP connections to the port on all addresses of the host, loopback included; 0 picks a port. A port
// that is taken is EADDRINUSE. The connections accepted are like those of DialContext.
func (h *Host) Listen(port uint16) (net.Listener, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.upLocked()
	if port == 0 {
		port = h.ephemeralLocked()
	}
	l := &listener{host: h, addr: tcpAddr(h.addrs[0], port), cond: sync.NewCond(&h.net.mu)}
	if h.listeners[port] != nil {
		return nil, opError("listen", "tcp", nil, l.addr, syscall.EADDRINUSE)
	}
	h.listeners[port] = l
	h.net.changed.Broadcast()
	return l, nil
}

func (l *listener) Accept() (net.Conn, error) {
	l.cond.L.Lock()
	defer l.cond.L.Unlock()
	for len(l.queue) == 0 && !l.closed {
		l.cond.Wait()
	}
	if l.closed {
		return nil, opError("accept", "tcp", nil, l.addr, net.ErrClosed)
	}
	c := l.queue[0]
	l.queue = slices.Delete(l.queue, 0, 1)
	l.host.net.changed.Broadcast() // room in the backlog
	return c, nil
}

// Close resets the connections that nobody accepted.
func (l *listener) Close() error {
	l.cond.L.Lock()
	defer l.cond.L.Unlock()
	if l.closed {
		return opError("close", "tcp", nil, l.addr, net.ErrClosed)
	}
	l.closed = true
	delete(l.host.listeners, uint16(l.addr.Port))
	for _, c := range l.queue {
		c.resetLocked()
	}
	l.queue = nil
	l.cond.Broadcast()
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr }

func tcpAddr(a netip.Addr, port uint16) *net.TCPAddr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, port))
}

func udpAddr(a netip.Addr, port uint16) *net.UDPAddr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, port))
}
