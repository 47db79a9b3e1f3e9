//go:build linux

package lab

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// distance is the round trip between a relay and each end.
type distance struct{ tech, device time.Duration }

// away puts a relay at a distance: it takes the relay's addresses and ports on the network, and hands on to the relay itself,
// which listens on loopback of the same machine, whatever comes to them, and what goes back, later. One such machine can
// so be near to one end and far from the other, and move.
type away struct {
	host string
	tech []netip.Addr // who is not the technician is the device, behind its site's address
	now  atomic.Pointer[distance]
}

// putAway is for a relay that does not run yet.
func putAway(t *testing.T, r *relay) *away {
	t.Helper()
	const inside = "127.0.0.1"
	d := describe(t)
	a := &away{host: r.host, tech: d.ways("tech")}
	a.now.Store(new(distance))
	var public []string
	for _, addr := range d.ways(r.host) {
		for _, port := range ports {
			public = append(public, net.JoinHostPort(addr.String(), port))
		}
	}
	r.behind(t, inside)
	serveAt(t, r.host, public, func(c net.Conn) {
		_, port, _ := net.SplitHostPort(c.LocalAddr().String())
		if relay, err := dialAt(t.Context(), a.host, net.JoinHostPort(inside, port)); err == nil {
			a.join(c, relay)
		}
	})
	return a
}

// move changes the distance at once, for connections as well that there are.
func (a *away) move(d distance) { a.now.Store(&d) }

// join carries both directions until both have ended.
func (a *away) join(client, relay net.Conn) {
	defer relay.Close()
	peer, _ := netip.ParseAddrPort(client.RemoteAddr().String()) // that of a TCP connection is one
	from := peer.Addr()
	var back sync.WaitGroup
	back.Go(func() { a.carry(client, relay, from) })
	a.carry(relay, client, from)
	back.Wait()
}

// carry is one direction. Its end, too, comes later.
func (a *away) carry(dst, src net.Conn, from netip.Addr) {
	type late struct {
		bytes []byte
		due   time.Time
	}
	queue := make(chan late, 64) // more than is ever on its way in a test
	var writing sync.WaitGroup
	writing.Go(func() {
		for l := range queue {
			<-time.After(time.Until(l.due))
			if _, err := dst.Write(l.bytes); err != nil {
				src.Close() // nobody is there to read for
			}
		}
		_ = dst.(*net.TCPConn).CloseWrite()
	})
	defer writing.Wait()
	defer close(queue)
	for {
		b := make([]byte, 16<<10)
		n, err := src.Read(b)
		queue <- late{b[:n], time.Now().Add(a.oneWay(from))}
		if err != nil {
			if err != io.EOF { // a reset is not for one direction
				dst.Close()
			}
			return
		}
	}
}

// oneWay is half a round trip between the relay and a peer.
func (a *away) oneWay(from netip.Addr) time.Duration {
	d := a.now.Load()
	if slices.Contains(a.tech, from) {
		return d.tech / 2
	}
	return d.device / 2
}
