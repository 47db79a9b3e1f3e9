package session

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"hawser/transport"
)

// Half is a connection of which each direction ends by itself: *net.TCPConn and *mux.Stream. A program may end its
// direction and then read the answer: closing both would cut that off.
type Half interface {
	net.Conn
	CloseWrite() error
}

// Bridge copies in both directions until both have ended, passing on the end of each, and closes both connections. A
// failure in one direction ends the other at once, with a reset: its reader must not take a part of the bytes for all of
// them. It has two goroutines and waits for both, so that nothing of a stream is left when it returns.
func Bridge(a, b Half) {
	var both sync.WaitGroup
	var broken atomic.Bool
	cut := func() {
		broken.Store(true)
		a.SetDeadline(time.Unix(1, 0))
		b.SetDeadline(time.Unix(1, 0))
	}
	for _, c := range []Half{a, b} {
		// A reset of a stream whose peer had ended its direction is nothing that somebody reads.
		if stream, ok := c.(interface{ OnFail(func()) }); ok {
			stream.OnFail(cut)
		}
	}
	for _, way := range [][2]Half{{a, b}, {b, a}} {
		both.Go(func() {
			if err := oneWay(way[0], way[1]); err != nil {
				cut()
			}
		})
	}
	both.Wait()
	for _, c := range []Half{a, b} {
		if broken.Load() {
			reset(c)
		}
		c.Close()
	}
}

// oneWay copies in the buffers of the stream, of whichever side that is: it reads and writes by itself.
func oneWay(to, from Half) error {
	if _, err := io.Copy(to, from); err != nil {
		return err
	}
	return to.CloseWrite()
}

// reset makes the Close that follows one that the other side sees as a failure.
func reset(c Half) {
	switch c := c.(type) {
	case interface{ SetLinger(int) error }:
		c.SetLinger(0)
	case interface{ Reset(transport.Reason) }:
		c.Reset(transport.Reset)
	}
}
