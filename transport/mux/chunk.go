package mux

import (
	"sync"
)

const (
	largeBytes = headerBytes + maxData // one full frame, one TLS record
	// smallBytes is for what people type and machines poll: with a large buffer for each a stalled stream would hold
	// sixteen times what it was promised.
	smallBytes = 1 << 10
	// trainBytes is for several full frames in a row, which are read from a machine by one system call, and written by
	// one: a quarter of what a transfer costs, measured with 1, 4 and 16 frames.
	trainFrames = 16
	trainBytes  = trainFrames * largeBytes
)

// chunk is a buffer with frames that are to be sent, or with bytes of a stream that were received. It has one owner at a
// time.
type chunk struct {
	b        []byte
	from, to int  // what of b counts
	kind     byte // of the frames to be sent; of several, all but the last one are full
	weight   int  // what they have taken of the budget
}

func (c *chunk) bytes() []byte { return c.b[c.from:c.to] }

// slots returns the parts of an empty chunk in which the payload of full frames of n bytes together goes: behind the
// room for each header. into is used if it is large enough.
func (c *chunk) slots(n int, into [][]byte) [][]byte {
	into = into[:0]
	for at := headerBytes; n > 0; at += largeBytes {
		k := min(n, maxData)
		into = append(into, c.b[at:at+k])
		n -= k
	}
	return into
}

// parts are the sizes of buffers for less than a frame.
var parts = [...]int{smallBytes, 2<<10 + headerBytes, 4<<10 + headerBytes, 8<<10 + headerBytes}

// pool keeps buffers that nobody uses: of parts of a frame, and of 1 to trainFrames full ones. The zero value works; it is
// safe for concurrent use.
type pool [len(parts) + trainFrames]sync.Pool // of *chunk

// get returns an empty chunk with room for n bytes, at most trainBytes. It is hardly larger than
// that: the budget counts what is in it, and a hundred streams whose 64 KiB waited in buffers of 256 took a gateway's
// memory.
func (p *pool) get(n int) *chunk {
	from, size := p.of(n)
	if c, _ := from.Get().(*chunk); c != nil {
		c.from, c.to, c.kind, c.weight = 0, 0, 0, 0
		return c
	}
	return &chunk{b: make([]byte, size)}
}

// fit moves the first n bytes of c to a smaller buffer, if one has room for them: a socket often has less than its buffer,
// and what waits to be sent holds no more than the budget counts, or about twice that.
func (p *pool) fit(c *chunk, n int) *chunk {
	if _, size := p.of(n); size > len(c.b)/2 {
		return c
	}
	smaller := p.get(n)
	copy(smaller.b, c.b[:n])
	p.put(c)
	return smaller
}

func (p *pool) put(c *chunk) {
	from, _ := p.of(len(c.b))
	from.Put(c)
}

func (p *pool) of(n int) (from *sync.Pool, size int) {
	for class, size := range parts {
		if n <= size {
			return &p[class], size
		}
	}
	frames := (n + largeBytes - 1) / largeBytes
	return &p[len(parts)+frames-1], frames * largeBytes
}
