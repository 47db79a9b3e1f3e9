package relay

import (
	"sync"
	"time"

	"hawser/server/grant"
	"hawser/transport"
)

// maxUsed bounds the memory of used grants. Only an Access Server can make an
// entry, and one lives 70 s: this is 900 joins a second, kept up.
const maxUsed = 1 << 16

// used remembers the grants that were used, until they are too old to be
// accepted anyway. It is safe for concurrent use.
type used struct {
	mu    sync.Mutex
	until map[string]time.Time // by grant id
	swept time.Time
}

func newUsed() *used { return &used{until: make(map[string]time.Time)} }

// take marks g as used; the error says that it was before. When the memory is
// full of grants that are still young it refuses with busy: forgetting one
// would let it be used twice.
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

// sweepLocked forgets what is too old to matter.
func (u *used) sweepLocked(now time.Time) {
	for id, until := range u.until {
		if now.After(until) {
			delete(u.until, id)
		}
	}
	u.swept = now
}
