package gate

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func from(addr string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(addr), Port: 1} }

func TestWhoLosesAPlaceIsCutOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New("tests", Limits{All: 2, Source: 2, Net: 2, Patience: patience}, nil, nil)
		cuts := 0
		first := g.Enter(from("192.0.2.1"), func() { cuts++ })
		second := g.Enter(from("192.0.2.1"), func() { t.Error("the second was cut") })
		third := g.Enter(from("192.0.2.2"), nil)
		if first == nil || second == nil || third == nil || cuts != 1 {
			t.Fatalf("places %v %v %v, cuts %d", first, second, third, cuts)
		}
		first.Leave()
		first.Progress()
		if p := g.Enter(from("192.0.2.3"), nil); p != nil {
			t.Error("a place that was taken was left again")
		}
		second.Leave()
		if p := g.Enter(from("192.0.2.3"), nil); p == nil {
			t.Error("a place that was left is not free")
		}
		var none *Place
		none.Progress()
		none.Leave()
	})
}

func TestTheLogSaysOnceAMinuteWhoIsTurnedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		g := New("tests", Limits{All: 3, Source: 2, Net: 2, Patience: patience}, slog.New(slog.NewTextHandler(&log, nil)), nil)
		for range 100 {
			g.Enter(from("192.0.2.1"), func() {})
		}
		said := strings.TrimSpace(log.String())
		if strings.Count(said, "\n") != 0 || !strings.Contains(said, "level=WARN") || !strings.Contains(said, "what=tests refused=1 cut=0 addr=192.0.2.1/32") {
			t.Errorf("it says %q", said)
		}
		log.Reset()
		time.Sleep(time.Minute)
		g.Enter(from("192.0.2.1"), func() {}) // takes the place of one that is stuck
		if !strings.Contains(log.String(), "refused=97 cut=1") {
			t.Errorf("a minute later it says %q", &log)
		}
	})
}

// Who waits gets the place that is left, in turn; whose source has its share already is passed over.
func TestWaitingForAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New("tests", Limits{All: 2, Source: 1, Net: 1, Queue: 3, Patience: patience}, nil, nil)
		ctx, cancel := context.WithCancel(t.Context())
		a, b := g.Enter(from("192.0.2.1"), nil), g.Enter(from("192.0.2.2"), nil)
		got := make(chan string, 3)
		places := map[string]*Place{}
		var waiters sync.WaitGroup
		for _, who := range []string{"192.0.2.1", "192.0.2.3", "192.0.2.4"} {
			waiters.Go(func() {
				places[who] = g.Wait(ctx, from(who), func() {})
				got <- who
			})
			synctest.Wait()
		}
		b.Leave()
		if who := <-got; who != "192.0.2.3" {
			t.Errorf("%s got the place: the first has one", who)
		}
		a.Leave()
		if who := <-got; who != "192.0.2.1" {
			t.Errorf("%s got the place", who)
		}
		places["192.0.2.1"].Leave()
		if who := <-got; who != "192.0.2.4" {
			t.Errorf("%s got the place", who)
		}
		waiters.Go(func() {
			if p := g.Wait(ctx, from("192.0.2.5"), nil); p != nil {
				t.Error("who gave up got a place")
			}
		})
		synctest.Wait()
		cancel()
		waiters.Wait()
		if g.waiting.waiting.Len() > 0 {
			t.Error("who gave up still waits")
		}
	})
}

// A place becomes free by time alone when the one who has it is stuck.
func TestWaitingTakesFromWhoIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New("tests", Limits{All: 1, Source: 1, Net: 1, Queue: 2, Patience: patience}, nil, nil)
		cut := make(chan time.Time, 1)
		g.Enter(from("192.0.2.1"), func() { cut <- time.Now() })
		began := time.Now()
		if g.Wait(t.Context(), from("192.0.2.2"), nil) == nil || (<-cut).Sub(began) != patience {
			t.Error("no place")
		}
	})
}

// As many wait as may, and of one source half of them.
func TestFewWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New("tests", Limits{All: 1, Source: 1, Net: 1, Queue: 2, Patience: patience}, nil, nil)
		first := g.Enter(from("192.0.2.1"), nil)
		var waiters sync.WaitGroup
		for _, who := range []string{"192.0.2.2", "192.0.2.3"} {
			waiters.Go(func() { g.Wait(t.Context(), from(who), func() {}).Leave() })
			synctest.Wait()
			if g.Wait(t.Context(), from("192.0.2.2"), nil) != nil {
				t.Error("the same source got a place")
			}
		}
		if g.Wait(t.Context(), from("192.0.2.4"), nil) != nil {
			t.Error("a third one got a place")
		}
		first.Leave()
		waiters.Wait()
	})
}
