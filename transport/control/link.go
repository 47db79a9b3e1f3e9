package control

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"hawser/internal/wait"
	"hawser/transport"
	"hawser/transport/wire"
)

// A pong may take 10 s, less than the 15 s of grace that the server gives: the client dials anew before the server
// declares it offline. A write of so small a frame blocks only when nothing has got through for long.
const (
	// 4 s and a grace of 4 s notice a lost peer within 8 s. With 5 s and 5 s it was 10 s to the millisecond, which is
	// what is promised, and left nothing for timers that are late.
	busyInterval = 4 * time.Second // between pings while a session runs (wire §4.6)
	timeAgain    = 24 * time.Hour  // between two signed times on one connection
	// A change of the network is a good reason for doubt, so the answer gets less time than an ordinary pong.
	probeGrace   = 3 * time.Second
	pongTimeout  = 10 * time.Second // of an interval that is not shorter itself
	writeTimeout = 10 * time.Second // for one frame
	beatEvery    = 15 * time.Second // between two calls of Beat when nothing else happens
)

// Handler has the functions that Link.Run calls for what the server sends, one at a
// time. They must not block. What a nil one is for is ignored.
type Handler struct {
	Pool       func(wire.Pool)
	Offer      func(wire.Offer) *wire.Refusal // nil accepts it
	EndSession func(wire.EndSession)
	Revoked    func(wire.Revoked)
	Statements func(wire.Statements)
	Reported   func(wire.ReportAck)
	Measure    func() // the Access Server wants fresh measurements
	JoinState  func(wire.JoinState)
	Identity   func(wire.Identity) // for the fresh key
	// Survived is told each idle time after which the server was heard again (wire
	// §4.6.1). It may call Pace.
	Survived func(idle time.Duration)
	Beat     func() // at least every 15 s, while Run is not stuck: for a watchdog
}

// Link is a control connection (wire §4.3). Run is called once; the other methods may
// be called at any time. What others set is atomic or a bell, without a mutex: Busy and Probe come from sessions and
// from the watcher of the network, and must not wait behind a write that blocks for 10 s. The link keeps when it sent a
// frame that has no answer, because a NAT restarts its timer at any packet: without it, an end-session just before a
// cut would teach too long a limit.
type Link struct {
	Welcome wire.Welcome

	conn  *Conn
	idle  atomic.Int64 // time.Duration between two pings of an idle link
	pace  wait.Bell    // rings when busy has changed
	probe wait.Bell    // rings when the network has changed
	busy  atomic.Bool
	sent  atomic.Pointer[time.Time] // when the last frame was sent that has no answer

	// Only Run uses these.
	pending timeRequest // the time-request that was not answered yet
	until   time.Time   // the link is lost when nothing is received by then
	quiet   quiet
}

// quiet follows the idle time of a link (wire §4.6.1).
type quiet struct {
	since  time.Time // of the last ping that was answered, or of the last frame either way
	asked  time.Time // when a ping was sent that is not answered yet; zero: none
	probed bool      // that ping followed a change of the network
}

// A Loss is how a link that ended had been idle.
type Loss struct {
	Idle   time.Duration // zero: it was not idle, or the network had changed
	Silent bool          // a ping was not answered: the way may have been closed long before
}

// Control says hello and waits for the welcome, at most 20 s. Then the Link owns the
// connection, and its Run closes it. After an error the caller closes it.
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
	l = &Link{conn: c, pace: wait.NewBell(), probe: wait.NewBell()}
	if err := f.Decode(&l.Welcome); err != nil {
		return nil, err
	}
	l.Pace(l.Heartbeat())
	return l, nil
}

// Pace sets how often an idle link pings, from its next ping on. Without it the
// heartbeat of the welcome counts.
func (l *Link) Pace(interval time.Duration) {
	l.idle.Store(int64(min(max(interval, busyInterval), 20*time.Minute)))
}

// Heartbeat is how long the server waits for the first ping.
func (l *Link) Heartbeat() time.Duration {
	return min(max(time.Duration(l.Welcome.HeartbeatS)*time.Second, busyInterval), 20*time.Minute)
}

// Lost returns how idle the link was when Run returned.
func (l *Link) Lost() Loss {
	switch {
	case l.busy.Load() || l.quiet.probed:
		return Loss{}
	case !l.quiet.asked.IsZero():
		return Loss{l.idleAt(l.quiet.asked), true}
	}
	return Loss{l.idleAt(time.Now()), false}
}

// idleAt is how long the link had been idle at a time.
func (l *Link) idleAt(t time.Time) time.Duration {
	since := l.quiet.since
	if sent := l.sent.Load(); sent != nil && sent.After(since) && sent.Before(t) {
		since = *sent
	}
	return t.Sub(since)
}

// Run serves the connection until it is lost, the server ends it, or ctx ends. Then
// it closes it; if ctx ended with close_notify, so that the server does not take it
// for a lost link. It returns nil if ctx ended, else an error with a reason:
// link-lost if nothing was received in time, or that of the server's refusal. All that it calls runs on the caller's
// goroutine; the one goroutine that it starts only reads, and has ended when Run returns. A blocking read on this
// goroutine could neither ping nor notice ctx.
func (l *Link) Run(ctx context.Context, h Handler) error {
	serving, cancel := context.WithCancel(ctx)
	frames := make(chan heard)
	var reader sync.WaitGroup
	// Close interrupts a write that is blocked.
	defer context.AfterFunc(ctx, func() { l.conn.Close() })()
	l.quiet.since = time.Now()
	l.expect(l.interval() + l.patience())
	reader.Go(func() { l.read(serving, frames) })
	err := l.serve(ctx, h, frames)
	cancel()
	if ctx.Err() != nil {
		l.conn.Close() // a second Close does nothing
		reader.Wait()
		return nil
	}
	// Not Close: that writes close_notify first, and a lost link may block that for the 5 s of crypto/tls.
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

// read sends the frames that it reads until the connection fails or ctx ends.
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
	// The first ping keeps to the heartbeat even when a longer interval was learnt: until it comes the server waits for
	// the heartbeat of its welcome and knows of no other (wire §4.6).
	ping, again, beat := time.NewTimer(min(l.interval(), l.Heartbeat())), time.NewTicker(timeAgain), time.NewTicker(beatEvery)
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
				l.heard(h)
				l.expect(l.interval() + l.patience())
				err = l.handle(h, got.frame)
			}
		case <-beat.C:
		// The interval may have become shorter than what is left of the timer, and the ping tells the server the new
		// one.
		case <-l.pace:
			ping.Reset(0)
		case <-l.probe:
			l.expect(probeGrace)
			l.quiet.probed = true
			err = l.ping()
		case <-ping.C:
			// Only a frame moves the end of the link. If each ping did, a grace
			// as long as the interval would begin again and again.
			if patience := l.patience(); time.Now().Add(patience).Before(l.until) {
				l.expect(patience)
			}
			err = l.ping()
			ping.Reset(l.interval())
		case <-again.C:
			// A link may stay up for months, and a gateway without SNTP has no other time for all of them.
			l.pending = newTimeRequest(l.conn.client.UID)
			err = l.write(wire.TypeTimeAgain, l.pending.request[:])
		}
		if err != nil {
			return err
		}
	}
}

// ping announces when the next one comes.
func (l *Link) ping() error {
	// The first one that is unanswered counts: with each ping after it the way may have been closed for longer already.
	if l.quiet.asked.IsZero() {
		l.quiet.asked = time.Now()
	}
	return l.write(wire.TypePing, wire.Ping(l.interval()))
}

// heard ends the idle time, before the frame that ended it is handled: that may be an
// offer, which makes the link busy.
func (l *Link) heard(h Handler) {
	end := l.quiet.asked
	if end.IsZero() {
		end = time.Now()
	}
	idle := l.idleAt(end)
	l.quiet = quiet{since: end}
	if h.Survived != nil && !l.busy.Load() {
		h.Survived(idle)
	}
}

// handle acts on one frame. A type that a server does not send to a client ends the
// connection.
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
	case wire.TypeStatements:
		return pass(f, h.Statements)
	case wire.TypeReportAck:
		return pass(f, h.Reported)
	case wire.TypeJoinState:
		return pass(f, h.JoinState)
	case wire.TypeIdentity:
		if l.Welcome.Cloned {
			return pass(f, h.Identity)
		}
	case wire.TypeMeasure:
		if h.Measure != nil {
			h.Measure()
		}
		return nil
	case wire.TypeOffer:
		return l.answer(h, f)
	case wire.TypeRefusedKeys:
		l.conn.client.takeRefused(l.conn.Conn, f) // before the signed time, which may be by one of them
		return nil
	case wire.TypeTime:
		t, rtt, err := l.pending.judge(l.conn.Conn, f)
		if err == nil {
			err = l.conn.client.Clock.Signed(t, rtt)
		}
		if err != nil {
			return &transport.Error{Reason: timeReason(err), Op: "renew signed time", Err: err}
		}
		l.pending = timeRequest{} // one answer
		return nil
	case wire.TypeRefuse:
		return f.Refusal()
	}
	return &transport.Error{Reason: transport.Protocol, Op: "read control frame", Err: wire.ErrFrame}
}

// pass decodes also for nobody: a frame that does not parse is a fault of the peer, whoever listens.
func pass[M any](f wire.Frame, to func(M)) error {
	var m M
	if err := f.Decode(&m); err != nil || to == nil {
		return err
	}
	to(m)
	return nil
}

// answer always answers, also without a handler: an offer without an ack costs the technician 5 s of waiting.
func (l *Link) answer(h Handler, f wire.Frame) error {
	var m wire.Offer
	if err := f.Decode(&m); err != nil {
		return err
	}
	ack := wire.OfferAck{Session: m.Session, Reason: transport.Unsupported}
	if h.Offer != nil {
		ack.Reason, ack.Text = "", ""
		if no := h.Offer(m); no != nil {
			ack.Reason, ack.Text = no.Reason, wire.Printable(no.Text)
		}
	}
	return l.writeJSON(wire.TypeOfferAck, ack)
}

// Probe pings at once and wants an answer within 3 s: after a change of the network,
// waiting for the heartbeat would find a lost connection minutes later.
func (l *Link) Probe() {
	l.probe.Ring()
}

// Busy makes the heartbeat fast while a session runs or is about to, so that a
// lost link is noticed within 10 s.
func (l *Link) Busy(busy bool) {
	if l.busy.Swap(busy) != busy {
		l.pace.Ring()
	}
}

// EndSession tells the Access Server that a session ended here. An error means that the link is lost, which Run finds
// as well: only the caller knows whether the report must be kept.
func (l *Link) EndSession(m wire.EndSession) error {
	return l.writeJSON(wire.TypeEndSession, m)
}

// Measurements tells the Access Server what the Runtime has measured.
func (l *Link) Measurements(m wire.Measurements) error {
	return l.writeJSON(wire.TypeMeasurements, m)
}

// Report sends a session report (wire §4.10), whose answer comes to the Handler.
func (l *Link) Report(jws string) error {
	l.noteSent()
	return l.write(wire.TypeReport, []byte(jws))
}

// JoinStateAck answers a join-state.
func (l *Link) JoinStateAck(m wire.JoinStateAck) error {
	return l.writeJSON(wire.TypeJoinStateAck, m)
}

// FreshKey shows the Access Server a fresh key, because the welcome says cloned.
func (l *Link) FreshKey(m wire.FreshKey) error { return l.writeJSON(wire.TypeFreshKey, m) }

// Load tells the Access Server how much a relay carries.
func (l *Link) Load(m wire.Load) error { return l.writeJSON(wire.TypeLoad, m) }

func (l *Link) interval() time.Duration {
	if l.busy.Load() {
		return busyInterval
	}
	return time.Duration(l.idle.Load())
}

// patience is how long a pong may take (wire §4.6).
func (l *Link) patience() time.Duration { return min(l.interval(), pongTimeout) }

// expect sets the time by which something must be received: d from now. A deadline of the socket and not a timer: it
// ends the read that waits, with an error that says timeout.
func (l *Link) expect(d time.Duration) {
	l.until = time.Now().Add(d)
	l.conn.SetReadDeadline(l.until)
}

// write is safe from several goroutines: a frame is one Write, and tls.Conn lets one at a time through.
func (l *Link) write(t wire.Type, payload []byte) error {
	l.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	return wire.Write(l.conn, t, payload)
}

func (l *Link) writeJSON(t wire.Type, v any) error {
	l.noteSent()
	l.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	return wire.WriteJSON(l.conn, t, v)
}

// noteSent is called before the write: heard on the other goroutine may already see the answer when the write returns.
func (l *Link) noteSent() {
	now := time.Now()
	l.sent.Store(&now)
}
