package session

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"hawser/transport/mux"
	"hawser/transport/wire"
)

// A gateway keeps sixteen sessions, most of which wait: what a transfer needed is given back. The fake relay with its two
// connections for each session and the network in memory count as well; stacks do not. An end alone is measured by the
// bench (docs/performance.md).
func TestIdleSessionHoldsLittle(t *testing.T) {
	t.Attr("id", "R-window")
	const sessions, most = 20, 192 << 10
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		before := inUse()
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
		each := (inUse() - before) / (2 * sessions)
		t.Attr("count", fmt.Sprintf("an idle session holds at each end, with half of relay and network, bytes=%d", each))
		if each > most {
			t.Errorf("each end holds %d bytes, at most %d", each, most)
		}
	})
}

// inUse returns the bytes of the heap that are in use.
func inUse() int {
	runtime.GC()
	runtime.GC() // a pool is empty after two
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
