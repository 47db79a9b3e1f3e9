package access

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/netip"
	"sync"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/record"
	"hawser/transport/wire"
)

// How fast frames of one link are taken, after a burst: far more than an honest client sends, and so few that a stolen one
// does not use up the processor and the database of all others (access §4).
const (
	frameCost   = 100 * time.Millisecond // 10 frames a second
	measureCost = time.Second            // of one that looks into the store: measurements, a report, a fresh key
	frameBurst  = 10 * time.Second       // 100 frames, or 10 with measurements
)

// frameRate is when the frames that were taken so far are paid for.
type frameRate struct{ paid time.Time }

// take counts one frame, and returns for how long the next one waits. It is pure.
func (r *frameRate) take(t wire.Type, now time.Time) time.Duration {
	cost := frameCost
	if t == wire.TypeMeasurements || t == wire.TypeReport || t == wire.TypeFreshKey {
		cost = measureCost
	}
	if r.paid.Before(now) {
		r.paid = now
	}
	r.paid = r.paid.Add(cost)
	return max(0, r.paid.Sub(now)-frameBurst)
}

const (
	queueFrames = 64              // that may wait for a link; a peer that lets more pile up is dead
	endTimeout  = 2 * time.Second // to tell the peer why a link ends
)

// message is a frame that waits to be sent.
type message struct {
	frame   wire.Type
	payload []byte
}

// link is one control connection. Everybody puts frames into its queue and never waits, so that one slow peer cannot
// hold up the others. A goroutine writes them, for which run waits, and which is there only while there are some: a server
// has very many links on which nothing is said for minutes. It has no context: it ends by closeWith, whoever calls that, or
// when its peer is late.
type link struct {
	conn  *tls.Conn
	peer  identity.Peer
	hello wire.Hello
	hints map[string]string
	from  netip.AddrPort
	since time.Time // by the clock that others see
	began time.Time // by this machine's

	onEnd  func()         // set before the first send
	writer sync.WaitGroup // the goroutine that writes
	ending chan struct{}  // closed when it begins to end
	done   chan struct{}  // closed when it has ended
	alive  chan struct{}  // closed at the first pong
	apart  bool           // it gets no offers: its key is, or may be, used by two machines

	queue   sync.Mutex // guards the next three; comes after mu
	out     []message
	writing bool          // there is a goroutine that writes
	why     *wire.Refusal // it ends: the first reason wins

	mu       sync.Mutex // guards the rest
	acks     map[string]chan orderReply
	load     wire.Load           // of a relay; the zero Load until it has sent one
	measured chan struct{}       // closed when a Runtime sends what it measured; nil: nobody waits
	asked    time.Time           // when it was last asked to measure
	told     map[store.Hash]bool // lists that it was sent
	toldKey  identity.SPKI       // of the domain key that it was led to; zero: that of its hello
	handed   int64               // counter of the join-state that it was given and has not answered; 0: none
	changed  time.Time           // when another join-state was due last
	fresh    identity.SPKI       // that it has shown
}

// noKeepAlive: the pings of wire §4.6 find a dead link, for a tenth of what TCP's own keepalive costs the gateway.
func noKeepAlive(conn *tls.Conn) {
	socket := conn.NetConn()
	if under, ok := socket.(*record.Conn); ok {
		socket = under.Raw()
	}
	if tcp, ok := socket.(interface{ SetKeepAlive(bool) error }); ok {
		_ = tcp.SetKeepAlive(false) // after an error it only costs more
	}
}

func newLink(conn *tls.Conn, peer identity.Peer, hello wire.Hello, now time.Time) *link {
	return &link{
		conn: conn, peer: peer, hello: hello, changed: time.Now(), hints: cleanHints(hello.Hints), from: remote(conn), since: now.UTC(), began: time.Now(),
		ending: make(chan struct{}), done: make(chan struct{}), alive: make(chan struct{}), acks: make(map[string]chan orderReply),
	}
}

// send queues a frame. A full queue ends the link. To wait here would let one slow device hold up a revocation for all
// others.
func (l *link) send(m message) {
	l.queue.Lock()
	defer l.queue.Unlock()
	switch {
	case l.why != nil:
	case len(l.out) == queueFrames:
		l.closeLocked(&wire.Refusal{Reason: transport.LinkLost, Text: "too slow"})
	default:
		l.out = append(l.out, m)
		l.writeLocked()
	}
}

// closeWith starts to end the link, with the reason that the peer is told if it still reads. It does not wait. Whoever comes
// second has nothing to add.
func (l *link) closeWith(r *wire.Refusal) {
	l.queue.Lock()
	defer l.queue.Unlock()
	l.closeLocked(r)
}

func (l *link) closeLocked(r *wire.Refusal) {
	if l.why != nil {
		return
	}
	l.why = r
	// A write that hangs must not keep the reason from being sent.
	l.conn.SetWriteDeadline(time.Now().Add(endTimeout))
	l.writeLocked()
}

func (l *link) writeLocked() {
	if !l.writing {
		l.writing = true
		l.writer.Go(l.write)
	}
}

// run reads until the link ends, and returns why. Frames other than pings go to handle.
func (l *link) run(heartbeat time.Duration, handle func(wire.Frame) error) error {
	err := l.read(heartbeat, handle)
	switch {
	// Closed in order is told apart from lost: the audit says which.
	case errors.Is(err, io.EOF):
		l.closeWith(&wire.Refusal{Reason: transport.Closed})
	case peerGone(err):
		l.closeWith(&wire.Refusal{Reason: transport.LinkLost})
	default:
		l.closeWith(refusalOf(err))
	}
	l.writer.Wait() // nothing begins to write any more
	close(l.done)
	return l.why
}

// read handles frames until one is late or wrong. Each ping says when the next one comes at the latest (wire §4.6).
func (l *link) read(heartbeat time.Duration, handle func(wire.Frame) error) error {
	next := heartbeat
	var rate frameRate
	pongs := 0
	for {
		l.conn.SetReadDeadline(time.Now().Add(next + wire.Grace(next)))
		f, err := wire.Read(l.conn)
		if err != nil {
			return err
		}
		l.rest(rate.take(f.Type, time.Now()))
		switch f.Type {
		case wire.TypePing:
			if next, err = f.PingInterval(); err != nil {
				return err
			}
			l.send(message{wire.TypePong, nil})
		case wire.TypePong:
			if pongs++; pongs == 1 {
				close(l.alive)
			}
		default:
			if err := handle(f); err != nil {
				return err
			}
		}
	}
}

// rest lets time pass in which nothing is read, unless the link ends. What a client sends meanwhile stays in its own
// buffers, and in those of the network.
func (l *link) rest(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.ending:
	}
}

// write sends what is queued, and ends the link when there is a reason for it. That goes before queued frames: they may be
// what the peer does not read.
func (l *link) write() {
	for {
		m, why := l.next()
		switch {
		case why != nil:
			l.finish(why)
			return
		case m == nil:
			return
		}
		l.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		if err := wire.Write(l.conn, m.frame, m.payload); err != nil {
			l.closeWith(&wire.Refusal{Reason: transport.LinkLost})
		}
	}
}

// next is the next frame to be written, or why the link ends; neither: the goroutine ends.
func (l *link) next() (m *message, why *wire.Refusal) {
	l.queue.Lock()
	defer l.queue.Unlock()
	switch {
	case l.why != nil:
		l.out = nil
	case len(l.out) == 0:
		l.out, l.writing = nil, false
	default:
		m, l.out = &l.out[0], l.out[1:]
	}
	return m, l.why
}

// finish ends the link, whose end is certain. onEnd comes before the reason is sent, which may take endTimeout: until then
// the device would seem to be online. The reader ends with the connection.
func (l *link) finish(why *wire.Refusal) {
	close(l.ending)
	l.onEnd()
	l.sendReason(why)
	l.closeConn(why)
}

// sendReason tells the peer why the link ends, if it still reads.
func (l *link) sendReason(r *wire.Refusal) {
	l.conn.SetWriteDeadline(time.Now().Add(endTimeout))
	if wire.Refuse(l.conn, r) == nil && r.Reason != transport.LinkLost {
		linger(l.conn)
	}
}

// closeConn closes the connection. To a peer that does not read, the close_notify of TLS would block: there only the
// socket is closed.
func (l *link) closeConn(why *wire.Refusal) {
	if why.Reason == transport.LinkLost {
		l.conn.NetConn().Close()
		return
	}
	l.conn.Close()
}

// offer sends an offer and returns the peer's answer: the empty reason is consent. It blocks for offerTimeout at most;
// the link of a peer that has not answered by then is ended, because it is dead or its Runtime hangs (wire §4.5).
func (l *link) offer(ctx context.Context, session string, m message) orderReply {
	answer := make(chan orderReply, 1)
	l.mu.Lock()
	// Before the frame is sent: the answer may be faster than this goroutine.
	l.acks[session] = answer
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.acks, session)
	}()
	l.send(m)
	timer := time.NewTimer(offerTimeout)
	defer timer.Stop()
	select {
	case reply := <-answer:
		return reply
	case <-timer.C:
		// A Runtime that pings and answers no offer would look online for ever; a new link is the cure that it can try
		// by itself.
		l.closeWith(&wire.Refusal{Reason: transport.LinkLost, Text: "an offer was not answered"})
	case <-l.done:
	case <-ctx.Done():
	}
	return orderReply{Reason: transport.Offline}
}

// acknowledge passes the peer's answer to the offer that waits for it. awaited is false if none does: it came too late.
// Taken out under the lock: a second answer to one offer finds nobody, and the channel of one never blocks.
func (l *link) acknowledge(m wire.OfferAck) (awaited bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	answer, awaited := l.acks[m.Session]
	if awaited {
		delete(l.acks, m.Session)
		answer <- orderReply{Reason: cleanReason(m.Reason), Text: wire.Printable(m.Text)}
	}
	return awaited
}

// cleanReason returns a peer's reason, or protocol if it is not in the form of one: reasons go into the log and the
// audit.
func cleanReason(r transport.Reason) transport.Reason {
	for _, c := range r {
		if (c < 'a' || c > 'z') && c != '-' {
			return transport.Protocol
		}
	}
	if len(r) > 32 {
		return transport.Protocol
	}
	return r
}

// handOut sends a join-state, unless it is nil.
func (l *link) handOut(m *wire.JoinState) {
	if m == nil {
		return
	}
	l.mu.Lock()
	l.handed = int64(m.Counter)
	l.mu.Unlock()
	l.send(encode(wire.TypeJoinState, *m))
}

// joinDue reports whether another join-state may be due, which costs a look into the store: once in joinLife.
func (l *link) joinDue(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.changed) < joinLife {
		return false
	}
	l.changed = now
	return true
}

// answered returns the counter of the join-state that waited for an answer, once.
func (l *link) answered() (handed int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	handed, l.handed = l.handed, 0
	return handed
}

func (l *link) showed(fresh identity.SPKI) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fresh = fresh
}

func (l *link) freshKey() identity.SPKI {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fresh
}

// currentLoad returns the last load that the relay has sent.
func (l *link) currentLoad() wire.Load {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.load
}

// requestMeasurements asks a Runtime to measure, and waits for the result, for measureTimeout at most. Requests that
// come meanwhile share the answer: measuring costs the gateway traffic.
func (l *link) requestMeasurements(ctx context.Context) {
	l.mu.Lock()
	if l.measured == nil {
		l.measured, l.asked = make(chan struct{}), time.Time{}
	}
	arrived := l.measured
	if time.Since(l.asked) >= measureTimeout {
		l.asked = time.Now()
		l.send(message{wire.TypeMeasure, nil})
	}
	l.mu.Unlock()
	timer := time.NewTimer(measureTimeout)
	defer timer.Stop()
	select {
	case <-arrived:
	case <-timer.C:
	case <-l.done:
	case <-ctx.Done():
	}
}

// measurementsArrived wakes everybody who waits for measurements. A closed channel wakes all of them, whatever their
// number.
func (l *link) measurementsArrived() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.measured != nil {
		close(l.measured)
		l.measured = nil
	}
}
