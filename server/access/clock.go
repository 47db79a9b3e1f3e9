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
	newest     atomic.Int64 // Unix nanoseconds
	complained seldom
}

// seldom is for what the log shall say once in complainEvery, however many clients
// ask. It is safe for concurrent use.
type seldom struct{ last atomic.Pointer[time.Time] } // monotonic; nil: never

const complainEvery = time.Minute

// due reports whether it is to be said now, and takes that for done.
func (s *seldom) due(now time.Time) bool {
	last := s.last.Load()
	return (last == nil || now.Sub(*last) >= complainEvery) && s.last.CompareAndSwap(last, &now)
}

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
	newest = time.Unix(0, c.newest.Load()).UTC()
	return newest.Sub(now), newest, c.complained.due(time.Now())
}
