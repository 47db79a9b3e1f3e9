package server

import (
	"testing"

	"hawser/server/gate"
)

// As many wait for their turn as the descriptors allow, and no more than a quarter of those beyond 4096, where that is more.
func TestACrowdWaitsInWhatIsLeft(t *testing.T) {
	for descriptors, want := range map[int]int{0: 4096, 1024: 32, 4096: 128, 8192: 1024, 20000: 3976, 65536: 4096, 1 << 20: 4096} {
		if got := crowd(gate.Places(rolePlaces, descriptors, roleShare), descriptors).Queue; got != want {
			t.Errorf("%d descriptors: %d may wait, want %d", descriptors, got, want)
		}
	}
}
