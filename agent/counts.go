package agent

import (
	"maps"
	"sync"

	"hawser/transport"
	"hawser/transport/session"
)

// Counts is what the agent has done since its start (cli §2). No number is kept over a restart: a flash is not written
// to count.
type Counts struct {
	Connections int64   `json:"connections"` // attempts to reach a server or a relay that came to an end
	Handshakes  int64   `json:"handshakes"`  // those of them in which it proved who it is
	Failures    Reasons `json:"failures"`    // all others, by reason
	Online      int64   `json:"online"`      // times that it came online
	Reconnects  int64   `json:"reconnects"`  // all of these but the first

	Sessions       int64   `json:"sessions"`        // that began; one that moves begins again
	SessionEnds    Reasons `json:"session_ends"`    // and why
	Streams        int64   `json:"streams"`         // that reached what they were for
	StreamsRefused Reasons `json:"streams_refused"` // all others, by reason
	InBytes        int64   `json:"in_bytes"`        // of streams, from technicians
	OutBytes       int64   `json:"out_bytes"`       // and to them
}

// Reasons counts by reason. Those that no list of ours has, as that of a newer server, are "other": so a peer cannot make
// it grow.
type Reasons map[transport.Reason]int64

func (r Reasons) add(reason transport.Reason, n int64) {
	if reason.Class() == transport.ClassNone {
		reason = "other"
	}
	r[reason] += n
}

// Sum is how often anything was counted.
func (r Reasons) Sum() (n int64) {
	for _, k := range r {
		n += k
	}
	return n
}

// counts counts. It is safe for concurrent use.
type counts struct {
	mu  sync.Mutex // guards the rest
	sum Counts
	// Sessions that carry bytes: status shows these while they run, and a session may last for days.
	carrying map[*session.Session]bool
}

func newCounts() *counts {
	return &counts{
		sum:      Counts{Failures: Reasons{}, SessionEnds: Reasons{}, StreamsRefused: Reasons{}},
		carrying: map[*session.Session]bool{},
	}
}

// attempt counts one of a search for a way out. One that was given up says nothing: another was faster.
func (c *counts) attempt(a transport.Attempt) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case a.GivenUp:
		return
	case a.Reason == "":
		c.sum.Handshakes++
	default:
		c.sum.Failures.add(a.Reason, 1)
	}
	c.sum.Connections++
}

func (c *counts) online() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sum.Reconnects = c.sum.Online
	c.sum.Online++
}

func (c *counts) begin(s *session.Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sum.Sessions++
	c.carrying[s] = true
}

// over counts the end of a session; nil: it never began.
func (c *counts) over(s *session.Session, reason transport.Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sum.SessionEnds.add(reason, 1)
	if s == nil {
		return
	}
	c.sum.carry(s)
	delete(c.carrying, s)
}

// carry adds what a session's line has counted.
func (c *Counts) carry(s *session.Session) {
	line := s.Counts()
	c.InBytes += line.In
	c.OutBytes += line.Out
	c.Streams += line.Granted
	for reason, n := range line.Refused {
		c.StreamsRefused.add(reason, n)
	}
}

// now returns what was counted so far, as a copy.
func (c *counts) now() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := c.sum
	sum.Failures, sum.SessionEnds, sum.StreamsRefused = maps.Clone(sum.Failures), maps.Clone(sum.SessionEnds), maps.Clone(sum.StreamsRefused)
	for s := range c.carrying {
		sum.carry(s)
	}
	return sum
}
