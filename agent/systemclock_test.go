package agent

import (
	"io/fs"
	"testing"
	"time"

	"hawser/board"
	"hawser/board/boardtest"
)

func TestWhoMaySetTheSystemClock(t *testing.T) {
	const hour = time.Hour
	for name, tt := range map[string]struct {
		policy SystemClock
		kept   bool
		source string
		by     time.Duration
		want   move
	}{
		"never":                  {SystemClockNever, false, "signed", hour, moveKeep},
		"nothing said":           {"", false, "signed", hour, moveKeep},
		"auto":                   {SystemClockAuto, false, "signed", hour, moveStep},
		"auto, by sntp":          {SystemClockAuto, false, "sntp", -hour, moveStep},
		"auto, kept by others":   {SystemClockAuto, true, "signed", hour, moveKeep},
		"always, kept by others": {SystemClockAlways, true, "signed", hour, moveStep},
		"always":                 {SystemClockAlways, false, "signed", hour, moveStep},
		"a little":               {SystemClockAuto, false, "signed", 499 * time.Millisecond, moveSlew},
		"a little back":          {SystemClockAuto, false, "signed", -499 * time.Millisecond, moveSlew},
		"next to nothing":        {SystemClockAuto, false, "signed", 9 * time.Millisecond, moveKeep},
		"half a second":          {SystemClockAuto, false, "signed", 500 * time.Millisecond, moveStep},
		"nothing known":          {SystemClockAlways, false, "", hour, moveKeep},
		"its own word":           {SystemClockAlways, false, "hardware", hour, moveKeep},
	} {
		if got := follow(tt.policy, tt.kept, tt.source, tt.by); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

func TestTheSystemClockFollowsAsThePolicySays(t *testing.T) {
	for name, tt := range map[string]struct {
		policy  SystemClock
		kept    bool
		err     error
		set     int // attempts of a day; 2 stands for each time that there is a reason to
		follows bool
	}{
		"never":                {SystemClockNever, false, nil, 0, false},
		"not configured":       {"", false, nil, 0, false},
		"auto":                 {SystemClockAuto, false, nil, 1, true},
		"auto, kept by others": {SystemClockAuto, true, nil, 0, false},
		"auto, not allowed":    {SystemClockAuto, false, fs.ErrPermission, 1, false},
		"auto, not here":       {SystemClockAuto, false, board.ErrNoClock, 1, false},
		"auto, sick battery":   {SystemClockAuto, false, board.ErrHardwareClock, 1, true},
		"always":               {SystemClockAlways, true, nil, 1, true},
		"always, not allowed":  {SystemClockAlways, false, fs.ErrPermission, 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				clock := &boardtest.Clock{Kept: tt.kept, Err: tt.err}
				clock.Give(r.opts.Board)
				r.opts.Config.SystemClock = tt.policy
				r.enrolNow()
				p := r.start()
				p.await(StateAttached, 10*time.Second)
				time.Sleep(day)
				set, _ := clock.Moves()
				if min(len(set), 2) != tt.set {
					t.Errorf("set %d times: %v", len(set), set)
				}
				if off := time.Until(r.opts.Board.Now()).Abs(); (off < time.Second) != tt.follows {
					t.Errorf("the system clock is off by %v", off)
				}
				if off := time.Until(p.clock.Now()).Abs(); off > time.Second {
					t.Errorf("the own clock is off by %v", off)
				}
				p.stop(time.Second)
			})
		})
	}
}

// SNTP and signed time differ by a little from the system's clock: it is slewed.
func TestASmallDifferenceIsSlewed(t *testing.T) {
	bubble(t, func(r *rig) {
		clock := new(boardtest.Clock)
		r.opts.Board = boardtest.New(time.Now().Add(-200 * time.Millisecond))
		clock.Give(r.opts.Board)
		r.opts.Config.SystemClock = SystemClockAuto
		r.enrolNow()
		p := r.start()
		p.await(StateAttached, 10*time.Second)
		time.Sleep(time.Hour)
		if set, slewed := clock.Moves(); len(set) != 0 || len(slewed) != 1 || slewed[0] < 190*time.Millisecond || slewed[0] > 210*time.Millisecond {
			t.Errorf("set to %v, slewed by %v", set, slewed)
		}
		p.stop(time.Second)
	})
}
