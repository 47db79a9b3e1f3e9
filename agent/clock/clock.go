// Package clock keeps the gateway's time: from signed time, SNTP and the hardware's clock, each as far as it can be
// trusted (time.md). A Clock owns the state and the loops; pure functions decide (discipline, schedule, follow).
package clock

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"hawser/board"
	"hawser/identity"
	"hawser/internal/wait"
	"hawser/probe"
	"hawser/transport"
)

// State says how far the time can be trusted (time §6).
type State string

// The states of time §6.
const (
	Unknown   State = "unknown"
	Plausible State = "plausible"
	Authentic State = "authentic"
	Conflict  State = "conflict"
)

// As long as a gateway may stay in the field without an update; a time beyond it is a forged or broken one.
const ceilingYears = 15

// Window returns the floor F and the ceiling C of a program that has only its build to go by: times outside of them are
// wrong. Certificates are never checked without dates instead: a window of years still refuses a clock of 1970 and of
// 2106.
func Window(build time.Time) (floor, ceiling time.Time) {
	return build, build.AddDate(ceilingYears, 0, 0)
}

// Options is what a Clock is made of.
type Options struct {
	Build  time.Time    // of this program: the least floor
	Board  *board.Board // counts the time since boot, and has the clock that may be set
	Store  Store
	Policy Policy // whether Run sets the board's clock; empty: never
	// Sources lists the SNTP sources. Run asks before each round, because those of the site may become known late.
	Sources func() []string
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)         // of sources; nil: by the system's servers
	Dial    func(ctx context.Context, network, address string) (net.Conn, error) // to sources; nil: net.Dialer
	Log     *slog.Logger
	// Changed is called when State is another. It must not block.
	Changed func()
}

// Store keeps what must survive a restart. Its methods return when the values are on the medium, and change nothing when
// they fail.
type Store interface {
	// Anchor returns the stored floor, and how much of the step budget was spent since it was stored.
	Anchor() (floor time.Time, spent time.Duration)
	// Spend stores how much of the step budget is spent in all.
	Spend(total time.Duration) error
	// Reset stores a lower floor, unless a reset of this sequence number or a later one was stored before.
	Reset(floor time.Time, sequence uint64) error
}

// Clock is the time of a gateway: a monotonic count since boot and an offset, so setting the machine's clock does not
// change it. It is safe for concurrent use; Run is called once.
type Clock struct {
	o       Options
	ceiling time.Time // C: SNTP and hardware clocks after it are wrong
	heard   wait.Bell // rings when a time was taken

	mu         sync.Mutex // guards all below
	floor      time.Time  // F: it cannot be earlier (time §6); moved by signed time and floor resets alone
	lowered    *time.Time // to this by a floor reset, in this run; never written to
	time       line
	slew       slew
	state      State
	source     string
	offset     time.Duration // by which the last source differed from what we had
	signed     line          // the newest signed time since the start
	sntp       line          // the last SNTP verdict
	impossible bool          // the SNTP sources said what cannot be, since then
	spent      time.Duration // of the step budget
}

// line is a time that advances with the uptime, kept as its value at uptime 0. The zero value is no time. So nothing
// has to tick, and a suspend that the uptime counts is counted.
type line struct{ zero time.Time }

func lineThrough(at time.Time, up time.Duration) line { return line{at.Add(-up)} }

func (l line) at(up time.Duration) time.Time {
	if l.zero.IsZero() {
		return time.Time{}
	}
	return l.zero.Add(up)
}

// slew is a correction that is made gradually, starting at an uptime. Half a second takes 17 minutes: programs on the
// machine see no jump, and no time twice.
type slew struct{ by, since time.Duration }

// done is the part of the correction that is made at an uptime.
func (s slew) done(up time.Duration) time.Duration {
	made := (up - s.since) / slewPart
	return max(min(s.by, made), -made)
}

// New starts a clock. The wall clock is believed, as plausible, when it lies within floor and ceiling; else the time is
// unknown, and the floor is the best guess. A hardware clock with an empty battery says 1970 or 2000, which is before
// the floor; one that is only some hours off is as good as SNTP until something better comes.
func New(o Options) *Clock {
	anchor, spent := o.Store.Anchor()
	floor, ceiling := Window(o.Build)
	c := &Clock{o: o, ceiling: ceiling, heard: wait.NewBell(), floor: later(floor, anchor), state: Unknown, spent: spent}
	now, wall := c.floor, o.Board.Now()
	if !wall.Before(c.floor) && !wall.After(c.ceiling) {
		now, c.state, c.source = wall, Plausible, "hardware"
	}
	c.time = lineThrough(now, o.Board.Uptime())
	return c
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// ticks is a reading of the uptime for SNTP: only differences of it mean anything, and no change of the clock affects
// them.
func (c *Clock) ticks() time.Time { return time.Unix(0, 0).Add(c.o.Board.Uptime()) }

// Anchor is what must survive a restart: the floor, and what SNTP has spent since of the step budget.
func (c *Clock) Anchor() (floor time.Time, spent time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.floor, c.spent
}

// comparable is the interval in which SNTP samples are taken. It is wider than
// [F, C]: samples outside of that move nothing, but can contradict signed time.
func (c *Clock) comparable() (from, to time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	to = c.ceiling
	if c.authenticLocked() {
		to = later(to, c.nowLocked().Add(conflictOver))
	}
	return c.floor.Add(-conflictOver), to
}

// Now returns the present time as far as it is known, never before the floor.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nowLocked()
}

func (c *Clock) nowLocked() time.Time {
	up := c.o.Board.Uptime()
	return later(c.time.at(up).Add(c.slew.done(up)), c.floor)
}

// Statements returns the time by which an owner's statements are judged, without what his lists say (identity §16.4). That is
// the present time, or, when a majority of the time servers is more than 24 h ahead of the signed time, theirs: whoever has
// the servers may have stopped their clock, and too late a time only refuses. then theirs is true. Before the first signed
// time nobody is judged.
func (c *Clock) Statements() (now time.Time, theirs bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now = c.nowLocked()
	if c.signed.zero.IsZero() || c.sntp.zero.IsZero() {
		return now, false
	}
	up := c.o.Board.Uptime()
	at := identity.StatementTime(now, nil, c.sntp.at(up), c.signed.at(up))
	return at, at.After(now)
}

// Floor returns F or, once the clock is authentic, the present time. It is a method
// of control.Clock.
func (c *Clock) Floor() (at time.Time, authentic bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.authenticLocked() {
		return c.nowLocked(), true
	}
	return c.floor, false
}

func (c *Clock) authenticLocked() bool {
	return c.state == Authentic || c.state == Conflict
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
	c.signed = lineThrough(now, c.o.Board.Uptime())
	c.spent = 0
	return nil
}

// Round takes the verdict of a round of SNTP sources (time §4, §6), whose local readings were ticks. It never moves the
// floor. What it spends of the step budget is stored before: after a restart, SNTP must not have the budget again.
func (c *Clock) Round(v probe.Verdict, sources int) (again bool) {
	budget := stepBudget
	if err := c.o.Store.Spend(c.cost(v, sources)); err != nil {
		c.o.Log.Error("save state", "err", err)
		_, budget = c.o.Store.Anchor()
	}
	a, state := c.round(v, sources, budget)
	c.o.Log.Debug("sntp round", "agreed", len(v.Agreed), "rejected", len(v.Rejected), "reason", v.Reason, "clock", state, "does", a.do, "by", a.by)
	return a.again || state == Unknown
}

// cost returns how much of the step budget will be spent in all after round took v.
func (c *Clock) cost(v probe.Verdict, sources int) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.spent + discipline(c.nowLocked(), c.knowledgeLocked(sources, stepBudget), c.newsOf(v, sources)).cost
}

// round applies a verdict. Budget is how much of the step budget may be spent in all.
func (c *Clock) round(v probe.Verdict, sources int, budget time.Duration) (action, State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.newsOf(v, sources)
	a := discipline(c.nowLocked(), c.knowledgeLocked(sources, budget), n)
	c.applyLocked(a, "sntp")
	c.spent += a.cost
	if !n.sntp.IsZero() {
		c.sntp, c.impossible = lineThrough(n.sntp, c.o.Board.Uptime()), false
	}
	c.impossible = c.impossible || n.impossible
	return a, c.state
}

// newsOf turns a verdict, over samples within comparable, into news.
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
	up := c.o.Board.Uptime()
	return knowledge{state: c.state, floor: c.floor, ceiling: c.ceiling, sources: sources,
		signed: c.signed.at(up), sntp: c.sntp.at(up), impossible: c.impossible, budget: budget - c.spent}
}

// applyLocked does what discipline decided about a time from source, and rings heard.
func (c *Clock) applyLocked(a action, source string) {
	up := c.o.Board.Uptime()
	c.state = a.state
	switch a.do {
	case moveStep:
		c.time, c.slew = lineThrough(c.nowLocked().Add(a.by), up), slew{}
	case moveSlew:
		c.time, c.slew = lineThrough(c.nowLocked(), up), slew{a.by, up}
	}
	if a.do != moveKeep {
		c.offset = a.by
	}
	if a.do != moveKeep && (source == "signed" || !c.authenticLocked()) {
		c.source = source
	}
	c.heard.Ring()
}

// errNotLower refuses a floor reset (time §6.4).
var errNotLower = errors.New("the floor is not after that already")

// Reset takes a verified floor reset (time §6.4). An error says why it was not taken. Its sequence number is stored
// before anything is changed, so that it can be taken once only.
func (c *Clock) Reset(r identity.FloorReset) error {
	to := later(c.o.Build, r.To)
	before, _ := c.Anchor()
	if !to.Before(before) {
		return errNotLower
	}
	if err := c.o.Store.Reset(to, r.Sequence); err != nil {
		return err
	}
	c.lower(to)
	c.o.Log.Warn("floor was reset by the root", "floor", to, "before", before)
	return nil
}

// lower sets F back and forgets every time that was taken: all of them were judged by the wrong floor.
func (c *Clock) lower(to time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.floor, c.lowered = to, &to
	c.time, c.slew = lineThrough(to, c.o.Board.Uptime()), slew{}
	c.state, c.source, c.offset = Unknown, "", 0
	c.signed, c.sntp, c.impossible = line{}, line{}, false
	c.heard.Ring()
}

// Status is the state of a Clock as the status command shows it.
type Status struct {
	State    State  `json:"state"`
	OffsetMS int64  `json:"offset_ms"` // by which the last source differed from what the clock had
	Source   string `json:"source"`    // signed, sntp or hardware; empty while unknown
	// FloorReset is where a floor reset of this run has put the floor; null: none did.
	FloorReset *time.Time `json:"floor_reset"`
}

// Status returns a snapshot.
func (c *Clock) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Status{c.state, c.offset.Milliseconds(), c.source, c.lowered}
}
