package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hawser/board"
)

// SystemClock says whether the Runtime sets the machine's clock (time §6.3).
type SystemClock string

// The values of time.set_system_clock.
const (
	SystemClockNever  SystemClock = "never"
	SystemClockAuto   SystemClock = "auto"
	SystemClockAlways SystemClock = "always"
)

// parseSystemClock reads a value of time.set_system_clock.
func parseSystemClock(s string) (SystemClock, error) {
	switch c := SystemClock(s); c {
	case SystemClockNever, SystemClockAuto, SystemClockAlways:
		return c, nil
	}
	return "", fmt.Errorf("%.64q: want auto, always or never", s)
}

// followClock reports what becomes of the clock, and makes the system's clock
// follow it, until ctx ends.
func (a *Agent) followClock(ctx context.Context) {
	policy, last := a.Config.SystemClock, a.clock.Status().State
	for {
		select {
		case <-a.clock.told:
		case <-ctx.Done():
			return
		}
		if now := a.clock.Status(); now.State != last {
			last = now.State
			a.reportClock(now)
			a.status.told.ring()
		}
		if !a.setSystemClock(policy) {
			policy = SystemClockNever
		}
	}
}

func (a *Agent) reportClock(now ClockStatus) {
	if now.State == ClockConflict {
		a.log.Warn("time servers contradict the signed time: it is used, they are not", "state", now.State)
		return
	}
	a.log.Info("clock", "state", now.State, "source", now.Source, "by", time.Duration(now.OffsetMS)*time.Millisecond)
}

// follow decides what is done to the system's clock when it lies by behind the
// own one. It is pure. The source is empty or hardware while nobody else has
// told the time.
func follow(policy SystemClock, kept bool, source string, by time.Duration) move {
	switch {
	case policy != SystemClockAlways && policy != SystemClockAuto, policy == SystemClockAuto && kept,
		source == "" || source == "hardware", by.Abs() < leastMove:
		return moveKeep
	case by.Abs() < slewUnder:
		return moveSlew
	}
	return moveStep
}

const leastMove = 10 * time.Millisecond // as good as SNTP is over a mobile network

// setSystemClock makes the system's clock follow the own one; more is false
// when there is no sense in trying again.
func (a *Agent) setSystemClock(policy SystemClock) (more bool) {
	if policy != SystemClockAlways && policy != SystemClockAuto {
		return true
	}
	kept, err := a.board.ClockKept()
	if err != nil {
		a.log.Debug("who keeps the system clock is not known", "err", err)
	}
	to := a.clock.Now()
	by := to.Sub(a.board.Now())
	did := follow(policy, kept, a.clock.Status().Source, by)
	switch did {
	case moveSlew:
		err = a.board.SlewClock(by)
	case moveStep:
		err = a.board.SetClock(to)
	default:
		return true
	}
	switch {
	case err == nil:
		a.log.Info("system clock follows", "does", did, "by", by)
	case errors.Is(err, board.ErrHardwareClock):
		a.log.Warn("system clock follows, hardware clock does not", "does", did, "by", by, "err", err)
	case errors.Is(err, board.ErrNoClock) && did == moveSlew: // it can wait until a step is due
	case policy == SystemClockAuto:
		a.log.Info("system clock is left alone", "err", err)
		return false
	default:
		a.log.Error("set system clock", "err", err)
	}
	return true
}
