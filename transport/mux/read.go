package mux

import (
	"errors"
	"time"

	"hawser/transport"
	"hawser/transport/wire"
)

// ackLate is how long an acknowledgement waits for something that it can go with, when the sender has not asked for it.
const ackLate = 10 * time.Millisecond

// received is what has to be acknowledged, under the lock of the Mux.
type received struct {
	count  uint64 // counted frames
	acked  uint64 // of them
	asked  bool   // the sender waits for an ack
	newest time.Time
	late   *time.Timer // calls ackIsLate
	armed  bool        // late runs
	until  time.Time   // when an ack is due at the latest; zero: nothing waits
}

// addLocked counts a frame.
func (r *received) addLocked(kind byte, now time.Time) {
	r.count++
	r.newest = now
	r.asked = r.asked || kind == typeDataAsk
	if r.until.IsZero() {
		r.until = now.Add(ackLate)
		r.armLocked(ackLate)
	}
}

// dueLocked reports whether an ack is due although nothing else is sent.
func (r *received) dueLocked(now time.Time) bool {
	return r.count > r.acked && (r.asked || !r.until.IsZero() && !now.Before(r.until))
}

func (r *received) ackLocked() {
	r.acked, r.asked, r.until = r.count, false, time.Time{}
}

// armLocked starts the timer, unless it runs: it looks by itself what is due when it is over. To move it with every
// frame and to stop it with every ack would cost a system call each, where two ends talk by turns.
func (r *received) armLocked(d time.Duration) {
	if !r.armed {
		r.armed = true
		r.late.Reset(d)
	}
}

// ackIsLate is called by the timer.
func (m *Mux) ackIsLate() {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, now := &m.received, time.Now()
	if r.armed = false; r.dueLocked(now) {
		m.wake.Ring()
	} else if !r.until.IsZero() {
		r.armLocked(r.until.Sub(now))
	}
}

// reader is the state of the goroutine that reads.
type reader struct {
	over    chan struct{} // closed when it has ended
	partial []byte        // of a frame that crosses records
	small   [smallBytes]byte
	alive   time.Time // when the deadline was set
	now     time.Time // when the bytes at hand came
	touched []*Stream // that got data since the last wait
}

// read is the goroutine that reads. It never waits for a stream, a machine or the writer: what it takes from the peer is
// what the peer was promised.
func (m *Mux) read() {
	defer close(m.in.over)
	var c *chunk // a large buffer, while reads fill what they are given
	for {
		b := m.in.small[:]
		if c != nil {
			b = c.b
		}
		n, err := m.readLine(b)
		if err != nil {
			m.lost(err)
			return
		}
		kept, err := m.feed(c, b[:n])
		if err != nil {
			m.end(err)
			return
		}
		if m.isOver() {
			return
		}
		switch {
		case kept:
			c = m.pool.get(largeBytes)
		case c == nil && n == len(b):
			c = m.pool.get(largeBytes)
		case c != nil && n < smallBytes:
			m.pool.put(c)
			c = nil
		}
	}
}

// readLine reads, and takes a silence for a loss.
func (m *Mux) readLine(b []byte) (int, error) {
	// To move the deadline at each read would cost a timer operation for each record.
	if now := time.Now(); now.Sub(m.in.alive) > silence/20 {
		m.in.alive = now
		m.mu.Lock()
		if m.err == nil { // else Close has set one
			m.line.SetReadDeadline(now.Add(silence))
		}
		m.mu.Unlock()
	}
	n, err := m.line.Read(b)
	m.in.now = time.Now()
	if n > 0 {
		return n, nil
	}
	return n, err
}

// isOver reports whether nothing more is to be read: the peer has said its last word, or this end has nothing to wait
// for.
func (m *Mux) isOver() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.heard
}

// caughtUp is called when all that has come was read. It wakes who waits for it, and sends the ack that is due: once for
// all that came at once, since each wake costs as much as the bytes of several frames.
func (m *Mux) caughtUp() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wakeTouchedLocked()
	if m.received.dueLocked(m.in.now) {
		m.wake.Ring()
	}
}

func (m *Mux) wakeTouchedLocked() {
	for _, s := range m.in.touched {
		if !s.directLocked() {
			s.recv.ready.Ring()
		}
	}
	clear(m.in.touched)
	m.in.touched = m.in.touched[:0]
}

// feed takes bytes of the line. c is the buffer whose first bytes they are, or nil; kept says that a stream has it now.
func (m *Mux) feed(c *chunk, b []byte) (kept bool, err error) {
	in := &m.in
	for at := 0; at < len(b); {
		rest := b[at:]
		if len(in.partial) > 0 || len(rest) < headerBytes {
			n, err := m.feedPartial(rest)
			if at += n; err != nil {
				return kept, err
			}
			continue
		}
		h, err := parseHeader(rest[:headerBytes], m.config.Role)
		if err != nil {
			return kept, err
		}
		if len(rest) < headerBytes+h.n {
			in.partial = append(in.partial, rest...)
			break
		}
		payload := rest[headerBytes : headerBytes+h.n]
		at += headerBytes + h.n
		switch {
		case !isData(h.kind):
			err = m.handle(h, payload)
		// The buffer goes to the stream as it is: the frame is most of what it holds. So none is copied where it counts.
		// It is the last thing that is read from it, since the stream may be done with it at once.
		case c != nil && at == len(b) && h.n > largeBytes/2:
			c.from, c.to = at-h.n, at
			kept, err = m.deliver(h, payload, c)
		default:
			_, err = m.deliver(h, payload, nil)
		}
		if err != nil {
			return kept, err
		}
	}
	return kept, nil
}

// feedPartial gathers a frame that crosses records, and returns how much of b it has taken.
func (m *Mux) feedPartial(b []byte) (taken int, err error) {
	in := &m.in
	take := func(want int) bool {
		n := min(max(want-len(in.partial), 0), len(b)-taken)
		in.partial = append(in.partial, b[taken:taken+n]...)
		taken += n
		return len(in.partial) >= want
	}
	if !take(headerBytes) {
		return taken, nil
	}
	h, err := parseHeader(in.partial[:headerBytes], m.config.Role)
	if err != nil || !take(headerBytes+h.n) {
		return taken, err
	}
	payload := in.partial[headerBytes:]
	if isData(h.kind) {
		_, err = m.deliver(h, payload, nil)
	} else {
		err = m.handle(h, payload)
	}
	if in.partial = in.partial[:0]; cap(in.partial) > smallBytes {
		in.partial = nil
	}
	return taken, err
}

// handle handles a frame that is no data. The payload is the reader's.
func (m *Mux) handle(h header, payload []byte) error {
	// Of the reader alone.
	if !m.peer.hello && h.kind != typeHello {
		return violated("type %#02x before hello", h.kind)
	}
	switch h.kind {
	case typeAck:
		a, err := parseAck(payload)
		if err != nil {
			return err
		}
		return m.acknowledged(a, m.in.now)
	case typePong:
		m.ponged(parseUint64(payload), m.in.now)
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.out.control) > maxUnsent {
		return violated("the peer takes no answers")
	}
	if counted(h.kind) {
		if err := m.mayCountLocked(h.kind); err != nil {
			return err
		}
		m.received.addLocked(h.kind, m.in.now)
	}
	switch h.kind {
	case typeHello:
		return m.helloLocked(payload)
	case typeResume:
		return m.resumeLocked(payload)
	case typeUse:
		if m.peer.use || !m.peer.resume {
			return violated("use out of turn")
		}
		m.peer.use, m.out.used = true, true
		return nil
	case typePing:
		m.out.pong, m.out.pongs = [8]byte(payload), true
		m.wake.Ring()
		return nil
	case typeOpen:
		return m.openLocked(h, payload)
	case typeEnd:
		return m.endHeardLocked(payload)
	case typeStatements:
		return m.newsLocked(payload)
	case typeChain:
		return m.chainLocked(payload)
	}
	return m.streamFrameLocked(h, payload)
}

// mayCountLocked refuses counted frames before the line is in use. A Runtime that has not admitted the Manager refuses by
// such frames: a stream for which there is no room, or the session.
func (m *Mux) mayCountLocked(kind byte) error {
	if m.config.Role == wire.RoleManager && m.peer.hello && (kind == typeEnd || kind == typeRefused) {
		return nil
	}
	if !m.peer.resume || m.config.Role == wire.RoleRuntime && !m.peer.use {
		return violated("a counted frame before the line is in use")
	}
	return nil
}

func (m *Mux) helloLocked(payload []byte) error {
	p, err := parseHello(payload)
	switch {
	case err != nil:
		return err
	case m.peer.hello:
		return violated("a second hello")
	case p.Version != version:
		return &transport.Error{Reason: transport.Unsupported, Op: "read hello"}
	case p.Session != m.config.Session || p.Epoch != m.config.Epoch:
		return violated("hello of another session")
	}
	m.peer.hello = true
	m.peer.said = Hello{DomainKey: p.DomainKey, List: p.List, Device: p.Device, Statements: p.Statements}
	close(m.greeted)
	return nil
}

func (m *Mux) resumeLocked(payload []byte) error {
	p, err := parseResume(payload)
	switch {
	case err != nil:
		return err
	case m.peer.resume || !m.peer.hello:
		return violated("resume out of turn")
	case p.Have:
		return violated("resume of a session that this end does not have")
	}
	m.peer.resume = true
	close(m.ready)
	return nil
}

// openLocked takes a stream that the Manager opens, or refuses it: there is no room for it.
func (m *Mux) openLocked(h header, payload []byte) error {
	p, err := parseOpen(payload)
	if err != nil {
		return err
	}
	if h.stream <= m.last {
		return violated("stream %d was opened before", h.stream)
	}
	m.last = h.stream
	if m.err != nil {
		return nil
	}
	most := maxStreams
	if m.held { // he is nobody yet, and what he may send is promised from what all sessions share
		most = heldStreams
	}
	first, ok := 0, len(m.streams) < most
	if ok {
		first, ok = m.share.openStream(m.config.Streams)
	}
	if !ok {
		m.refuseLocked(h.stream, transport.Busy, "the gateway has all its streams")
		return nil
	}
	s := m.newStreamLocked(h.stream, Open{Service: p.Service, Target: p.Target}, first)
	if err := s.send.allowance.add(p.Credit); err != nil {
		return err
	}
	select {
	case m.accepts <- s:
	default: // streams that were opened and reset before anybody has looked
		m.refuseLocked(h.stream, transport.Busy, "")
		s.failLocked(&wire.Refusal{Reason: transport.Busy})
		s.goneLocked()
	}
	return nil
}

// endHeardLocked ends the session as the peer says, and answers it. An end that answers ours changes nothing.
func (m *Mux) endHeardLocked(payload []byte) error {
	p, err := parseWhy(typeEnd, payload)
	if err != nil {
		return err
	}
	m.heard = true
	heard := &transport.Error{Reason: p.Reason, Op: "hear from the other end"}
	if p.Text != "" {
		heard.Err = errors.New(p.Text)
	}
	m.endLocked(heard, true)
	return nil
}
