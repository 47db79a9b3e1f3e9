package mux

import (
	"errors"
	"io"
	"os"
	"time"
)

const (
	// queueBytes is what a stream may hold to be sent: enough that reading from a machine and encrypting overlap.
	queueBytes = trainBytes
	// trainWindow is the least W at which frames go in trains: a train is a small part of it, as a frame is.
	trainWindow = 8 * trainBytes
)

// takeLocked takes the first frame out of the queue.
func (s *Stream) takeLocked() {
	c := s.send.queue[0]
	n := copy(s.send.queue, s.send.queue[1:])
	s.send.queue[n] = nil
	s.send.queue = s.send.queue[:n]
	s.send.bytes -= c.to - c.from
	s.send.deficit -= c.to - c.from
	if c.kind == typeFin {
		s.send.finSent = true
		s.doneLocked()
	}
	s.send.room.Ring()
}

// queueLocked puts frames with so many bytes of payload into the queue, and the stream into the sender's turns.
func (s *Stream) queueLocked(c *chunk, kind byte, payload int) {
	c.kind, c.from, c.to = kind, 0, payload+framesOf(payload)*headerBytes
	for at := 0; at < c.to; at += largeBytes {
		putHeader(c.b[at:], kind, s.id, min(c.to-at, largeBytes)-headerBytes)
	}
	s.send.queue = append(s.send.queue, c)
	s.send.bytes += c.to
	if !s.send.listed {
		s.send.listed, s.send.deficit = true, quantum
		s.m.out.fresh = append(s.m.out.fresh, s)
	}
}

// framesOf returns how many frames carry n bytes, at least one.
func framesOf(n int) int { return max((n+maxData-1)/maxData, 1) }

// reserve waits until a data frame may be made, and returns for how many bytes, at most want. They are taken of the
// credit and of the budget.
func (s *Stream) reserve(want int) (n int, err error) {
	for {
		n, wait, err := s.tryReserve(want)
		if n > 0 || err != nil {
			return n, err
		}
		select {
		case <-wait:
		case <-s.over:
		case <-s.writeUntil.passed():
			return 0, os.ErrDeadlineExceeded
		}
	}
}

func (s *Stream) tryReserve(want int) (n int, wait <-chan struct{}, err error) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	switch {
	case s.err != nil:
		return 0, nil, s.err
	case s.send.fin:
		return 0, nil, io.ErrClosedPipe
	case isClosed(s.writeUntil.passed()):
		return 0, nil, os.ErrDeadlineExceeded
	}
	most := s.m.out.window.frame()
	if s.m.out.window.size() >= trainWindow && !s.m.share.crowded() {
		most = trainFrames * maxData
	}
	n = min(want, most, s.send.allowance.left())
	if n <= 0 || s.send.bytes >= queueBytes || !s.send.granted && !s.earlyLocked(time.Now()) {
		return 0, s.send.room, nil
	}
	taken := s.m.share.tryTake(weightOf(n))
	if one := s.m.out.window.frame(); !taken && n > one { // a train may be more than the sure share
		n = one
		taken = s.m.share.tryTake(weightOf(n))
	}
	if !taken {
		if !s.send.hungry {
			s.send.hungry = true
			s.m.out.hungry = append(s.m.out.hungry, s)
		}
		return 0, s.send.room, nil
	}
	s.send.allowance.take(n)
	return n, nil, nil
}

// feedHungry lets those try again who were refused by the budget.
func (m *Mux) feedHungry() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.out.hungry {
		s.send.hungry = false
		s.send.room.Ring()
	}
	clear(m.out.hungry)
	m.out.hungry = m.out.hungry[:0]
}

// weightOf returns what frames with n bytes of payload count against the budget (session §4.2).
func weightOf(n int) int { return n + framesOf(n)*(headerBytes+64) }

// commit sends k bytes of c, for which n were reserved. k is 0 when there is nothing to send.
func (s *Stream) commit(c *chunk, n, k int) error {
	err := s.enqueue(c, n, k)
	if err == nil && k > 0 {
		s.m.writeNow()
	}
	return err
}

func (s *Stream) enqueue(c *chunk, n, k int) error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if k < n {
		s.send.allowance.untake(n - k)
	}
	err := s.err
	if err == nil && s.send.fin { // Close came meanwhile
		err = io.ErrClosedPipe
	}
	if k == 0 || err != nil {
		s.m.share.give(weightOf(n))
		s.m.pool.put(c)
		return err
	}
	s.m.share.give(weightOf(n) - weightOf(k))
	c = s.m.pool.fit(c, k+framesOf(k)*headerBytes)
	c.weight = weightOf(k)
	s.m.counts.Out += int64(k)
	s.send.total += int64(k)
	s.queueLocked(c, typeData, k)
	return nil
}

// Write blocks until all of b is queued. It keeps nothing of b.
func (s *Stream) Write(b []byte) (n int, err error) {
	s.sending.Lock()
	defer s.sending.Unlock()
	var slots [trainFrames][]byte
	for n < len(b) {
		k, err := s.reserve(min(len(b)-n, trainFrames*maxData))
		if err != nil {
			return n, err
		}
		c := s.m.pool.get(k + framesOf(k)*headerBytes)
		rest := b[n : n+k]
		for _, slot := range c.slots(k, slots[:]) {
			rest = rest[copy(slot, rest):]
		}
		if err := s.commit(c, k, k); err != nil {
			return n, err
		}
		n += k
	}
	return n, nil
}

// ReadFrom sends what it reads until io.EOF, for which it returns nil. It reads into the buffer that is sent. A stream
// that waits has a small one: a gateway has hundreds of streams, and most of them wait.
func (s *Stream) ReadFrom(r io.Reader) (total int64, err error) {
	s.sending.Lock()
	defer s.sending.Unlock()
	const small = smallBytes - headerBytes
	from := newSource(r)
	bulk := maxData
	if from.gathers() {
		bulk = trainFrames * maxData
	}
	var slots [trainFrames][]byte
	var n int
	var c *chunk // with n reserved bytes; nil: none
	want := small
	// A stream that waits for a socket holds nothing: the others need the budget.
	release := func() { s.commit(c, n, 0); c = nil }
	hold := func() [][]byte {
		if n, _, _ = s.tryReserve(want); n == 0 {
			return nil
		}
		c = s.m.pool.get(n + framesOf(n)*headerBytes)
		return c.slots(n, slots[:])
	}
	for {
		if n, err = s.reserve(want); err != nil {
			return total, err
		}
		c = s.m.pool.get(n + framesOf(n)*headerBytes)
		k, err := from.readInto(c.slots(n, slots[:]), release, hold)
		if c != nil {
			if failed := s.commit(c, n, k); failed != nil {
				return total, failed
			}
		}
		total += int64(k)
		switch {
		case errors.Is(err, io.EOF):
			return total, nil
		case err != nil:
			return total, sourceError{err}
		// Others hold a buffer while they wait: a large one only if the last one was full.
		case k == n || from.gathers() && k >= small:
			want = bulk
		default:
			want = small
		}
	}
}

// sourceError is an error of what ReadFrom read from, and no failure of the stream.
type sourceError struct{ error }

// Unwrap lets the cause be seen.
func (e sourceError) Unwrap() error { return e.error }

// CloseWrite ends the direction to the peer, after what was written; reading goes on.
func (s *Stream) CloseWrite() error {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	s.finLocked()
	return nil
}

func (s *Stream) finLocked() {
	if !s.send.fin {
		s.send.fin = true
		s.queueLocked(s.m.pool.get(headerBytes), typeFin, 0)
		s.m.wake.Ring()
	}
}
