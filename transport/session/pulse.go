package session

import (
	"crypto/tls"
	"io"
	"net"
	"sync/atomic"
	"time"

	"hawser/transport"
)

// closePatience is how long Close waits for a write under way: TLS can say
// goodbye only between two records.
const closePatience = time.Second

// pulse takes the link as lost when no byte at all was received for 9 s
// (wire §6.2). It remembers why the session ended.
type pulse struct {
	*tls.Conn
	pipe    *pipe
	set     time.Time     // when the deadline was last set; only the reader uses it
	writing chan struct{} // one slot, for a Write or for Close
	why     atomic.Pointer[transport.Reason]
	ended   chan struct{} // closed when why is known
}

func newPulse(c *tls.Conn) *pulse {
	return &pulse{Conn: c, pipe: c.NetConn().(*pipe), writing: make(chan struct{}, 1), ended: make(chan struct{})}
}

// Read is called by one goroutine, yamux's receiver.
func (p *pulse) Read(b []byte) (int, error) {
	// Moving the deadline at each read would cost a timer operation a record.
	if now := time.Now(); now.Sub(p.set) > silence/20 {
		p.set = now
		p.SetReadDeadline(now.Add(silence))
	}
	n, err := p.Conn.Read(b)
	if err != nil {
		p.end(p.endReason(err))
	}
	return n, err
}

func (p *pulse) Write(b []byte) (int, error) {
	p.writing <- struct{}{}
	defer func() { <-p.writing }()
	n, err := p.Conn.Write(b)
	if err != nil {
		p.lastWords()
	}
	return n, err
}

// lastWords leaves it to the reader to say why a write failed: the peer's reason
// may have arrived before.
func (p *pulse) lastWords() {
	patience := time.NewTimer(closePatience)
	defer patience.Stop()
	select {
	case <-p.ended:
	case <-patience.C:
		p.end(transport.LinkLost)
	}
}

// Close tells the peer, if the link still takes anything, and closes. Without a
// cause so far it is yamux that closes, because it does not like what it read.
func (p *pulse) Close() error {
	p.end(transport.Protocol)
	patience := time.NewTimer(closePatience)
	defer patience.Stop()
	select {
	case p.writing <- struct{}{}:
		defer func() { <-p.writing }()
	case <-patience.C:
	}
	return p.Conn.Close()
}

// end books why the session ends; the first cause is the one.
func (p *pulse) end(why transport.Reason) {
	if p.why.CompareAndSwap(nil, &why) {
		close(p.ended)
	}
}

func (p *pulse) reason() transport.Reason {
	if why := p.why.Load(); why != nil {
		return *why
	}
	return transport.Closed
}

// endReason says what the end of reading means.
func (p *pulse) endReason(err error) transport.Reason {
	if err == io.EOF && !p.pipe.broken.Load() {
		return transport.Closed // by close_notify
	}
	switch transport.ReasonOf(err) {
	case transport.TLSRefused:
		return transport.WrongPeer
	case transport.Internal:
		return transport.Protocol // bytes that only a forger sends
	}
	return transport.LinkLost
}

// pipe is what the relay has joined. It notes when that ends by itself: crypto/tls
// takes such an end between two records for an orderly one, and a relay could
// make a session end early that way without anybody noticing.
type pipe struct {
	net.Conn
	broken atomic.Bool
	err    error // came together with bytes, which are to be judged first
}

// Read is called by one goroutine at a time.
func (p *pipe) Read(b []byte) (int, error) {
	if p.err != nil {
		p.broken.Store(true)
		return 0, p.err
	}
	n, err := p.Conn.Read(b)
	if n > 0 && err != nil {
		p.err, err = err, nil
	}
	if err != nil {
		p.broken.Store(true)
	}
	return n, err
}
