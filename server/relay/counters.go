package relay

import (
	"maps"
	"sync"
	"sync/atomic"

	"hawser/transport"
)

// Counters is what a relay has done since its start.
type Counters struct {
	Sessions int64 // that were paired
	// Bytes from each end, without the outer TLS.
	FromRuntime, FromManager int64
	Refused                  map[transport.Reason]int64
	Dropped                  int64 // connections that found no place: too many had no grant
}

// counters counts, and is safe for concurrent use.
type counters struct {
	sessions, fromRuntime, fromManager, dropped atomic.Int64

	mu      sync.Mutex // guards refused
	refused map[transport.Reason]int64
}

func (c *counters) refuse(r transport.Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused == nil {
		c.refused = make(map[transport.Reason]int64)
	}
	c.refused[r]++
}

// Counters returns what the relay has done so far. Each number is right for itself: they are not read at one moment.
func (s *Server) Counters() Counters {
	c := &s.counters
	c.mu.Lock()
	defer c.mu.Unlock()
	return Counters{
		Sessions: c.sessions.Load(), FromRuntime: c.fromRuntime.Load(), FromManager: c.fromManager.Load(),
		Refused: maps.Clone(c.refused), Dropped: c.dropped.Load(),
	}
}
