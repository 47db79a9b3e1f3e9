package mux

import (
	"io"
	"net"
	"os"
	"time"

	"hawser/transport/wire"
)

// deliver gives a data frame to its stream. c is the buffer that payload is in, or nil; kept says that the stream has it
// now.
func (m *Mux) deliver(h header, payload []byte, c *chunk) (kept bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.mayCountLocked(h.kind); err != nil {
		return false, err
	}
	m.received.addLocked(h.kind, m.in.now)
	if h.stream > m.last {
		return false, violated("stream %d was never opened", h.stream)
	}
	s := m.streams[h.stream]
	if s == nil {
		return false, nil
	}
	if s.recv.fin || !s.send.granted && (m.config.Role == wire.RoleManager || s.recv.credit.got+uint64(h.n) > EarlyBytes) {
		return false, violated("data out of turn on stream %d", h.stream)
	}
	if err := s.recv.credit.received(h.n); err != nil {
		return false, err
	}
	m.counts.In += int64(h.n)
	if c != nil {
		s.recv.chunks = append(s.recv.chunks, c)
	} else {
		s.copyLocked(payload)
	}
	if m.in.touched = append(m.in.touched, s); len(m.in.touched) == maxStreams {
		m.wakeTouchedLocked() // bytes come so fast that the reader may not wait for long
	}
	return c != nil, nil
}

// copyLocked copies small frames together, so that what is held is what counts.
func (s *Stream) copyLocked(b []byte) {
	if n := len(s.recv.chunks); n > 0 {
		last := s.recv.chunks[n-1]
		k := copy(last.b[last.to:], b)
		last.to += k
		b = b[k:]
	}
	if len(b) > 0 {
		c := s.m.pool.get(len(b))
		c.to = copy(c.b, b)
		s.recv.chunks = append(s.recv.chunks, c)
	}
}

// Read returns io.EOF only when the peer has ended its direction. When the stream was reset or the session was lost it
// is an error with a reason: a file that was cut off must not look complete.
func (s *Stream) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if err := s.awaitBytes(); err != nil {
		return 0, err
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	n := 0
	for n < len(b) && len(s.recv.chunks) > 0 {
		c := s.recv.chunks[0]
		k := copy(b[n:], c.bytes())
		n += k
		if c.from += k; c.from == c.to {
			n := copy(s.recv.chunks, s.recv.chunks[1:])
			s.recv.chunks[n], s.recv.chunks = nil, s.recv.chunks[:n]
			s.m.pool.put(c)
		}
	}
	s.consumedLocked(n)
	return n, nil
}

// WriteTo writes what arrives to w until the peer ends its direction, for which it returns nil. It gives credit for what
// w has taken.
func (s *Stream) WriteTo(w io.Writer) (total int64, err error) {
	s.setSink(newSink(w))
	defer func() { total += s.setSink(nil) }()
	var list []*chunk
	var buffers net.Buffers
	for {
		if err := s.awaitBytes(); err == io.EOF {
			return total, nil
		} else if err != nil {
			return total, err
		}
		s.m.mu.Lock()
		list = append(list[:0], s.recv.chunks...)
		clear(s.recv.chunks)
		s.recv.chunks = s.recv.chunks[:0]
		s.m.mu.Unlock()
		buffers = buffers[:0]
		for _, c := range list {
			buffers = append(buffers, c.bytes())
		}
		left := buffers // WriteTo consumes it
		n, err := left.WriteTo(w)
		total += n
		s.m.mu.Lock()
		for _, c := range list {
			s.m.pool.put(c)
		}
		clear(list) // what waits holds no buffer
		clear(buffers)
		s.consumedLocked(int(n))
		s.m.mu.Unlock()
		if err != nil {
			return total, sourceError{err}
		}
	}
}

// setSink sets where the reader may write by itself, and returns how much it has written to the last one.
func (s *Stream) setSink(to sink) (written int64) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	written, s.recv.direct = s.recv.direct, 0
	s.recv.sink = to
	return written
}

// directLocked writes to the sink what the socket takes at once, if WriteTo waits and it is little, and reports whether
// that was all. The reader does not wait for a socket; but to wake the goroutine of WriteTo for an answer of a few bytes
// takes longer than to write them, twice in each round trip.
func (s *Stream) directLocked() bool {
	if s.recv.sink == nil || !s.recv.waiting || s.err != nil || len(s.recv.chunks) != 1 || len(s.recv.chunks[0].bytes()) > smallBytes {
		return false
	}
	c := s.recv.chunks[0]
	n := s.recv.sink.try(c.bytes())
	c.from += n
	s.recv.direct += int64(n)
	s.consumedLocked(n)
	if c.from < c.to {
		return false
	}
	s.recv.chunks = s.recv.chunks[:0]
	s.m.pool.put(c)
	return true
}

// awaitBytes waits until there is something to read; io.EOF: nothing will follow.
func (s *Stream) awaitBytes() error {
	for {
		s.m.mu.Lock()
		some, fin, err := len(s.recv.chunks) > 0, s.recv.fin, s.err
		if s.recv.whole {
			err = nil
		}
		s.recv.waiting = !some && !fin && err == nil
		s.m.mu.Unlock()
		switch {
		case isClosed(s.readUntil.passed()):
			return os.ErrDeadlineExceeded
		case some:
			return nil
		case err != nil:
			return err
		case fin:
			return io.EOF
		}
		select {
		case <-s.recv.ready:
		case <-s.over:
		case <-s.readUntil.passed():
		}
	}
}

// consumedLocked gives the peer credit for what was taken.
func (s *Stream) consumedLocked(n int) {
	s.recv.total += int64(n)
	if n == 0 || !s.sendsLocked() {
		return
	}
	m := s.m
	if offset := s.recv.credit.consumed(n, time.Now(), m.out.window.minRTT(), m.share.grow); offset > 0 {
		if s.recv.offset == 0 {
			m.out.announce = append(m.out.announce, s)
		}
		s.recv.offset = offset
		m.wake.Ring()
	}
}
