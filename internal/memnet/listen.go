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

// A Service is an open port and the connections that came to it.
type Service struct {
	listener net.Listener
	all      sync.WaitGroup

	mu    sync.Mutex // guards all below
	conns map[net.Conn]struct{}
	dead  bool
}

// Serve is Listen, and hands each connection to handle, in a goroutine, and closes it when handle returns.
func (h *Host) Serve(port uint16, handle func(net.Conn)) (*Service, error) {
	l, err := h.Listen(port)
	if err != nil {
		return nil, err
	}
	s := &Service{listener: l, conns: map[net.Conn]struct{}{}}
	s.all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.all.Go(func() {
				defer s.end(c)
				if s.begin(c) {
					handle(c)
				}
			})
		}
	})
	return s, nil
}

// begin reports false when Kill came between Accept and here: Cut had not seen this connection.
func (s *Service) begin(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
	return !s.dead
}

func (s *Service) end(c net.Conn) {
	c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// Close closes the port and leaves the connections alone.
func (s *Service) Close() { s.listener.Close() }

// Stop closes the port and waits until every handle has returned. It ends none of them, so that a bubble shows who left
// a connection open.
func (s *Service) Stop() {
	s.Close()
	s.all.Wait()
}

// Cut closes all connections. The port stays open.
func (s *Service) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
}

// Kill closes the port and all connections, those that nobody handles yet too, and waits.
func (s *Service) Kill() {
	s.mu.Lock()
	s.dead = true
	s.mu.Unlock()
	s.Close()
	s.Cut()
	s.all.Wait()
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
