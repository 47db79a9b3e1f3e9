package mux

import "sync"

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

// pool keeps buffers that nobody uses. The zero value works; it is safe for concurrent use.
type pool struct {
	train, large, small sync.Pool // of *chunk
}

// get returns an empty chunk with room for n bytes, at most trainBytes.
func (p *pool) get(n int) *chunk {
	from, size := p.of(n)
	if c, _ := from.Get().(*chunk); c != nil {
		c.from, c.to, c.kind, c.weight = 0, 0, 0, 0
		return c
	}
	return &chunk{b: make([]byte, size)}
}

func (p *pool) put(c *chunk) {
	from, _ := p.of(len(c.b))
	from.Put(c)
}

func (p *pool) of(n int) (from *sync.Pool, size int) {
	switch {
	case n <= smallBytes:
		return &p.small, smallBytes
	case n <= largeBytes:
		return &p.large, largeBytes
	}
	return &p.train, trainBytes
}
