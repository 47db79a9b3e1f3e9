package relay

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const mega = 1_000_000 // bytes a second

// A taker is a session that moves as much as it may, in pieces of its own size, and pauses between them.
type taker struct {
	share
	piece int
	pause time.Duration
	moved int
}

// take lets all takers work for some time.
func take(l *limiter, takers []*taker, d time.Duration) {
	gone := make(chan struct{})
	var all sync.WaitGroup
	for _, t := range takers {
		all.Go(func() {
			for {
				select {
				case <-gone:
					return
				default:
				}
				if c := l.count(&t.share, t.piece); c != nil {
					l.wait(c, gone)
				}
				t.moved += t.piece
				if t.pause > 0 {
					time.Sleep(t.pause)
				}
			}
		})
	}
	time.Sleep(d)
	close(gone)
	all.Wait()
}

func wantAbout(t *testing.T, what string, got int, want, off float64) {
	t.Helper()
	if math.Abs(float64(got)-want) > off*want {
		t.Errorf("%s: %d bytes, want %.0f ± %.0f %%", what, got, want, off*100)
	}
}

func TestTotalIsSharedInEqualParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(Limits{Total: 10 * mega})
		pieces := []int{moveBytes, moveBytes, 16 << 10, 1 << 10, 100, moveBytes, 4096, 33, moveBytes, 20_000}
		var takers []*taker
		for _, piece := range pieces {
			takers = append(takers, &taker{piece: piece})
		}
		take(l, takers, 10*time.Second)
		sum := 0
		for i, x := range takers {
			wantAbout(t, "share", x.moved, 10*mega, .05)
			if t.Failed() {
				t.Fatalf("taker %d with pieces of %d", i, x.piece)
			}
			sum += x.moved
		}
		wantAbout(t, "all", sum, 100*mega, .02)
	})
}

// Who wants less than an equal part gets what it wants, and the others share the rest.
func TestWhatOneLeavesTheOthersGet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(Limits{Total: 10 * mega})
		modest := &taker{piece: 1000, pause: time.Millisecond} // 1 MB a second
		greedy := []*taker{{piece: moveBytes}, {piece: moveBytes}, {piece: moveBytes}}
		take(l, append([]*taker{modest}, greedy...), 10*time.Second)
		wantAbout(t, "modest", modest.moved, 10*mega, .05)
		for _, x := range greedy {
			wantAbout(t, "greedy", x.moved, 30*mega, .05)
		}
	})
}

// A keystroke does not wait behind downloads, however many.
func TestWhoTakesLittleDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(Limits{Total: 10 * mega})
		var greedy []*taker
		for range 100 {
			greedy = append(greedy, &taker{piece: moveBytes})
		}
		var all sync.WaitGroup
		all.Go(func() { take(l, greedy, 10*time.Second) })
		var s share
		waited := 0
		for range 90 {
			time.Sleep(100 * time.Millisecond)
			if c := l.count(&s, 60); c != nil {
				waited++
				l.wait(c, nil)
			}
		}
		all.Wait()
		if waited > 0 {
			t.Errorf("%d of 90 small ones waited", waited)
		}
	})
}

func TestSessionsOwnLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, total := range []int64{0, 100 * mega} {
			l := newLimiter(Limits{Session: mega, Total: total})
			takers := []*taker{{piece: moveBytes}, {piece: 1000}, {piece: moveBytes}}
			take(l, takers, 10*time.Second)
			for _, x := range takers {
				wantAbout(t, "session", x.moved, 10*mega, .05)
			}
		}
	})
}

// Both limits bind: 8 sessions of at most 2 MB/s over a total of 10.
func TestBothLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(Limits{Session: 2 * mega, Total: 10 * mega})
		var takers []*taker
		for range 8 {
			takers = append(takers, &taker{piece: moveBytes})
		}
		take(l, takers, 10*time.Second)
		for _, x := range takers {
			wantAbout(t, "session", x.moved, 12.5*mega, .05)
		}
	})
}

// A limit that does not bind costs nothing, and what was before is forgotten.
func TestNobodyPaysForWhatWasFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(Limits{Total: 10 * mega})
		old := &taker{piece: 50_000, pause: 10 * time.Millisecond} // half of it
		take(l, []*taker{old}, 100*time.Second)
		wantAbout(t, "alone", old.moved, 500*mega, .01)
		old.moved, old.pause = 0, 0
		late := &taker{piece: 50_000}
		take(l, []*taker{old, late}, 10*time.Second)
		wantAbout(t, "old", old.moved, 50*mega, .05)
		wantAbout(t, "late", late.moved, 50*mega, .05)
	})
}

// Who leaves while it waits is not waited for.
func TestClaimsOfThoseWhoLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(Limits{Total: mega})
		r := rand.New(rand.NewPCG(1, 2))
		var all sync.WaitGroup
		for range 200 {
			leaves := time.Duration(r.IntN(1000)) * time.Millisecond
			all.Go(func() {
				var s share
				gone := make(chan struct{})
				time.AfterFunc(leaves, func() { close(gone) })
				for range 20 {
					if c := l.count(&s, moveBytes); c != nil {
						l.wait(c, gone)
					}
				}
			})
		}
		all.Wait()
		if n := len(l.turns.queue); n != 0 {
			t.Errorf("%d claims are left", n)
		}
		wantsTurn := &taker{piece: 1000}
		time.Sleep(time.Hour)
		take(l, []*taker{wantsTurn}, 10*time.Second)
		wantAbout(t, "alone again", wantsTurn.moved, 10*mega, .05)
	})
}

func TestLimitedRelayCarriesAtItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Limits = Limits{Session: mega, Total: 10 * mega} })
		runtime, manager := r.pair(t, "s1")
		began := time.Now()
		payload := make([]byte, 5*mega)
		var sender sync.WaitGroup
		sender.Go(func() { send(t, manager, payload) })
		receive(t, runtime, payload)
		sender.Wait()
		if took := time.Since(began).Seconds(); took < 4.5 || took > 5.1 {
			t.Errorf("5 MB at 1 MB/s took %.1f s", took)
		}
	})
}
