package access

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hawser/identity"
	"hawser/transport/wire"
)

// What Runtimes and relays report over control (wire §4.8).

// measureTimeout is how long somebody who asked a Runtime to measure waits.
const measureTimeout = 15 * time.Second

// measurementsFrom takes what a Runtime has measured. A store that does not
// work is no reason to end its link: what is fresh stays in memory.
func (s *Server) measurementsFrom(ctx context.Context, l *link, f wire.Frame) error {
	uid, err := identity.ParseUID(l.peer.Name.ID)
	if l.peer.Name.Kind != identity.KindDevice || err != nil {
		return unexpected(f)
	}
	var m wire.Measurements
	if err := f.Decode(&m); err != nil {
		return err
	}
	list, err := checkMeasurements(m)
	if err != nil {
		return fmt.Errorf("%w: measurements: %v", wire.ErrFrame, err)
	}
	if err := s.noteMeasurements(ctx, measuredByRuntime(uid), list); err != nil {
		s.log.Error("measurements not stored", "uid", uid, "err", err)
	}
	l.hasMeasured()
	return nil
}

// noteMeasurements keeps what an end measured of relays that the registry knows.
func (s *Server) noteMeasurements(ctx context.Context, key string, list []wire.Measurement) error {
	var known []wire.Measurement
	for _, m := range list {
		if s.presence.find(identity.RelayName(m.Name)) == nil { // it may just be restarting
			_, _, err := load[memberRecord](ctx, s.cfg.Store, bucketRelays, m.Name)
			if errors.Is(err, ErrNotFound) {
				continue
			} else if err != nil {
				return err
			}
		}
		known = append(known, m)
	}
	defer s.reckon()
	return s.measured.note(ctx, key, known, s.now())
}

// maxPipes is more than any relay can carry.
const maxPipes = 1 << 20

// loadFrom takes what a relay says of itself.
func (s *Server) loadFrom(l *link, f wire.Frame) error {
	if l.peer.Name.Kind != identity.KindRelay {
		return unexpected(f)
	}
	var m wire.Load
	if err := f.Decode(&m); err != nil {
		return err
	}
	if m.Pipes < 0 || m.Pipes > maxPipes || m.Max < 1 || m.Max > maxPipes {
		return fmt.Errorf("%w: load is out of bounds", wire.ErrFrame)
	}
	l.mu.Lock()
	l.load = m
	l.mu.Unlock()
	s.cluster.touch(l.peer.Name)
	return nil
}

// carries returns what the relay has last said of its load.
func (l *link) carries() wire.Load {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.load
}

// measure asks a Runtime to measure, and waits until it has told what it found
// or does not any more. All who ask meanwhile share one question.
func (l *link) measure(ctx context.Context) {
	l.mu.Lock()
	if l.measured == nil {
		l.measured, l.asked = make(chan struct{}), time.Time{}
	}
	told := l.measured
	if time.Since(l.asked) >= measureTimeout {
		l.asked = time.Now()
		l.send(message{wire.TypeMeasure, nil})
	}
	l.mu.Unlock()
	timer := time.NewTimer(measureTimeout)
	defer timer.Stop()
	select {
	case <-told:
	case <-timer.C:
	case <-l.done:
	case <-ctx.Done():
	}
}

// hasMeasured lets go on who waits for it.
func (l *link) hasMeasured() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.measured != nil {
		close(l.measured)
		l.measured = nil
	}
}
