package access

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"hawser/server/gate"
	"hawser/server/store"
)

// maxBehind is how far the clock may be behind the newest time in the store before the server stops signing time (wire
// §3). Leap seconds and the small corrections of NTP stay below it.
const maxBehind = time.Minute

// clock compares the machine's clock with the newest time that the server has seen, in the store and since. A clock
// that falls back, for instance after the battery of the board ran empty, must not be spread to all devices. It is safe
// for concurrent use.
type clock struct {
	now func() time.Time
	// It is read in every request: an atomic number, so that no request waits for another one.
	newest atomic.Int64 // Unix nanoseconds
	alerts gate.Throttle
}

// countsAgainst reports whether a time in the store is evidence against the clock. When an operator has corrected the
// clock at set, times after that were written by the wrong clock.
func countsAgainst(at, set time.Time) bool { return set.IsZero() || !at.After(set) }

// CheckClock says whether a server that starts now on st would trust its clock (access §10); set is Config.ClockSet.
func CheckClock(ctx context.Context, st *store.Store, set, now time.Time) error {
	newest, err := newestTimes(ctx, st)
	if err != nil {
		return err
	}
	for _, at := range newest {
		if behind := at.Sub(now); behind > maxBehind && countsAgainst(at, set) {
			return fmt.Errorf("the clock is %v behind an audit record of %s, so that no time is signed: set the clock, or, when that record has the wrong time, say since when the clock is right in access.clock_set",
				behind.Round(time.Second), at.Format(time.RFC3339))
		}
	}
	return nil
}

type reader interface {
	View(context.Context, func(*store.Tx) error) error
}

// newestTimes returns the times of the newest audit records of each node, in the order in which they were written: what
// a clock that was ahead has written counts until as many newer records are there. Each node's chain is looked at,
// since the one with the wrong clock may be another.
func newestTimes(ctx context.Context, st reader) (times []time.Time, err error) {
	err = st.View(ctx, func(tx *store.Tx) error {
		heads, err := tx.AuditHeads()
		if err != nil {
			return err
		}
		for _, h := range heads {
			list, err := tx.Audit(store.AuditFilter{Node: h.Node, Limit: auditTail})
			if err != nil {
				return err
			}
			for _, r := range list {
				if store.VerifyAudit([]store.Record{r}) == nil { // else its time may be any
					times = append(times, r.Time)
				}
			}
		}
		return nil
	})
	return times, err
}

// observe raises the newest time to t. It never lowers it, or a clock that fell back would be trusted again.
func (c *clock) observe(t time.Time) {
	for {
		newest := c.newest.Load()
		if t.UnixNano() <= newest || c.newest.CompareAndSwap(newest, t.UnixNano()) {
			return
		}
	}
}

// trusted returns the time. ok is false when the clock is behind what it has shown before, also before a restart.
func (c *clock) trusted() (now time.Time, ok bool) {
	now = c.now()
	c.observe(now)
	return now, time.Unix(0, c.newest.Load()).Sub(now) <= maxBehind
}

// alert returns what the log tells the operator about a clock that is not trusted: by how much it is behind, and behind
// which time. due is true at most once in throttleEvery.
func (c *clock) alert(now time.Time) (behind time.Duration, newest time.Time, due bool) {
	newest = time.Unix(0, c.newest.Load()).UTC()
	return newest.Sub(now), newest, c.alerts.Allow(time.Now())
}
