package agent

import (
	"context"
	"slices"
	"sync"
	"time"

	"hawser/internal/wait"
	"hawser/probe"
	"hawser/transport"
	"hawser/transport/control"
	"hawser/transport/wire"
)

// When relays are measured (wire §4.8).
const (
	measureSoon   = 10 * time.Second
	measureNear   = 6 * time.Hour  // the relay of the last session, and nearOthers
	measureIdle   = 24 * time.Hour // one relay, when there was no session in the last day
	measureAll    = 7 * 24 * time.Hour
	nearOthers    = 2
	measurePoll   = 15 * time.Minute // how often the agent checks what is due
	measuredBound = 32               // relays that are remembered
)

// relays is what the agent knows of the pool. It exists as long as the agent;
// keepMeasuring uses it while there is a control connection. Measuring costs data on a mobile tariff (8 kB a relay,
// wire §4.6.2), so all of it follows what is due, and nothing is measured because of a reconnect.
type relays struct {
	changed wait.Bell // rings when there may be something to measure

	mu       sync.Mutex // guards all below
	list     []wire.Relay
	measured map[string]time.Time // when, by name; monotonic
	all      bool                 // the Access Server asked
	last     string               // the relay of the newest session
	usedAt   time.Time            // when that was offered; monotonic
}

func newRelays() *relays {
	return &relays{changed: wait.NewBell(), measured: map[string]time.Time{}}
}

// pool replaces the list of relays.
func (r *relays) pool(p wire.Pool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// The Access Server takes 32 in one message (access §8); of a longer pool the rest would be measured for nobody.
	r.list = p.Relays[:min(len(p.Relays), measuredBound)]
	r.changed.Ring()
}

// wantAll makes all relays due at once.
func (r *relays) wantAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = true
	r.changed.Ring()
}

func (r *relays) used(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last, r.usedAt = name, time.Now()
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

// take returns the relays that are due at now, and marks them as measured. Every is how
// often an idle gateway measures one of them; 0: never. Marked before they are measured and also when that fails: a
// dead relay would otherwise be due at each poll.
func (r *relays) take(now time.Time, every time.Duration) []wire.Relay {
	r.mu.Lock()
	defer r.mu.Unlock()
	due := dueRelays(r.list, r.measured, r.all)
	switch {
	case len(due) > 0:
	case !r.usedAt.IsZero() && now.Sub(r.usedAt) < measureIdle:
		due = nearRelays(r.list, r.measured, r.last, now)
	case every > 0:
		due = idleRelay(r.list, r.measured, every, now)
	}
	r.all = false
	// A new map drops relays that left the pool; one that comes back is measured as new.
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

// dueRelays returns the relays that are measured in any case: all when the Access Server
// asked for it, and those that never were. Like the two below it is pure (wire §4.8).
func dueRelays(list []wire.Relay, measured map[string]time.Time, all bool) (due []wire.Relay) {
	for _, r := range list {
		if all || measured[r.Name].IsZero() {
			due = append(due, r)
		}
	}
	return due
}

// nearRelays returns what a gateway measures that is being used. Together with the relay
// of the last session it picks the two whose measurement is oldest, so that every relay
// is measured in the end.
func nearRelays(list []wire.Relay, measured map[string]time.Time, last string, now time.Time) (due []wire.Relay) {
	near := false
	var rest []wire.Relay
	for _, r := range oldestFirst(list, measured) {
		switch age := now.Sub(measured[r.Name]); {
		case age >= measureAll:
			due = append(due, r)
		case r.Name == last && age >= measureNear:
			due, near = append(due, r), true
		default:
			rest = append(rest, r)
		}
	}
	if near {
		due = append(due, rest[:min(len(rest), nearOthers)]...)
	}
	return due
}

// idleRelay returns the one relay that an idle gateway measures, if the newest
// measurement is old enough.
func idleRelay(list []wire.Relay, measured map[string]time.Time, every time.Duration, now time.Time) []wire.Relay {
	order := oldestFirst(list, measured)
	if len(order) == 0 || now.Sub(measured[order[len(order)-1].Name]) < every {
		return nil
	}
	return order[:1]
}

func oldestFirst(list []wire.Relay, measured map[string]time.Time) []wire.Relay {
	return slices.SortedStableFunc(slices.Values(list), func(a, b wire.Relay) int {
		return measured[a.Name].Compare(measured[b.Name])
	})
}

// keepMeasuring measures the relays that are due and reports to the Access Server,
// until ctx ends. Unless the server asked for it, it waits a random time first:
// when a relay joins, all gateways learn of it in the same moment. It is a goroutine of attached, which waits for it.
// Its dialer is its own, so that a relay that is down does not slow the search for an Access Server.
func (a *Agent) keepMeasuring(ctx context.Context, link *control.Link) {
	a.relays.pool(link.Welcome.Pool)
	dialer := a.newDialer()
	for ctx.Err() == nil {
		// 15 min ± 10 %: gateways that were started together by the end of a power cut drift apart.
		a.relays.await(ctx, measurePoll-measurePoll/10+wait.Random(measurePoll/5))
		if !a.relays.asked() {
			a.relays.await(ctx, wait.Random(measureSoon))
		}
		due := a.relays.take(time.Now(), a.status.plan(a.config.Budget).measure)
		if len(due) == 0 || ctx.Err() != nil {
			continue
		}
		got := probe.MeasureRelays(ctx, dialer, a.self.Load().Roots, due)
		for _, m := range got {
			a.log.Debug("relay measured", "relay", m.Name, "rtt", time.Duration(m.RTTUS)*time.Microsecond, "port", m.Port, "reason", m.Reason)
		}
		// Measurements that were lost are not sent again: the server decides without them, and never waits for one
		// (access §8).
		if err := link.Measurements(wire.Measurements{Relays: got}); err != nil && ctx.Err() == nil {
			a.log.Debug("tell measurements", "reason", transport.ReasonOf(err), "err", err)
		}
	}
}
