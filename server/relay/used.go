package relay

import (
	"sync"
	"time"

	"hawser/server/grant"
	"hawser/transport"
)

// maxUsed bounds the memory of used grants. Only grants of an Access Server make an
// entry, which is kept for 70 s: this is 900 joins a second.
const maxUsed = 1 << 16

// used remembers the grants that were used, until they are too old to be
// accepted anyway. It is safe for concurrent use.
type used struct {
	mu    sync.Mutex
	until map[string]time.Time // by grant id
	swept time.Time
}

func newUsed() *used { return &used{until: make(map[string]time.Time)} }

// take marks g as used. It returns an error if it was used before, and busy if the memory is full of grants that have
// not expired: a forgotten one could be used twice. It sweeps once in a grant's life, so that a join costs one look and
// not one at all grants.
func (u *used) take(g grant.Grant, now time.Time) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, ok := u.until[g.ID]; ok {
		return refuse(transport.GrantUsed, "check grant")
	}
	if len(u.until) >= maxUsed || now.Sub(u.swept) >= grant.Life {
		u.sweepLocked(now)
	}
	if len(u.until) >= maxUsed {
		return refuse(transport.Busy, "remember grant")
	}
	u.until[g.ID] = g.Expires.Add(grant.Leeway)
	return nil
}

// sweepLocked removes grants that have expired.
func (u *used) sweepLocked(now time.Time) {
	for id, until := range u.until {
		if now.After(until) {
			delete(u.until, id)
		}
	}
	u.swept = now
}
