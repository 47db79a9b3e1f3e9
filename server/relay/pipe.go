package relay

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"hawser/transport"
	"hawser/transport/record"
	"hawser/transport/wire"
)

const (
	// recordBytes is the most that one Read of a TLS connection returns.
	recordBytes = 16 << 10
	// handshakeBytes is the most that one end may send in frames. The largest inner handshake has some 10 KiB: an end
	// that sends more would have the relay encrypt its session.
	handshakeBytes = 64 << 10
	frameBytes     = 64 // that each frame counts besides its payload: it is a record of TLS, also when it is empty
	// switchTime is how long the ends have for their first switch, and then for the other one (session §2.2).
	switchTime = 15 * time.Second
)

// A pipe is two ends that have met. The goroutine of each end moves what comes from it: first frames, from TLS to TLS,
// and after the switch bytes, from socket to socket.
//
// Nobody closes a socket while the other goroutine may use it. A pipe that is to end is cut: deadlines on both sockets
// wake both goroutines, and the last one closes both.
type pipe struct {
	ends    [2]*end
	gone    chan struct{} // closed when it was cut: nothing more is taken
	over    chan struct{} // closed when both directions are over, and both sockets closed
	share   share         // of what all sessions may carry
	stopped sync.Once     // closes gone

	mu       sync.Mutex // guards the rest
	timer    *time.Timer
	switched int       // directions
	errs     []error   // of the directions that are over; nil: its client has closed it
	cause    error     // why it was cut; nil: not from outside
	until    time.Time // of writes, when it was cut
}

func newPipe(a, b *end) *pipe {
	return &pipe{ends: [2]*end{a, b}, gone: make(chan struct{}), over: make(chan struct{})}
}

// servePipe carries what comes from e, and returns when both directions are over. While a session idles its two
// goroutines wait in here: what they have on their stacks is most of its memory, so nothing more is called than has to
// be.
func (s *Server) servePipe(e *end) {
	began := time.Now()
	stop := e.pipe.begin(e)
	switched, err := s.forwardFrames(e)
	if switched {
		err = s.mover.move(s.flow(e))
	}
	e.pipe.finish(e, err)
	<-e.pipe.over
	stop()
	s.pairing.leave(e)
	e.cancel(nil)
	s.logOver(e, time.Since(began))
}

// logOver logs for one of the two ends, so that the message appears once.
func (s *Server) logOver(e *end, took time.Duration) {
	if e.grant.Role == wire.RoleRuntime {
		s.log.Info("session over", "session", e.grant.Session, "took", took, "reason", string(overReason(e.pipe.verdict())),
			"from_runtime", e.moved.Load(), "from_manager", e.peer.moved.Load())
	}
}

// flow is what comes from e after its switch.
func (s *Server) flow(e *end) *flow {
	return &flow{
		dst: e.peer.raw, src: e.raw, gone: e.pipe.gone, most: s.limiter.most(),
		count: func(bytes int) *claim { return s.count(e, bytes) },
		wait:  func(c *claim) { s.limiter.wait(c, e.pipe.gone) },
	}
}

// tellPaired sends paired to the client of e and waits until the other one has been sent it, so that paired is the
// first frame that each of them reads.
func (s *Server) tellPaired(e *end) error {
	configureSocket(e.raw)
	if err := wire.Write(e.conn, wire.TypePaired, nil); err != nil {
		return err
	}
	close(e.paired)
	select {
	case <-e.peer.paired:
	case <-e.pipe.gone:
		return os.ErrDeadlineExceeded
	}
	if e.grant.Role == wire.RoleRuntime {
		s.counters.paired.Inc()
		s.log.Info("session paired", "session", e.grant.Session)
	}
	return nil
}

// forwardFrames says paired, and forwards data frames until the switch, and the switch itself. It reports false when the
// end has closed its direction instead, or after an error.
func (s *Server) forwardFrames(e *end) (switched bool, err error) {
	if err := s.tellPaired(e); err != nil {
		return false, err
	}
	src, dst := e.pipe.outer(e)
	// A Read of a TLS connection returns one record at most, and the buffer is read from the socket when it is empty:
	// what is in it after the switch came in the record of the switch.
	r := bufio.NewReaderSize(src, recordBytes)
	for left := handshakeBytes; ; {
		f, err := wire.Read(r)
		if err != nil {
			return false, unlessEnd(err)
		}
		switch f.Type {
		case wire.TypeData:
			if left -= frameBytes + len(f.Payload); left < 0 {
				return false, misuse("more than a handshake without a switch")
			}
			s.count(e, len(f.Payload))
		case wire.TypeSwitch:
			if r.Buffered() > 0 || len(f.Payload) > 0 || !src.NetConn().(*record.Conn).Between() {
				return false, misuse("bytes behind the switch")
			}
		default:
			return false, misuse(fmt.Sprintf("frame of type %#02x", byte(f.Type)))
		}
		if err := wire.Write(dst, f.Type, f.Payload); err != nil {
			return false, farError{err}
		}
		if f.Type == wire.TypeSwitch {
			dst.NetConn().(*record.Conn).Shut()
			e.pipe.leaveOuter()
			return true, nil
		}
	}
}

// misuse is the error of an end that sends what session §2 does not allow.
func misuse(what string) error {
	return &transport.Error{Reason: transport.Protocol, Op: "carry session: " + what, Err: wire.ErrFrame}
}

// A farError is an error of the connection that a direction writes to.
type farError struct{ error }

// Unwrap lets ReasonOf see the cause.
func (e farError) Unwrap() error { return e.error }

// begin gives the ends their time for the first switch, and cuts the pipe when e must close, until stop is called.
func (p *pipe) begin(e *end) (stop func() bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer == nil {
		p.timer = time.AfterFunc(switchTime, func() { p.cut(refuse(transport.Timeout, "wait for switch"), endTime) })
	}
	return context.AfterFunc(e.ctx, func() { p.cut(context.Cause(e.ctx), endTime) })
}

// outer returns the outer connections of a direction that has not switched.
func (p *pipe) outer(e *end) (src, dst *tls.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return e.conn, e.peer.conn
}

// leaveOuter notes that a direction has switched. After the second one the outer connections are garbage.
func (p *pipe) leaveOuter() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.switched++
	switch {
	case len(p.errs) > 0: // the timer is that of finish
	case p.switched == 1:
		p.timer.Reset(switchTime)
	default:
		p.timer.Stop()
	}
	if p.switched == 2 {
		p.ends[0].conn, p.ends[1].conn = nil, nil
	}
}

// finish ends the direction that comes from e, with the error that ended it, and the whole pipe if it was the last one.
// The other direction has endTime: what is under way may say why (session §2.2).
func (p *pipe) finish(e *end, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.errs = append(p.errs, err) // before the receiver hears of it, and closes as well
	if half, ok := e.peer.raw.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // it may be closed already
	}
	_, far := errors.AsType[farError](err)
	switch {
	case len(p.errs) == 2:
		p.timer.Stop()
		for _, e := range p.ends {
			_ = e.raw.Close()
		}
		close(p.over)
	// Whoever cannot be written to has mostly closed, and what he still sent says so.
	case err == nil || far:
		p.timer.Stop()
		p.timer = time.AfterFunc(endTime, func() { p.cut(nil, 0) })
	default:
		p.cutLocked(nil, endTime)
	}
}

// cut ends both directions: nothing more is taken from the ends, and what is held has grace to be written.
func (p *pipe) cut(cause error, grace time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cutLocked(cause, grace)
}

func (p *pipe) cutLocked(cause error, grace time.Duration) {
	if p.cause == nil && len(p.errs) == 0 {
		p.cause = cause
	}
	now := time.Now()
	if until := now.Add(grace); p.until.IsZero() || until.Before(p.until) {
		p.until = until
	}
	p.stopped.Do(func() { close(p.gone) })
	for _, e := range p.ends {
		e.raw.SetReadDeadline(now)
		e.raw.SetWriteDeadline(p.until)
	}
}

// verdict returns why the pipe ended; nil is that a client has closed it. It is called when both directions are over.
func (p *pipe) verdict() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return verdict(p.cause, p.errs)
}

// verdict decides by the cause from outside, if there is one, and by the errors of both directions in the order in which
// they ended. The second one mostly follows from the first.
func verdict(cause error, errs []error) error {
	if cause != nil {
		return cause
	}
	first, second := errs[0], errs[1]
	_, far := errors.AsType[farError](first)
	_, both := errors.AsType[farError](second)
	// Whoever cannot be written to has mostly closed, which only the other direction knows, unless that was cut.
	if far && !both && !errors.Is(second, os.ErrDeadlineExceeded) {
		return second
	}
	return first
}

// overReason returns why a pipe ended. That of a connection that failed is its network
// error, the usual end of a session whose client vanished.
func overReason(err error) transport.Reason {
	if e, ok := errors.AsType[*transport.Error](err); ok {
		return e.Reason
	}
	if err == nil || errors.Is(err, context.Canceled) {
		return transport.Closed
	}
	return transport.ReasonOf(err)
}
