package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"hawser/transport"
	"hawser/transport/wire"
)

// refusedEvery is how often the log says that streams of one user are refused for one reason. A tool that tries again and
// again would push everything else out of a small log.
const refusedEvery = time.Minute

// refused remembers what was said of streams that were refused. Safe for concurrent use.
type refused struct {
	mu   sync.Mutex // guards said
	said map[refusedKind]*saidOf
}

type refusedKind struct {
	reason transport.Reason
	user   string
}

// saidOf is when something was said, and how often it has happened since.
type saidOf struct {
	at   time.Time // monotonic
	more int
}

// say tells whether one more is to be said now, and how many were not since the last one. Those of whom nothing was said
// for long are forgotten.
func (r *refused) say(kind refusedKind, now time.Time) (more int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.said[kind]
	if last != nil && now.Sub(last.at) < refusedEvery {
		last.more++
		return 0, false
	}
	if last != nil {
		more = last.more
	}
	for other, s := range r.said {
		if s.more == 0 && now.Sub(s.at) >= refusedEvery {
			delete(r.said, other)
		}
	}
	if r.said == nil {
		r.said = map[refusedKind]*saidOf{}
	}
	r.said[kind] = &saidOf{at: now}
	return more, true
}

// sayRefused tells the owner that a stream was refused, and who tried.
func (a *Agent) sayRefused(o wire.Offer, addr netip.AddrPort, reason transport.Reason, why string) {
	more, ok := a.refused.say(refusedKind{reason, o.User}, time.Now())
	if !ok {
		return
	}
	level := slog.LevelInfo
	if reason == transport.Policy {
		level = slog.LevelWarn
	}
	a.log.Log(context.Background(), level, "stream refused", "session", o.Session, "user", o.User, "addr", addr, "reason", reason, "why", why, "more", more)
}
