package mux

import "testing"

func TestAChunkIsNotMuchLargerThanWhatItIsFor(t *testing.T) {
	var p pool
	for n := 1; n <= trainBytes; n++ {
		_, size := p.of(n)
		if size < n || size > smallBytes && size > 2*n+2*headerBytes || size > n+largeBytes {
			t.Fatalf("%d bytes get %d", n, size)
		}
	}
	c := p.get(4 * largeBytes)
	if len(c.b) != 4*largeBytes {
		t.Errorf("%d bytes", len(c.b))
	}
	copy(c.b, "abc")
	if same := p.fit(c, 2*largeBytes+1); same != c {
		t.Error("what fits is moved")
	}
	for n, want := range map[int]int{2 * largeBytes: 2 * largeBytes, largeBytes: largeBytes, 3: smallBytes} {
		c := p.get(4 * largeBytes)
		copy(c.b, "abc")
		if moved := p.fit(c, n); len(moved.b) != want || string(moved.b[:3]) != "abc" {
			t.Errorf("%d bytes are in %d: %q", n, len(moved.b), moved.b[:3])
		}
	}
}
