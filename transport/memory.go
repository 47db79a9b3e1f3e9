package transport

import (
	"sync"
	"time"
)

// memory is what a Dialer keeps between searches: which candidates failed lately,
// the factor for the time-outs of the next search, the last round trip, and whether
// only the small form passes. It is not stored: a restart costs an attempt at each way that is shut, and an old file
// could keep an open one last.
type memory struct {
	mu     sync.Mutex              // guards all below
	bad    map[Candidate]time.Time // until when each is tried last; at most maxMemory
	failed int                     // searches in a row that found nothing
	rtt    time.Duration           // the last round trip
	small  time.Time               // when only a small form passed; zero: never
}

// attempted keeps the result of one attempt.
func (m *memory) attempted(a Attempt, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	// A name that was not resolved has neither: it is no way that could be tried last.
	if a.Reason == "" || !a.Addr.IsValid() && a.Proxy == "" {
		delete(m.bad, a.Candidate)
		return
	}
	if m.bad == nil || len(m.bad) >= maxMemory {
		m.bad = map[Candidate]time.Time{} // each costs one more attempt
	}
	m.bad[a.Candidate] = now.Add(restTime)
}

func (m *memory) resting(c Candidate, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	until := m.bad[c]
	// The second condition ends a rest after the clock was set back.
	return now.Before(until) && until.Sub(now) <= restTime
}

// searched keeps the result of a whole search.
// small: it was small from its beginning.
func (m *memory) searched(conn *Conn, small bool, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if conn == nil {
		m.failed++
		return
	}
	m.failed = 0
	// Not by a search that was small anyway: it has not found that out, and the full form
	// would never be tried again.
	switch {
	case conn.Candidate.Small && !small:
		m.small = now
	case m.small.After(now): // the clock was set back
		m.small = now
	}
}

// onlySmall reports whether only the small form passed lately.
func (m *memory) onlySmall(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return SmallCounts(m.small, now)
}

// SmallCounts reports whether a small form that was found at a time still says what
// the path needs (wire §8.1). A time of the future counts: this clock may have been
// lost since, and a small hello more is harmless.
func SmallCounts(found, now time.Time) bool {
	return !found.IsZero() && now.Sub(found) < smallTime
}

// patience is the factor for the time-outs of the next search: 1, 2, 4.
func (m *memory) patience() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	// The inner min keeps the shift from overflowing after months without a way.
	return min(1<<min(m.failed, 8), maxPatience)
}

// measured keeps the duration of a TCP connect.
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
