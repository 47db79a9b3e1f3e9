package relay

import (
	"math"
	"sync"
	"time"
)

// Limits is what sessions may carry, in bytes a second of both directions together. Zero is no limit.
type Limits struct {
	Session int64 // each
	Total   int64 // all
}

// A limiter keeps sessions to Limits. It is safe for concurrent use. A nil limiter limits nothing.
type limiter struct {
	session float64

	mu    sync.Mutex // guards the rest, and every share
	turns turns
	timer *time.Timer // runs while somebody waits for turns; nil: never yet
	armed bool
}

func newLimiter(l Limits) *limiter {
	if l == (Limits{}) {
		return nil
	}
	return &limiter{session: float64(l.Session), turns: turns{bucket: bucket{rate: float64(l.Total)}}}
}

// count is told that a session has moved so many bytes. If it has to wait before it moves more, its claim is for wait.
func (l *limiter) count(s *share, bytes int) *claim {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	s.own.rate = l.session
	s.own.pay(now, bytes)
	if own := s.own.wait(now); own > 0 {
		return &claim{share: s, bytes: bytes, own: own}
	}
	return l.enterLocked(now, s, bytes)
}

// most is how many bytes may be moved at a time.
func (l *limiter) most() int {
	if l == nil {
		return math.MaxInt
	}
	return moveBytes
}

func (l *limiter) enterLocked(now time.Time, s *share, bytes int) *claim {
	if l.turns.rate == 0 {
		return nil
	}
	c := l.turns.enter(now, s, bytes)
	if c != nil && !l.armed {
		l.armLocked(l.turns.wait(now))
	}
	return c
}

// wait returns when the claim is granted, or when gone is closed.
func (l *limiter) wait(c *claim, gone <-chan struct{}) {
	if c.own > 0 {
		timer := time.NewTimer(c.own)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-gone:
			return
		}
		l.mu.Lock()
		c = l.enterLocked(time.Now(), c.share, c.bytes)
		l.mu.Unlock()
		if c == nil {
			return
		}
	}
	select {
	case <-c.granted:
	case <-gone:
		l.mu.Lock()
		defer l.mu.Unlock()
		l.turns.leave(c)
	}
}

// grant lets on whose turn has come.
func (l *limiter) grant() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.armed = false
	for {
		c, wait := l.turns.next(time.Now())
		if c == nil {
			if wait > 0 {
				l.armLocked(wait)
			}
			return
		}
		close(c.granted)
	}
}

func (l *limiter) armLocked(wait time.Duration) {
	l.armed = true
	if l.timer == nil {
		l.timer = time.AfterFunc(wait, l.grant)
		return
	}
	l.timer.Reset(wait)
}
