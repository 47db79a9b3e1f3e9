package mux

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"hawser/internal/wait"
	"hawser/transport"
	"hawser/transport/wire"
)

// Stream is one stream of a session: a net.Conn with CloseWrite. One goroutine may read while another one writes; Close
// and the deadlines may be used by anybody.
type Stream struct {
	m        *Mux
	id       uint32
	open     Open
	answered chan struct{} // closed by opened, and when err is set
	over     chan struct{} // closed when err is set

	readUntil, writeUntil deadline

	sending sync.Mutex // one writer at a time: its frames are in order, and in one piece

	// The rest is guarded by m.mu.
	err    error // the stream has failed, or its session is over
	onFail func()
	closed bool // by this end
	send   struct {
		granted   bool // opened was said, or heard
		allowance allowance
		queue     []*chunk
		bytes     int // in the queue
		fin       bool
		finSent   bool
		total     int64     // bytes that were queued so far
		room      wait.Bell // there is credit, or room in the queue
		listed    bool      // in a list of the sender
		hungry    bool      // in that of those for whom the budget had nothing
		deficit   int
	}
	recv struct {
		chunks  []*chunk
		credit  credit
		fin     bool
		whole   bool      // all of it came before the session was over
		sink    sink      // of WriteTo; nil: none
		waiting bool      // somebody waits in awaitBytes
		direct  int64     // bytes that the reader has written to the sink
		ready   wait.Bell // there is something to read
		offset  uint64    // credit to be announced; 0: none
		back    bool      // what was promised was given back to the budget
		total   int64     // bytes that the reader has taken so far
	}
}

// newStreamLocked adds a stream whose peer is promised first bytes.
func (m *Mux) newStreamLocked(id uint32, o Open, first int) *Stream {
	s := &Stream{m: m, id: id, open: o, answered: make(chan struct{}), over: make(chan struct{})}
	s.send.room, s.recv.ready = wait.NewBell(), wait.NewBell()
	s.recv.credit = newCredit(first, m.config.largestCredit())
	m.share.promise(first)
	m.streams[id] = s
	return s
}

// Carried tells how many bytes of the peer's this end has taken so far, how many it has given for the peer, and how the
// stream failed, nil if it has not.
func (s *Stream) Carried() (in, out int64, err error) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	return s.recv.total, s.send.total, s.err
}

// Asked is what the Manager asked for.
func (s *Stream) Asked() Open { return s.open }

// Await blocks for the Runtime's answer to Ask, at most 30 s. After an error, which for a refusal is a *wire.Refusal, the
// stream is closed.
func (s *Stream) Await(ctx context.Context) (err error) {
	timer := time.NewTimer(openTimeout)
	defer timer.Stop()
	select {
	case <-s.answered:
		err = s.why()
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C:
		err = &transport.Error{Reason: transport.Timeout, Op: "open stream"}
	}
	if err != nil {
		s.Close()
	}
	return err
}

// Answered is closed when the Runtime has answered Ask, or the stream is over.
func (s *Stream) Answered() <-chan struct{} { return s.answered }

// Grant answers an accepted stream: bytes follow.
func (s *Stream) Grant() error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	s.send.granted = true
	s.send.room.Ring()
	s.m.counts.Granted++
	s.m.sayLocked(typeOpened, s.id, (&openedPayload{Credit: s.recv.credit.promised()}).encode())
	return nil
}

// Refuse answers an accepted stream with a reason. The stream is over.
func (s *Stream) Refuse(reason transport.Reason, text string) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if s.err == nil {
		s.m.refuseLocked(s.id, reason, text)
		s.failLocked(&wire.Refusal{Reason: reason, Text: text})
		s.goneLocked()
	}
}

func (m *Mux) refuseLocked(stream uint32, reason transport.Reason, text string) {
	if m.counts.Refused == nil {
		m.counts.Refused = make(map[transport.Reason]int64)
	}
	m.counts.Refused[reason]++
	m.sayLocked(typeRefused, stream, whyPayload{Reason: reason, Text: text}.encode())
}

// streamFrameLocked handles a frame of one stream that is no data.
func (m *Mux) streamFrameLocked(h header, payload []byte) error {
	if h.stream > m.last {
		return violated("stream %d was never opened", h.stream)
	}
	s := m.streams[h.stream]
	if s == nil {
		return nil // it has ended here, and the peer may not have known
	}
	switch h.kind {
	case typeOpened:
		return s.openedLocked(payload)
	case typeCredit:
		if err := s.send.allowance.add(parseUint64(payload)); err != nil {
			return err
		}
		s.send.room.Ring()
	case typeFin:
		if s.recv.fin {
			return violated("a second fin of stream %d", h.stream)
		}
		s.recv.fin = true
		s.recv.ready.Ring()
		s.doneLocked()
	case typeRefused, typeReset:
		p, err := parseWhy(h.kind, payload)
		if err != nil {
			return err
		}
		if h.kind == typeRefused {
			s.failLocked(&wire.Refusal{Reason: p.Reason, Text: p.Text})
		} else {
			s.failLocked(&transport.Error{Reason: p.Reason, Op: "hear from the other end", Err: textError(p.Text)})
		}
		s.goneLocked()
	}
	return nil
}

func textError(text string) error {
	if text == "" {
		return nil
	}
	return errors.New(text)
}

func (s *Stream) openedLocked(payload []byte) error {
	p, err := parseOpened(payload)
	if err != nil {
		return err
	}
	if s.send.granted {
		return violated("stream %d was opened twice", s.id)
	}
	s.send.granted = true
	if err := s.send.allowance.add(p.Credit); err != nil {
		return err
	}
	close(s.answered)
	s.send.room.Ring()
	return nil
}

// earlyLocked reports whether a Manager may send before the stream is opened: not on a line that may be gone, since what is
// lost there cannot be said again.
func (s *Stream) earlyLocked(now time.Time) bool {
	return s.m.config.Role == wire.RoleManager && s.m.out.waitsSince(now) <= 2*s.m.out.window.minRTT()+earlyPatience
}

// OnFail sets what is called, once and on a goroutine of its own, when the stream fails: at once if it has. It is for
// who waits for something else than the stream. A session that ends when all of the peer's bytes have come is no failure.
func (s *Stream) OnFail(f func()) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if s.onFail = f; s.err != nil && !s.recv.whole {
		go f()
	}
}

// failLocked ends the stream for those who use it, and discards what waits to be sent or read.
func (s *Stream) failLocked(err error) {
	if s.err != nil {
		return
	}
	s.err = err
	close(s.over)
	if !isClosed(s.answered) {
		close(s.answered)
	}
	for _, c := range s.send.queue {
		s.m.share.give(c.weight)
		s.m.pool.put(c)
	}
	s.send.queue, s.send.bytes = nil, 0
	for _, c := range s.recv.chunks {
		s.m.pool.put(c)
	}
	s.recv.chunks = nil
	s.releaseLocked()
	if s.onFail != nil && !s.recv.whole {
		go s.onFail()
	}
}

// abandonLocked is failLocked for a session that is over. What has all arrived can still be read.
func (s *Stream) abandonLocked(err error) {
	whole, chunks := s.recv.fin, s.recv.chunks
	if whole {
		s.recv.whole, s.recv.chunks = true, nil
	}
	s.failLocked(err)
	if whole {
		s.recv.chunks = chunks
	}
}

// releaseLocked gives back what the peer was promised: it sends no more.
func (s *Stream) releaseLocked() {
	if !s.recv.back {
		s.recv.back = true
		s.m.share.release(s.recv.credit.reserved())
	}
}

// doneLocked removes a stream of which both directions are over.
func (s *Stream) doneLocked() {
	if s.send.finSent && s.recv.fin {
		s.goneLocked()
	}
}

// goneLocked removes the stream from those that count.
func (s *Stream) goneLocked() {
	if s.m.streams[s.id] == s {
		delete(s.m.streams, s.id)
		s.m.share.closeStream()
	}
}

// sendsLocked reports whether the peer may still send.
func (s *Stream) sendsLocked() bool { return s.err == nil && !s.recv.fin }

// Reset ends both directions at once, for a reason that the peer is told: what waits at either end is discarded.
func (s *Stream) Reset(reason transport.Reason) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.resetLocked(reason)
}

func (s *Stream) resetLocked(reason transport.Reason) {
	if s.err == nil && s.m.streams[s.id] == s {
		s.m.sayLocked(typeReset, s.id, whyPayload{Reason: reason}.encode())
	}
	s.failLocked(&transport.Error{Reason: reason, Op: "use stream"})
	s.goneLocked()
}

// Close ends the stream: after what was written, if the peer has ended its direction, else at once, with a reset.
func (s *Stream) Close() error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	switch {
	case s.closed:
		return nil
	case s.err == nil && s.recv.fin:
		s.finLocked()
		s.releaseLocked()
	default:
		s.resetLocked(transport.Closed)
	}
	s.closed = true
	return nil
}

// why returns why the stream is over.
func (s *Stream) why() error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	return s.err
}

// SetDeadline sets both deadlines.
func (s *Stream) SetDeadline(t time.Time) error {
	s.readUntil.set(t)
	s.writeUntil.set(t)
	return nil
}

// SetReadDeadline ends a Read that waits then with os.ErrDeadlineExceeded; the zero time is none.
func (s *Stream) SetReadDeadline(t time.Time) error {
	s.readUntil.set(t)
	return nil
}

// SetWriteDeadline is SetReadDeadline for Write and ReadFrom.
func (s *Stream) SetWriteDeadline(t time.Time) error {
	s.writeUntil.set(t)
	return nil
}

// LocalAddr names the stream.
func (s *Stream) LocalAddr() net.Addr { return addr(s.id) }

// RemoteAddr names the stream.
func (s *Stream) RemoteAddr() net.Addr { return addr(s.id) }

// addr is a stream as an address.
type addr uint32

// Network is that of no other address.
func (addr) Network() string { return "hawser" }

// String is the same for all: a stream's number says nothing outside its session.
func (addr) String() string { return "stream" }
