package mux

import (
	"fmt"
	"time"
)

// idleCredit is the time without use after which a window falls back to its first size (session §4.2).
const idleCredit = 10 * time.Second

// A credit is what the receiver of one direction of a stream has promised to take (session §4.2). It is pure; offsets
// are in bytes of that direction. Not safe for concurrent use.
type credit struct {
	first, largest int // bounds of size
	size           int // the window: bytes that are promised and not consumed, when the peer was last told

	promise uint64 // the peer may send below this offset, and knows it
	got     uint64 // received
	used    uint64 // consumed by the reader
	held    int    // bytes of the budget; at least size, and at least promise - used

	// The measurement of one window's worth of bytes.
	since    time.Time // when it began; zero: with the next bytes that are consumed
	from     uint64    // the offset at that time
	lastUsed time.Time
}

// newCredit returns the credit of a direction whose first window the peer is told in open or opened. The budget has
// first bytes for it already.
func newCredit(first, largest int) credit {
	return credit{first: first, largest: max(first, largest), size: first, promise: uint64(first), held: first}
}

// promised returns the offset that the peer has been told: it sends no byte at or beyond it.
func (c *credit) promised() uint64 { return c.promise }

// window returns the window in bytes. A smaller one than before holds only from the next promise on.
func (c *credit) window() int { return c.size }

// reserved returns the bytes of the budget that the credit holds. Whoever ends the stream gives them back.
func (c *credit) reserved() int { return c.held }

// received counts n bytes of data. More than was promised is an error, and fatal: there is no room for it.
func (c *credit) received(n int) error {
	if uint64(n) > c.promise-c.got {
		return fmt.Errorf("%w: %d bytes of data over the credit", ErrFrame, uint64(n)-(c.promise-c.got))
	}
	c.got += uint64(n)
	return nil
}

// consumed tells that the reader took n bytes. It returns the offset to announce, when a quarter of the window is used,
// else 0. Grow asks the budget for want bytes and returns how many it grants, from none to all.
func (c *credit) consumed(n int, now time.Time, minRTT time.Duration, grow func(want int) int) (offset uint64) {
	c.used += uint64(n)
	c.lastUsed = now
	c.adapt(now, minRTT, grow)
	next := c.used + uint64(c.size)
	// Next is below the promise when the window has fallen back: a promise is never taken back.
	if next <= c.promise || next-c.promise < uint64(c.size/4) {
		return 0
	}
	c.promise = next
	return next
}

// adapt doubles the window when one window's worth was consumed within two round trips, with the queues that both
// directions may have. Then the sender, who gets as much in one round trip as the window has, used at least half of
// what he may: he is limited by it, or nearly. Offsets do not tell: a quick reader announces so soon that what is
// promised and not received is always most of the window. A reader that stands still and then takes all at once does
// not count as quick, since the time begins with the last window.
func (c *credit) adapt(now time.Time, minRTT time.Duration, grow func(want int) int) {
	switch {
	case c.since.IsZero():
		c.since, c.from = now, c.used
		return
	case c.used-c.from < uint64(c.size):
		return
	}
	quick := minRTT > 0 && now.Sub(c.since) < 2*(minRTT+queueTarget)
	c.since, c.from = now, c.used
	if !quick || c.size >= c.largest {
		return
	}
	next := min(2*c.size, c.largest)
	if want := next - c.held; want > 0 {
		c.held += min(max(grow(want), 0), want)
	}
	c.size = min(next, c.held)
}

// idle lets a window that was not used for 10 s fall back to the first one, and returns how many bytes of the budget it
// gives back. What the peer may still send stays reserved, so it is called now and then, used or not.
func (c *credit) idle(now time.Time) (back int) {
	if now.Sub(c.lastUsed) >= idleCredit {
		c.size, c.since = min(c.size, c.first), time.Time{}
	}
	back = c.held - max(c.size, int(c.promise-c.used))
	c.held -= back
	return back
}

// An allowance is the credit of one direction of a stream as its sender knows it. Not safe for concurrent use.
type allowance struct {
	until uint64 // bytes below this offset may be sent
	sent  uint64
}

// add takes a new offset from the peer. One below the last is an error: a promise is never taken back.
func (a *allowance) add(offset uint64) error {
	if offset < a.until {
		return fmt.Errorf("%w: the credit fell from %d to %d", ErrFrame, a.until, offset)
	}
	a.until = offset
	return nil
}

// left returns how many bytes may be sent now. It is bounded, since a peer may promise more than an int has.
func (a *allowance) left() int { return int(min(a.until-a.sent, 1<<30)) }

// untake takes n bytes back that were not sent after all.
func (a *allowance) untake(n int) { a.sent -= uint64(n) }

// take counts n bytes as sent, at most left.
func (a *allowance) take(n int) { a.sent += uint64(n) }
