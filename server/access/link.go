package access

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/netip"
	"sync"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

const (
	queueFrames = 64              // that wait for a link; a peer that lets more pile up is dead
	endTimeout  = 2 * time.Second // to say why a link ends
)

// message is a frame that waits to be sent.
type message struct {
	frame   wire.Type
	payload []byte
}

// link is one control connection. Whoever has something for the peer puts it
// into the queue and never waits; one goroutine, owned by run, empties it.
type link struct {
	conn  *tls.Conn
	peer  identity.Peer
	hello wire.Hello
	hints map[string]string
	from  netip.AddrPort
	since time.Time

	out  chan message
	over chan *wire.Refusal // why it ends: the first reason wins
	done chan struct{}      // closed when it has ended

	mu       sync.Mutex // guards the rest
	acks     map[string]chan transport.Reason
	load     wire.Load     // of a relay; the zero Load until it has told
	measured chan struct{} // closed when a Runtime tells what it measured; nil: nobody waits
	asked    time.Time     // when it was last asked to
}

func newLink(conn *tls.Conn, peer identity.Peer, hello wire.Hello, now time.Time) *link {
	return &link{
		conn: conn, peer: peer, hello: hello, hints: cleanHints(hello.Hints), from: remote(conn), since: now.UTC(),
		out: make(chan message, queueFrames), over: make(chan *wire.Refusal, 1), done: make(chan struct{}),
		acks: make(map[string]chan transport.Reason),
	}
}

// send queues a frame. A full queue ends the link.
func (l *link) send(m message) {
	select {
	case l.out <- m:
	default:
		l.finish(&wire.Refusal{Reason: transport.LinkLost, Text: "too slow"})
	}
}

// finish ends the link soon, telling the peer why if it still reads.
func (l *link) finish(r *wire.Refusal) {
	select {
	case l.over <- r:
		// A write that hangs gives way to the last words.
		l.conn.SetWriteDeadline(time.Now().Add(endTimeout))
	default: // it ends already
	}
}

// run reads until the link ends, and returns why. Frames other than pings go
// to handle. left is called as soon as the end is certain: last words take time.
func (l *link) run(heartbeat time.Duration, handle func(wire.Frame) error, left func()) error {
	var writer sync.WaitGroup
	var last *wire.Refusal
	writer.Go(func() {
		defer func() { l.hangUp(last) }() // which ends the reader, too
		last = l.write()
		left()
		l.lastWords(last)
	})
	err := l.read(heartbeat, handle)
	switch {
	case errors.Is(err, io.EOF):
		l.finish(&wire.Refusal{Reason: transport.Closed})
	case gone(err):
		l.finish(&wire.Refusal{Reason: transport.LinkLost})
	default:
		l.finish(refusalOf(err))
	}
	writer.Wait()
	close(l.done)
	return last
}

// read takes frames until one is late or wrong. The peer says in each ping by
// when its next frame comes (wire §4.6).
func (l *link) read(heartbeat time.Duration, handle func(wire.Frame) error) error {
	next := heartbeat
	for {
		l.conn.SetReadDeadline(time.Now().Add(next + wire.Grace(next)))
		f, err := wire.Read(l.conn)
		if err != nil {
			return err
		}
		switch f.Type {
		case wire.TypePing:
			if next, err = f.PingInterval(); err != nil {
				return err
			}
			l.send(message{wire.TypePong, nil})
		case wire.TypePong:
		default:
			if err := handle(f); err != nil {
				return err
			}
		}
	}
}

// write sends what is queued until the link is to end, and returns why.
func (l *link) write() *wire.Refusal {
	for {
		select {
		case r := <-l.over:
			return r
		default:
		}
		select {
		case r := <-l.over:
			return r
		case m := <-l.out:
			l.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
			if err := wire.Write(l.conn, m.frame, m.payload); err != nil {
				l.finish(&wire.Refusal{Reason: transport.LinkLost})
				return <-l.over
			}
		}
	}
}

// lastWords tells the peer why, if it still reads.
func (l *link) lastWords(r *wire.Refusal) {
	l.conn.SetWriteDeadline(time.Now().Add(endTimeout))
	if wire.Refuse(l.conn, r) == nil && r.Reason != transport.LinkLost {
		linger(l.conn)
	}
}

// hangUp closes the connection: in order, unless the peer does not read anyway and
// would make TLS wait with its farewell.
func (l *link) hangUp(why *wire.Refusal) {
	if why.Reason == transport.LinkLost {
		l.conn.NetConn().Close()
		return
	}
	l.conn.Close()
}

// offer sends an offer and returns the peer's answer: the empty reason is
// consent. It blocks for 5 s at most; a peer that has not answered by then is
// gone (wire §4.5).
func (l *link) offer(ctx context.Context, session string, m message) transport.Reason {
	answer := make(chan transport.Reason, 1)
	l.mu.Lock()
	l.acks[session] = answer
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.acks, session)
	}()
	l.send(m)
	timer := time.NewTimer(offerTimeout)
	defer timer.Stop()
	select {
	case reason := <-answer:
		return reason
	case <-timer.C:
		l.finish(&wire.Refusal{Reason: transport.LinkLost, Text: "an offer was not answered"})
	case <-l.done:
	case <-ctx.Done():
	}
	return transport.Offline
}

// acknowledge passes the peer's answer to whoever waits for it, if anybody does.
func (l *link) acknowledge(m wire.OfferAck) (awaited bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	answer, awaited := l.acks[m.Session]
	if awaited {
		delete(l.acks, m.Session)
		answer <- cleanReason(m.Reason)
	}
	return awaited
}

// cleanReason returns a peer's reason if it can be one.
func cleanReason(r transport.Reason) transport.Reason {
	for _, c := range r {
		if (c < 'a' || c > 'z') && c != '-' {
			return transport.Protocol
		}
	}
	if len(r) > 32 {
		return transport.Protocol
	}
	return r
}
