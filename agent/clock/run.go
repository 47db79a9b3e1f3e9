package clock

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"hawser/board"
	"hawser/internal/wait"
	"hawser/probe"
)

// Policy says whether the Runtime sets the machine's clock (time §6.3).
type Policy string

// The values of time.set_system_clock.
const (
	Never  Policy = "never"
	Auto   Policy = "auto"
	Always Policy = "always"
)

// ParsePolicy reads a value of time.set_system_clock.
func ParsePolicy(s string) (Policy, error) {
	switch p := Policy(s); p {
	case Never, Auto, Always:
		return p, nil
	}
	return "", fmt.Errorf("%.64q: want auto, always or never", s)
}

// Run asks the SNTP sources and sets the machine's clock as Policy says, until ctx ends. It returns when both loops have
// returned.
func (c *Clock) Run(ctx context.Context) {
	var both sync.WaitGroup
	both.Go(func() { c.ask(ctx) })
	both.Go(func() { c.followUp(ctx) })
	both.Wait()
}

// ask makes rounds of SNTP, on the schedule of time §6.2. Sources are asked for before each round, because those of the
// site come with a DHCP lease, which may be later than the start.
func (c *Clock) ask(ctx context.Context) {
	sntp := &probe.SNTP{Resolve: c.o.Resolve, Dial: c.o.Dial, Now: c.ticks}
	var plan schedule
	for ctx.Err() == nil {
		plan = plan.with(c.o.Sources())
		sources := len(plan.sources)
		if sources == 0 {
			return // none is configured, and the site's servers alone are not believed
		}
		sent := c.o.Board.Uptime()
		samples := sntp.Round(ctx, plan.due(sent))
		if ctx.Err() != nil {
			return
		}
		floor, ceiling := c.comparable()
		again := c.Round(probe.Combine(samples, sources, floor, ceiling), sources)
		plan = plan.next(sent, samples, again)
		wait.Sleep(ctx, plan.pause(c.o.Board.Uptime(), float64(wait.Random(1<<20))/(1<<20)))
	}
}

// followUp logs changes of the state, and sets the machine's clock after each time that was taken.
func (c *Clock) followUp(ctx context.Context) {
	policy, last := c.o.Policy, c.Status().State
	for {
		select {
		case <-c.heard:
		case <-ctx.Done():
			return
		}
		if now := c.Status(); now.State != last {
			last = now.State
			c.report(now)
			c.o.Changed()
		}
		if !c.setMachine(policy) {
			policy = Never
		}
	}
}

func (c *Clock) report(now Status) {
	if now.State == Conflict {
		c.o.Log.Warn("time servers contradict the signed time: it is used, they are not", "state", now.State)
		return
	}
	c.o.Log.Info("clock", "state", now.State, "source", now.Source, "by", time.Duration(now.OffsetMS)*time.Millisecond)
}

// follow decides how to change the machine's clock, which is behind this one by by. It is pure. While source is empty
// or hardware, this clock has no better time than the machine's. The caller reads the three clocks; so each line of
// time §6.3 is a line of a test's table.
func follow(policy Policy, kept bool, source string, by time.Duration) move {
	switch {
	case policy != Always && policy != Auto, policy == Auto && kept,
		source == "" || source == "hardware", by.Abs() < leastMove:
		return moveKeep
	case by.Abs() < slewUnder:
		return moveSlew
	}
	return moveStep
}

const leastMove = 10 * time.Millisecond // as good as SNTP is over a mobile network

// setMachine sets the machine's clock to this one. More is false when trying again is of no use.
func (c *Clock) setMachine(policy Policy) (more bool) {
	if policy != Always && policy != Auto {
		return true
	}
	kept, err := c.o.Board.ClockKept()
	if err != nil {
		c.o.Log.Debug("who keeps the system clock is not known", "err", err)
	}
	to := c.Now()
	by := to.Sub(c.o.Board.Now())
	did := follow(policy, kept, c.Status().Source, by)
	switch did {
	case moveSlew:
		err = c.o.Board.SlewClock(by)
	case moveStep:
		err = c.o.Board.SetClock(to)
	default:
		return true
	}
	switch {
	case err == nil:
		c.o.Log.Info("system clock follows", "does", did, "by", by)
	case errors.Is(err, board.ErrHardwareClock):
		c.o.Log.Warn("system clock follows, hardware clock does not", "does", did, "by", by, "err", err)
	case errors.Is(err, board.ErrNoClock) && did == moveSlew: // cannot slew: it is stepped later, when the difference is large enough
	case policy == Auto:
		c.o.Log.Info("system clock is left alone", "err", err)
		return false
	default:
		c.o.Log.Error("set system clock", "err", err)
	}
	return true
}
