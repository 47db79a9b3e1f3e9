package access

import (
	"sync/atomic"
	"time"
)

// maxBehind is how far the clock may be behind the newest time of the store
// before the server stops to vouch for it (wire §3). Leap seconds and small
// corrections stay below it.
const maxBehind = time.Minute

// clock judges the server's own clock by the newest time that it has seen. It
// is safe for concurrent use.
type clock struct {
	now        func() time.Time
	newest     atomic.Int64              // Unix nanoseconds
	complained atomic.Pointer[time.Time] // monotonic; nil: never
}

// complainEvery is how often the log says that the clock is behind, however many
// clients ask.
const complainEvery = time.Minute

// saw notes a time from the store.
func (c *clock) saw(t time.Time) {
	for {
		newest := c.newest.Load()
		if t.UnixNano() <= newest || c.newest.CompareAndSwap(newest, t.UnixNano()) {
			return
		}
	}
}

// trusted returns the time; ok is false when the clock fell back behind what
// it has shown before, over restarts too.
func (c *clock) trusted() (now time.Time, ok bool) {
	now = c.now()
	c.saw(now)
	return now, time.Unix(0, c.newest.Load()).Sub(now) <= maxBehind
}

// complaint returns what the operator must be told of a clock that is not trusted,
// at most once in complainEvery: by how much it is behind, and what.
func (c *clock) complaint(now time.Time) (behind time.Duration, newest time.Time, due bool) {
	at, last := time.Now(), c.complained.Load()
	due = (last == nil || at.Sub(*last) >= complainEvery) && c.complained.CompareAndSwap(last, &at)
	newest = time.Unix(0, c.newest.Load()).UTC()
	return newest.Sub(now), newest, due
}
