package agent

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"hawser/board/boardtest"
	"hawser/identity"
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
		r.enrolNow()
		p := r.start()
		if took := p.await(StateAttached, 10*time.Second); took > 10*time.Second {
			t.Errorf("attached after %v", took)
		}
		time.Sleep(30 * time.Minute) // some rounds of SNTP later
		if st := p.Status().Clock; st.State != ClockAuthentic {
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
	want, state := time.Duration(0), ClockPlausible
	switch {
	case bad >= 3 && colluding:
		want = lie
	case bad >= 3:
		state = ClockUnknown
	}
	st, by := p.Status().Clock, time.Until(p.clock.Now())
	if st.State != state || state == ClockPlausible && (by-want).Abs() > 100*time.Millisecond {
		r.t.Errorf("%s and off by %v, want %s and %v", st.State, by, state, want)
	}
	if state == ClockUnknown && !p.clock.Now().Before(build.Add(time.Hour)) {
		r.t.Errorf("without a majority the clock went to %v", p.clock.Now())
	}
	if floor, _ := p.clock.window(); !floor.Equal(build) {
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
		r.enrolNow()
		r.access.down()
		p := r.start()
		r.until(10*time.Minute, "plausible lie", func() bool { return p.Status().Clock.State == ClockPlausible })
		if off := time.Until(p.clock.Now()); off < 9*365*day {
			t.Fatalf("the lie was not believed: off by %v; so this shows nothing", off)
		}
		lie.Store(0)
		time.Sleep(time.Hour)
		if floor, _ := p.clock.window(); !floor.Equal(build) {
			t.Errorf("the floor went to %v", floor)
		}
		r.access.up()
		p.await(StateAttached, 5*time.Minute)
		if off := time.Until(p.clock.Now()).Abs(); off > 5*time.Second {
			t.Errorf("after one signed time off by %v", off)
		}
		time.Sleep(3 * time.Hour)
		if st := p.Status().Clock; st.State != ClockAuthentic {
			t.Errorf("the clock is %+v", st)
		}
		p.stop(time.Second)
	})
}

// SNTP says a time before the newest signed one: nothing can come of it, and
// yet an operator must hear of it.
func TestTimeServersBeforeTheFloorAreAConflict(t *testing.T) {
	for name, tt := range map[string]struct {
		off  time.Duration
		want ClockState
	}{
		"a year":      {-365 * day, ClockConflict},
		"two minutes": {-2 * time.Minute, ClockConflict},
		"ten seconds": {-10 * time.Second, ClockAuthentic},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				timeServers(r, 4, func(int) time.Duration { return tt.off })
				r.enrolNow()
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
				if got := r.notes.count(warning) == 1; got != (tt.want == ClockConflict) {
					t.Errorf("warned %d times", r.notes.count(warning))
				}
				p.stop(time.Second)
			})
		})
	}
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
					pushed += a.discipline(plausible(a.clock, said), 4).cost
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
		if again := must(New(r.opts))(t); again.clock.spent != 0 {
			t.Errorf("after signed time %v are spent", again.clock.spent)
		}
	})
}
