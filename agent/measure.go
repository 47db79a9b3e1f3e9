package agent

import (
	"context"
	"slices"
	"sync"
	"time"

	"hawser/probe"
	"hawser/transport"
	"hawser/transport/control"
	"hawser/transport/wire"
)

// When relays are measured (wire §4.8).
const (
	measureSoon   = 10 * time.Second
	measureNear   = 6 * time.Hour // the relay of the last session, and nearOthers
	measureAll    = 7 * 24 * time.Hour
	nearOthers    = 2
	measurePoll   = 15 * time.Minute // how often it is looked what is due
	measuredBound = 32               // relays that are remembered
)

// relays is what the agent knows of the pool. It lives from start to end;
// keepMeasuring works on it while there is a control connection.
type relays struct {
	changed bell // told when there is something to measure now

	mu       sync.Mutex // guards all below
	list     []wire.Relay
	measured map[string]time.Time // when, by name; monotonic
	all      bool                 // the Access Server asked
	last     string               // the relay of the newest session
}

func newRelays() *relays {
	return &relays{changed: newBell(), measured: map[string]time.Time{}}
}

// pool takes the relays that are there now.
func (r *relays) pool(p wire.Pool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = p.Relays[:min(len(p.Relays), measuredBound)]
	r.changed.ring()
}

// wantAll makes all relays due at once.
func (r *relays) wantAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = true
	r.changed.ring()
}

func (r *relays) used(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = name
}

// await waits for d, or until there is something to measure.
func (r *relays) await(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.changed:
	case <-ctx.Done():
	}
}

func (r *relays) asked() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all
}

// take returns what is due at now, and books it as measured.
func (r *relays) take(now time.Time) []wire.Relay {
	r.mu.Lock()
	defer r.mu.Unlock()
	due := dueRelays(r.list, r.measured, r.last, r.all, now)
	r.all = false
	kept := map[string]time.Time{}
	for _, relay := range r.list {
		kept[relay.Name] = r.measured[relay.Name]
	}
	for _, relay := range due {
		kept[relay.Name] = now
	}
	r.measured = kept
	return due
}

// dueRelays decides what to measure (wire §4.8). It is pure. With the last
// relay go the two that were measured longest ago, so that each has its turn.
func dueRelays(list []wire.Relay, measured map[string]time.Time, last string, all bool, now time.Time) []wire.Relay {
	age := func(r wire.Relay) time.Duration { return now.Sub(measured[r.Name]) }
	var due, rest []wire.Relay
	near := false
	for _, r := range list {
		switch {
		case all || measured[r.Name].IsZero() || age(r) >= measureAll:
			due = append(due, r)
		case r.Name == last && age(r) >= measureNear:
			due, near = append(due, r), true
		default:
			rest = append(rest, r)
		}
	}
	if near {
		slices.SortStableFunc(rest, func(a, b wire.Relay) int { return int(age(b) - age(a)) })
		due = append(due, rest[:min(len(rest), nearOthers)]...)
	}
	return due
}

// keepMeasuring measures what is due and tells the Access Server, until ctx
// ends. What nobody asked for waits a random while, so that relays are not
// measured by all gateways at once.
func (a *Agent) keepMeasuring(ctx context.Context, link *control.Link) {
	a.relays.pool(link.Welcome.Pool)
	dialer := a.newDialer()
	for ctx.Err() == nil {
		a.relays.await(ctx, measurePoll-measurePoll/10+random(measurePoll/5))
		if !a.relays.asked() {
			a.relays.await(ctx, random(measureSoon))
		}
		due := a.relays.take(time.Now())
		if len(due) == 0 || ctx.Err() != nil {
			continue
		}
		got := probe.MeasureRelays(ctx, dialer, a.self.Load().Roots, due)
		for _, m := range got {
			a.log.Debug("relay measured", "relay", m.Name, "rtt", time.Duration(m.RTTUS)*time.Microsecond, "port", m.Port, "reason", m.Reason)
		}
		if err := link.Measurements(wire.Measurements{Relays: got}); err != nil && ctx.Err() == nil {
			a.log.Debug("tell measurements", "reason", transport.ReasonOf(err), "err", err)
		}
	}
}
