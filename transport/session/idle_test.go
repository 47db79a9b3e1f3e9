package session

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/transport/mux"
	"hawser/transport/wire"
)

// A gateway keeps sixteen sessions, most of which wait: what a transfer needed is given back. What this end's own calls
// have made is counted, and the stacks of its two goroutines with what those of all here take on average: half of the
// others are the fake relay's.
func TestIdleSessionHoldsLittle(t *testing.T) {
	t.Attr("id", "R-window")
	const sessions, most = 20, 64 << 10
	const perEnd = 2 // goroutines
	defer func(rate int) { runtime.MemProfileRate = rate }(runtime.MemProfileRate)
	runtime.MemProfileRate = 1
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		heap, stacks := inUse()
		goroutines := runtime.NumGoroutine()
		for i := range sessions {
			s.runtime.Offer.Grant, s.manager.Offer.Grant = fmt.Sprint(i), fmt.Sprint(i)
			_, manager := s.up(echo)
			stream, err := manager.Open(t.Context(), mux.Open{Service: wire.ServiceTCP})
			if err != nil {
				t.Fatal(err)
			}
			sendAndCompare(t, stream, 1<<20, byte(i))
			stream.Close()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		heapNow, stacksNow := inUse()
		each := (heapNow-heap)/(2*sessions) + perEnd*(stacksNow-stacks)/(runtime.NumGoroutine()-goroutines)
		t.Attr("count", fmt.Sprintf("an idle session holds at each end, heap and stacks, bytes=%d", each))
		if each > most {
			t.Errorf("each end holds %d bytes, at most %d: %d sessions hold %d of heap", each, most, sessions, heapNow-heap)
		}
	})
}

// inUse returns the bytes of the heap that sessions, not the relay or the network, have made and hold, and those of all
// stacks.
func inUse() (heap, stacks int) {
	for range 4 { // a pool is empty after two, and stacks shrink by half at each
		runtime.GC()
	}
	records := make([]runtime.MemProfileRecord, 10_000)
	n, ok := runtime.MemProfile(records, false)
	if !ok {
		panic(fmt.Sprintf("%d places hold memory", n))
	}
	for _, r := range records[:n] {
		if isOfASession(r.Stack()) {
			heap += int(r.InUseBytes())
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return heap, int(m.StackInuse)
}

// isOfASession reports whether package session or mux called for it, and it is not inside the network in memory.
func isOfASession(stack []uintptr) (ours bool) {
	for frames := runtime.CallersFrames(stack); ; {
		frame, more := frames.Next()
		switch {
		case strings.HasPrefix(frame.Function, "hawser/internal/memnet."):
			return false
		case strings.HasPrefix(frame.Function, "hawser/transport/session."), strings.HasPrefix(frame.Function, "hawser/transport/mux."):
			ours = true
		}
		if !more {
			return ours
		}
	}
}
