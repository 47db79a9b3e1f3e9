package access

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

// What access §8 counts, in microseconds.
const (
	unmeasuredUS = 1_000_000 // for an end that has not measured the relay, or could not reach it
	lossUS       = 10_000    // for each per cent
	fullLoadUS   = 50_000    // for a relay that carries its maximum
	marginUS     = 10_000    // by which a challenger must be better than the incumbent
)

// measurement is one relay as one end saw it.
type measurement struct {
	wire.Measurement
	At time.Time `json:"at"`
}

// contender is what is known of an online relay when one is chosen.
type contender struct {
	name             string
	manager, runtime *measurement // nil: not measured
	load             wire.Load    // the zero Load: it has said nothing
}

// question is all that a decision depends on.
type question struct {
	device    identity.UID
	at        time.Time
	relays    []contender // the online ones, in any order
	incumbent string      // chosen by the last decision for this user and device
	lost      string      // in a move: the relay that has just failed
}

// decision is DECISION of access §8, and the record in bucket decisions.
type decision struct {
	Device    identity.UID `json:"device"`
	At        time.Time    `json:"at"`
	Chosen    string       `json:"chosen"` // empty: no relay can carry the session
	Incumbent string       `json:"incumbent"`
	Relays    []rated      `json:"relays"` // best first
}

// rated is a relay with what made or broke it.
type rated struct {
	Name    string   `json:"name"`
	Manager *figures `json:"manager"`
	Runtime *figures `json:"runtime"`
	Pipes   int      `json:"pipes"`
	Max     int      `json:"max"`
	ScoreMS float64  `json:"score_ms"`
	Verdict string   `json:"verdict"`
	Reason  string   `json:"reason"` // why it is not chosen; empty for the chosen one

	score int64 // microseconds
	class class
}

// figures is M of access §8.
type figures struct {
	RTTMS    float64          `json:"rtt_ms"`
	JitterMS float64          `json:"jitter_ms"`
	LossPct  int              `json:"loss_pct"`
	Port     transport.Port   `json:"port"`
	Way      string           `json:"way"`
	Reason   transport.Reason `json:"reason"`
	At       time.Time        `json:"at"`
}

// The verdicts of access §8.
const (
	verdictChosen = "chosen"
	verdictLost   = "lost"
	verdictOut    = "out"
)

// class says whether a relay is fit; a worse class is only used when no better
// one has a relay.
type class int

const (
	fit         class = iota
	justLost          // in this move
	unreachable       // for one end, when it measured: that may be over
	full              // would refuse the session
)

// choose decides on the relay of a session (access §8). It is pure: the same
// question, its relays in any order, has the same answer.
func choose(q question) decision {
	d := decision{Device: q.device, At: q.at, Incumbent: q.incumbent, Relays: []rated{}}
	for _, c := range q.relays {
		d.Relays = append(d.Relays, rate(c, q.lost))
	}
	slices.SortFunc(d.Relays, func(a, b rated) int {
		return cmp.Or(cmp.Compare(a.class, b.class), cmp.Compare(a.score, b.score), cmp.Compare(a.Name, b.Name))
	})
	chosen := pick(d.Relays, q.incumbent)
	if chosen == nil {
		return d
	}
	d.Chosen, chosen.Verdict, chosen.Reason = chosen.Name, verdictChosen, ""
	for i := range d.Relays {
		if r := &d.Relays[i]; r.Verdict == verdictLost {
			r.Reason = whyLost(*r, *chosen)
		}
	}
	return d
}

// pick takes the best of the ranked relays, unless the incumbent is as fit and
// nearly as good.
func pick(ranked []rated, incumbent string) *rated {
	if len(ranked) == 0 || ranked[0].class == full {
		return nil
	}
	best := &ranked[0]
	i := slices.IndexFunc(ranked, func(r rated) bool { return r.Name == incumbent })
	if i > 0 && ranked[i].class == best.class && !beats(best.score, ranked[i].score) {
		return &ranked[i]
	}
	return best
}

// beats reports whether a challenger's score is better than the incumbent's by
// both margins: one alone would let noise move sessions, of near relays or of
// far ones.
func beats(challenger, incumbent int64) bool {
	return challenger+marginUS <= incumbent && 3*challenger <= 2*incumbent
}

// rate gives a relay its score, and its verdict apart from the competition.
func rate(c contender, lost string) rated {
	r := rated{
		Name: c.name, Manager: figuresOf(c.manager), Runtime: figuresOf(c.runtime),
		Pipes: c.load.Pipes, Max: c.load.Max,
		score: costOf(c.manager) + costOf(c.runtime) + loadCost(c.load),
	}
	r.ScoreMS = ms(r.score)
	switch {
	case c.load.Max > 0 && c.load.Pipes >= c.load.Max:
		r.class, r.Reason = full, fmt.Sprintf("carries its maximum of %d", c.load.Max)
	case failed(c.manager):
		r.class, r.Reason = unreachable, "the Manager could not reach it: "+string(c.manager.Reason)
	case failed(c.runtime):
		r.class, r.Reason = unreachable, "the Runtime could not reach it: "+string(c.runtime.Reason)
	case c.name == lost:
		r.class, r.Reason = justLost, "the session has just lost it"
	}
	r.Verdict = verdictLost
	if r.class != fit {
		r.Verdict = verdictOut
	}
	return r
}

func failed(m *measurement) bool { return m != nil && m.Reason != "" }

// costOf is one end's part of the score.
func costOf(m *measurement) int64 {
	if m == nil || failed(m) {
		return unmeasuredUS
	}
	return m.RTTUS + 2*m.JitterUS + lossUS*int64(m.LossPct)
}

// loadCost is never negative: what a relay says can only count against it.
func loadCost(l wire.Load) int64 {
	if l.Max <= 0 || l.Pipes <= 0 {
		return 0
	}
	return fullLoadUS * int64(min(l.Pipes, l.Max)) / int64(l.Max)
}

// whyLost says why a fit relay was not chosen.
func whyLost(r, chosen rated) string {
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

func figuresOf(m *measurement) *figures {
	if m == nil {
		return nil
	}
	return &figures{ms(m.RTTUS), ms(m.JitterUS), m.LossPct, m.Port, m.Way, m.Reason, m.At}
}

func ms(us int64) float64 { return float64(us) / 1000 }

// score returns that of the chosen relay, in milliseconds.
func (d decision) score() float64 {
	for _, r := range d.Relays {
		if r.Name == d.Chosen {
			return r.ScoreMS
		}
	}
	return 0
}
