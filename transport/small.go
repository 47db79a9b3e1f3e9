package transport

import (
	"context"
	"net"
	"slices"
	"sync/atomic"
	"time"
)

// shrink decides which candidates of a race get a small form (wire §8.1). It decides and starts nothing, so that its
// rules can be read without the race around them.
type shrink struct {
	all    bool     // every further candidate is small
	begun  bool     // some candidate has had its small form
	beside int      // attempts in flight outside the limits
	silent []*hello // of the full form, not known to be answered
}

// hello is a TLS hello that was sent.
type hello struct {
	candidate Candidate
	due       time.Time    // for an answer
	heard     *atomic.Bool // something came back
}

// newHello is a hello that is sent now. A slow path gets time for its round trip, or
// every satellite link would open two connections (docs/decisions/0014).
func newHello(a Attempt, heard *atomic.Bool) *hello {
	return &hello{a.Candidate, time.Now().Add(max(slotTime, a.RTT*3/2)), heard}
}

// sent keeps a hello until something is heard, or until that is due.
func (s *shrink) sent(h *hello) {
	if !h.candidate.Small {
		s.silent = append(s.silent, h)
	}
}

// ended takes the result of an attempt.
func (s *shrink) ended(a Attempt) {
	s.silent = slices.DeleteFunc(s.silent, func(h *hello) bool { return h.candidate == a.Candidate })
	if a.Small && answered(a) {
		s.all = true
	}
}

// answered reports whether something came back from behind the hello: also a refusal.
func answered(a Attempt) bool {
	if a.proxyFailed {
		return false
	}
	switch a.Reason {
	case ResetAfterHello, Reset, Refused, Timeout, Unreachable, DNS, BadAddress, ProxyRefused, ProxyAuth, Internal:
		return false // Internal: something here, such as too many open files
	}
	return true
}

// due returns when the next answer is due.
func (s *shrink) due() (at time.Time, ok bool) {
	s.silent = slices.DeleteFunc(s.silent, func(h *hello) bool { return h.heard.Load() })
	for _, h := range s.silent {
		if at.IsZero() || h.due.Before(at) {
			at = h.due
		}
	}
	return at, len(s.silent) > 0
}

// shrinkSilent starts the small forms of candidates whose hello has been silent for
// too long. Heard is asked once more: an answer may have come after the timer was set.
func (r *race) shrinkSilent(ctx context.Context) {
	s, now := &r.shrink, time.Now()
	for i := 0; i < len(s.silent); {
		h := s.silent[i]
		if now.Before(h.due) {
			i++
			continue
		}
		s.silent = slices.Delete(s.silent, i, i+1)
		if !h.heard.Load() {
			r.startSmall(ctx, h.candidate)
		}
	}
}

// startSmall gives a candidate its small form, once. The first one of a search starts
// at once, beside what is in flight; further ones are tried next.
func (r *race) startSmall(ctx context.Context, c Candidate) {
	small := c.small()
	if c.Small || r.tried[small] || slices.Contains(r.waiting, small) || r.winner != nil || ctx.Err() != nil {
		return
	}
	if r.shrink.begun {
		r.waiting = slices.Insert(r.waiting, 0, small)
		return
	}
	r.shrink.begun = true
	r.shrink.beside++
	// A slot of its own: those of the race may be held by the very handshakes that are silent.
	r.launch(ctx, small, make(chan struct{}, 1), true)
}

// segmentsKey marks the context of a connect whose segments have to be small: its value
// is their size in bytes.
type segmentsKey struct{}

func withSmallSegments(ctx context.Context) context.Context { return withSegments(ctx, smallSegment) }

func withSegments(ctx context.Context, size int) context.Context {
	return context.WithValue(ctx, segmentsKey{}, size)
}

// SystemDial is net.Dialer's DialContext for Dialer.DialContext, or for what that
// calls in the end: a connection of the small form gets small segments, which have to
// be set before the connect (wire §8.1). The context says so, since it passes through
// whatever stands between.
func SystemDial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	if size, ok := ctx.Value(segmentsKey{}).(int); ok {
		d.Control = limitSegments(size)
	}
	return d.DialContext(ctx, network, address)
}
