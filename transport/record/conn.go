// Package record is the connection under an outer TLS connection that is left later (session §2): the ends of a session
// go on with TLS of their own directly on TCP, and the relay with the bare socket.
//
// For that, no byte beyond the record that says so may have been read, and nothing of the outer TLS may be written after
// it. A tls.Conn reads as much as there is; and it writes alerts whenever it likes, also from a Read that failed. So a
// Conn lies under every such tls.Conn, reads one record and no more, and has a gate for what is written.
package record

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// Conn is a connection under a tls.Conn. One goroutine may read while another one writes, as with any tls.Conn. Close
// and Shut may be called by anybody at any time.
type Conn struct {
	net.Conn
	through atomic.Bool

	// Of Read alone.
	first  []byte // whole records that were read before
	bound  int    // bytes that may still be read; less than 0: any number
	border Border

	write struct {
		sync.Mutex
		shut bool
	}
}

// New returns a Conn on conn, which nobody has read from yet.
func New(conn net.Conn) *Conn { return &Conn{Conn: conn, bound: -1} }

// Replay returns a Conn on conn, from which whole records were read: Read returns those first. It keeps them until then.
func Replay(conn net.Conn, records []byte) *Conn {
	return &Conn{Conn: conn, bound: -1, first: records}
}

// Bound lets Read read so many bytes more, and fail then with ErrBound. Less than 0 is any number. It is for the reader.
func (c *Conn) Bound(bytes int) { c.bound = bytes }

// ErrBound says that a peer has sent more than it was let.
var ErrBound = errors.New("more bytes than the peer may send")

// Raw returns the connection below, for what comes after TLS.
func (c *Conn) Raw() net.Conn { return c.Conn }

// Through lets Read read ahead from now on: this connection stays with its TLS. Two reads for each record would cost
// more than a small session does.
func (c *Conn) Through() { c.through.Store(true) }

// Read reads from one record only: its header, and then what there is of its body. What is no TLS is read as a record
// as well; tls.Conn refuses it.
func (c *Conn) Read(b []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(b, c.first)
		if c.first = c.first[n:]; len(c.first) == 0 {
			c.first = nil
		}
		return n, nil
	}
	if c.bound == 0 {
		return 0, ErrBound
	}
	if c.bound > 0 {
		b = b[:min(len(b), c.bound)]
	}
	n, err := c.readRecord(b)
	if c.bound > 0 {
		c.bound -= n
	}
	return n, err
}

func (c *Conn) readRecord(b []byte) (int, error) {
	if c.border.Between() && c.through.Load() {
		return c.Conn.Read(b)
	}
	n, err := c.Conn.Read(b[:min(len(b), c.border.part())])
	c.border.pass(b[:n])
	return n, err
}

// Between reports whether Read has returned whole records only. It is for the reader.
func (c *Conn) Between() bool { return c.border.Between() }

// Write writes, unless Shut was called: then it does nothing, and says that it has written. An error would make
// tls.Conn's reader fail, which may still have something to read.
func (c *Conn) Write(b []byte) (int, error) {
	c.write.Lock()
	defer c.write.Unlock()
	if c.write.shut {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// Shut closes the gate for everything that is written later. It waits for a Write under way, so that what is written to
// Raw comes after it.
func (c *Conn) Shut() {
	c.write.Lock()
	defer c.write.Unlock()
	c.write.shut = true
}

// CloseWrite ends the direction to the peer, where the connection below has such a thing.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return io.ErrClosedPipe
}
