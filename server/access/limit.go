package access

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Limits on failed attempts at codes (access §2). The secret of a code has 130 bits and cannot be guessed at this rate
// or any other; the limits keep guessing from costing the store its time.
const (
	limitWindow     = time.Minute
	limitPerAddress = 10
	limitInAll      = 100
)

// limiter limits attempts at codes. An attempt counts from its start until it succeeds: if it counted from its failure,
// a thousand parallel attempts would all pass. It refuses everything beyond limitInAll attempts, so it never has to
// remember more. The zero value works; it is safe for concurrent use.
type limiter struct {
	mu       sync.Mutex
	attempts []*attempt // oldest first
}

type attempt struct {
	from netip.Addr
	at   time.Time
}

// begin counts an attempt. If it is nil, the client is refused and may come back after wait.
func (l *limiter) begin(from netip.Addr, now time.Time) (a *attempt, wait time.Duration) {
	from = network(from)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.attempts = slices.DeleteFunc(l.attempts, func(a *attempt) bool {
		// An attempt in the future was made before the clock was set back.
		return now.Sub(a.at) >= limitWindow || a.at.After(now)
	})
	var same []*attempt
	for _, a := range l.attempts {
		if a.from == from {
			same = append(same, a)
		}
	}
	if len(same) >= limitPerAddress {
		return nil, same[0].at.Add(limitWindow).Sub(now)
	}
	if len(l.attempts) >= limitInAll {
		return nil, l.attempts[0].at.Add(limitWindow).Sub(now)
	}
	a = &attempt{from, now}
	l.attempts = append(l.attempts, a)
	return a, 0
}

// succeeded forgets an attempt.
func (l *limiter) succeeded(a *attempt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.attempts = slices.DeleteFunc(l.attempts, func(b *attempt) bool { return a == b })
}

// network returns what counts as one address: an IPv6 subscriber has a whole /64, and could use a new address of it for
// each attempt.
func network(a netip.Addr) netip.Addr {
	if a = a.Unmap().WithZone(""); a.Is6() {
		return netip.PrefixFrom(a, 64).Masked().Addr()
	}
	return a
}

// throttleEvery is how often a logThrottle lets a line through.
const throttleEvery = time.Minute

// logThrottle limits a log line that clients can cause: they can ask a thousand times a second, and a full disk would
// stop the server. The zero value works; it is safe for concurrent use.
type logThrottle struct{ last atomic.Pointer[time.Time] } // monotonic; nil: never

// allow reports whether the line may be written now, and counts it as written if so.
func (t *logThrottle) allow(now time.Time) bool {
	last := t.last.Load()
	return (last == nil || now.Sub(*last) >= throttleEvery) && t.last.CompareAndSwap(last, &now)
}
