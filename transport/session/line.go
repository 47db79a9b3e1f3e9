package session

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"hawser/transport"
	"hawser/transport/mux"
	"hawser/transport/record"
	"hawser/transport/wire"
)

const (
	gatherSmall = 1 << 10  // of what is gathered, before it takes a large buffer
	frameBuffer = 16 << 10 // one record of the outer connection
)

// under is the connection below the inner TLS. It begins inside the outer TLS, in data frames, and goes on directly on
// TCP, each direction by itself (session §2.1). One goroutine reads; writes and Flush may come from several.
type under struct {
	outer *tls.Conn
	below *record.Conn // under outer
	raw   net.Conn     // under that

	// Of Read alone.
	framed   *bufio.Reader // of the outer connection; nil: this direction has switched. Changed under mu
	frame    []byte        // of a data frame, what Read has not returned
	input    input
	paired   bool
	onPaired func()

	mu       sync.Mutex // guards the rest
	switched bool       // this end's direction
	gathered []byte     // to be flushed
	small    [gatherSmall]byte
	large    *[mux.LineBytes]byte // that gathered is in; nil: it is in small
	memory   *mux.Budget
}

func newUnder(outer *tls.Conn, below *record.Conn, memory *mux.Budget, onPaired func()) *under {
	return &under{
		outer: outer, below: below, raw: below.Raw(), framed: bufio.NewReaderSize(outer, frameBuffer), onPaired: onPaired,
		input: newInput(below.Raw(), memory), memory: memory,
	}
}

// Read returns bytes of the inner TLS, from either side of the switch.
func (u *under) Read(b []byte) (int, error) {
	for u.framed != nil {
		if len(u.frame) > 0 {
			n := copy(b, u.frame)
			u.frame = u.frame[n:]
			return n, nil
		}
		if err := u.readFrame(); err != nil {
			return 0, err
		}
	}
	return u.input.Read(b)
}

// readFrame reads the next frame of the outer connection: paired, data or switch.
func (u *under) readFrame() error {
	if !u.paired {
		if _, err := wire.Expect(u.framed, wire.TypePaired); err != nil {
			return err
		}
		u.paired = true
		u.onPaired()
		return nil
	}
	f, err := wire.Expect(u.framed, wire.TypeData, wire.TypeSwitch)
	if err != nil {
		return err
	}
	u.frame = f.Payload
	if f.Type != wire.TypeSwitch {
		return nil
	}
	// A tls.Conn returns one record at a time, so what is left is of the record of switch.
	if u.framed.Buffered() > 0 || !u.below.Between() {
		return fmt.Errorf("%w: bytes behind switch", wire.ErrFrame)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.framed = nil
	u.forgetLocked()
	return nil
}

// refusal returns what the relay has said, if err is of a write to a connection that it has refused and closed
// meanwhile: what the ends send does not wait for its answer.
func (u *under) refusal(err error) error {
	if u.paired || transport.ReasonOf(err) != transport.Reset {
		return err
	}
	if said, ok := errors.AsType[*wire.Refusal](u.readFrame()); ok {
		return said
	}
	return err
}

// forgetLocked lets the memory of the outer TLS go when neither direction is inside it any more.
func (u *under) forgetLocked() {
	if u.switched && u.framed == nil {
		u.outer, u.below = nil, nil
	}
}

// Write sends bytes of the inner TLS: at once before the switch, gathered after it.
func (u *under) Write(b []byte) (n int, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.switched {
		return len(b), u.gatherLocked(b)
	}
	for n < len(b) {
		k := min(len(b)-n, wire.DataBytes)
		if err := wire.Write(u.outer, wire.TypeData, b[n:n+k]); err != nil {
			return n, err
		}
		n += k
	}
	return n, nil
}

// gatherLocked appends to what is gathered, and sends it when it is full. Little is gathered in the session's own buffer,
// so that one that only pings needs no other.
func (u *under) gatherLocked(b []byte) error {
	if u.large == nil && len(u.gathered)+len(b) > gatherSmall {
		u.large = u.memory.Lend()
		u.gathered = append(u.large[:0], u.gathered...)
	}
	if u.large != nil && len(u.gathered)+len(b) > mux.LineBytes {
		if err := u.flushLocked(); err != nil {
			return err
		}
		return u.gatherLocked(b) // a record fits
	}
	if u.gathered == nil {
		u.gathered = u.small[:0]
	}
	u.gathered = append(u.gathered, b...)
	return nil
}

// Flush sends what Write has gathered.
func (u *under) Flush() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.flushLocked()
}

func (u *under) flushLocked() error {
	if len(u.gathered) == 0 {
		return nil
	}
	_, err := u.raw.Write(u.gathered)
	if u.large != nil {
		u.memory.Return(u.large)
	}
	u.gathered, u.large = nil, nil
	return err
}

// leave ends this end's direction inside the outer TLS.
func (u *under) leave() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := wire.Write(u.outer, wire.TypeSwitch, nil); err != nil {
		return err
	}
	u.below.Shut()
	u.switched = true
	u.forgetLocked()
	return nil
}

// Close sends what is gathered, as far as the line takes it, and closes.
func (u *under) Close() error {
	u.Flush()
	return u.raw.Close()
}

// LocalAddr is that of the socket.
func (u *under) LocalAddr() net.Addr { return u.raw.LocalAddr() }

// RemoteAddr is the relay's.
func (u *under) RemoteAddr() net.Addr { return u.raw.RemoteAddr() }

// SetDeadline is that of the socket, as are the two below.
func (u *under) SetDeadline(t time.Time) error { return u.raw.SetDeadline(t) }

// SetReadDeadline is that of the socket.
func (u *under) SetReadDeadline(t time.Time) error { return u.raw.SetReadDeadline(t) }

// SetWriteDeadline is that of the socket.
func (u *under) SetWriteDeadline(t time.Time) error { return u.raw.SetWriteDeadline(t) }

// line is the inner TLS, as a Mux goes over it.
type line struct {
	*tls.Conn
	under *under
	heard bool // Read has returned something
}

// Read gives each error its reason. The end of the connection is a lost line, also in order: who ends a session says so
// before, and a relay must not be able to cut one short unnoticed.
func (l *line) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if err == nil {
		l.heard = true
		return n, nil
	}
	reason := transport.LinkLost
	// The Manager's handshake is over before the Runtime has looked at its certificate, and this is the answer. An alert
	// behind the peer's hello is about what a relay did to the bytes.
	if !l.heard && transport.ReasonOf(err) == transport.TLSRefused {
		reason = transport.WrongPeer
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, &transport.Error{Reason: reason, Op: "hear from the other end", Err: err}
}

// Flush sends what is gathered.
func (l *line) Flush() error { return l.under.Flush() }

// BeforeWait sets what is called before a Read waits for the socket.
func (l *line) BeforeWait(f func()) { l.under.input.before = f }
