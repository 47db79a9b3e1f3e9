// Package memnet is a buffered network in memory for tests in testing/synctest bubbles: hosts, TCP and UDP, with links
// that can be slow, cut, stalled and healed.
//
// Everything that blocks here blocks durably in the sense of synctest: on a sync.Cond, or on a timer made in the
// caller's bubble. Only Serve starts goroutines, which Stop waits for; timers run briefly. Make the Network inside
// the bubble.
//
//	n := memnet.New()
//	server := n.Host(netip.MustParseAddr("192.0.2.1"))
//	client := n.Host(netip.MustParseAddr("198.51.100.7"))
//	l, err := server.Listen(443)
//	c, err := client.DialContext(ctx, "tcp", "192.0.2.1:443")
//
// What it keeps of TCP: order, back-pressure through a buffer of 256 KiB per direction, half close, deadlines, a
// backlog, and errors of the same shape as package net's (*net.OpError around a syscall.Errno). What it leaves out:
// loss, retransmission times, and the reset that close sends when bytes lie unread.
package memnet

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// A Verdict is what a firewall does with a new TCP connection.
type Verdict int

// The verdicts.
const (
	Pass   Verdict = iota
	Reject         // the dial fails with ECONNREFUSED
	Drop           // the dial hangs until its context ends, or until the firewall changes its mind
)

// A Network is a set of hosts of which each reaches each. Its methods, and those of all that belongs to it, may be
// called from several goroutines.
type Network struct {
	// mu guards the whole network, every host, listener and connection included: one lock makes each event atomic.
	mu       sync.Mutex
	changed  *sync.Cond // a dial that hangs may go on
	hosts    map[netip.Addr]*Host
	links    map[link]fault // in both directions; none: healthy
	latency  time.Duration
	firewall func(from netip.Addr, to netip.AddrPort) Verdict
}

type link struct{ from, to *Host }

type fault int

const (
	healthy fault = iota
	stalled
	cut
)

// New returns a network without hosts, latency or firewall.
func New() *Network {
	n := &Network{hosts: make(map[netip.Addr]*Host), links: make(map[link]fault)}
	n.changed = sync.NewCond(&n.mu)
	return n
}

// SetLatency sets the one-way delay of what is sent from now on. A connection takes twice that to open. Within one host
// there is none.
func (n *Network) SetLatency(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.latency = d
}

// Firewall asks verdict about every TCP connection that is being opened to another host; nil passes all. It is called
// with the network locked and must not call back. Datagrams do not pass it: a UDP port without a listener is silent
// anyway.
func (n *Network) Firewall(verdict func(from netip.Addr, to netip.AddrPort) Verdict) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.firewall = verdict
	n.changed.Broadcast()
}

// Cut separates the hosts of a and b: their connections are reset at both ends, dials are refused, datagrams vanish.
func (n *Network) Cut(a, b netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.setFaultLocked(a, b, cut) {
		c.resetLocked()
	}
}

// Stall makes a black hole between the hosts of a and b, both ways: what was sent but has not arrived, or is sent from
// now on, is kept until Heal, an end of stream included. Nobody is told. Dials hang, datagrams vanish. That is a cable
// that was pulled, or a gateway on a mobile link: no end of a connection is told, and only a heartbeat finds out.
func (n *Network) Stall(a, b netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	for _, c := range n.setFaultLocked(a, b, stalled) {
		for i := range c.in {
			c.in[i].held = c.in[i].held || c.in[i].at.After(now)
		}
	}
}

// Heal ends a Cut or Stall between the hosts of a and b. What a stall kept arrives at once.
func (n *Network) Heal(a, b netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.setFaultLocked(a, b, healthy) {
		for i := range c.in {
			c.in[i].held = false
		}
		c.cond.Broadcast()
	}
}

// setFaultLocked returns the ends of all connections between the two hosts.
func (n *Network) setFaultLocked(a, b netip.Addr, f fault) []*conn {
	ha, hb := n.hostLocked(a), n.hostLocked(b)
	n.links[link{ha, hb}], n.links[link{hb, ha}] = f, f
	n.changed.Broadcast()
	var ends []*conn
	for c := range ha.conns {
		if c.peer.host == hb {
			ends = append(ends, c, c.peer)
		}
	}
	return ends
}

// delayLocked is the one-way delay between two hosts.
func (n *Network) delayLocked(from, to *Host) time.Duration {
	if from == to {
		return 0
	}
	return n.latency
}

// Host returns the host with that address, which exists from the first call on.
func (n *Network) Host(addr netip.Addr) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hostLocked(addr)
}

func (n *Network) hostLocked(addr netip.Addr) *Host {
	addr = addr.Unmap()
	h := n.hosts[addr]
	if h == nil {
		h = &Host{
			net: n, addrs: []netip.Addr{addr}, nextPort: firstEphemeral,
			listeners: make(map[uint16]*listener), sockets: make(map[uint16]*packetConn), conns: make(map[*conn]struct{}),
		}
		n.hosts[addr] = h
	}
	return h
}

// firstEphemeral is where a host begins to count the ports that it chooses itself (RFC 6335 §6).
const firstEphemeral = 49152

// A Host has one or more addresses, and listeners, sockets and connections on all of them. Loopback addresses name
// the host itself.
type Host struct {
	net       *Network
	addrs     []netip.Addr
	down      bool
	nextPort  uint16
	listeners map[uint16]*listener
	sockets   map[uint16]*packetConn
	conns     map[*conn]struct{} // with the dead ones of a host that went down, whose peers do not know yet
}

// AddAddr gives the host another address. It panics when another host has it.
func (h *Host) AddAddr(addr netip.Addr) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	addr = addr.Unmap()
	if other := h.net.hosts[addr]; other != nil && other != h {
		panic("memnet: address " + addr.String() + " is taken")
	}
	if h.net.hosts[addr] == nil {
		h.net.hosts[addr] = h
		h.addrs = append(h.addrs, addr)
	}
}

// Down is a power cut: all listeners, sockets and connections of the host are gone, and nobody is told. To the host's
// own code they are closed; to its peers they are silent, until the host is up again and answers their next byte, or
// one that it never read, with a reset. The next Listen, ListenPacket or DialContext of the host brings it up.
func (h *Host) Down() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.down = true
	for _, l := range h.listeners {
		l.closed = true
		l.cond.Broadcast()
	}
	for _, p := range h.sockets {
		p.closed = true
		p.cond.Broadcast()
	}
	for c := range h.conns {
		c.dead, c.closed = true, true
		c.cond.Broadcast()
	}
	clear(h.listeners)
	clear(h.sockets)
}

func (h *Host) up() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.upLocked()
}

func (h *Host) upLocked() {
	if !h.down {
		return
	}
	h.down = false
	for c := range h.conns {
		if c.dead && c.size > 0 {
			c.peer.resetLocked() // what the peer keeps sending again meets a host that knows nothing of it
		}
	}
	h.net.changed.Broadcast()
}

// ephemeralLocked returns a port that neither a listener nor a socket of the host has.
func (h *Host) ephemeralLocked() uint16 {
	for {
		port := h.nextPort
		h.nextPort = max(h.nextPort+1, firstEphemeral)
		if h.listeners[port] == nil && h.sockets[port] == nil {
			return port
		}
	}
}

// sourceLocked returns the host's address for talking to a destination; false when it has none of that family.
func (h *Host) sourceLocked(to netip.Addr) (netip.Addr, bool) {
	if to.IsLoopback() || slices.Contains(h.addrs, to) {
		return to, true
	}
	i := slices.IndexFunc(h.addrs, func(a netip.Addr) bool { return a.Is4() == to.Is4() })
	if i < 0 {
		return netip.Addr{}, false
	}
	return h.addrs[i], true
}

// remoteLocked returns the host that an address means to h; nil for nobody.
func (h *Host) remoteLocked(to netip.Addr) *Host {
	if to.IsLoopback() {
		return h
	}
	return h.net.hosts[to]
}
