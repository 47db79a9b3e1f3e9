//go:build linux

package main

import (
	"testing"
	"time"
)

func TestLineIsLateAndSlow(t *testing.T) {
	now := time.Now()
	s := schedule{route: route{rtt: 100 * time.Millisecond, rate: 100_000, queue: 200 * time.Millisecond}}
	for i, want := range []time.Duration{60, 70, 80} { // 1000 bytes take 10 ms, and half a round trip 50 ms
		due, ok := s.next(now, 1000)
		if got := due.Sub(now); !ok || got != want*time.Millisecond {
			t.Errorf("packet %d arrives after %v, %v; want %v ms", i, got, ok, want)
		}
	}
	later := now.Add(time.Second) // when the line is free again, nothing is carried over
	if due, ok := s.next(later, 1000); !ok || due.Sub(later) != 60*time.Millisecond {
		t.Errorf("after a pause a packet arrives after %v, %v", due.Sub(later), ok)
	}
}

func TestLineLosesWhatItsQueueCannotHold(t *testing.T) {
	now := time.Now()
	s := schedule{route: route{rate: 100_000, queue: 200 * time.Millisecond}}
	kept := 0
	for range 100 {
		if _, ok := s.next(now, 1000); ok {
			kept++
		}
	}
	if kept != 21 { // 200 ms of packets wait while one leaves
		t.Errorf("%d of 100 packets were kept, want 21", kept)
	}
}

func TestLineWithoutLimitIsOnlyLate(t *testing.T) {
	now := time.Now()
	s := schedule{route: route{rtt: 50 * time.Millisecond}}
	for range 1000 {
		if due, ok := s.next(now, 1500); !ok || due.Sub(now) != 25*time.Millisecond {
			t.Fatalf("a packet arrives after %v, %v", due.Sub(now), ok)
		}
	}
}
