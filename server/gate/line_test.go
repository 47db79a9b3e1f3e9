package gate

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func waiterFrom(addr string) *waiter { return &waiter{from: prefixes(netip.MustParseAddr(addr))} }

// Of a line of 16 a source has half, a /56 three quarters and a /48 seven eighths.
func TestALineHasTheSharesOfThePlaces(t *testing.T) {
	for addrs, want := range map[string]int{
		"192.0.2.%d": 16, "2001:db8:%d::": 16, "2001:db8:0:%d00::": 14, "2001:db8:0:%d::": 12, "2001:db8::%d": 8, "192.0.2.1": 8,
	} {
		var l line
		joined := 0
		for i := range 20 {
			addr := addrs
			if strings.Contains(addr, "%") {
				addr = fmt.Sprintf(addrs, i)
			}
			if l.join(waiterFrom(addr), Limits{Queue: 16}) {
				joined++
			}
		}
		if joined != want || l.waiting.Len() != want {
			t.Errorf("%s: %d wait, want %d", addrs, joined, want)
		}
	}
}

// The many of a source whose share is used up are asked for once, and who comes behind them gets the place.
func TestALinePassesByWhoMayNot(t *testing.T) {
	var l line
	limits := Limits{Queue: 4000}
	for range 1000 {
		l.join(waiterFrom("192.0.2.1"), limits)
		l.join(waiterFrom("2001:db8::1"), limits)
	}
	last := waiterFrom("2001:db8:1::1")
	l.join(last, limits)
	asked := 0
	w, taken := l.next(func(w *waiter) (*seat, netip.Prefix) {
		if asked++; w == last {
			return new(seat), netip.Prefix{}
		}
		return nil, w.from[len(w.from)-1]
	})
	if w != last || taken == nil || asked != 3 {
		t.Errorf("%v got the place, after %d were asked for", w, asked)
	}
	if w, _ := l.next(func(*waiter) (*seat, netip.Prefix) { asked++; return nil, netip.Prefix{} }); w != nil || asked != 4 {
		t.Errorf("%v got a place of none, after %d were asked for", w, asked)
	}
	for at := l.waiting.Front(); at != nil; at = l.waiting.Front() {
		l.leave(at.Value.(*waiter))
	}
	l.leave(last)
	if len(l.counts) > 0 {
		t.Errorf("an empty line counts %v", l.counts)
	}
}

// Who looks whether somebody is stuck by now does not lose his turn.
func TestWhoWaitsKeepsHisTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New("tests", Limits{All: 1, Source: 1, Net: 1, Site: 1, Queue: 4, Patience: patience}, nil, nil)
		has := g.Enter(from("192.0.2.1"), nil)
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan string, 2)
		var waiters sync.WaitGroup
		for _, who := range []string{"192.0.2.2", "192.0.2.3"} {
			waiters.Go(func() {
				if g.Wait(ctx, from(who), nil) != nil {
					got <- who
				}
			})
			synctest.Wait()
			time.Sleep(patience / 4)
		}
		has.Progress()
		time.Sleep(patience - time.Millisecond) // both have looked again
		has.Leave()
		if who := <-got; who != "192.0.2.2" {
			t.Errorf("%s got the place: the other one came first", who)
		}
		cancel()
		waiters.Wait()
	})
}
