package agent

import (
	"errors"
	"time"

	"hawser/identity"
)

// errNotLower and errReplayed refuse a floor reset (time §6.4).
var (
	errNotLower = errors.New("the floor is not after that already")
	errReplayed = errors.New("a reset as new as this one was taken before")
)

// resetFloor takes a verified floor reset (time §6.4), or says why it does not.
// What makes it count only once is stored before it does anything.
func (a *Agent) resetFloor(r identity.FloorReset) error {
	to := later(a.clock.build, r.To)
	before, _ := a.clock.window()
	if !to.Before(before) {
		return errNotLower
	}
	if err := a.store.resetFloor(to, r.Sequence); err != nil {
		return err
	}
	a.clock.resetFloor(to)
	a.log.Warn("floor was reset by the root", "floor", to, "before", before)
	return nil
}

// resetFloor stores a lower anchor, unless a reset as new was taken before.
func (s *store) resetFloor(to time.Time, sequence uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sequence <= s.saved.Reset {
		return errReplayed
	}
	before := s.saved
	s.saved.Anchor, s.saved.Reset = to, sequence
	err := s.writeLocked()
	if err != nil {
		s.saved = before
	}
	return err
}

// resetFloor lowers F and forgets every time that was heard: all of it was after
// a floor that was wrong.
func (c *Clock) resetFloor(to time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.floor, c.lowered = to, &to
	c.own, c.slew = lineThrough(to, c.uptime()), slew{}
	c.state, c.source, c.offset = ClockUnknown, "", 0
	c.signed, c.sntp, c.impossible = line{}, line{}, false
	c.told.ring()
}
