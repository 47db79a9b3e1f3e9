package gate

import (
	"cmp"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Gate gives and takes places. Its methods are safe for concurrent use.
type Gate struct {
	what string
	log  *slog.Logger
	warn Throttle

	mu     sync.Mutex // guards the rest; never held while a connection is closed
	book   *book
	turned turned
}

// turned counts who was turned away since it was last said.
type turned struct {
	refused int // got no place
	cut     int // lost theirs
}

// New makes a gate. what is for the log, which may be nil: of which connections it has the places.
func New(what string, l Limits, log *slog.Logger) *Gate {
	return &Gate{what: what, log: cmp.Or(log, slog.New(slog.DiscardHandler)), book: newBook(l)}
}

// Place is one that a connection has. A nil Place is none; its methods do nothing.
type Place struct {
	gate *Gate
	seat *seat
}

// Enter gives a place to a connection, or returns nil. If the place goes to another connection later, cut is called:
// once, from another goroutine, and it must not block. Who has a place calls Leave.
func (g *Gate) Enter(remote net.Addr, cut func()) *Place {
	from := AddrOf(remote)
	g.mu.Lock()
	taken, goes := g.book.enter(from, cut, time.Now())
	switch {
	case taken == nil:
		g.turned.refused++
	case goes != nil:
		g.turned.cut++
	}
	say, since, heaviest := g.fullLocked(taken == nil || goes != nil)
	g.mu.Unlock()
	if say {
		g.log.Warn("more strangers than places: some are turned away", "what", g.what, "refused", since.refused, "cut", since.cut, "addr", heaviest)
	}
	if goes != nil {
		goes.cut()
	}
	if taken == nil {
		return nil
	}
	return &Place{g, taken}
}

// fullLocked returns what there is to say in the log, and whom most places belong to.
func (g *Gate) fullLocked(turnedAway bool) (say bool, since turned, heaviest netip.Prefix) {
	if !turnedAway || !g.warn.Allow(time.Now()) {
		return false, since, heaviest
	}
	since, g.turned = g.turned, turned{}
	if len(g.book.ranks) > 0 {
		heaviest = g.book.ranks[0].prefix
	}
	return true, since, heaviest
}

// Progress tells the gate that the client has got further. Bytes alone are no progress: a stranger can trickle them.
func (p *Place) Progress() {
	if p == nil {
		return
	}
	p.gate.mu.Lock()
	defer p.gate.mu.Unlock()
	p.gate.book.progress(p.seat, time.Now())
}

// Leave frees the place. It may be called again.
func (p *Place) Leave() {
	if p == nil {
		return
	}
	p.gate.mu.Lock()
	defer p.gate.mu.Unlock()
	p.gate.book.leave(p.seat)
}

// AddrOf returns the address of a peer, IPv4 as IPv4 though a listener for both families shows it as IPv6. On a network
// without addresses, as in tests, it is the zero Addr.
func AddrOf(a net.Addr) netip.Addr {
	addr, _ := netip.ParseAddrPort(a.String())
	return addr.Addr().Unmap()
}

// throttleEvery is how often a Throttle lets a line through.
const throttleEvery = time.Minute

// Throttle limits a log line that strangers can cause: they can ask a thousand times a second, and a full disk would stop
// the server. The zero value works; it is safe for concurrent use.
type Throttle struct{ last atomic.Pointer[time.Time] } // monotonic; nil: never

// Allow reports whether the line may be written now, and counts it as written if so.
func (t *Throttle) Allow(now time.Time) bool {
	last := t.last.Load()
	return (last == nil || now.Sub(*last) >= throttleEvery) && t.last.CompareAndSwap(last, &now)
}
