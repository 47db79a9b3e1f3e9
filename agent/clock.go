package agent

import (
	"errors"
	"sync"
	"time"

	"hawser/identity"
	"hawser/probe"
	"hawser/transport"
)

// ClockState says how far the own time can be trusted (time §6).
type ClockState string

// The states of time §6.
const (
	ClockUnknown   ClockState = "unknown"
	ClockPlausible ClockState = "plausible"
	ClockAuthentic ClockState = "authentic"
	ClockConflict  ClockState = "conflict"
)

const ceilingYears = 15

// Clock is the Runtime's own time: a monotonic count since boot and an offset.
// Nobody who steps the wall clock moves it. It is safe for concurrent use.
type Clock struct {
	uptime  func() time.Duration
	build   time.Time // the least floor
	ceiling time.Time // SNTP and hardware clocks beyond it lie
	told    bell      // something was heard of the time

	mu         sync.Mutex // guards all below
	floor      time.Time  // F: it cannot be earlier (time §6); moved by signed time and floor resets alone
	lowered    *time.Time // to this by a floor reset, in this run; never written to
	own        line
	slew       slew
	state      ClockState
	source     string
	offset     time.Duration // by which the last source differed from what we had
	signed     line          // the newest signed time since the start
	sntp       line          // the last SNTP verdict
	impossible bool          // the SNTP sources said what cannot be, since then
	spent      time.Duration // of the step budget
}

// line is a time that goes on with the uptime: what it was at uptime 0. The
// zero value is no time.
type line struct{ zero time.Time }

func lineThrough(at time.Time, up time.Duration) line { return line{at.Add(-up)} }

func (l line) at(up time.Duration) time.Time {
	if l.zero.IsZero() {
		return time.Time{}
	}
	return l.zero.Add(up)
}

// slew is a correction that is made little by little from an uptime on.
type slew struct{ by, since time.Duration }

// done is how much of it is made by now.
func (s slew) done(up time.Duration) time.Duration {
	made := (up - s.since) / slewPart
	return max(min(s.by, made), -made)
}

// newClock starts a clock, spent being what is gone of the step budget. The wall
// clock is believed, as plausible, when it lies within floor and ceiling; else
// the time is unknown, and the floor is the best guess.
func newClock(build, anchor, wall time.Time, uptime func() time.Duration, spent time.Duration) *Clock {
	c := &Clock{uptime: uptime, build: build, ceiling: build.AddDate(ceilingYears, 0, 0), told: newBell(),
		floor: later(build, anchor), state: ClockUnknown, spent: spent}
	now := c.floor
	if !wall.Before(c.floor) && !wall.After(c.ceiling) {
		now, c.state, c.source = wall, ClockPlausible, "hardware"
	}
	c.own = lineThrough(now, uptime())
	return c
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// ticks is a local reading for measuring: only its differences mean anything.
func (c *Clock) ticks() time.Time { return time.Unix(0, 0).Add(c.uptime()) }

// window is the interval in which a time can be believed: [F, C].
func (c *Clock) window() (floor, ceiling time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.floor, c.ceiling
}

// anchor is what must survive a restart: F, and what SNTP has spent since.
func (c *Clock) anchor() (floor time.Time, spent time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.floor, c.spent
}

// comparable is the interval in which SNTP is listened to: what lies outside
// [F, C] moves nothing, but can be held against signed time.
func (c *Clock) comparable() (from, to time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	to = c.ceiling
	if c.authenticLocked() {
		to = later(to, c.nowLocked().Add(conflictOver))
	}
	return c.floor.Add(-conflictOver), to
}

// Now is the present time as far as it is known; never before the floor.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nowLocked()
}

func (c *Clock) nowLocked() time.Time {
	up := c.uptime()
	return later(c.own.at(up).Add(c.slew.done(up)), c.floor)
}

// Floor is F and, once the clock is authentic, the present time (control.Clock).
func (c *Clock) Floor() (at time.Time, authentic bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.authenticLocked() {
		return c.nowLocked(), true
	}
	return c.floor, false
}

func (c *Clock) authenticLocked() bool {
	return c.state == ClockAuthentic || c.state == ClockConflict
}

// Signed sets the clock and the floor to a verified signed time (time §6). A
// time before the floor is refused, with reason bad-time: the floor is itself
// a signed time, and none goes back.
func (c *Clock) Signed(t identity.SignedTime, rtt time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := t.Time.Add(rtt / 2)
	a := discipline(c.nowLocked(), c.knowledgeLocked(0, 0), news{signed: now})
	if a.do != moveStep {
		return &transport.Error{Reason: transport.BadTime, Op: "set clock", Err: errors.New("signed time " +
			now.UTC().Format(time.RFC3339) + " is before the newest one seen, " + c.floor.UTC().Format(time.RFC3339))}
	}
	c.applyLocked(a, "signed")
	c.floor = later(c.floor, t.Time)
	c.signed = lineThrough(now, c.uptime())
	c.spent = 0
	return nil
}

// Round takes the verdict of a round of SNTP sources (time §4, §6), whose local
// readings were ticks. It never moves the floor. Budget is how much of the step
// budget may be spent in all.
func (c *Clock) Round(v probe.Verdict, sources int, budget time.Duration) action {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.newsOf(v, sources)
	a := discipline(c.nowLocked(), c.knowledgeLocked(sources, budget), n)
	c.applyLocked(a, "sntp")
	c.spent += a.cost
	if !n.sntp.IsZero() {
		c.sntp, c.impossible = lineThrough(n.sntp, c.uptime()), false
	}
	c.impossible = c.impossible || n.impossible
	return a
}

// cost is what of the step budget will be spent in all once Round takes v.
func (c *Clock) cost(v probe.Verdict, sources int) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.spent + discipline(c.nowLocked(), c.knowledgeLocked(sources, stepBudget), c.newsOf(v, sources)).cost
}

// newsOf says what a verdict within comparable means.
func (c *Clock) newsOf(v probe.Verdict, sources int) news {
	if v.Plausible {
		return news{sntp: v.At(c.ticks())}
	}
	outside := 0
	for _, r := range v.Rejected {
		if r.Reason == probe.ReasonBeforeFloor || r.Reason == probe.ReasonBeyondCeiling {
			outside++
		}
	}
	return news{impossible: 2*outside > sources}
}

func (c *Clock) knowledgeLocked(sources int, budget time.Duration) knowledge {
	up := c.uptime()
	return knowledge{state: c.state, floor: c.floor, ceiling: c.ceiling, sources: sources,
		signed: c.signed.at(up), sntp: c.sntp.at(up), impossible: c.impossible, budget: budget - c.spent}
}

// applyLocked does what discipline decided on the word of source, and tells.
func (c *Clock) applyLocked(a action, source string) {
	up := c.uptime()
	c.state = a.state
	switch a.do {
	case moveStep:
		c.own, c.slew = lineThrough(c.nowLocked().Add(a.by), up), slew{}
	case moveSlew:
		c.own, c.slew = lineThrough(c.nowLocked(), up), slew{a.by, up}
	}
	if a.do != moveKeep {
		c.offset = a.by
	}
	if a.do != moveKeep && (source == "signed" || !c.authenticLocked()) {
		c.source = source
	}
	c.told.ring()
}

// ClockStatus is what status says of the clock.
type ClockStatus struct {
	State    ClockState `json:"state"`
	OffsetMS int64      `json:"offset_ms"` // by which the last source differed from what the clock had
	Source   string     `json:"source"`    // signed, sntp or hardware; empty while unknown
	// FloorReset is where a floor reset of this run has put the floor; null: none did.
	FloorReset *time.Time `json:"floor_reset"`
}

// Status returns a snapshot.
func (c *Clock) Status() ClockStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return ClockStatus{c.state, c.offset.Milliseconds(), c.source, c.lowered}
}
