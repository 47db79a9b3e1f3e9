package memnet

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// BufferBytes is what a connection holds in each direction before Write blocks. A bounded buffer, as a socket has: a
// peer that does not read blocks its writer, which net.Pipe does at the first byte and a buffer without limit never
// does.
const BufferBytes = 256 << 10

// A segment is what one Write, CloseWrite or Close sends.
type segment struct {
	data   []byte
	fin    bool      // nothing follows; always the last, except for closed
	closed bool      // the sender is gone altogether: writing to it fails
	at     time.Time // when it arrives
	held   bool      // by a stall
}

func (s segment) arrived() bool { return !s.held && !time.Now().Before(s.at) }

// A conn is one end of a connection. Besides net.Conn it has the methods of *net.TCPConn that code looks for.
type conn struct {
	end
	host *Host
	peer *conn

	in      []segment // towards this end
	size    int       // bytes in it
	writing bool      // one Write at a time, so that two never mix
	sentFin bool
	dead    bool // the host went down: this end only swallows, until its buffer is full
	reset   bool
}

// newPair has one lock for both ends and all hosts, that of the Network: with two, each Write would have to take them
// in an order.
func newPair(from, to *Host, local, remote *net.TCPAddr) (near, far *conn) {
	near = &conn{end: end{network: "tcp", local: local, remote: remote, cond: sync.NewCond(&from.net.mu)}, host: from}
	far = &conn{end: end{network: "tcp", local: remote, remote: local, cond: sync.NewCond(&from.net.mu)}, host: to, peer: near}
	near.peer = far
	from.conns[near], to.conns[far] = struct{}{}, struct{}{}
	return near, far
}

func (c *conn) Read(b []byte) (int, error) {
	c.cond.L.Lock()
	defer c.cond.L.Unlock()
	for {
		if err := c.brokenLocked(&c.read); err != nil {
			return 0, c.opError("read", err)
		}
		if len(b) == 0 {
			return 0, nil
		}
		if len(c.in) > 0 && c.in[0].arrived() {
			if c.in[0].fin {
				return 0, io.EOF
			}
			return c.takeLocked(b), nil
		}
		c.cond.Wait()
	}
}

// takeLocked moves as much as has arrived and fits.
func (c *conn) takeLocked(b []byte) (n int) {
	for len(c.in) > 0 && n < len(b) && c.in[0].arrived() && !c.in[0].fin {
		k := copy(b[n:], c.in[0].data)
		n += k
		if c.in[0].data = c.in[0].data[k:]; len(c.in[0].data) == 0 {
			c.in = c.in[1:]
		}
	}
	c.size -= n
	c.peer.cond.Broadcast()
	return n
}

// Write blocks while the peer's buffer is full, as TCP does: code that holds a lock meanwhile hangs here too, and the
// bubble shows where.
func (c *conn) Write(b []byte) (n int, err error) {
	c.cond.L.Lock()
	defer c.cond.L.Unlock()
	// As a socket does: records of TLS that two goroutines write stay whole.
	for c.writing {
		c.cond.Wait()
	}
	c.writing = true
	defer func() {
		c.writing = false
		c.cond.Broadcast()
	}()
	for {
		if err := c.writeErrorLocked(); err != nil {
			return n, c.opError("write", err)
		}
		if n == len(b) {
			return n, nil
		}
		if room := BufferBytes - c.peer.size; room > 0 {
			k := min(room, len(b)-n)
			c.peer.pushLocked(segment{data: append([]byte(nil), b[n:n+k]...)})
			if n += k; n == len(b) {
				return n, nil
			}
			continue
		}
		c.cond.Wait()
	}
}

func (c *conn) writeErrorLocked() error {
	// The far host was down and is up again: it does not know the connection, and says so by RST to the first packet.
	if c.peer.dead && !c.peer.host.down {
		c.resetLocked()
	}
	if err := c.brokenLocked(&c.write); err != nil {
		return err
	}
	// After a FIN of CloseWrite the peer still reads; after one of Close it does not, and how it ended is known only
	// when that has arrived.
	if last := len(c.in) - 1; c.sentFin || last >= 0 && c.in[last].closed && c.in[last].arrived() {
		return syscall.EPIPE
	}
	return nil
}

// brokenLocked is what ends a read and a write alike.
func (c *conn) brokenLocked(d *deadline) error {
	switch {
	case c.closed:
		return net.ErrClosed
	case c.reset:
		return syscall.ECONNRESET
	case d.expired():
		return os.ErrDeadlineExceeded
	}
	return nil
}

// pushLocked sends s towards c.
func (c *conn) pushLocked(s segment) {
	n := c.host.net
	delay := n.delayLocked(c.peer.host, c.host)
	s.at = time.Now().Add(delay)
	if last := len(c.in) - 1; last >= 0 && c.in[last].at.After(s.at) {
		s.at = c.in[last].at // the latency was lowered: never overtake
		delay = time.Until(s.at)
	}
	s.held = n.links[link{c.peer.host, c.host}] == stalled
	if c.reset || c.closed && !c.dead {
		return
	}
	c.in = append(c.in, s)
	c.size += len(s.data)
	wakeIn(c.cond, delay)
}

// CloseWrite ends the stream towards the peer, who can still send.
func (c *conn) CloseWrite() error {
	c.cond.L.Lock()
	defer c.cond.L.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.finLocked(false)
	return nil
}

func (c *conn) finLocked(closed bool) {
	if !c.sentFin || closed {
		c.peer.pushLocked(segment{fin: true, closed: closed})
	}
	c.sentFin = true
	c.cond.Broadcast()
}

func (c *conn) Close() error {
	c.cond.L.Lock()
	defer c.cond.L.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.closeLocked()
	return nil
}

func (c *conn) closeLocked() {
	c.finLocked(true)
	c.shutLocked()
	c.in, c.size = nil, 0
	c.peer.cond.Broadcast()
	c.forgetLocked()
}

// forgetLocked drops the connection from its hosts once neither end can change any more.
func (c *conn) forgetLocked() {
	if c.closed && (c.peer.closed || c.peer.dead) || c.reset {
		delete(c.host.conns, c)
		delete(c.peer.host.conns, c.peer)
	}
}

// resetLocked resets both ends; unread bytes are lost.
func (c *conn) resetLocked() {
	for _, end := range []*conn{c, c.peer} {
		end.reset = true
		end.in, end.size = nil, 0
		end.cond.Broadcast()
	}
	c.forgetLocked()
}

// SetLinger, SetNoDelay, SetKeepAlive and SetKeepAlivePeriod are there for code that sets them, and do nothing.
func (c *conn) SetLinger(int) error                    { return nil }
func (c *conn) SetNoDelay(bool) error                  { return nil }
func (c *conn) SetKeepAlive(bool) error                { return nil }
func (c *conn) SetKeepAlivePeriod(time.Duration) error { return nil }
