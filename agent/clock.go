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

const (
	ceilingYears = 15
	conflictOver = 60 * time.Second
	signedSlack  = 5 * time.Second // by which Access Servers may differ among themselves
)

// Clock is the Runtime's own time: a monotonic count since boot and an offset.
// Nobody who steps the wall clock moves it. It is safe for concurrent use.
type Clock struct {
	uptime  func() time.Duration
	ceiling time.Time // SNTP and hardware clocks beyond it lie

	mu     sync.Mutex // guards all below
	floor  time.Time  // F: it cannot be earlier (time §6); moved by signed time alone
	zero   time.Time  // the time at uptime 0
	state  ClockState
	source string
	offset time.Duration // by which the last source differed from what we had
}

// newClock starts a clock. The wall clock is believed, as plausible, when it
// lies within floor and ceiling; else the time is unknown, and the floor is the
// best guess.
func newClock(build, anchor, wall time.Time, uptime func() time.Duration) *Clock {
	c := &Clock{uptime: uptime, ceiling: build.AddDate(ceilingYears, 0, 0), floor: later(build, anchor), state: ClockUnknown}
	now := c.floor
	if !wall.Before(c.floor) && !wall.After(c.ceiling) {
		now, c.state, c.source = wall, ClockPlausible, "hardware"
	}
	c.zero = now.Add(-uptime())
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

// Now is the present time as far as it is known; never before the floor.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nowLocked()
}

func (c *Clock) nowLocked() time.Time { return later(c.zero.Add(c.uptime()), c.floor) }

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
	if now.Before(c.floor.Add(-signedSlack)) {
		return &transport.Error{Reason: transport.BadTime, Op: "set clock", Err: errors.New("signed time " +
			now.UTC().Format(time.RFC3339) + " is before the newest one seen, " + c.floor.UTC().Format(time.RFC3339))}
	}
	c.offset = now.Sub(c.nowLocked())
	if c.state == ClockPlausible && c.source == "sntp" && c.offset.Abs() > conflictOver {
		c.state = ClockConflict
	} else if c.state != ClockConflict {
		c.state = ClockAuthentic
	}
	c.source = "signed"
	c.floor = later(c.floor, t.Time)
	c.zero = now.Add(-c.uptime())
	return nil
}

// Round takes the verdict of a round of SNTP sources (time §4, §6), whose local
// readings were ticks. It never moves the floor, and never an authentic clock;
// it can only make it a conflict.
func (c *Clock) Round(v probe.Verdict) {
	if !v.Plausible {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := v.At(c.ticks())
	if now.Before(c.floor) || now.After(c.ceiling) {
		return
	}
	offset := now.Sub(c.nowLocked())
	if c.authenticLocked() {
		c.state = ClockAuthentic
		if offset.Abs() > conflictOver {
			c.state = ClockConflict
		}
		return
	}
	c.offset, c.state, c.source = offset, ClockPlausible, "sntp"
	c.zero = now.Add(-c.uptime())
}

// ClockStatus is what status says of the clock.
type ClockStatus struct {
	State    ClockState `json:"state"`
	OffsetMS int64      `json:"offset_ms"` // by which the last source differed from what the clock had
	Source   string     `json:"source"`    // signed, sntp or hardware; empty while unknown
}

// Status returns a snapshot.
func (c *Clock) Status() ClockStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return ClockStatus{c.state, c.offset.Milliseconds(), c.source}
}
