package access

import (
	"context"
	"fmt"
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

// counts reports whether a time in the store speaks against the clock. When an
// operator has put a wrong one right at set, what is later was written by it.
func counts(at, set time.Time) bool { return set.IsZero() || !at.After(set) }

// CheckClock says whether a server that starts now on store would trust its clock
// (access §10); set is as in Config.ClockSet.
func CheckClock(ctx context.Context, store Store, set, now time.Time) error {
	records, err := readAudit(ctx, store, "", "", auditTail)
	if err != nil {
		return err
	}
	for _, r := range records {
		if behind := r.Time.Sub(now); behind > maxBehind && counts(r.Time, set) {
			return fmt.Errorf("the clock is %v behind an audit record of %s, so that no time is signed: set the clock, or, when that record has the wrong time, say since when the clock is right in access.clock_set",
				behind.Round(time.Second), r.Time.Format(time.RFC3339))
		}
	}
	return nil
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
