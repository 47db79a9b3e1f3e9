package manager

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"hawser/identity"
	"hawser/probe"
	"hawser/transport"
	"hawser/transport/wire"
)

const (
	maxMeasured  = 32            // relays that the Access Server hears of from one end: of more, the first
	measureEvery = 6 * time.Hour // as a Runtime does (wire §4.8)
	measureCheck = 1 * time.Hour // how often a Connect looks whether it is due
)

// NewRelay is a relay that waits for its machine.
type NewRelay struct {
	Name    string    `json:"name"`
	Code    string    `json:"code"` // the activation code, shown once
	Expires time.Time `json:"expires"`
}

// Decision is DECISION of access §8: which relay carries a session with a device, and why. Its strings are the server's
// word: print them through this package.
type Decision struct {
	Device    identity.UID  `json:"device"`
	At        time.Time     `json:"at"`
	Chosen    string        `json:"chosen"`    // empty: none can carry it
	Incumbent string        `json:"incumbent"` // of the decision before
	Relays    []RelayChoice `json:"relays"`    // best first
}

// RelayChoice is what a Decision says of one relay.
type RelayChoice struct {
	Name    string    `json:"name"`
	Manager *Measured `json:"manager"` // nil: not measured
	Runtime *Measured `json:"runtime"` // nil: not measured
	Pipes   int       `json:"pipes"`   // sessions that it carries
	Max     int       `json:"max"`     // that it can carry
	Score   float64   `json:"score_ms"`
	Verdict string    `json:"verdict"` // chosen, lost or out
	Reason  string    `json:"reason"`  // why it is not chosen
}

// Measured is what one end has measured of a relay, or the reason why it could not.
type Measured struct {
	RTT    float64          `json:"rtt_ms"`
	Jitter float64          `json:"jitter_ms"`
	Loss   float64          `json:"loss_pct"`
	Port   transport.Port   `json:"port"`
	Way    string           `json:"way"`
	Reason transport.Reason `json:"reason"` // empty: measured
	At     time.Time        `json:"at"`
}

// AddRelay makes a relay and its activation code. Reason name-taken when there is one of that name.
func (a *Account) AddRelay(ctx context.Context, name string) (r NewRelay, err error) {
	if err := identity.CheckLabel(name); err != nil {
		return r, usage("name: %w", err)
	}
	request := struct {
		Name string `json:"name"`
	}{name}
	return r, a.do(ctx, "add relay "+name, http.MethodPost, "/relays", request, &r)
}

// Relays measures every relay from here, has the device's Runtime do the same, and returns what the Access Server would
// choose now for a session between the two.
func (a *Account) Relays(ctx context.Context, device string) (d Decision, err error) {
	path, err := devicePath(device)
	if err != nil {
		return d, err
	}
	pool, err := a.pool(ctx)
	if err != nil {
		return d, err
	}
	if err := a.measure(ctx, pool); err != nil {
		return d, err
	}
	a.m.progress("waiting for what " + device + " measures")
	err = a.do(ctx, "decide relay for "+device, http.MethodGet, path+"/relays?measure=1", nil, &d)
	a.m.progress("")
	d.Relays = list(d.Relays)
	return d, err
}

// pool asks for the relays that are online.
func (a *Account) pool(ctx context.Context) ([]wire.Relay, error) {
	var pool wire.Pool
	err := a.do(ctx, "list relays", http.MethodGet, "/relays", nil, &pool)
	return pool.Relays[:min(len(pool.Relays), maxMeasured)], err
}

// measure measures the relays from here, tells the Access Server, and remembers that it did.
func (a *Account) measure(ctx context.Context, pool []wire.Relay) error {
	names := relayNames(pool)
	a.m.progress(fmt.Sprintf("measuring %d relays: %s", len(pool), strings.Join(names, ", ")))
	all := probe.MeasureRelays(ctx, a.dialer, a.state.roots, pool)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := a.do(ctx, "report measurements", http.MethodPost, "/measurements", wire.Measurements{Relays: all}, nil); err != nil {
		return err
	}
	done := &measured{At: a.m.now().UTC(), Relays: names}
	if err := a.home.storeMeasured(a.state.config, done); err != nil { // it only costs measuring again
		a.m.log().Warn("measuring was not remembered", "err", err)
	}
	a.state.config.Measured = done
	a.m.progress("")
	return nil
}

func relayNames(pool []wire.Relay) (names []string) {
	for _, r := range pool {
		names = append(names, r.Name)
	}
	return names
}

// keepMeasured measures the relays whenever that is due, until ctx ends. Nobody waits for it, so what fails is only logged,
// and tried again the next time.
func (a *Account) keepMeasured(ctx context.Context) {
	for {
		pool, err := a.pool(ctx)
		if err == nil && a.state.config.Measured.due(pool, a.m.now()) {
			err = a.measure(ctx, pool)
		}
		if err != nil && ctx.Err() == nil {
			a.m.log().Warn("relays were not measured", "err", clean(err.Error()))
		}
		if !pause(ctx, measureCheck) {
			return
		}
	}
}

// due reports whether a measuring is too old, or does not know a relay of the pool.
func (m *measured) due(pool []wire.Relay, now time.Time) bool {
	if m == nil || now.Sub(m.At) >= measureEvery || now.Before(m.At) {
		return len(pool) > 0
	}
	return slices.ContainsFunc(pool, func(r wire.Relay) bool { return !slices.Contains(m.Relays, r.Name) })
}
