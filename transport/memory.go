package transport

import (
	"sync"
	"time"
)

// memory is what a Dialer keeps between searches: which candidates rest, how
// patient the next search has to be, and how far away the servers are.
type memory struct {
	mu     sync.Mutex              // guards all below
	bad    map[Candidate]time.Time // until when it rests; at most maxMemory
	failed int                     // searches in a row that found nothing
	rtt    time.Duration           // the last round trip
}

// ended books the result of one attempt.
func (m *memory) ended(a Attempt, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a.Reason == "" || !a.Addr.IsValid() {
		delete(m.bad, a.Candidate)
		return
	}
	if m.bad == nil || len(m.bad) >= maxMemory {
		m.bad = map[Candidate]time.Time{} // forgetting costs one attempt each
	}
	m.bad[a.Candidate] = now.Add(rest)
}

func (m *memory) resting(c Candidate, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	until := m.bad[c]
	// A clock that jumped back must not make a rest longer than it was meant.
	return now.Before(until) && until.Sub(now) <= rest
}

// searched books the end of a whole search.
func (m *memory) searched(found bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if found {
		m.failed = 0
		return
	}
	m.failed++
}

// patience is the factor for the time-outs of the next search: 1, 2, 4.
func (m *memory) patience() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return min(1<<min(m.failed, 8), maxPatience)
}

// measured books the duration of a TCP connect.
func (m *memory) measured(rtt time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rtt = rtt
}

func (m *memory) roundTrip() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rtt
}
