package pace

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// Patience is how long nothing may move before a test gives up. It bounds nothing that is promised: a test that waits so
// long has failed already, and the go command's own limit stops the whole run.
const Patience = 2 * time.Minute

// step is how often a wait looks whether something else has moved.
const step = time.Second

// Progress is shared by connections of which it is enough that one of them moves. The zero value is ready.
type Progress struct{ last atomic.Int64 }

// Conn is a connection whose reads and writes fail only when nothing has moved for Patience on any of the connections.
// Other deadlines have no effect on it.
func (p *Progress) Conn(c *net.TCPConn) *Conn {
	p.moved()
	return &Conn{c, p}
}

func (p *Progress) moved()              { p.last.Store(time.Now().UnixNano()) }
func (p *Progress) idle() time.Duration { return time.Since(time.Unix(0, p.last.Load())) }

// Conn is a connection of [Progress.Conn].
type Conn struct {
	tcp      *net.TCPConn
	progress *Progress
}

// Read is that of io.Reader.
func (c *Conn) Read(b []byte) (int, error) { return c.try(b, c.tcp.Read, c.tcp.SetReadDeadline) }

// Write is that of io.Writer.
func (c *Conn) Write(b []byte) (done int, err error) {
	for done < len(b) && err == nil {
		var n int
		n, err = c.try(b[done:], c.tcp.Write, c.tcp.SetWriteDeadline)
		done += n
	}
	return done, err
}

// try does something until some of it is done, or until the patience is over.
func (c *Conn) try(b []byte, do func([]byte) (int, error), deadline func(time.Time) error) (int, error) {
	for {
		if err := deadline(time.Now().Add(step)); err != nil {
			return 0, err
		}
		n, err := do(b)
		late := errors.Is(err, os.ErrDeadlineExceeded)
		if n > 0 {
			c.progress.moved()
		}
		switch {
		case late && n > 0:
			return n, nil
		case !late || c.progress.idle() > Patience:
			return n, err
		}
	}
}

// CloseWrite ends the connection's own direction.
func (c *Conn) CloseWrite() error { return c.tcp.CloseWrite() }

// Close closes the connection.
func (c *Conn) Close() error { return c.tcp.Close() }
