package access

import (
	"context"
	"time"

	"hawser/transport"
)

// keep does what is due later, until ctx ends: it writes measurements that
// waited, and ends sessions that were lost and that nobody moved. With nothing
// to wait for it sleeps.
func (s *Server) keep(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			s.flushLast(ctx)
			return
		case <-s.later:
		case <-timer.C:
			s.doDue(ctx, time.Now())
		}
		timer.Stop()
		if next := sooner(s.sessions.next(), s.measured.next()); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// sooner returns the earlier time; the zero one is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// reckon lets keep look what is due, and when.
func (s *Server) reckon() {
	select {
	case s.later <- struct{}{}:
	default: // it will look anyway
	}
}

func (s *Server) doDue(ctx context.Context, now time.Time) {
	if err := s.measured.flush(ctx, now); err != nil {
		s.log.Error("measurements not stored", "err", err)
	}
	for _, id := range s.sessions.overdue(now) {
		if err := s.endSession(ctx, id, s.cfg.Name.String(), transport.LinkLost); err != nil {
			s.log.Error("session not ended", "session", id, "err", err)
		}
	}
}

// flushLast writes what the store would lose with this process.
func (s *Server) flushLast(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := s.measured.flush(ctx, time.Now().Add(measureEvery)); err != nil {
		s.log.Error("measurements not stored", "err", err)
	}
}

// loseSession gives an open session its time to be moved.
func (s *Server) loseSession(ctx context.Context, id string) {
	s.sessions.lose(id, time.Now())
	s.tellSession(ctx, id)
	s.reckon()
}
