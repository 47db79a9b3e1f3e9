// Package choose decides which relay carries a session (access §8): a pure function of what both ends have measured,
// what the relays say of their load, and what was chosen before.
package choose

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"hawser/identity"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// The costs of access §8, in microseconds.
const (
	unmeasuredUS = 1_000_000 // for an end that has not measured the relay, or could not reach it
	lossUS       = 10_000    // for each per cent
	fullLoadUS   = 50_000    // for a relay that carries its maximum
	marginUS     = 10_000    // by which a challenger must be better than the incumbent
)

// Measurement is one relay as one end has measured it.
type Measurement struct {
	wire.Measurement
	At time.Time `json:"at"`
}

// Relay is what is known of an online relay when one is chosen.
type Relay struct {
	Name             string
	Manager, Runtime *Measurement // nil: not measured
	Load             wire.Load    // the zero Load: it has reported none
}

// Input is everything that a decision depends on.
type Input struct {
	Device    identity.UID
	At        time.Time
	Relays    []Relay // the online ones, in any order
	Incumbent string  // chosen by the last decision for this user and device
	Lost      string  // in a move: the relay that has just failed
}

// candidate is a relay with its score and what speaks against it.
type candidate struct {
	api.RelayChoice
	score int64 // microseconds
	class class
}

// class says whether a relay is fit. A relay of a worse class is only used if there is none of a better one.
type class int

const (
	fit         class = iota
	justLost          // in this move
	unreachable       // for one end when it measured, which may have changed since
	full              // it would refuse the session
)

// Decide chooses the relay of a session (access §8). It is pure: the same input, its relays in any order, gives the
// same decision, on every node. Nothing is random in it either, so that two nodes that decide at once send both ends to
// one relay.
func Decide(in Input) api.Decision {
	ranked := make([]candidate, 0, len(in.Relays))
	for _, c := range in.Relays {
		ranked = append(ranked, rate(c, in.Lost))
	}
	slices.SortFunc(ranked, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.class, b.class), cmp.Compare(a.score, b.score), cmp.Compare(a.Name, b.Name))
	})
	d := api.Decision{Device: in.Device, At: in.At, Incumbent: in.Incumbent, Relays: []api.RelayChoice{}}
	if chosen := pick(ranked, in.Incumbent); chosen != nil {
		d.Chosen, chosen.Verdict, chosen.Reason = chosen.Name, api.VerdictChosen, ""
		for i := range ranked {
			if r := &ranked[i]; r.Verdict == api.VerdictLost {
				r.Reason = whyNotChosen(*r, *chosen)
			}
		}
	}
	for _, r := range ranked {
		d.Relays = append(d.Relays, r.RelayChoice)
	}
	return d
}

// pick takes the best of the ranked relays, or the incumbent if that is as fit and nearly as good. Without the
// incumbent's advantage a session would flap between two relays that are nearly equal (tailscale/tailscale#1105,
// #8643).
func pick(ranked []candidate, incumbent string) *candidate {
	if len(ranked) == 0 || ranked[0].class == full {
		return nil
	}
	best := &ranked[0]
	i := slices.IndexFunc(ranked, func(r candidate) bool { return r.Name == incumbent })
	if i > 0 && ranked[i].class == best.class && !beats(best.score, ranked[i].score) {
		return &ranked[i]
	}
	return best
}

// beats reports whether a challenger's score is better than the incumbent's by both margins. With the absolute one
// alone, noise would move sessions between far relays; with the relative one alone, between near ones.
func beats(challenger, incumbent int64) bool {
	return challenger+marginUS <= incumbent && 3*challenger <= 2*incumbent
}

// rate gives a relay its score and its class, without regard to the other relays.
func rate(c Relay, lost string) candidate {
	r := candidate{
		RelayChoice: api.RelayChoice{
			Name: c.Name, Manager: measuredOf(c.Manager), Runtime: measuredOf(c.Runtime), Pipes: c.Load.Pipes, Max: c.Load.Max,
		},
		score: costOf(c.Manager) + costOf(c.Runtime) + loadCost(c.Load),
	}
	r.ScoreMS = ms(r.score)
	switch {
	case c.Load.Max > 0 && c.Load.Pipes >= c.Load.Max:
		r.class, r.Reason = full, fmt.Sprintf("carries its maximum of %d", c.Load.Max)
	case Failed(c.Manager):
		r.class, r.Reason = unreachable, "the Manager could not reach it: "+string(c.Manager.Reason)
	case Failed(c.Runtime):
		r.class, r.Reason = unreachable, "the Runtime could not reach it: "+string(c.Runtime.Reason)
	case c.Name == lost:
		r.class, r.Reason = justLost, "the session has just lost it"
	}
	r.Verdict = api.VerdictLost
	if r.class != fit {
		r.Verdict = api.VerdictOut
	}
	return r
}

// Failed reports whether an end could not reach the relay when it measured.
func Failed(m *Measurement) bool { return m != nil && m.Reason != "" }

// costOf is one end's part of the score. An end without a measurement costs as much as one that cannot reach the relay:
// a relay that both have measured is always the safer choice.
func costOf(m *Measurement) int64 {
	if m == nil || Failed(m) {
		return unmeasuredUS
	}
	return m.RTTUS + 2*m.JitterUS + lossUS*int64(m.LossPct)
}

// loadCost is the load's part of the score. It is never negative, so that no relay can draw sessions by reporting
// nonsense.
func loadCost(l wire.Load) int64 {
	if l.Max <= 0 || l.Pipes <= 0 {
		return 0
	}
	return fullLoadUS * int64(min(l.Pipes, l.Max)) / int64(l.Max)
}

// whyNotChosen tells people why a fit relay was not chosen.
func whyNotChosen(r, chosen candidate) string {
	switch {
	case r.score < chosen.score:
		return fmt.Sprintf("%.1f ms better than %s, not enough to change", ms(chosen.score-r.score), chosen.Name)
	case r.score == chosen.score:
		return "equal to " + chosen.Name
	case r.Manager == nil:
		return "not measured by the Manager"
	case r.Runtime == nil:
		return "not measured by the Runtime"
	}
	return fmt.Sprintf("%.1f ms more than %s", ms(r.score-chosen.score), chosen.Name)
}

func measuredOf(m *Measurement) *api.Measured {
	if m == nil {
		return nil
	}
	return &api.Measured{
		RTTMS: ms(m.RTTUS), JitterMS: ms(m.JitterUS), LossPct: m.LossPct, Port: m.Port, Way: m.Way, Reason: m.Reason, At: m.At,
	}
}

func ms(us int64) float64 { return float64(us) / 1000 }

// Summary is what the audit record of a session says about the decision.
func Summary(d api.Decision) string {
	score := 0.0
	for _, r := range d.Relays {
		if r.Name == d.Chosen {
			score = r.ScoreMS
		}
	}
	return fmt.Sprintf("relay %s score %.1f ms", d.Chosen, score)
}
