package record

import "encoding/binary"

// headerBytes begin each record: type, version, length (RFC 8446 §5.1).
const headerBytes = 5

// A Border finds where records end in what is read of a TLS connection. The zero value is before the first one. It is
// not safe for concurrent use.
type Border struct {
	header [headerBytes]byte
	n      int // of header that were passed
	left   int // of the record's body that were not
}

// Between reports whether all that was passed is whole records.
func (r *Border) Between() bool { return r.n == 0 && r.left == 0 }

// Advance passes what b, the next bytes, has of one record, and returns how many bytes that is.
func (r *Border) Advance(b []byte) (n int) {
	for n < len(b) {
		k := min(r.part(), len(b)-n)
		r.pass(b[n : n+k])
		if n += k; r.Between() {
			break
		}
	}
	return n
}

// part is how many bytes the rest of the header has, or of the body.
func (r *Border) part() int {
	if r.left > 0 {
		return r.left
	}
	return headerBytes - r.n
}

// pass takes note of b, which is no longer than a part.
func (r *Border) pass(b []byte) {
	if r.left > 0 {
		r.left -= len(b)
		return
	}
	copy(r.header[r.n:], b)
	if r.n += len(b); r.n == headerBytes {
		r.n, r.left = 0, int(binary.BigEndian.Uint16(r.header[3:]))
	}
}
