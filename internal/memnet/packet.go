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
	maxDatagram = 65507 // bytes, of UDP over IPv4
	// A flood costs no more memory than that, as with a real socket.
	maxQueued = 1 << 20 // bytes that a socket holds; what comes on top is lost
)

type datagram struct {
	data []byte
	from *net.UDPAddr
	at   time.Time
}

// A packetConn is a UDP socket: net.PacketConn, and net.Conn as well when it is connected.
type packetConn struct {
	end
	host *Host
	port uint16
	peer netip.AddrPort // zero: not connected

	in   []datagram
	size int
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
	p := &packetConn{end: end{network: "udp", local: local, cond: sync.NewCond(&h.net.mu)}, host: h, port: uint16(local.Port)}
	h.sockets[p.port] = p
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
	if !p.peer.IsValid() {
		return 0, p.opError("write", syscall.EDESTADDRREQ)
	}
	return p.sendLocked(b, p.peer)
}

func (p *packetConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	p.cond.L.Lock()
	defer p.cond.L.Unlock()
	to, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, p.opError("write", syscall.EINVAL)
	}
	if p.peer.IsValid() {
		return 0, p.opError("write", net.ErrWriteToConnected)
	}
	return p.sendLocked(b, to.AddrPort())
}

// sendLocked succeeds whether or not anybody receives. UDP tells nobody of a cut link, a closed port or a full queue.
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
		q.pushLocked(p, udpAddr(source, p.port), b)
	}
	return len(b), nil
}

// pushLocked queues a datagram by its arrival. A connected socket hears its peer alone.
func (p *packetConn) pushLocked(sender *packetConn, from *net.UDPAddr, b []byte) {
	if p.peer.IsValid() && p.peer != from.AddrPort() || p.size+len(b) > maxQueued {
		return
	}
	delay := p.host.net.delayLocked(sender.host, p.host)
	p.in = append(p.in, datagram{data: append([]byte(nil), b...), from: from, at: time.Now().Add(delay)})
	p.size += len(b)
	wakeIn(p.cond, delay)
}

// brokenLocked looks at the deadline before the queue, as the kernel does: a read whose deadline is over fails, data or
// not.
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
	p.shutLocked()
	delete(p.host.sockets, p.port)
	p.cond.Broadcast()
	return nil
}
