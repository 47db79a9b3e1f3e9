package access

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Bounds on failed attempts at codes (access §2).
const (
	limitWindow     = time.Minute
	limitPerAddress = 10
	limitInAll      = 100
)

// limiter bounds attempts at codes. An attempt counts until it has succeeded,
// so that many at once cannot slip through. It remembers at most limitInAll
// attempts, because beyond those it refuses all: its memory is bounded by what
// it is for. The zero value works; it is safe for concurrent use.
type limiter struct {
	mu       sync.Mutex
	attempts []*attempt // oldest first
}

type attempt struct {
	from netip.Addr
	at   time.Time
}

// begin counts an attempt. A nil attempt is refused, for wait.
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

// succeeded takes an attempt back.
func (l *limiter) succeeded(a *attempt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.attempts = slices.DeleteFunc(l.attempts, func(b *attempt) bool { return a == b })
}

// network is what counts as one address: in IPv6 a subscriber has a whole /64.
func network(a netip.Addr) netip.Addr {
	if a = a.Unmap().WithZone(""); a.Is6() {
		return netip.PrefixFrom(a, 64).Masked().Addr()
	}
	return a
}
