package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"sync"
	"time"

	"hawser/transport"
	"hawser/transport/wire"
)

const (
	// recordBytes is the most that one Read of a TLS connection returns.
	recordBytes = 16 << 10
	// idleBytes is what a direction holds while nothing moves.
	idleBytes = 1 << 10
	// lingerTime is how long one direction of a pipe outlives the other. A
	// session closes both at once; this is for a client that vanished after
	// it closed its half.
	lingerTime = 30 * time.Second
)

// carry tells the client that it is paired, copies from it to the other end
// until both directions are over, and returns then. The other end's goroutine
// does the same the other way round: a pipe needs no goroutine of its own.
func (s *Server) carry(e *end) {
	began := time.Now()
	err := s.tellPaired(e)
	stop := context.AfterFunc(e.ctx, func() { hush(e.conn) })
	defer stop()
	if err == nil {
		s.logPipe(e, "session paired")
		err = s.move(e)
	}
	close(e.copied)
	if err = settle(e, err); err != nil { // a pipe that has lost a side is over
		e.cut(err)
		e.peer.cut(err)
		_ = linger(context.WithoutCancel(e.ctx), e, endTime) // what it still writes to this end comes before the end
	}
	s.logPipe(e, "session over", "took", time.Since(began), "reason", string(overReason(err)))
}

// move copies one direction, its end included.
func (s *Server) move(e *end) error {
	if err := s.pump.copy(e.peer.conn, e.conn); err != nil {
		return err
	}
	e.ended.Store(true)
	if err := e.peer.conn.CloseWrite(); err != nil {
		return farError{err}
	}
	return nil
}

// settle waits for the other direction and says how the pipe ended, given how
// this one did. Nil is in order.
func settle(e *end, err error) error {
	_, far := errors.AsType[farError](err)
	switch {
	case err == nil:
		err = linger(e.ctx, e, lingerTime)
	case far:
		// The other client is gone. Whether it has said so before is for the
		// other goroutine to read.
		_ = linger(e.ctx, e, endTime)
	}
	if err != nil && e.peer.ended.Load() {
		err = nil // what failed was only the last that this one had to say
	}
	if cause := context.Cause(e.ctx); cause != nil {
		return cause // the error was only what the cut looks like from here
	}
	return err
}

// A farError is of the connection that a direction writes to.
type farError struct{ error }

// Unwrap lets ReasonOf see the cause.
func (e farError) Unwrap() error { return e.error }

// overReason says why a pipe ended. A connection that fails under it is
// nobody's fault and the usual end of a session whose client vanished.
func overReason(err error) transport.Reason {
	if e, ok := errors.AsType[*transport.Error](err); ok {
		return e.Reason
	}
	if err == nil || errors.Is(err, context.Canceled) {
		return transport.Closed
	}
	return transport.ReasonOf(err)
}

// tellPaired sends paired to the own client and waits until the other one has
// been told, so that paired is the first thing that each of them reads.
func (s *Server) tellPaired(e *end) error {
	configureSocket(e.conn.NetConn())
	e.conn.SetWriteDeadline(time.Now().Add(joinTime))
	defer e.conn.SetWriteDeadline(time.Time{})
	if err := wire.Write(e.conn, wire.TypePaired, nil); err != nil {
		return err
	}
	close(e.paired)
	select {
	case <-e.peer.paired:
		return nil
	case <-e.ctx.Done():
		return context.Cause(e.ctx)
	}
}

// linger waits for the other direction, no longer than d or until ctx ends.
func linger(ctx context.Context, e *end, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-e.peer.copied:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return context.DeadlineExceeded
	}
}

// logPipe logs once for both ends.
func (s *Server) logPipe(e *end, message string, args ...any) {
	if e.grant.Role == wire.RoleRuntime {
		s.log.Info(message, append([]any{"session", e.grant.Session}, args...)...)
	}
}

// A pump copies, with buffers that only directions with much to carry take.
type pump struct {
	buffers sync.Pool // of *[recordBytes]byte
}

func newPump() *pump {
	return &pump{sync.Pool{New: func() any { return new([recordBytes]byte) }}}
}

// copy moves bytes from src to dst, in order, until src says that no more
// come. An error of dst is a farError. It reads nothing before all that it has read was written, so what is
// held for a slow receiver is one buffer.
//
// A direction waits with a small buffer, and takes a large one while it fills
// what it has. Sessions ping every few seconds, so one that falls idle soon
// gives the large one back.
func (p *pump) copy(dst, src *tls.Conn) error {
	small := make([]byte, idleBytes)
	var large *[recordBytes]byte
	defer func() { p.put(large) }()
	for {
		buf := small
		if large != nil {
			buf = large[:]
		}
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return farError{err}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case large == nil && n == len(small):
			large = p.buffers.Get().(*[recordBytes]byte)
		case large != nil && n < len(small):
			p.put(large)
			large = nil
		}
	}
}

func (p *pump) put(b *[recordBytes]byte) {
	if b != nil {
		p.buffers.Put(b)
	}
}
