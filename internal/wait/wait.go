// Package wait is how the programs wait: after failures in a row (Backoff), for a time (Sleep), and for a word from
// another goroutine (Bell).
package wait

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"time"
)

// A Backoff is the wait before what failed is tried again. It is full jitter, a random time from zero to a bound that
// doubles with each failure: a thousand clients that lost the same server at once must not come back in step.
type Backoff struct {
	First   time.Duration // the bound after one failure
	Longest time.Duration // no bound is above it
}

// After returns how long to wait after the given number of failures in a row, at least one. AtLeast is the wait that the
// server asked for; zero: none. The jitter is added to it, because a busy server tells all its clients the same.
func (b Backoff) After(failures int, atLeast time.Duration) time.Duration {
	return max(atLeast, 0) + Random(b.bound(failures))
}

// bound doubles step by step, since a shift by the number of failures overflows.
func (b Backoff) bound(failures int) time.Duration {
	bound := b.First
	for range failures - 1 {
		if bound >= b.Longest {
			break
		}
		bound *= 2
	}
	return min(bound, b.Longest)
}

// InARow is failures with one more, with which the server says when to come again if hinted, as with the one before if told.
// Who says when knows how many come: what failed while nobody did is no reason to come later (wire §2.3).
func InARow(failures int, told, hinted bool) int {
	if hinted && !told {
		return 1
	}
	return failures + 1
}

// Random is uniform in [0, n), and 0 when n is not positive.
func Random(n time.Duration) time.Duration {
	if n <= 0 {
		return 0
	}
	var b [8]byte
	rand.Read(b[:])
	return time.Duration(binary.BigEndian.Uint64(b[:]) % uint64(n))
}

// Sleep waits for d. It returns earlier, and false, when ctx ends.
func Sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// A Bell tells one waiter, who receives from it, that something has changed. Rung again before it is heard, it is heard
// once; so what has changed is looked up after it was heard, not before. Make one with NewBell.
type Bell chan struct{}

// NewBell returns a Bell that nobody has rung.
func NewBell() Bell { return make(Bell, 1) }

// Ring tells the waiter, now or when it next listens. It never blocks and may be called from several goroutines.
func (b Bell) Ring() {
	select {
	case b <- struct{}{}:
	default: // not heard yet
	}
}
