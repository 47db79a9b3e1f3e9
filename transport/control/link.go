package control

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"hawser/transport"
	"hawser/transport/wire"
)

const (
	busyInterval = 4 * time.Second // between pings while a session runs (wire §4.6)
	timeAgain    = 24 * time.Hour  // between two signed times on one connection
	probeGrace   = 3 * time.Second
	writeTimeout = 10 * time.Second // for one frame
	beatEvery    = 15 * time.Second // that often the loop turns when nothing happens
)

// Handler is what the owner of a Link does with what the server sends. The
// functions are called one at a time, from Run, and must not block. A nil one
// is not interested.
type Handler struct {
	Pool       func(wire.Pool)
	Offer      func(wire.Offer) transport.Reason // the empty reason is consent
	EndSession func(wire.EndSession)
	Revoked    func(wire.Revoked)
	Measure    func() // the Access Server wants fresh measurements
	Beat       func() // each time that the loop has turned, at least every 15 s: what a watchdog wants to know
}

// Link is a control connection (wire §4.3). Run is called once; what tells the
// Access Server something may be called at any time.
type Link struct {
	Welcome wire.Welcome

	conn  *Conn
	idle  time.Duration
	pace  chan struct{} // told when busy has changed
	probe chan struct{} // told when the network has changed
	busy  atomic.Bool

	// Only Run uses these.
	question question  // the time-request that is out
	until    time.Time // the link is lost when nothing was heard by then
}

// Control says hello and waits for the welcome, at most 20 s. The Link takes
// over the connection: its Run closes it. After an error the caller does.
func (c *Conn) Control(ctx context.Context, hello wire.Hello) (l *Link, err error) {
	done := closeOnDone(ctx, c.Conn)
	defer func() {
		if !done() {
			l, err = nil, ctx.Err()
		}
	}()
	c.SetDeadline(time.Now().Add(answerTimeout))
	defer c.SetDeadline(time.Time{})
	if err := wire.WriteJSON(c, wire.TypeHello, hello); err != nil {
		return nil, err
	}
	f, err := wire.Expect(c, wire.TypeWelcome)
	if err != nil {
		return nil, err
	}
	l = &Link{conn: c, pace: make(chan struct{}, 1), probe: make(chan struct{}, 1)}
	if err := f.Decode(&l.Welcome); err != nil {
		return nil, err
	}
	l.idle = min(max(time.Duration(l.Welcome.HeartbeatS)*time.Second, busyInterval), 20*time.Minute)
	return l, nil
}

// Run serves the connection until it is lost, the server ends it, or ctx ends;
// then it closes it, in order when it was ctx, so that the server does not take
// it for a lost link. It returns nil when ctx ended, else an error whose reason
// says why: link-lost when nothing was heard in time, or what the server said.
func (l *Link) Run(ctx context.Context, h Handler) error {
	serving, cancel := context.WithCancel(ctx)
	frames := make(chan heard)
	var reader sync.WaitGroup
	// A write may be blocked: Close then does not wait for it.
	defer context.AfterFunc(ctx, func() { l.conn.Close() })()
	l.expect(l.interval() + wire.Grace(l.interval()))
	reader.Go(func() { l.read(serving, frames) })
	err := l.serve(ctx, h, frames)
	cancel()
	if ctx.Err() != nil {
		l.conn.Close() // whoever of the two is second does nothing
		reader.Wait()
		return nil
	}
	l.conn.NetConn().Close()
	reader.Wait()
	if r := transport.ReasonOf(err); r == transport.Timeout || r == transport.Reset {
		err = &transport.Error{Reason: transport.LinkLost, Op: "hear from Access Server", Err: err}
	}
	return err
}

// heard is a frame, or why there are no more.
type heard struct {
	frame wire.Frame
	err   error
}

// read hands over frames until the connection fails or ctx ends.
func (l *Link) read(ctx context.Context, frames chan<- heard) {
	for {
		f, err := wire.Read(l.conn)
		select {
		case frames <- heard{f, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

func (l *Link) serve(ctx context.Context, h Handler, frames <-chan heard) error {
	ping, again, beat := time.NewTimer(l.interval()), time.NewTicker(timeAgain), time.NewTicker(beatEvery)
	defer ping.Stop()
	defer again.Stop()
	defer beat.Stop()
	for {
		if h.Beat != nil {
			h.Beat()
		}
		var err error
		select {
		case <-ctx.Done():
			return nil
		case got := <-frames:
			if err = got.err; err == nil {
				l.expect(l.interval() + wire.Grace(l.interval()))
				err = l.handle(h, got.frame)
			}
		case <-beat.C:
		case <-l.pace:
			ping.Reset(0)
		case <-l.probe:
			l.expect(probeGrace)
			err = l.write(wire.TypePing, wire.Ping(l.interval()))
		case <-ping.C:
			// Only a frame puts the end off: a grace as long as the interval
			// would else begin again and again.
			if grace := wire.Grace(l.interval()); time.Now().Add(grace).Before(l.until) {
				l.expect(grace)
			}
			err = l.write(wire.TypePing, wire.Ping(l.interval()))
			ping.Reset(l.interval())
		case <-again.C:
			l.question = newQuestion(l.conn.client.UID)
			err = l.write(wire.TypeTimeAgain, l.question.request[:])
		}
		if err != nil {
			return err
		}
	}
}

// handle acts on one frame. Types that this build does not expect end the
// connection: the server would not have sent them.
func (l *Link) handle(h Handler, f wire.Frame) error {
	switch f.Type {
	case wire.TypePong:
		return nil
	case wire.TypePing:
		if _, err := f.PingInterval(); err != nil {
			return err
		}
		return l.write(wire.TypePong, nil)
	case wire.TypePool:
		return pass(f, h.Pool)
	case wire.TypeEndSession:
		return pass(f, h.EndSession)
	case wire.TypeRevoked:
		return pass(f, h.Revoked)
	case wire.TypeMeasure:
		if h.Measure != nil {
			h.Measure()
		}
		return nil
	case wire.TypeOffer:
		return l.answer(h, f)
	case wire.TypeTime:
		t, rtt, err := l.question.judge(l.conn.Conn, f)
		if err == nil {
			err = l.conn.client.Clock.Signed(t, rtt)
		}
		if err != nil {
			return &transport.Error{Reason: timeReason(err), Op: "renew signed time", Err: err}
		}
		l.question = question{} // one answer
		return nil
	case wire.TypeRefuse:
		return f.Refusal()
	}
	return &transport.Error{Reason: transport.Protocol, Op: "read control frame", Err: wire.ErrFrame}
}

func pass[M any](f wire.Frame, to func(M)) error {
	var m M
	if err := f.Decode(&m); err != nil || to == nil {
		return err
	}
	to(m)
	return nil
}

func (l *Link) answer(h Handler, f wire.Frame) error {
	var m wire.Offer
	if err := f.Decode(&m); err != nil {
		return err
	}
	ack := wire.OfferAck{Session: m.Session, Reason: transport.Unsupported}
	if h.Offer != nil {
		ack.Reason = h.Offer(m)
	}
	return l.writeJSON(wire.TypeOfferAck, ack)
}

// Probe asks for a sign of life within 3 s: the network has changed, and a
// connection that has not survived shall not be found out by the heartbeat.
func (l *Link) Probe() {
	select {
	case l.probe <- struct{}{}:
	default: // already told
	}
}

// Busy makes the heartbeat fast while a session runs or is about to, so that a
// lost link is noticed within 10 s.
func (l *Link) Busy(busy bool) {
	if l.busy.Swap(busy) == busy {
		return
	}
	select {
	case l.pace <- struct{}{}:
	default: // already told
	}
}

// EndSession tells the Access Server that a session ended here.
func (l *Link) EndSession(m wire.EndSession) error {
	return l.writeJSON(wire.TypeEndSession, m)
}

// Measurements tells the Access Server what the Runtime has measured.
func (l *Link) Measurements(m wire.Measurements) error {
	return l.writeJSON(wire.TypeMeasurements, m)
}

// Load tells the Access Server how much a relay carries.
func (l *Link) Load(m wire.Load) error { return l.writeJSON(wire.TypeLoad, m) }

func (l *Link) interval() time.Duration {
	if l.busy.Load() {
		return busyInterval
	}
	return l.idle
}

// expect takes the link as lost when nothing is heard within d.
func (l *Link) expect(d time.Duration) {
	l.until = time.Now().Add(d)
	l.conn.SetReadDeadline(l.until)
}

func (l *Link) write(t wire.Type, payload []byte) error {
	l.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	return wire.Write(l.conn, t, payload)
}

func (l *Link) writeJSON(t wire.Type, v any) error {
	l.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	return wire.WriteJSON(l.conn, t, v)
}
