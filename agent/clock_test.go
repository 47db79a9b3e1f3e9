package agent

import (
	"fmt"
	"testing"
	"time"

	"hawser/board/boardtest"
	"hawser/identity"
	"hawser/probe"
	"hawser/transport"
)

var build = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// ticker is an uptime that a test winds by hand.
type ticker struct{ now time.Duration }

func (t *ticker) uptime() time.Duration { return t.now }

func newTestClock(anchor, wall time.Time) (*Clock, *ticker) {
	t := &ticker{3 * time.Minute}
	return newClock(build, anchor, wall, t.uptime, 0), t
}

func plausible(c *Clock, at time.Time) probe.Verdict {
	return probe.Verdict{Plausible: true, Time: at, Received: c.ticks()}
}

func TestTheClockBeginsAtTheWallClockOrAtItsFloor(t *testing.T) {
	anchor := build.AddDate(1, 0, 0)
	ceiling := build.AddDate(15, 0, 0)
	for name, tt := range map[string]struct {
		anchor, wall time.Time
		want         time.Time
		state        ClockState
	}{
		"1970":                      {time.Time{}, time.Unix(0, 0), build, ClockUnknown},
		"2000":                      {time.Time{}, time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), build, ClockUnknown},
		"2000 with an anchor":       {anchor, time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), anchor, ClockUnknown},
		"year 1":                    {time.Time{}, time.Time{}, build, ClockUnknown},
		"between build, anchor":     {anchor, build.AddDate(0, 6, 0), anchor, ClockUnknown},
		"at the floor":              {time.Time{}, build, build, ClockPlausible},
		"in range":                  {anchor, anchor.AddDate(2, 0, 0), anchor.AddDate(2, 0, 0), ClockPlausible},
		"at the ceiling":            {time.Time{}, ceiling, ceiling, ClockPlausible},
		"beyond the ceiling":        {anchor, ceiling.Add(time.Second), anchor, ClockUnknown},
		"anchor before build":       {build.AddDate(-1, 0, 0), time.Unix(0, 0), build, ClockUnknown},
		"beyond 32-bit unix (2106)": {time.Time{}, time.Unix(1<<32, 0), build, ClockUnknown},
	} {
		c, up := newTestClock(tt.anchor, tt.wall)
		if got := c.Now(); !got.Equal(tt.want) {
			t.Errorf("%s: now %v, want %v", name, got, tt.want)
		}
		if got := c.Status().State; got != tt.state {
			t.Errorf("%s: %s, want %s", name, got, tt.state)
		}
		up.now += time.Hour
		if got := c.Now(); !got.Equal(tt.want.Add(time.Hour)) {
			t.Errorf("%s: an hour later %v, want %v", name, got, tt.want.Add(time.Hour))
		}
		if _, authentic := c.Floor(); authentic {
			t.Errorf("%s: authentic from the start", name)
		}
	}
}

// Each step is one event and the state after it (time §6).
func TestClockStates(t *testing.T) {
	now := build.AddDate(0, 3, 0)
	type step struct {
		what string
		do   func(c *Clock, at time.Time) error
		want ClockState
		at   time.Duration // of the clock against the truth afterwards
	}
	sntp := func(off time.Duration) func(*Clock, time.Time) error {
		return func(c *Clock, at time.Time) error { c.Round(plausible(c, at.Add(off)), 4, stepBudget); return nil }
	}
	signed := func(c *Clock, at time.Time) error {
		return c.Signed(identity.SignedTime{Time: at.Add(-50 * time.Millisecond)}, 100*time.Millisecond)
	}
	noMajority := func(c *Clock, _ time.Time) error {
		c.Round(probe.Verdict{Time: now.AddDate(1, 0, 0)}, 4, stepBudget)
		return nil
	}
	for name, steps := range map[string][]step{
		"the usual way": {
			{"no majority", noMajority, ClockUnknown, build.Sub(now)},
			{"sntp", sntp(time.Second), ClockPlausible, time.Second},
			{"sntp changes its mind", sntp(-time.Second), ClockPlausible, time.Second},
			{"sntp corrects itself", sntp(-time.Second), ClockPlausible, -time.Second},
			{"signed", signed, ClockAuthentic, 0},
			{"sntp agrees", sntp(59 * time.Second), ClockAuthentic, 0},
			{"signed again", signed, ClockAuthentic, 0},
		},
		"signed before any sntp": {
			{"signed", signed, ClockAuthentic, 0},
			{"no majority", noMajority, ClockAuthentic, 0},
		},
		"sntp lies first": {
			{"sntp lies", sntp(2 * time.Hour), ClockPlausible, 2 * time.Hour},
			{"signed", signed, ClockConflict, 0},
			{"signed again", signed, ClockConflict, 0},
			{"sntp agrees at last", sntp(0), ClockAuthentic, 0},
		},
		"sntp lies later": {
			{"signed", signed, ClockAuthentic, 0},
			{"sntp lies", sntp(61 * time.Second), ClockConflict, 0},
			{"sntp lies below the floor", sntp(-time.Hour), ClockConflict, 0},
			{"no majority", noMajority, ClockConflict, 0},
			{"sntp agrees", sntp(0), ClockAuthentic, 0},
		},
		"sntp out of range": {
			{"before the floor", sntp(build.Sub(now) - time.Hour), ClockUnknown, build.Sub(now)},
			{"beyond the ceiling", sntp(16 * 365 * day), ClockUnknown, build.Sub(now)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := newTestClock(time.Time{}, time.Unix(0, 0))
			for _, s := range steps {
				floor, ceiling := c.window()
				if err := s.do(c, now); err != nil {
					t.Fatalf("%s: %v", s.what, err)
				}
				st := c.Status()
				if got := c.Now().Sub(now); st.State != s.want || got != s.at {
					t.Errorf("%s: %s and %v off, want %s and %v", s.what, st.State, got, s.want, s.at)
				}
				if _, authentic := c.Floor(); authentic != (s.want == ClockAuthentic || s.want == ClockConflict) {
					t.Errorf("%s: authentic %v in %s", s.what, authentic, s.want)
				}
				newFloor, newCeiling := c.window()
				if isSigned := st.Source == "signed" && s.what[:2] == "si"; !isSigned && !newFloor.Equal(floor) || !newCeiling.Equal(ceiling) {
					t.Errorf("%s: floor %v became %v", s.what, floor, newFloor)
				}
			}
		})
	}
}

func TestAHardwareClockThatDiffersIsNoConflict(t *testing.T) {
	c, _ := newTestClock(time.Time{}, build.Add(800*day))
	if err := c.Signed(identity.SignedTime{Time: build.Add(400 * day)}, 0); err != nil {
		t.Fatal(err)
	}
	if st := c.Status(); st.State != ClockAuthentic || st.OffsetMS != -400*day.Milliseconds() || !c.Now().Equal(build.Add(400*day)) {
		t.Errorf("status %+v, now %v", st, c.Now())
	}
}

func TestSignedTimeBeforeTheFloorIsRefused(t *testing.T) {
	t.Attr("id", "A1-refuse")
	anchor := build.AddDate(0, 1, 0)
	for name, tt := range map[string]struct {
		at   time.Time
		good bool
	}{
		"far before":   {build, false},
		"6 s before":   {anchor.Add(-6 * time.Second), false},
		"4 s before":   {anchor.Add(-4 * time.Second), true},
		"at the floor": {anchor, true},
		"years after":  {anchor.AddDate(10, 0, 0), true},
		"year 1":       {time.Time{}, false},
	} {
		c, _ := newTestClock(anchor, time.Unix(0, 0))
		before := c.Status()
		err := c.Signed(identity.SignedTime{Time: tt.at}, 0)
		if (err == nil) != tt.good {
			t.Errorf("%s: %v", name, err)
		}
		if floor, _ := c.window(); floor.Before(anchor) {
			t.Errorf("%s: the floor fell to %v", name, floor)
		}
		if tt.good {
			continue
		}
		if transport.ReasonOf(err) != transport.BadTime || c.Status() != before || !c.Now().Equal(anchor) {
			t.Errorf("%s: reason %q, status %+v, now %v", name, transport.ReasonOf(err), c.Status(), c.Now())
		}
	}
}

func TestTheClockNeverReadsBeforeItsFloor(t *testing.T) {
	c, _ := newTestClock(build.Add(10*time.Second), time.Unix(0, 0))
	if err := c.Signed(identity.SignedTime{Time: build.Add(6 * time.Second)}, 0); err != nil {
		t.Fatal(err)
	}
	if floor, _ := c.window(); c.Now().Before(floor) {
		t.Errorf("now %v, floor %v", c.Now(), floor)
	}
}

// A daemon, an operator or a battery steps the wall clock under a running agent.
func TestASteppedWallClockChangesNothing(t *testing.T) {
	t.Attr("id", "K9")
	steps := []time.Duration{day, -day, 40 * 365 * day, -60 * 365 * day}
	t.Attr("cases", fmt.Sprint(len(steps)))
	for _, step := range steps {
		bubble(t, func(r *rig) {
			r.enrolNow()
			board := boardtest.New(time.Now())
			wall, stepped := board.Now, time.Duration(0)
			board.Now = func() time.Time { return wall().Add(stepped) }
			r.opts.Board = board
			p := r.start()
			p.await(StateAttached, 10*time.Second)
			before := p.Status()
			stepped = step
			time.Sleep(3 * time.Hour)
			after := p.Status()
			if after.State != StateAttached || !after.Since.Equal(before.Since) || after.Clock != before.Clock || r.notes.count("online") != 1 {
				t.Errorf("before %+v, after %+v", before, after)
			}
			if off := time.Until(p.clock.Now()).Abs(); off > time.Second {
				t.Errorf("off by %v", off)
			}
			p.stop(time.Second)
		})
	}
}

func TestASteppedWallClockEndsNoSession(t *testing.T) {
	t.Attr("id", "K9")
	steps := []time.Duration{day, -2 * day, 40 * 365 * day}
	t.Attr("cases", fmt.Sprint(len(steps)))
	attachedRig(t, func(r *rig, p *process, l *link, m *manager) {
		s := m.open(l, p, "s1", "tcp")
		defer s.Close()
		since := p.Status().Since
		for _, step := range steps {
			r.opts.Board.SetClock(r.opts.Board.Now().Add(step))
			time.Sleep(time.Hour) // many heartbeats
			stream, reason := openTCP(r, s, "192.168.10.20:502")
			if reason != "" {
				t.Fatalf("after a step by %v no stream: %s", step, reason)
			}
			echoes(t, stream)
		}
		if st := p.Status(); len(st.Sessions) != 1 || st.State != StateAttached || !st.Since.Equal(since) {
			t.Errorf("status %+v, attached since %v", st, since)
		}
		if dates := p.self.Load().Cert.Leaf; p.clock.Now().After(dates.NotAfter) || p.clock.Now().Before(dates.NotBefore) {
			t.Errorf("the own certificate seems to be over at %v", p.clock.Now())
		}
	})
}

func TestTheAnchorSurvivesARestart(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrolNow()
		p := r.start()
		p.await(StateAttached, 10*time.Second)
		time.Sleep(3*day + time.Hour)
		p.stop(time.Second)
		a := must(New(r.opts))(t) // its wall clock still says 1970
		if floor, _ := a.clock.window(); time.Since(floor) > 2*day || time.Since(floor) < 0 {
			t.Errorf("the floor is %v old", time.Since(floor))
		}
		if st := a.clock.Status(); st.State != ClockUnknown {
			t.Errorf("a saved time is %s", st.State)
		}
		r.access.set(func() { r.access.now = func() time.Time { return time.Now().Add(-2 * day) } })
		p = r.start()
		r.until(time.Minute, "refusal", func() bool { return r.notes.count("will try again") > 0 })
		if got := r.notes.values("will try again", "reason"); got[0] != string(transport.BadTime) {
			t.Errorf("reasons %q", got)
		}
		if n := len(r.access.links); n != 1 {
			t.Errorf("%d links, and one was of the first run", n)
		}
		p.stop(time.Second)
	})
}
