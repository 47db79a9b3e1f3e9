package gate

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// Gate gives and takes places. Its methods are safe for concurrent use.
type Gate struct {
	what string
	log  *slog.Logger
	warn Throttle

	mu      sync.Mutex // guards the rest; never held while a connection is closed
	book    *book
	turned  turned
	all     turned // since the start
	waiting line
}

// turned counts who was turned away since it was last said.
type turned struct {
	refused int // got no place
	cut     int // lost theirs
}

func (t *turned) add(more turned) {
	t.refused += more.refused
	t.cut += more.cut
}

// New makes a gate that counts in set; nil: nowhere. what is for the log, which may be nil: of which connections it has
// the places.
func New(what string, l Limits, log *slog.Logger, set *metrics.Set) *Gate {
	g := &Gate{what: what, log: cmp.Or(log, slog.New(slog.DiscardHandler)), book: newBook(l)}
	if set != nil {
		g.export(set)
	}
	return g
}

// export shows how full the gate is, and whom it has turned away.
func (g *Gate) export(set *metrics.Set) {
	for name, read := range map[string]func() int{
		"hawser_places":               func() int { return g.book.all },
		"hawser_places_limit":         func() int { return g.book.limits.All },
		"hawser_places_waiting":       func() int { return g.waiting.waiting.Len() },
		"hawser_places_refused_total": func() int { return g.all.refused },
		"hawser_places_cut_total":     func() int { return g.all.cut },
	} {
		set.NewGauge(fmt.Sprintf("%s{gate=%q}", name, g.what), func() float64 {
			g.mu.Lock()
			defer g.mu.Unlock()
			return float64(read())
		})
	}
}

// Place is one that a connection has. A nil Place is none; its methods do nothing.
type Place struct {
	gate *Gate
	seat *seat
}

// Enter gives a place to a connection, or returns nil. If the place goes to another connection later, cut is called:
// once, from another goroutine, and it must not block. Who has a place calls Leave.
func (g *Gate) Enter(remote net.Addr, cut func()) *Place {
	place, _ := g.try(&waiter{from: prefixes(AddrOf(remote)), cut: cut})
	if place == nil {
		g.say(turned{refused: 1})
	}
	return place
}

// Wait is Enter, but waits for a place, in turn, until ctx ends; then it returns nil. So it does at once when
// too many wait.
func (g *Gate) Wait(ctx context.Context, remote net.Addr, cut func()) *Place {
	w := &waiter{from: prefixes(AddrOf(remote)), cut: cut, placed: make(chan *Place, 1)}
	place, waits := g.try(w)
	for waits {
		select {
		case place = <-w.placed:
			waits = false
		case <-time.After(g.book.limits.Patience): // time alone makes others stuck
			place, waits = g.try(w)
		case <-ctx.Done():
			place, waits = g.giveUp(w), false
		}
	}
	if place == nil {
		g.say(turned{refused: 1})
	}
	return place
}

// try gives a place if there is one, and else puts him into the line who wants to wait. Who waits already keeps his turn.
func (g *Gate) try(w *waiter) (place *Place, waits bool) {
	g.mu.Lock()
	if len(w.placed) > 0 { // in this instant
		g.mu.Unlock()
		return <-w.placed, false
	}
	taken, goes := g.book.enter(w.from, w.cut, time.Now())
	switch {
	case taken != nil:
		g.waiting.leave(w)
	case w.placed != nil:
		waits = w.at != nil || g.waiting.join(w, g.book.limits)
	}
	g.mu.Unlock()
	if goes != nil {
		goes.cut()
		g.say(turned{cut: 1})
	}
	if taken == nil {
		return nil, waits
	}
	return &Place{g, taken}, false
}

// giveUp ends a wait. The place may have come in this instant.
func (g *Gate) giveUp(w *waiter) *Place {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting.leave(w)
	select {
	case place := <-w.placed:
		return place
	default:
		return nil
	}
}

// placeLocked gives a place that was left to the first who waits and may have it.
func (g *Gate) placeLocked() {
	now := time.Now()
	w, taken := g.waiting.next(func(w *waiter) (*seat, netip.Prefix) { return g.book.join(w.from, w.cut, now) })
	if w != nil {
		w.placed <- &Place{g, taken}
	}
}

// say counts who was turned away, and tells the log once a minute, with the source that most places belong to.
func (g *Gate) say(more turned) {
	g.mu.Lock()
	g.turned.add(more)
	g.all.add(more)
	if !g.warn.Allow(time.Now()) {
		g.mu.Unlock()
		return
	}
	since, heaviest := g.turned, netip.Prefix{}
	g.turned = turned{}
	if len(g.book.ranks) > 0 {
		heaviest = g.book.ranks[0].prefix
	}
	g.mu.Unlock()
	g.log.Warn("more strangers than places: some are turned away", "what", g.what, "refused", since.refused, "cut", since.cut, "addr", heaviest)
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
	if p.gate.book.leave(p.seat) {
		p.gate.placeLocked()
	}
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
