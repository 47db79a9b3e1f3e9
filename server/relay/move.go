package relay

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"

	"hawser/transport/wire"
)

const (
	// moveBytes is what is moved at a time, by a buffer, or by a pipe of the system where there are limits: it is the
	// turn of a session then.
	moveBytes = 64 << 10
	// maxKernelPipes is how many pipes of the system the process uses. An unprivileged user has 64 MiB of them, and
	// more than are in use at once help nobody.
	maxKernelPipes = 256
	// idleBytes is the buffer of a direction that waits, where the system cannot say that there is something to read.
	idleBytes = 1 << 10
)

// A flow is one direction after its switch.
type flow struct {
	dst, src net.Conn
	count    func(bytes int) *claim // counts what was moved; not nil: wait for it
	wait     func(*claim)
	gone     <-chan struct{} // closed when nothing more is to be taken
	most     int             // bytes at a time
}

// isGone reports whether nothing more is to be taken. The deadline of a cut pipe stops only who waits for bytes.
func (f *flow) isGone() bool {
	select {
	case <-f.gone:
		return true
	default:
		return false
	}
}

// count counts bytes that have come from e and were passed on.
func (s *Server) count(e *end, bytes int) *claim {
	e.moved.Add(int64(bytes))
	if e.grant.Role == wire.RoleRuntime {
		s.counters.fromRuntime.Add(bytes)
	} else {
		s.counters.fromManager.Add(bytes)
	}
	return s.limiter.count(&e.pipe.share, bytes)
}

// A mover moves bytes between sockets as they are. What it holds of a direction is bounded, and held only while bytes
// move: a session that idles has neither a pipe nor a buffer.
type mover struct {
	pipes   pipes
	buffers sync.Pool // of *[moveBytes]byte
}

func newMover() *mover {
	return &mover{pipes: pipes{max: maxKernelPipes}, buffers: sync.Pool{New: func() any { return new([moveBytes]byte) }}}
}

// move moves bytes until the source ends. An error of the destination is a farError; one of the source, or that it was
// told to stop, is not. All that was taken has been written then, unless there was an error of the destination.
func (m *mover) move(f *flow) error {
	dst, isTCP := f.dst.(*net.TCPConn)
	src, areTCP := f.src.(*net.TCPConn)
	if isTCP && areTCP {
		return m.moveSockets(dst, src, f)
	}
	return m.copy(f)
}

// copy moves with a buffer. A direction waits with a small one, and uses a large one while reads fill their buffer.
// Sessions ping every few seconds, so an idle one soon returns its large one.
func (m *mover) copy(f *flow) error {
	small := make([]byte, idleBytes)
	var large *[moveBytes]byte
	defer func() { m.put(large) }()
	for {
		buf := small
		if large != nil {
			buf = large[:]
		}
		n, err := f.src.Read(buf)
		if n > 0 {
			if _, err := f.dst.Write(buf[:n]); err != nil {
				return farError{err}
			}
		}
		if err != nil {
			return unlessEnd(err)
		}
		switch {
		case large == nil && n == len(small):
			large = m.buffers.Get().(*[moveBytes]byte)
		case large != nil && n < len(small):
			m.put(large)
			large = nil
		}
		if c := f.count(n); c != nil {
			f.wait(c)
		}
		if f.isGone() {
			return os.ErrDeadlineExceeded
		}
	}
}

func (m *mover) put(b *[moveBytes]byte) {
	if b != nil {
		m.buffers.Put(b)
	}
}

// unlessEnd is nil for the end of a stream.
func unlessEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
