// Package record is the connection under an outer TLS connection that is left later (session §2): the ends of a session
// go on with TLS of their own directly on TCP, and the relay with the bare socket.
//
// For that, no byte beyond the record that says so may have been read, and nothing of the outer TLS may be written after
// it. A tls.Conn reads as much as there is; and it writes alerts whenever it likes, also from a Read that failed. So a
// Conn lies under every such tls.Conn, reads one record and no more, and has a gate for what is written.
package record

import (
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

	border Border // of Read alone

	write struct {
		sync.Mutex
		shut bool
	}
}

// New returns a Conn on conn, which nobody has read from yet.
func New(conn net.Conn) *Conn { return &Conn{Conn: conn} }

// Raw returns the connection below, for what comes after TLS.
func (c *Conn) Raw() net.Conn { return c.Conn }

// Through lets Read read ahead from now on: this connection stays with its TLS. Two reads for each record would cost
// more than a small session does.
func (c *Conn) Through() { c.through.Store(true) }

// Read reads from one record only: its header, and then what there is of its body. What is no TLS is read as a record
// as well; tls.Conn refuses it.
func (c *Conn) Read(b []byte) (int, error) {
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
