package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/session"
	"hawser/transport/wire"
)

// Lifetime is how long a session may last (session §8.1, docs/agent.md §2.7).
type Lifetime struct {
	Max  time.Duration // whatever happens
	Idle time.Duration // without a byte of a stream; 0: for ever
}

const (
	defaultMax  = 12 * time.Hour // a working day
	leastLife   = time.Minute
	longestLife = 7 * 24 * time.Hour

	// lookEvery is how often a session is looked at: the clock may be set, and bytes are counted and not told.
	lookEvery = 15 * time.Second
	// maxBegun is how many begins are remembered of sessions that may be moved back here.
	maxBegun = 64
)

// DefaultLifetime counts where the file says nothing.
func DefaultLifetime() Lifetime { return Lifetime{Max: defaultMax} }

// rawLifetime is the section session as it is written.
type rawLifetime struct {
	Max  string `yaml:"max"`
	Idle string `yaml:"idle"`
}

func (r rawLifetime) check(to *Lifetime) error {
	return cmp.Or(
		value("session.max", r.Max, parseLife, &to.Max),
		value("session.idle", r.Idle, parseIdle, &to.Idle),
	)
}

// parseLife has no word for ever: a session that nobody ends is a way in that everybody has forgotten.
func parseLife(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < leastLife || d > longestLife {
		return 0, fmt.Errorf("%.64q: want a time such as 12h or 30m, 1m to 168h", s)
	}
	return d, nil
}

func parseIdle(s string) (time.Duration, error) {
	if s == "off" {
		return 0, nil
	}
	d, err := parseLife(s)
	if err != nil {
		err = fmt.Errorf("%w, or off", err)
	}
	return d, err
}

// life is what a running session is looked at for.
type life struct {
	Lifetime
	began time.Time // its first epoch, by the monotonic clock

	certificate time.Time // when that of the peer ends
	bytes       int64     // of streams, so far
	moved       time.Time // when they became more, by the monotonic clock
}

// look notes how many bytes have gone through, and returns why the session ends now, or nil. now is the present time, and
// tick that of the monotonic clock, which nobody sets.
func (l *life) look(bytes int64, now, tick time.Time, user string) *wire.Refusal {
	if bytes != l.bytes {
		l.bytes, l.moved = bytes, tick
	}
	switch {
	case l.isOver(tick):
		return overdue(l.Max)
	case !now.Before(l.certificate):
		return &wire.Refusal{Reason: transport.Expired, Text: fmt.Sprintf("%sthe certificate of %s has ended, and no renewed one came", byInfra, user)}
	case l.Idle > 0 && tick.Sub(l.moved) >= l.Idle:
		return &wire.Refusal{Reason: transport.SessionIdle, Text: fmt.Sprintf("%snothing went through the session for %s", byEnd, l.Idle)}
	}
	return nil
}

// isOver tells whether the session has lasted as long as it may.
func (l *life) isOver(tick time.Time) bool { return tick.Sub(l.began) >= l.Max }

// rest is how long the session need not be looked at.
func (l *life) rest(now, tick time.Time) time.Duration {
	return max(min(lookEvery, l.Max-tick.Sub(l.began), l.certificate.Sub(now)), time.Millisecond)
}

// byEnd is byRules for a session that runs: it is ended and not refused.
const byEnd = "ended by the gateway's own rules: "

func overdue(most time.Duration) *wire.Refusal {
	return &wire.Refusal{Reason: transport.SessionMax, Text: fmt.Sprintf("%sa session lasts %s at most", byEnd, most)}
}

// watch ends a session that runs when its time is over, and takes what its peer shows anew, until it ends.
func (s *sessions) watch(ctx context.Context, r *running, live *session.Session) {
	clock, user := s.agent.clock, r.user
	l := life{Lifetime: s.life, began: r.began, certificate: live.Until(), moved: time.Now()}
	var waits *shown // it needs a list that is not here yet
	for ctx.Err() == nil {
		c := live.Counts()
		if why := l.look(c.In+c.Out, clock.Now(), time.Now(), user); why != nil {
			r.cancel(why)
			return
		}
		if r.ledger.due(time.Now()) {
			s.report(r, "")
		}
		stated := s.rest(r)
		if stated <= time.Millisecond { // the clock was set, or the statements are others than those that attend waits for
			s.judgeOne(r)
		}
		waiting, cancel := context.WithTimeout(ctx, min(stated, l.rest(clock.Now(), time.Now())))
		until, statements, err := live.Renewed(waiting)
		late := waiting.Err() != nil
		cancel()
		wrong, isWrong := errors.AsType[*session.NotPeer](err)
		switch {
		case isWrong:
			r.cancel(&wire.Refusal{Reason: transport.ReasonOf(wrong), Text: byInfra + "the renewed certificate does not prove " + user})
			return
		case err == nil:
			waits = &shown{until, statements}
		case !late:
			return
		}
		if waits == nil {
			continue
		}
		verdict, err := s.judge(r, waits.statements)
		switch {
		case err == nil:
			s.renew(r, waits.statements, verdict)
			l.certificate, waits = waits.until, nil
			s.agent.log.Info("session renewed", "session", r.offer.Session, "user", r.offer.User, "until", l.certificate.UTC())
		case transport.ReasonOf(err) == transport.Stale: // what was shown before still counts
		default:
			r.cancel(err)
			return
		}
	}
}

// shown is what a peer has shown in the middle of a session.
type shown struct {
	until      time.Time // the end of its certificate
	statements []string
}

// renew gives a session the rights of statements that were judged. If lists came meanwhile it is judged again: whoever
// brought them may have looked at the statements of before.
func (s *sessions) renew(r *running, statements []string, verdict identity.Verdict) {
	s.mu.Lock()
	r.chain, r.verdict = statements, verdict
	s.mu.Unlock()
	s.judgeOne(r)
}

// beganLocked is when a session began: now, unless it is one that moves. Begins are kept for one that has lost its line and
// comes back as a further epoch.
func (s *sessions) beganLocked(o wire.Offer, old *running) time.Time {
	now := time.Now()
	if old != nil {
		return old.began
	}
	maps.DeleteFunc(s.begun, func(_ string, at time.Time) bool { return now.Sub(at) > s.life.Max+time.Hour })
	if at, ok := s.begun[o.Session]; ok && o.Epoch > 1 {
		return at
	}
	for len(s.begun) >= maxBegun {
		oldest := ""
		for id, at := range s.begun {
			if oldest == "" || at.Before(s.begun[oldest]) {
				oldest = id
			}
		}
		delete(s.begun, oldest)
	}
	s.begun[o.Session] = now
	return now
}
