package clock

import (
	"context"
	"io/fs"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hawser/board"
	"hawser/board/boardtest"
	"hawser/identity"
)

func TestWhoMaySetTheSystemClock(t *testing.T) {
	const hour = time.Hour
	for name, tt := range map[string]struct {
		policy Policy
		kept   bool
		source string
		by     time.Duration
		want   move
	}{
		"never":                  {Never, false, "signed", hour, moveKeep},
		"nothing said":           {"", false, "signed", hour, moveKeep},
		"auto":                   {Auto, false, "signed", hour, moveStep},
		"auto, by sntp":          {Auto, false, "sntp", -hour, moveStep},
		"auto, kept by others":   {Auto, true, "signed", hour, moveKeep},
		"always, kept by others": {Always, true, "signed", hour, moveStep},
		"always":                 {Always, false, "signed", hour, moveStep},
		"a little":               {Auto, false, "signed", 499 * time.Millisecond, moveSlew},
		"a little back":          {Auto, false, "signed", -499 * time.Millisecond, moveSlew},
		"next to nothing":        {Auto, false, "signed", 9 * time.Millisecond, moveKeep},
		"half a second":          {Auto, false, "signed", 500 * time.Millisecond, moveStep},
		"nothing known":          {Always, false, "", hour, moveKeep},
		"its own word":           {Always, false, "hardware", hour, moveKeep},
	} {
		if got := follow(tt.policy, tt.kept, tt.source, tt.by); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

func TestTheSystemClockFollowsAsThePolicySays(t *testing.T) {
	for name, tt := range map[string]struct {
		policy  Policy
		kept    bool
		err     error
		set     int // attempts of a day; 2 stands for each time that there is a reason to
		follows bool
	}{
		"never":                {Never, false, nil, 0, false},
		"not configured":       {"", false, nil, 0, false},
		"auto":                 {Auto, false, nil, 1, true},
		"auto, kept by others": {Auto, true, nil, 0, false},
		"auto, not allowed":    {Auto, false, fs.ErrPermission, 1, false},
		"auto, not here":       {Auto, false, board.ErrNoClock, 1, false},
		"auto, sick battery":   {Auto, false, board.ErrHardwareClock, 1, true},
		"always":               {Always, true, nil, 1, true},
		"always, not allowed":  {Always, false, fs.ErrPermission, 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				machine := &boardtest.Clock{Kept: tt.kept, Err: tt.err}
				b := boardtest.New(time.Unix(0, 0))
				machine.Give(b)
				c := runTestClock(t, b, tt.policy)
				for range 3 {
					signNow(t, c)
					time.Sleep(12 * time.Hour)
				}
				set, _ := machine.Moves()
				if min(len(set), 2) != tt.set {
					t.Errorf("set %d times: %v", len(set), set)
				}
				if off := time.Until(b.Now()).Abs(); (off < time.Second) != tt.follows {
					t.Errorf("the system clock is off by %v", off)
				}
				if off := time.Until(c.Now()).Abs(); off > time.Second {
					t.Errorf("the clock is off by %v", off)
				}
			})
		})
	}
}

// Signed time differs by a little from the system's clock: it is slewed.
func TestASmallDifferenceIsSlewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		machine := new(boardtest.Clock)
		b := boardtest.New(time.Now().Add(-200 * time.Millisecond))
		machine.Give(b)
		c := runTestClock(t, b, Auto)
		signNow(t, c)
		time.Sleep(time.Hour)
		if set, slewed := machine.Moves(); len(set) != 0 || len(slewed) != 1 || slewed[0] < 190*time.Millisecond || slewed[0] > 210*time.Millisecond {
			t.Errorf("set to %v, slewed by %v", set, slewed)
		}
	})
}

// runTestClock is a clock of this moment that runs until the end of the bubble, without SNTP sources.
func runTestClock(t *testing.T, b *board.Board, policy Policy) *Clock {
	c := New(Options{Build: time.Now().Add(-180 * day), Board: b, Store: new(memory), Policy: policy,
		Sources: func() []string { return nil }, Log: slog.New(slog.DiscardHandler), Changed: func() {}})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return c
}

func signNow(t *testing.T, c *Clock) {
	t.Helper()
	if err := c.Signed(identity.SignedTime{Time: time.Now()}, 0); err != nil {
		t.Fatal(err)
	}
}
