package record

import (
	"slices"
	"testing"
)

// recordOf is a record with n bytes.
func recordOf(n int) []byte {
	return append([]byte{23, 3, 3, byte(n >> 8), byte(n)}, make([]byte, n)...)
}

// However a stream is cut into pieces, Advance stops at each end of a record and nowhere else within a piece.
func TestBorderStopsAtTheEndOfEachRecord(t *testing.T) {
	sizes := []int{1, 0, 300, 16401, 2}
	var stream []byte
	var ends []int
	for _, n := range sizes {
		stream = append(stream, recordOf(n)...)
		ends = append(ends, len(stream))
	}
	for _, piece := range []int{1, 2, 3, 4, 5, 6, 7, 306, 4096, len(stream)} {
		var r Border
		var got []int
		for at := 0; at < len(stream); {
			rest := stream[at:min(at+piece, len(stream))]
			n := r.Advance(rest)
			if n == 0 || n < len(rest) && !r.Between() {
				t.Fatalf("pieces of %d: %d of %d bytes at %d", piece, n, len(rest), at)
			}
			if at += n; r.Between() {
				got = append(got, at)
			}
		}
		if !slices.Equal(got, ends) {
			t.Errorf("pieces of %d: records end at %v, want %v", piece, got, ends)
		}
	}
}
