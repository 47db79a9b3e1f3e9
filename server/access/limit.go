package access

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"hawser/server/gate"
)

// Limits on failed attempts at codes (access §2). The secret of a code has 130 bits and cannot be guessed at any rate; the
// limit makes a guesser's attempts as few as a typist's.
const (
	limitWindow   = time.Minute
	limitFailures = 10   // at one code from one source
	mostFailures  = 1024 // that are remembered, the newest
)

// failures remembers failed attempts, each at one code and from one source. Neither counts alone: else a stranger could
// use up the attempts of a site behind one address, or those at a code whose lookup id, which is no secret, he has seen.
// The zero value works; it is safe for concurrent use.
type failures struct {
	mu   sync.Mutex
	list []failure // oldest first
}

type failure struct {
	lookup string
	source netip.Prefix
	at     time.Time
}

// wait returns how long a source has to wait until it may try a code; 0 is not at all.
func (f *failures) wait(lookup string, from netip.Addr, now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = slices.DeleteFunc(f.list, func(a failure) bool {
		// One in the future was made before the clock was set back.
		return now.Sub(a.at) >= limitWindow || a.at.After(now)
	})
	n, source := 0, gate.Source(from)
	for _, a := range slices.Backward(f.list) {
		if a.lookup == lookup && a.source == source {
			if n++; n == limitFailures {
				return a.at.Add(limitWindow).Sub(now)
			}
		}
	}
	return 0
}

// add remembers a failure. Of many sources and codes the oldest is forgotten: to forget lets somebody try, and harms
// nobody.
func (f *failures) add(lookup string, from netip.Addr, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.list) >= mostFailures {
		f.list = slices.Delete(f.list, 0, len(f.list)-mostFailures+1)
	}
	f.list = append(f.list, failure{lookup, gate.Source(from), now})
}
