package mux

import (
	"testing"
	"time"
)

const ms = time.Millisecond

// heard is a round with one acknowledgement.
func heard(rtt, way time.Duration, limited bool) round {
	r := round{limited: limited}
	r.acknowledged(rtt, way)
	return r
}

func TestWindowIsSmallUntilTheRoundTripIsKnown(t *testing.T) {
	w := newWindow()
	if w.size() != 2<<10 || w.frame() != 1<<10 || w.may(1<<10, 1<<10+1) || !w.may(1<<10, 1<<10) {
		t.Errorf("size %d, frame %d", w.size(), w.frame())
	}
	w.measured(100*ms, simBegin)
	if w.size() != 16<<10 || w.frame() != 2<<10 || w.minRTT() != 100*ms {
		t.Errorf("size %d, frame %d, minRTT %v", w.size(), w.frame(), w.minRTT())
	}
}

func TestSingleFrameMayAlwaysGo(t *testing.T) {
	w := newWindow()
	if !w.may(0, maxData+headerBytes) {
		t.Error("a frame that is sent again waits for ever")
	}
	if w.may(1, maxData+headerBytes) {
		t.Error("and a second one goes with it")
	}
}

func TestWindowStepByStep(t *testing.T) {
	steps := []struct {
		name      string
		rtt, way  time.Duration
		limited   bool
		want, min int // W in bytes, minRTT in ms
	}{
		{"first round trip: doubles", 100 * ms, 40 * ms, true, 32 << 10, 100},
		{"doubles", 100 * ms, 40 * ms, true, 64 << 10, 100},
		{"not the limit: stays", 100 * ms, 40 * ms, false, 64 << 10, 100},
		{"10 ms of queue: doubles still", 110 * ms, 50 * ms, true, 128 << 10, 100},
		{"11 ms: an eighth more", 111 * ms, 51 * ms, true, 147456, 100},
		{"no queue: doubles again", 100 * ms, 40 * ms, true, 294912, 100},
		{"40 ms: by the factor 150/140", 140 * ms, 80 * ms, true, 315977, 100},
		{"50 ms: stays", 150 * ms, 90 * ms, true, 315977, 100},
		{"200 ms: by 150/300, and slow start is over", 300 * ms, 240 * ms, false, 157988, 100},
		{"queue of the other direction: an eighth more", 300 * ms, 40 * ms, true, 177736, 100},
		{"jitter of the way alone: an eighth more", 100 * ms, 500 * ms, true, 199953, 100},
		{"shorter round trip", 50 * ms, 40 * ms, true, 224947, 50},
		{"shorter way: a new zero", 100 * ms, -20 * ms, true, 253065, 50},
		{"60 ms measured by it", 150 * ms, 40 * ms, true, 230059, 50},
		{"a minute: not below the least", time.Minute, time.Minute, true, 8 << 10, 50},
	}
	w := newWindow()
	for _, s := range steps {
		w.round(heard(s.rtt, s.way, s.limited), simBegin)
		if w.size() != s.want || w.minRTT() != time.Duration(s.min)*ms {
			t.Fatalf("%s: W = %d, minRTT %v, want %d, %d ms", s.name, w.size(), w.minRTT(), s.want, s.min)
		}
	}
}

func TestWindowHasAnUpperBound(t *testing.T) {
	w := newWindow()
	for range 100 {
		w.round(heard(ms, 0, true), simBegin)
	}
	if w.size() != largestWindow || w.frame() != maxData {
		t.Errorf("W = %d, frame %d", w.size(), w.frame())
	}
}

func TestRoundWithoutAnAckSaysNothing(t *testing.T) {
	w := newWindow()
	w.measured(100*ms, simBegin)
	before := w
	if w.round(round{limited: true}, simBegin); w != before {
		t.Errorf("%+v became %+v", before, w)
	}
}

func TestRoundTripIsMeasuredAnewEveryTenMinutes(t *testing.T) {
	w, now := newWindow(), simBegin
	for range 3 {
		w.round(heard(100*ms, 0, true), now)
	}
	now = now.Add(remeasureGap - 1)
	if w.due(now) {
		t.Error("due too early")
	}
	now = now.Add(1)
	w.round(heard(400*ms, 300*ms, false), now) // the way is longer now, and W shrinks for it
	shrunk := 49152                            // 16 KiB doubled three times, by 150/400
	if w.size() != probeWindow || w.due(now) {
		t.Fatalf("W = %d to measure", w.size())
	}
	w.round(heard(300*ms, 200*ms, false), now.Add(300*ms))
	if w.size() != shrunk || w.minRTT() != 300*ms || w.due(now.Add(time.Minute)) {
		t.Errorf("W = %d, want %d again; minRTT %v", w.size(), shrunk, w.minRTT())
	}
	w.round(heard(300*ms, 200*ms, true), now.Add(time.Second))
	if w.size() != shrunk+shrunk/8 {
		t.Errorf("W = %d: the longer way still counts as a queue", w.size())
	}
}

func TestLyingClockDoesNoMoreThanNoClock(t *testing.T) {
	for _, clocks := range [][2]time.Duration{{0, maxClock}, {maxClock, 0}, {-maxClock, maxClock}, {0, 0}} {
		w := newWindow()
		for i := range 100 {
			r := heard(100*ms, clocks[i%2], true)
			r.acknowledged(100*ms, clocks[1-i%2])
			w.round(r, simBegin)
		}
		if w.size() < leastWindow || w.size() > largestWindow {
			t.Errorf("clocks %v: W = %d", clocks, w.size())
		}
		for range 30 {
			w.round(heard(time.Second, clocks[1], true), simBegin)
		}
		if w.size() > largestWindow {
			t.Errorf("clocks %v: W = %d", clocks, w.size())
		}
	}
}
