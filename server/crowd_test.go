package server

import (
	"testing"

	"hawser/transport"
)

// As many wait for their turn as the descriptors allow: of devices a quarter of those beyond 4096, where that is more.
func TestACrowdWaitsInWhatIsLeft(t *testing.T) {
	for descriptors, want := range map[int][2]int{
		0: {3072, 512}, 1024: {32, 32}, 4096: {128, 128}, 8192: {1024, 256}, 16384: {3072, 512}, 1 << 20: {3072, 512},
	} {
		got := [2]int{queueOf(transport.ALPNAccess, descriptors), queueOf(transport.ALPNAPI, descriptors)}
		if got != want {
			t.Errorf("%d descriptors: %v may wait, want %v", descriptors, got, want)
		}
	}
}
