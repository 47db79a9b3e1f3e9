package memnet

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	maxDatagram = 65507   // bytes, of UDP over IPv4
	maxQueued   = 1 << 20 // bytes that a socket holds; what comes on top is lost
)

type datagram struct {
	data []byte
	from *net.UDPAddr
	at   time.Time
}

// A packetConn is a UDP socket: net.PacketConn, and net.Conn as well when it is connected.
type packetConn struct {
	host   *Host
	local  *net.UDPAddr
	remote *net.UDPAddr // nil: not connected
	cond   *sync.Cond   // on Network.mu, which guards all below

	in     []datagram
	size   int
	closed bool
	read   deadline
	write  deadline
}

// ListenPacket opens the UDP port on all addresses of the host, loopback included; 0 picks a port. A port that is taken
// is EADDRINUSE.
func (h *Host) ListenPacket(port uint16) (net.PacketConn, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.upLocked()
	if port == 0 {
		port = h.ephemeralLocked()
	}
	local := udpAddr(h.addrs[0], port)
	if h.sockets[port] != nil {
		return nil, opError("listen", "udp", nil, local, syscall.EADDRINUSE)
	}
	return h.newSocketLocked(local), nil
}

func (h *Host) newSocketLocked(local *net.UDPAddr) *packetConn {
	p := &packetConn{host: h, local: local, cond: sync.NewCond(&h.net.mu)}
	h.sockets[uint16(local.Port)] = p
	return p
}

func (p *packetConn) Read(b []byte) (int, error) {
	n, _, err := p.ReadFrom(b)
	return n, err
}

// ReadFrom cuts a datagram that does not fit into b.
func (p *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	p.cond.L.Lock()
	defer p.cond.L.Unlock()
	for {
		if err := p.brokenLocked(&p.read); err != nil {
			return 0, nil, p.opError("read", err)
		}
		if len(p.in) > 0 && !time.Now().Before(p.in[0].at) {
			d := p.in[0]
			p.in, p.size = p.in[1:], p.size-len(d.data)
			return copy(b, d.data), d.from, nil
		}
		p.cond.Wait()
	}
}

func (p *packetConn) Write(b []byte) (int, error) {
	p.cond.L.Lock()
	defer p.cond.L.Unlock()
	if p.remote == nil {
		return 0, p.opError("write", syscall.EDESTADDRREQ)
	}
	return p.sendLocked(b, p.remote.AddrPort())
}

func (p *packetConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	p.cond.L.Lock()
	defer p.cond.L.Unlock()
	to, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, p.opError("write", syscall.EINVAL)
	}
	if p.remote != nil {
		return 0, p.opError("write", net.ErrWriteToConnected)
	}
	return p.sendLocked(b, to.AddrPort())
}

// sendLocked succeeds whether or not anybody receives.
func (p *packetConn) sendLocked(b []byte, to netip.AddrPort) (int, error) {
	if err := p.brokenLocked(&p.write); err != nil {
		return 0, p.opError("write", err)
	}
	if len(b) > maxDatagram {
		return 0, p.opError("write", syscall.EMSGSIZE)
	}
	addr := to.Addr().Unmap()
	source, ok := p.host.sourceLocked(addr)
	if !ok {
		return 0, p.opError("write", syscall.ENETUNREACH)
	}
	remote := p.host.remoteLocked(addr)
	if remote == nil || p.host.net.links[link{p.host, remote}] != healthy {
		return len(b), nil
	}
	if q := remote.sockets[to.Port()]; q != nil {
		q.pushLocked(p, udpAddr(source, uint16(p.local.Port)), b)
	}
	return len(b), nil
}

// pushLocked queues a datagram by its arrival. A connected socket hears its peer alone.
func (p *packetConn) pushLocked(sender *packetConn, from *net.UDPAddr, b []byte) {
	if p.remote != nil && p.remote.AddrPort() != from.AddrPort() || p.size+len(b) > maxQueued {
		return
	}
	delay := p.host.net.delayLocked(sender.host, p.host)
	p.in = append(p.in, datagram{data: append([]byte(nil), b...), from: from, at: time.Now().Add(delay)})
	p.size += len(b)
	wakeIn(p.cond, delay)
}

func (p *packetConn) brokenLocked(d *deadline) error {
	switch {
	case p.closed:
		return net.ErrClosed
	case d.expired():
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (p *packetConn) Close() error {
	p.cond.L.Lock()
	defer p.cond.L.Unlock()
	if p.closed {
		return p.opError("close", net.ErrClosed)
	}
	p.closed = true
	p.read.set(p.cond, time.Time{})
	p.write.set(p.cond, time.Time{})
	delete(p.host.sockets, uint16(p.local.Port))
	p.cond.Broadcast()
	return nil
}

func (p *packetConn) LocalAddr() net.Addr { return p.local }

// RemoteAddr is nil for a socket that is not connected.
func (p *packetConn) RemoteAddr() net.Addr {
	if p.remote == nil {
		return nil
	}
	return p.remote
}

func (p *packetConn) SetDeadline(t time.Time) error      { return p.setDeadline(t, &p.read, &p.write) }
func (p *packetConn) SetReadDeadline(t time.Time) error  { return p.setDeadline(t, &p.read) }
func (p *packetConn) SetWriteDeadline(t time.Time) error { return p.setDeadline(t, &p.write) }

func (p *packetConn) setDeadline(t time.Time, which ...*deadline) error {
	p.cond.L.Lock()
	defer p.cond.L.Unlock()
	if p.closed {
		return p.opError("set", net.ErrClosed)
	}
	for _, d := range which {
		d.set(p.cond, t)
	}
	return nil
}

func (p *packetConn) opError(op string, err error) error {
	return opError(op, "udp", p.local, p.RemoteAddr(), err)
}
