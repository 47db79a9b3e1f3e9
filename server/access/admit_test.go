package access

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hawser/internal/wait"
	"hawser/transport"
	"hawser/transport/wire"
)

func TestExpectedWait(t *testing.T) {
	slow, fast := pace{20 * time.Millisecond}, pace{time.Millisecond}
	for what, c := range map[string]struct {
		inside    int
		looking   pace
		unwritten int
		writing   pace
		want      time.Duration
	}{
		"nobody":                     {0, slow, 0, slow, 0},
		"nothing known":              {5000, pace{}, 5000, pace{}, 0},
		"few, however slow":          {freeEntries - 1, pace{time.Minute}, freeEntries - 1, pace{time.Minute}, 0},
		"many inside":                {100, slow, 0, pace{}, 2 * time.Second},
		"many rows":                  {0, fast, 1000, fast, time.Second},
		"both, one after the other":  {100, slow, 1000, fast, 3 * time.Second},
		"rows of a database at rest": {3, fast, 1000, pace{}, 0},
	} {
		if got := expectedWait(c.inside, c.looking, c.unwritten, c.writing); got != c.want {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
}

func TestPaceFollows(t *testing.T) {
	var p pace
	p.took(0, time.Hour, 16)
	p.took(4, 40*time.Millisecond, 16)
	if p.each != 10*time.Millisecond {
		t.Errorf("at first %v", p.each)
	}
	for range 100 {
		p.took(2, 4*time.Millisecond, 16)
	}
	if p.each < 2*time.Millisecond || p.each > 2100*time.Microsecond {
		t.Errorf("later %v", p.each)
	}
}

// A device that is attached alone, however slowly, tells nothing of how fast a crowd goes.
func TestOnlyACrowdTellsHowFastItGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a admission
		attach := func(beside int, each time.Duration) {
			var left []func()
			for range beside {
				attached, err := a.enter(0, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				left = append(left, attached)
			}
			for _, attached := range left {
				time.Sleep(each)
				attached()
			}
		}
		for range 100 {
			attach(freeEntries-1, time.Second)
		}
		if a.looking.each != 0 {
			t.Errorf("one takes %v, and there was no crowd", a.looking.each)
		}
		for range 10 {
			attach(2*freeEntries, 10*time.Millisecond)
		}
		if each := a.looking.each; each < 9*time.Millisecond || each > 10*time.Millisecond {
			t.Errorf("one takes %v, want 10 ms", each)
		}
	})
}

// However many come back, two of them look into the store at once, and who gives up waits no longer.
func TestACrowdLooksIntoTheStoreInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{turns: make(chan struct{}, atOnce)}
		ctx, cancel := context.WithCancel(t.Context())
		looking, over := make(chan struct{}, 10), make(chan struct{})
		var all sync.WaitGroup
		var gaveUp atomic.Int32
		for range 10 {
			all.Go(func() {
				err := s.inTurn(ctx, func() error { looking <- struct{}{}; <-over; return nil })
				if errors.Is(err, context.Canceled) {
					gaveUp.Add(1)
				}
			})
		}
		synctest.Wait()
		if len(looking) != atOnce {
			t.Errorf("%d look at once", len(looking))
		}
		cancel()
		synctest.Wait()
		close(over)
		all.Wait()
		if gaveUp.Load() != 10-atOnce || len(looking) != atOnce {
			t.Errorf("%d gave up, %d looked", gaveUp.Load(), len(looking))
		}
	})
}

// Of 3,000 devices that come at once to a server that attaches a hundred in a second, none waits for long, those that are
// sent away come back spread out, and all get in about as fast as the server can.
func TestDevicesAreAdmittedAsFastAsTheServerGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const devices, each = 3000, 10 * time.Millisecond
		var a admission
		turn := make(chan struct{}, 1)
		attach := func() (waited time.Duration, err error) {
			begun := time.Now()
			attached, err := a.enter(0, begun)
			if err != nil {
				return 0, err
			}
			defer attached()
			turn <- struct{}{}
			time.Sleep(each)
			<-turn
			return time.Since(begun), nil
		}
		begun := time.Now()
		var mu sync.Mutex
		var longest, spread time.Duration
		refused := 0
		var all sync.WaitGroup
		for range devices {
			all.Go(func() {
				time.Sleep(wait.Random(2 * time.Second))
				for {
					waited, err := attach()
					r, _ := errors.AsType[*wire.Refusal](err)
					mu.Lock()
					longest = max(longest, waited)
					if r != nil {
						refused++
						spread = max(spread, r.RetryAfter)
					}
					mu.Unlock()
					switch {
					case r == nil:
						return
					case r.Reason != transport.Busy || r.RetryAfter < longestWait || r.RetryAfter > longestAway:
						t.Errorf("%+v", r)
						return
					}
					time.Sleep(r.RetryAfter + wait.Random(2*time.Second))
				}
			})
		}
		all.Wait()
		took := time.Since(begun)
		t.Logf("all in after %v, longest wait %v, %d times refused, for %v at most", took, longest, refused, spread)
		if longest > 2*longestWait {
			t.Errorf("one waited %v", longest)
		}
		if took > 2*devices*each || refused > 3*devices/2 {
			t.Errorf("all in after %v, %d times refused", took, refused)
		}
	})
}
