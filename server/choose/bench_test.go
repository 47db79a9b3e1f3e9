package choose

import (
	"fmt"
	"testing"
)

// many is a decision between n relays that both ends have measured.
func many(n int) Input {
	in := Input{Incumbent: "r1"}
	for i := range n {
		in.Relays = append(in.Relays, relay(fmt.Sprintf("r%d", i), rtt(float64(10+i*7%50)), rtt(float64(20+i*11%40)), i, 100))
	}
	return in
}

func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{3, 100} {
		b.Run(fmt.Sprintf("%d relays", n), func(b *testing.B) {
			in := many(n)
			b.ReportAllocs()
			for b.Loop() {
				if Decide(in).Chosen == "" {
					b.Fatal("none chosen")
				}
			}
		})
	}
}

// A decision is made for each session, and tells of each relay why it was not chosen: that text is what it may
// allocate.
func TestDecisionAllocatesLittle(t *testing.T) {
	const relays, most = 100, 8
	in := many(relays)
	if n := testing.AllocsPerRun(100, func() { Decide(in) }); n > relays*most {
		t.Errorf("a decision between %d relays allocates %.0f times, at most %d for each", relays, n, most)
	}
}
