package wait

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestBoundDoublesUpToTheLongest(t *testing.T) {
	b := Backoff{First: 2 * time.Second, Longest: time.Minute}
	for failures, want := range map[int]time.Duration{0: 2, 1: 2, 2: 4, 3: 8, 4: 16, 5: 32, 6: 60, 7: 60, 64: 60, 1 << 30: 60} {
		if got := b.bound(failures); got != want*time.Second {
			t.Errorf("after %d failures: %v, want %d s", failures, got, want)
		}
	}
}

// The wait is random over its whole range, and what the server asked for comes before it, not instead of it.
func TestJitterIsFullAndOnTopOfWhatTheServerAskedFor(t *testing.T) {
	b := Backoff{First: time.Second, Longest: 15 * time.Second}
	for _, atLeast := range []time.Duration{-time.Hour, 0, time.Hour} {
		for failures, bound := range map[int]time.Duration{1: time.Second, 3: 4 * time.Second, 9: 15 * time.Second} {
			var low, high int
			for range 1000 {
				d := b.After(failures, atLeast) - max(atLeast, 0)
				if d < 0 || d >= bound {
					t.Fatalf("after %d failures: %v beyond %v, want below %v", failures, d, atLeast, bound)
				}
				if d < bound/4 {
					low++
				} else if d >= 3*bound/4 {
					high++
				}
			}
			if low < 100 || high < 100 {
				t.Errorf("after %d failures: %d of 1000 in the first quarter, %d in the last", failures, low, high)
			}
		}
	}
	if Random(0) != 0 || Random(-1) != 0 || (Backoff{}).After(3, 0) != 0 {
		t.Error("random of nothing is not 0")
	}
}

func TestSleepLastsAsLongAsItShouldOrItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		if !Sleep(t.Context(), time.Minute) || time.Since(begin) != time.Minute {
			t.Errorf("slept %v", time.Since(begin))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if Sleep(ctx, time.Minute) || time.Since(begin) != time.Minute+time.Second {
			t.Errorf("slept %v", time.Since(begin))
		}
		if Sleep(ctx, 0) {
			t.Error("true under a context that is over")
		}
	})
}

func TestABellIsHeardOnceHoweverOftenItRang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, heard := NewBell(), 0
		for range 3 {
			b.Ring()
		}
		go func() {
			for range b {
				heard++
			}
		}()
		synctest.Wait()
		if heard != 1 {
			t.Errorf("heard %d times, want once", heard)
		}
		b.Ring()
		synctest.Wait()
		if heard != 2 {
			t.Errorf("heard %d times, want twice", heard)
		}
		close(b)
	})
}

func TestFailuresCountAnewWhenTheServerSaysWhen(t *testing.T) {
	for _, c := range []struct {
		failures     int
		told, hinted bool
		want         int
	}{
		{0, false, false, 1},
		{5, false, false, 6},
		{5, false, true, 1},
		{1, true, true, 2},
		{2, true, false, 3},
	} {
		if got := InARow(c.failures, c.told, c.hinted); got != c.want {
			t.Errorf("InARow(%d, %v, %v) = %d, want %d", c.failures, c.told, c.hinted, got, c.want)
		}
	}
}
