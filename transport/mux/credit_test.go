package mux

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"
)

// all grants what it is asked for.
func all(want int) int { return want }

// takeWindow takes one window's worth in quarters within d, and returns the last offset that was announced.
func (c *credit) takeWindow(t *testing.T, now *time.Time, d, minRTT time.Duration, grow func(int) int) (offset uint64) {
	t.Helper()
	step := max(c.size/4, 1)
	for range 4 {
		*now = now.Add(d / 4)
		if err := c.received(step); err != nil {
			t.Fatal(err)
		}
		if o := c.consumed(step, *now, minRTT, grow); o != 0 {
			offset = o
		}
	}
	return offset
}

func TestDataOverTheCreditIsFatal(t *testing.T) {
	c := newCredit(8<<10, 64<<10)
	if err := c.received(8 << 10); err != nil {
		t.Error(err)
	}
	if err := c.received(0); err != nil {
		t.Error(err)
	}
	if err := c.received(1); !errors.Is(err, ErrFrame) {
		t.Errorf("one byte over the credit: %v", err)
	}
}

func TestOffsetIsNamedWhenAQuarterIsUsed(t *testing.T) {
	c := newCredit(8<<10, 8<<10)
	c.received(8 << 10)
	if o := c.consumed(2<<10-1, simBegin, ms, all); o != 0 {
		t.Errorf("offset %d before a quarter was used", o)
	}
	if o := c.consumed(1, simBegin, ms, all); o != 10<<10 || c.promised() != o {
		t.Errorf("offset %d, promised %d", o, c.promised())
	}
	if o := c.consumed(6<<10, simBegin, ms, all); o != 16<<10 {
		t.Errorf("offset %d", o)
	}
}

func TestWindowOfAQuickStreamDoubles(t *testing.T) {
	const rtt = 100 * ms // so 300 ms is the limit
	for _, c := range []struct {
		name      string
		d, minRTT time.Duration
		grow      func(int) int
		want      int
	}{
		{"quick", 299 * ms, rtt, all, 128 << 10},
		{"not quick", 300 * ms, rtt, all, 64 << 10},
		{"no round trip known", ms, 0, all, 64 << 10},
		{"no budget", 100 * ms, rtt, func(int) int { return 0 }, 64 << 10},
		{"some budget", 100 * ms, rtt, func(int) int { return 1000 }, 64<<10 + 1000},
		{"more than was asked", 100 * ms, rtt, func(n int) int { return n + 1 }, 128 << 10},
	} {
		k, now := newCredit(64<<10, 1<<20), simBegin
		k.received(1)
		k.consumed(1, now, c.minRTT, c.grow) // begins the measurement
		k.takeWindow(t, &now, c.d, c.minRTT, c.grow)
		if k.window() != c.want || k.reserved() != c.want || k.promised() > k.used+uint64(c.want) {
			t.Errorf("%s: window %d, reserved %d, want %d", c.name, k.window(), k.reserved(), c.want)
		}
	}
}

func TestWindowGrowsToTheLargest(t *testing.T) {
	c, now := newCredit(64<<10, 1000<<10), simBegin
	for range 20 {
		c.takeWindow(t, &now, 100*ms, 100*ms, all)
	}
	if c.window() != 1000<<10 || c.reserved() != 1000<<10 {
		t.Errorf("window %d, reserved %d", c.window(), c.reserved())
	}
}

// A reader that stands still for a second and then takes all at once needs no more.
func TestWindowOfASlowReaderDoesNotGrow(t *testing.T) {
	c, now := newCredit(64<<10, 1<<20), simBegin
	for range 20 {
		now = now.Add(time.Second)
		c.received(64 << 10)
		c.consumed(64<<10, now, 100*ms, all)
	}
	if c.window() != 64<<10 {
		t.Errorf("window %d", c.window())
	}
}

func TestIdleWindowFallsBackAsItIsConsumed(t *testing.T) {
	c, now := newCredit(64<<10, 1<<20), simBegin
	for c.window() < 1<<20 {
		c.takeWindow(t, &now, 100*ms, 100*ms, all)
	}
	if back := c.idle(now.Add(idleCredit - 1)); back != 0 || c.window() != 1<<20 {
		t.Errorf("%d bytes given back while it was used", back)
	}
	now = now.Add(idleCredit)
	outstanding := int(c.promised() - c.used)
	if back := c.idle(now); back != 1<<20-outstanding || c.window() != 64<<10 || c.reserved() != outstanding {
		t.Errorf("%d given back, window %d, %d reserved for %d promised", back, c.window(), c.reserved(), outstanding)
	}
	promised := c.promised()
	c.received(outstanding / 2)
	if o := c.consumed(outstanding/2, now, 0, all); o != 0 || c.promised() != promised {
		t.Errorf("offset %d while more than the window is promised", o)
	}
	if back := c.idle(now); back != outstanding/2 {
		t.Errorf("%d given back after %d were consumed", back, outstanding/2)
	}
	c.received(outstanding / 2)
	if o := c.consumed(outstanding/2, now, 0, all); o != c.used+64<<10 {
		t.Errorf("offset %d, used %d", o, c.used)
	}
	if c.idle(now); c.reserved() != 64<<10 {
		t.Errorf("%d reserved", c.reserved())
	}
}

// Whatever happens, a promise never falls, what is promised is reserved, and what is reserved was granted.
func TestCreditIsAlwaysReserved(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		first := 1 << rnd.IntN(17)
		c, now, granted, last := newCredit(first, first*(1+rnd.IntN(300))), simBegin, first, uint64(first)
		for range 1000 {
			now = now.Add(time.Duration(rnd.ExpFloat64() * float64(20*ms)))
			switch rnd.IntN(40) {
			case 0:
				now = now.Add(time.Duration(rnd.IntN(20)) * time.Second)
			case 1:
				granted -= c.idle(now)
			default:
				if n := int(c.promise - c.got); n > 0 {
					if err := c.received(1 + rnd.IntN(n)); err != nil {
						t.Fatal(err)
					}
				}
				if n := int(c.got - c.used); n > 0 {
					offset := c.consumed(1+rnd.IntN(n), now, 100*ms, func(want int) int {
						n := rnd.IntN(want + 1)
						granted += n
						return n
					})
					if offset != 0 && (offset <= last || offset != c.promised()) {
						t.Fatalf("seed %d: offset %d after %d", seed, offset, last)
					}
				}
			}
			if c.promised() < last || c.promised() < c.got || c.reserved() != granted ||
				c.reserved() < int(c.promised()-c.used) || c.reserved() < c.window() ||
				c.window() < first || c.window() > c.largest {
				t.Fatalf("seed %d: %+v, granted %d, promised before %d", seed, c, granted, last)
			}
			last = c.promised()
		}
	}
}

func TestAllowance(t *testing.T) {
	a := allowance{until: 100}
	a.take(60)
	if a.left() != 40 {
		t.Errorf("left %d", a.left())
	}
	if err := a.add(100); err != nil || a.left() != 40 {
		t.Errorf("the same offset again: %v, left %d", err, a.left())
	}
	if err := a.add(99); !errors.Is(err, ErrFrame) || a.left() != 40 {
		t.Errorf("an offset that falls: %v, left %d", err, a.left())
	}
	if err := a.add(1<<64 - 1); err != nil || a.left() != 1<<30 {
		t.Errorf("a huge offset: %v, left %d", err, a.left())
	}
	a.take(1 << 30)
	if a.left() != 1<<30 {
		t.Errorf("left %d", a.left())
	}
}
