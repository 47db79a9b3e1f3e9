package agent

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"hawser/agent/clock"
	"hawser/board"
	"hawser/board/boardtest"
	"hawser/identity"
	"hawser/probe"
	"hawser/transport"
	"hawser/transport/accesstest"
)

// instants are where clocks have been found, and where they break.
func instants() map[string]time.Time {
	return map[string]time.Time{
		"1970":                      time.Unix(0, 0),
		"2000":                      time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		"a day before the build":    build.Add(-day),
		"ten years on":              build.AddDate(10, 0, 0),
		"last second of NTP era 0":  time.Date(2036, 2, 7, 6, 28, 15, 0, time.UTC),
		"first second of NTP era 1": time.Date(2036, 2, 7, 6, 28, 16, 0, time.UTC),
		"last of 31-bit Unix time":  time.Unix(1<<31-1, 0),
		"2038":                      time.Unix(1<<31, 0),
		"last of 32-bit Unix time":  time.Unix(1<<32-1, 0),
		"2106":                      time.Unix(1<<32, 0),
	}
}

// timeServers configures n time servers; number i is off by off(i) whenever it is asked.
func timeServers(r *rig, n int, off func(i int) time.Duration) {
	for i := range n {
		addr := fmt.Sprintf("203.0.113.%d", i+1)
		r.opts.Config.Time = append(r.opts.Config.Time, addr)
		serveTime(r, addr, func() time.Duration { return off(i) })
	}
}

func honest(int) time.Duration { return 0 }

// Whatever the board's clock says, and at whatever instant that is.
func TestTheClockIsAuthenticSoonFromAnyInstant(t *testing.T) {
	t.Attr("id", "K1")
	t.Attr("cases", fmt.Sprint(2*len(instants())))
	truth := build.AddDate(0, 6, 0)
	for name, wall := range instants() {
		t.Run("board at "+name, func(t *testing.T) { soonAuthentic(t, truth, wall) })
	}
	for name, at := range instants() {
		if at.Before(build) {
			at = build // the program cannot be older than itself
		}
		t.Run("in truth "+name, func(t *testing.T) { soonAuthentic(t, at, time.Unix(0, 0)) })
	}
}

// soonAuthentic boots a gateway of 2026 at a true time with its board's clock at wall.
func soonAuthentic(t *testing.T, truth, wall time.Time) {
	bubbleAt(t, truth, func(r *rig) {
		r.opts.Build, r.opts.Board = build, boardtest.New(wall)
		timeServers(r, 4, honest)
		r.enrollNow()
		p := r.start()
		if took := p.await(StateAttached, 10*time.Second); took > 10*time.Second {
			t.Errorf("attached after %v", took)
		}
		time.Sleep(30 * time.Minute) // some rounds of SNTP later
		if st := p.Status().Clock; st.State != clock.Authentic {
			t.Errorf("the clock is %+v", st)
		}
		if off := time.Until(p.clock.Now()).Abs(); off > 5*time.Second {
			t.Errorf("off by %v", off)
		}
		p.stop(time.Second)
	})
}

// Five sources, of which some lie, before any signed time.
func TestAMajorityOfTimeServersIsBelievedAndNoOther(t *testing.T) {
	t.Attr("id", "K2")
	lies := []time.Duration{time.Second, time.Hour, 10 * 365 * day}
	t.Attr("cases", fmt.Sprint(6*len(lies)*2))
	for _, lie := range lies {
		for bad := range 6 {
			for _, colluding := range []bool{true, false} {
				off := func(i int) time.Duration {
					switch {
					case i >= bad:
						return 0
					case colluding:
						return lie
					}
					return lie * time.Duration(i+1) // each another one
				}
				t.Run(fmt.Sprintf("%d lie by %v, colluding %v", bad, lie, colluding), func(t *testing.T) {
					bubbleAt(t, build.AddDate(0, 3, 0), func(r *rig) { believed(r, bad, colluding, lie, off) })
				})
			}
		}
	}
}

func believed(r *rig, bad int, colluding bool, lie time.Duration, off func(int) time.Duration) {
	r.opts.Build = build
	timeServers(r, 5, off)
	r.opts.Config.Access = nil // whose hosts are sources, too
	p := r.start()
	time.Sleep(10 * time.Minute)
	want, state := time.Duration(0), clock.Plausible
	switch {
	case bad >= 3 && colluding:
		want = lie
	case bad >= 3:
		state = clock.Unknown
	}
	st, by := p.Status().Clock, time.Until(p.clock.Now())
	if st.State != state || state == clock.Plausible && (by-want).Abs() > 100*time.Millisecond {
		r.t.Errorf("%s and off by %v, want %s and %v", st.State, by, state, want)
	}
	if state == clock.Unknown && !p.clock.Now().Before(build.Add(time.Hour)) {
		r.t.Errorf("without a majority the clock went to %v", p.clock.Now())
	}
	if floor, _ := p.clock.Anchor(); !floor.Equal(build) {
		r.t.Errorf("the floor went to %v", floor)
	}
	if err := p.clock.Signed(identity.SignedTime{Time: time.Now()}, 0); err != nil {
		r.t.Errorf("signed time is refused: %v", err)
	}
	if off := time.Until(p.clock.Now()).Abs(); off > 5*time.Second {
		r.t.Errorf("after signed time off by %v", off)
	}
	p.stop(time.Second)
}

// All sources say ten years on while there is no server; then comes the truth.
func TestTimeServersThatLiedAreCorrectedByOneSignedTime(t *testing.T) {
	t.Attr("id", "K6")
	bubbleAt(t, build.AddDate(0, 3, 0), func(r *rig) {
		var lie atomic.Int64
		lie.Store(int64(10 * 365 * day))
		r.opts.Build = build
		timeServers(r, 4, func(int) time.Duration { return time.Duration(lie.Load()) })
		r.enrollNow()
		r.access.Down()
		p := r.start()
		r.until(10*time.Minute, "plausible lie", func() bool { return p.Status().Clock.State == clock.Plausible })
		if off := time.Until(p.clock.Now()); off < 9*365*day {
			t.Fatalf("the lie was not believed: off by %v; so this shows nothing", off)
		}
		lie.Store(0)
		time.Sleep(time.Hour)
		if floor, _ := p.clock.Anchor(); !floor.Equal(build) {
			t.Errorf("the floor went to %v", floor)
		}
		r.access.Up()
		p.await(StateAttached, 5*time.Minute)
		if off := time.Until(p.clock.Now()).Abs(); off > 5*time.Second {
			t.Errorf("after one signed time off by %v", off)
		}
		time.Sleep(3 * time.Hour)
		if st := p.Status().Clock; st.State != clock.Authentic {
			t.Errorf("the clock is %+v", st)
		}
		p.stop(time.Second)
	})
}

// SNTP says a time before the newest signed one: nothing can come of it, and
// yet somebody must hear of it.
func TestTimeServersBeforeTheFloorAreAConflict(t *testing.T) {
	for name, tt := range map[string]struct {
		off  time.Duration
		want clock.State
	}{
		"a year":      {-365 * day, clock.Conflict},
		"two minutes": {-2 * time.Minute, clock.Conflict},
		"ten seconds": {-10 * time.Second, clock.Authentic},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				timeServers(r, 4, func(int) time.Duration { return tt.off })
				r.enrollNow()
				p := r.start()
				p.await(StateAttached, 10*time.Second)
				time.Sleep(30 * time.Second)
				st := p.Status()
				if st.Clock.State != tt.want || st.State != StateAttached {
					t.Errorf("%s, clock %+v", st.State, st.Clock)
				}
				if off := time.Until(p.clock.Now()).Abs(); off > time.Second {
					t.Errorf("off by %v", off)
				}
				const warning = "time servers contradict the signed time: it is used, they are not"
				if got := r.notes.count(warning) == 1; got != (tt.want == clock.Conflict) {
					t.Errorf("warned %d times", r.notes.count(warning))
				}
				p.stop(time.Second)
			})
		})
	}
}

const stepBudget = 1000 * time.Second // time §6.1

// plausible is a verdict of SNTP sources about this moment.
func plausible(b *board.Board, at time.Time) probe.Verdict {
	return probe.Verdict{Plausible: true, Time: at, Received: time.Unix(0, 0).Add(b.Uptime())}
}

// SNTP pushes the clock on, a minute at a time, and the gateway is switched off
// and on in between: the step budget is one for all of it.
func TestTheStepBudgetSurvivesRestarts(t *testing.T) {
	bubble(t, func(r *rig) {
		r.opts.Board = boardtest.New(time.Now()) // a battery: plausible from the start
		a := must(New(r.opts))(t)
		pushed := time.Duration(0)
		for boot := range 40 {
			for range 3 {
				said := a.clock.Now().Add(50 * time.Second)
				for range 2 {
					before := a.clock.Now()
					a.clock.Round(plausible(r.opts.Board, said), 4)
					pushed += a.clock.Now().Sub(before)
				}
			}
			if boot%2 == 0 {
				a = must(New(r.opts))(t)
			}
		}
		if pushed > stepBudget || pushed < stepBudget/2 {
			t.Errorf("pushed by %v in all, the budget is %v", pushed, stepBudget)
		}
		if err := a.clock.Signed(identity.SignedTime{Time: time.Now().Add(time.Hour)}, 0); err != nil {
			t.Fatal(err)
		}
		a.saveState()
		if _, spent := must(New(r.opts))(t).clock.Anchor(); spent != 0 {
			t.Errorf("after signed time %v are spent", spent)
		}
	})
}

// A daemon, an operator or a battery steps the wall clock under a running agent.
func TestASteppedWallClockChangesNothing(t *testing.T) {
	t.Attr("id", "K9")
	steps := []time.Duration{day, -day, 40 * 365 * day, -60 * 365 * day}
	t.Attr("cases", fmt.Sprint(len(steps)))
	for _, step := range steps {
		bubble(t, func(r *rig) {
			r.enrollNow()
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
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
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
			t.Errorf("the certificate seems to have expired at %v", p.clock.Now())
		}
	})
}

func TestTheAnchorSurvivesARestart(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrollNow()
		p := r.start()
		p.await(StateAttached, 10*time.Second)
		time.Sleep(3*day + time.Hour)
		p.stop(time.Second)
		a := must(New(r.opts))(t) // its wall clock still says 1970
		if floor, _ := a.clock.Anchor(); time.Since(floor) > 2*day || time.Since(floor) < 0 {
			t.Errorf("the floor is %v old", time.Since(floor))
		}
		if st := a.clock.Status(); st.State != clock.Unknown {
			t.Errorf("a saved time is %s", st.State)
		}
		r.access.Set(func() { r.access.Now = func() time.Time { return time.Now().Add(-2 * day) } })
		p = r.start()
		r.until(time.Minute, "refusal", func() bool { return r.notes.count("will try again") > 0 })
		if got := r.notes.values("will try again", "reason"); got[0] != string(transport.BadTime) {
			t.Errorf("reasons %q", got)
		}
		if n := len(r.access.Links); n != 1 {
			t.Errorf("%d links, and one was of the first run", n)
		}
		p.stop(time.Second)
	})
}
