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
	// From here on a cut closes the connection: it is the only way to wake up
	// a copy that is blocked.
	stop := context.AfterFunc(e.ctx, func() { e.conn.NetConn().Close() })
	defer stop()
	err := s.tellPaired(e)
	if err == nil {
		s.logPipe(e, "session paired")
		err = s.pump.copy(e.peer.conn, e.conn)
	}
	if err == nil {
		err = e.peer.conn.CloseWrite()
	}
	close(e.copied)
	if err == nil {
		err = linger(e)
	}
	if cause := context.Cause(e.ctx); cause != nil {
		err = cause // the error was only what the cut looks like from here
	}
	if err != nil { // a pipe that has lost a side is over
		e.cut(err)
		e.peer.cut(err)
	}
	s.logPipe(e, "session over", "took", time.Since(began), "reason", string(overReason(err)))
}

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

// linger waits for the other direction.
func linger(e *end) error {
	timer := time.NewTimer(lingerTime)
	defer timer.Stop()
	select {
	case <-e.peer.copied:
		return nil
	case <-e.ctx.Done():
		return context.Cause(e.ctx)
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
// come. It reads nothing before all that it has read was written, so what is
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
				return err
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
