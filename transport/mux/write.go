package mux

import (
	"slices"
	"time"

	"hawser/transport"
)

const (
	// batchBytes is how much the writer takes under one lock. More would make a keystroke wait.
	batchBytes = 16 * largeBytes
	// quantum is what a stream sends before it goes behind the others.
	quantum = largeBytes
	// askParts of the window ask for an ack each, so that acks come evenly: with 4 a long path got whole quarters of the
	// window at once, whose queue ended slow start too early.
	askParts = 16
	// askBytes is how much goes at most without a request for an ack. Fewer acks cost less, and this many keep the kept
	// frames within a Runtime's budget, however large the window.
	askBytes = 512 << 10
)

// sender is what a Mux sends, under its lock.
type sender struct {
	control  []byte // whole frames that wait for nothing
	controls []int  // lengths of the counted ones among them
	announce []*Stream
	// Two lists, as in a fair queue (RFC 8290): who sent little lately comes before who has much to send. A keystroke
	// finds its stream in neither list, and so comes first.
	fresh, bulk []*Stream
	hungry      []*Stream // the budget had nothing for them

	used   bool // the line may carry counted frames
	chains int  // that were sent on this line
	window window
	ping   struct {
		number uint64
		at     time.Time // zero: answered
		idle   bool      // nothing else was on its way when it was sent
	}
	pong  [8]byte // the answer to the newest ping
	pongs bool

	sent, acked uint64 // counted frames
	outstanding int    // bytes of those that are not acknowledged
	unasked     int    // bytes that went since an ack was asked for
	frames      fifo[sentFrame]
	stamps      fifo[stamp]
	round       round
	roundEnd    uint64 // it is over when so many are acknowledged; 0: it begins with the next frame
}

// sentFrame is a counted frame that is not acknowledged.
type sentFrame struct{ bytes, weight int }

// stamp says when the counted frames up to count were sent.
type stamp struct {
	count uint64
	at    time.Time
}

// batch is what the writer writes next.
type batch struct {
	control []byte
	data    []*chunk
}

// write is the goroutine that writes. It ends after the last frame of a session that is over.
func (m *Mux) write() {
	timer := time.NewTimer(beat)
	defer timer.Stop()
	for {
		m.pen <- struct{}{}
		over, _, err := m.writeAll(0)
		<-m.pen
		if err != nil {
			m.writeFailed(err)
			return
		}
		if over {
			return
		}
		select {
		case <-m.wake:
		case <-m.share.freed():
			m.feedHungry()
		case <-timer.C:
			m.tick()
			timer.Reset(beat)
		}
	}
}

// writeAll writes and flushes what there is to write, in so many batches at most; 0: all. over says that nothing follows:
// the session has ended; more, that there is something left. The caller has the pen.
func (m *Mux) writeAll(most int) (over, more bool, err error) {
	for n := 1; ; n++ {
		over = m.collect(&m.batch)
		some := len(m.batch.control)+len(m.batch.data) > 0
		if err := m.writeBatch(&m.batch); err != nil {
			return false, false, err
		}
		if !some || n == most {
			return over && !some, some, m.line.Flush()
		}
	}
}

// writeNow lets who has something to send write it: to wake the writer for it would cost more than a keystroke does. It
// leaves the rest to the writer when others go on sending, or have the pen.
func (m *Mux) writeNow() {
	select {
	case m.pen <- struct{}{}:
		over, more, err := m.writeAll(2)
		<-m.pen
		if err == nil && !over && !more {
			return
		}
	default:
	}
	m.wake.Ring()
}

// writeFailed leaves it to the reader to say why: the peer's reason may have arrived before a write failed.
func (m *Mux) writeFailed(err error) {
	m.line.SetReadDeadline(time.Now().Add(endTime / 2))
	select {
	case <-m.done:
	case <-m.in.over:
	}
	m.lost(&transport.Error{Reason: transport.LinkLost, Op: "write to the other end", Err: err})
}

// tick sends a sign of life, and takes credit back that nobody uses.
func (m *Mux) tick() {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if m.err != nil {
		return
	}
	m.pingLocked(now)
	for _, s := range m.streams {
		if !s.recv.back {
			m.share.release(s.recv.credit.idle(now))
		}
	}
}

// pingLocked asks for an answer. Its round trip is that of the path if nothing else is on its way.
func (m *Mux) pingLocked(now time.Time) {
	o := &m.out
	o.ping.number++
	o.ping.at, o.ping.idle = now, o.outstanding == 0
	m.sayLocked(typePing, 0, appendUint64(nil, o.ping.number))
}

// writeBatch writes what collect has gathered, and gives the buffers back.
func (m *Mux) writeBatch(b *batch) error {
	var err error
	if len(b.control) > 0 {
		_, err = m.line.Write(b.control)
	}
	for _, c := range b.data {
		if err == nil {
			_, err = m.line.Write(c.bytes())
		}
		m.pool.put(c)
	}
	clear(b.data) // what waits holds no buffer
	b.data = b.data[:0]
	return err
}

// collect gathers the next frames in their order (session §3.6). over says that nothing follows: the session has ended.
func (m *Mux) collect(b *batch) (over bool) {
	b.control, b.data = b.control[:0], b.data[:0]
	if cap(b.control) > largeBytes {
		b.control = nil // that of a rare large frame
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	o := &m.out
	now := time.Now()
	before := o.sent
	m.announceLocked()
	b.control = append(b.control, o.control...)
	for _, n := range o.controls {
		o.countLocked(n, 0)
	}
	o.control, o.controls = o.control[:0], o.controls[:0]
	if m.err == nil && o.used {
		m.collectDataLocked(b)
	}
	if len(b.control)+len(b.data) > 0 || o.pongs || m.received.dueLocked(now) {
		b.control = m.appendAcksLocked(b.control)
	}
	if o.sent > before {
		o.stamps.push(stamp{o.sent, now})
		if o.roundEnd == 0 {
			o.round, o.roundEnd = round{}, before+1
		}
	}
	return m.err != nil
}

// countLocked counts a frame as sent.
func (o *sender) countLocked(bytes, weight int) {
	o.sent++
	o.outstanding += bytes
	o.frames.push(sentFrame{bytes, weight})
}

// announceLocked turns new credit into frames. Only the newest offset of a stream goes out.
func (m *Mux) announceLocked() {
	for _, s := range m.out.announce {
		if s.recv.offset > 0 && s.sendsLocked() {
			m.sayLocked(typeCredit, s.id, appendUint64(nil, s.recv.offset))
		}
		s.recv.offset = 0
	}
	clear(m.out.announce)
	m.out.announce = m.out.announce[:0]
}

// appendAcksLocked adds what acknowledges, before it is asked for: it costs nothing where something is sent anyway.
func (m *Mux) appendAcksLocked(b []byte) []byte {
	if m.received.count > m.received.acked {
		m.received.ackLocked()
		b = appendFrame(b, typeAck, 0, ackPayload{m.received.count, m.received.newest.Sub(m.begun)}.encode())
	}
	if m.out.pongs {
		m.out.pongs = false
		b = appendFrame(b, typePong, 0, m.out.pong[:])
	}
	return b
}

// collectDataLocked takes data frames, in turns, while the window takes them. A small one shares the record of the
// control frames if it is the first.
func (m *Mux) collectDataLocked(b *batch) {
	o := &m.out
	for n := 0; n < batchBytes; {
		s := m.nextLocked()
		if s == nil {
			return
		}
		c := s.send.queue[0]
		size := c.to - c.from
		if !o.window.may(o.outstanding, size) {
			o.round.limited = true
			return
		}
		s.takeLocked()
		for at, rest := c.from, c.weight; at < c.to; at += largeBytes {
			bytes := min(c.to-at, largeBytes)
			weight := min(rest, bytes+64)
			o.countLocked(bytes, weight)
			rest -= weight
		}
		n += size
		if o.unasked += size; c.kind == typeData && o.unasked >= min(o.window.size()/askParts, askBytes) {
			o.unasked = 0
			c.b[(c.to-1)/largeBytes*largeBytes] = typeDataAsk // its last frame
		}
		if len(b.data) == 0 && size <= smallBytes && len(b.control)+size <= largeBytes {
			b.control = append(b.control, c.bytes()...)
			m.pool.put(c)
			continue
		}
		b.data = append(b.data, c)
	}
}

// nextLocked returns the stream whose turn it is, or nil. It is at the head of its list.
func (m *Mux) nextLocked() *Stream {
	o := &m.out
	for {
		list := &o.fresh
		if len(*list) == 0 {
			list = &o.bulk
		}
		if len(*list) == 0 {
			return nil
		}
		s := (*list)[0]
		switch {
		case len(s.send.queue) == 0 && list == &o.fresh:
			// It waits among the others once, or one that empties its queue each time would always come first.
			o.fresh, o.bulk = pop(o.fresh), append(o.bulk, s)
		case len(s.send.queue) == 0:
			o.bulk, s.send.listed = pop(o.bulk), false
		case s.send.deficit <= 0:
			s.send.deficit += quantum
			*list = pop(*list)
			o.bulk = append(o.bulk, s)
		default:
			return s
		}
	}
}

func pop(list []*Stream) []*Stream {
	copy(list, list[1:])
	list[len(list)-1] = nil
	return list[:len(list)-1]
}

// acknowledged handles an ack (session §3.6).
func (m *Mux) acknowledged(a ackPayload, now time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := &m.out
	if a.Count < o.acked || a.Count > o.sent {
		return violated("ack of %d frames, %d were sent and %d acknowledged", a.Count, o.sent, o.acked)
	}
	if a.Count == o.acked {
		return nil
	}
	weight := 0
	for ; o.acked < a.Count; o.acked++ {
		f := o.frames.pop()
		o.outstanding -= f.bytes
		weight += f.weight
	}
	if weight > 0 {
		m.share.give(weight)
	}
	for o.stamps.first().count < a.Count {
		o.stamps.pop()
	}
	sent := o.stamps.first().at // of its newest frame
	o.round.acknowledged(now.Sub(sent), a.At-sent.Sub(m.begun))
	if o.roundEnd > 0 && a.Count >= o.roundEnd {
		o.window.round(o.round, now)
		o.roundEnd = 0
	}
	if len(o.fresh)+len(o.bulk) > 0 {
		m.wake.Ring()
	}
	return nil
}

// waitsSince is for how long what was sent has waited for its answer, 0 when nothing does.
func (o *sender) waitsSince(now time.Time) (d time.Duration) {
	for _, s := range o.stamps.list[o.stamps.head:] {
		if s.count > o.acked {
			d = now.Sub(s.at)
			break
		}
	}
	if !o.ping.at.IsZero() {
		d = max(d, now.Sub(o.ping.at))
	}
	return d
}

// ponged handles a pong.
func (m *Mux) ponged(number uint64, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := &m.out
	if o.ping.at.IsZero() || number != o.ping.number {
		return // of an earlier ping, which says nothing any more
	}
	if o.ping.idle {
		o.window.measured(now.Sub(o.ping.at), now)
	}
	o.ping.at = time.Time{}
}

// fifo is a queue without an allocation for each element. It gives back what much has needed when little is left.
type fifo[T any] struct {
	list []T
	head int
}

const fifoKeeps = 16 // elements

func (f *fifo[T]) first() *T { return &f.list[f.head] }

func (f *fifo[T]) push(v T) { f.list = append(f.list, v) }

func (f *fifo[T]) pop() T {
	v := f.list[f.head]
	f.head++
	switch left := len(f.list) - f.head; {
	case left <= fifoKeeps && cap(f.list) > 4*fifoKeeps:
		f.list, f.head = slices.Clone(f.list[f.head:]), 0
	case left == 0:
		f.list, f.head = f.list[:0], 0
	case f.head >= 64 && f.head*2 >= len(f.list):
		f.list, f.head = f.list[:copy(f.list, f.list[f.head:])], 0
	}
	return v
}
