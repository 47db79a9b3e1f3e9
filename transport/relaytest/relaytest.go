// Package relaytest is a fake relay, for the tests of the two ends that meet at one. It believes every grant and pairs
// those that show the same (wire §5.1), and it can do to their bytes what a real relay must not. That the real one fits
// is shown by internal/e2e.
package relaytest

import (
	"crypto/tls"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/memnet"
	"hawser/transport"
	"hawser/transport/record"
	"hawser/transport/wire"
)

// Relay answers on port 443 of one host. Its exported fields are set before anybody joins.
type Relay struct {
	Refuse *wire.Refusal // of every join; nil: pair
	// Tamper changes bytes of the inner TLS, before the switch and after it, and returns nil to carry nothing; nil: as
	// it is. It is called for both directions at once.
	Tamper func(toRuntime bool, b []byte) []byte
	// Carry gets each Piece that an end sends, and returns what the other end is sent; nil: the same. It is called for
	// both directions at once, and may block.
	Carry func(w Way, p Piece) []Piece

	// KeyLog gets the keys of the relay's own TLS, in the form of SSLKEYLOGFILE; nil: nobody does.
	KeyLog io.Writer

	port *memnet.Service
	over chan struct{} // closed when nobody is paired any more
	stop func()        // once

	mu      sync.Mutex      // guards all below
	waiting map[string]*end // by grant
	joins   []string
	carried int
}

// end is who waits for the other end.
type end struct {
	*tls.Conn
	under *record.Conn
	left  chan struct{} // closed when its pair is over
}

// New starts a relay with a certificate of this name. It ends with the test, and breaks what is connected then.
func New(tb testing.TB, pki *identitytest.PKI, host *memnet.Host, name string) *Relay {
	tb.Helper()
	r := &Relay{over: make(chan struct{}), waiting: map[string]*end{}}
	config := identitytest.ServerConfig(pki.Leaf(identity.RelayName(name), -time.Hour, 365*24*time.Hour), transport.ALPNRelay)
	var err error
	if r.port, err = host.Serve(443, func(c net.Conn) {
		under, config := record.New(c), config.Clone()
		config.KeyLogWriter = r.KeyLog
		r.serve(&end{tls.Server(under, config), under, make(chan struct{})})
	}); err != nil {
		tb.Fatal(err)
	}
	r.stop = sync.OnceFunc(func() {
		close(r.over)
		r.port.Stop()
	})
	tb.Cleanup(func() {
		r.Cut()
		r.stop()
	})
	return r
}

// Stop closes the port and leaves the end of the sessions to their ends: in a bubble, one that is left open shows.
func (r *Relay) Stop() { r.stop() }

// Cut breaks all connections.
func (r *Relay) Cut() { r.port.Cut() }

// Joins lists the grants of all joins so far.
func (r *Relay) Joins() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.joins)
}

// Carried counts the bytes that it has got from either end after pairing.
func (r *Relay) Carried() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.carried
}

// serve sends back each echo, and pairs who joins.
func (r *Relay) serve(e *end) {
	for {
		f, err := wire.Read(e)
		switch {
		case err != nil:
			return
		case f.Type == wire.TypeEcho:
			wire.Write(e, wire.TypeEcho, f.Payload)
		default:
			r.join(e, f)
			return
		}
	}
}

// join pairs two that show the same grant: a fake grant is one text for both ends, which says nothing.
func (r *Relay) join(me *end, f wire.Frame) {
	var m wire.Join
	if f.Type != wire.TypeJoin || f.Decode(&m) != nil {
		return
	}
	if r.Refuse != nil {
		wire.Refuse(me, r.Refuse)
		me.Close()
		return
	}
	r.mu.Lock()
	r.joins = append(r.joins, m.Grant)
	other := r.waiting[m.Grant]
	if r.waiting[m.Grant] = me; other != nil {
		delete(r.waiting, m.Grant)
	}
	r.mu.Unlock()
	if other == nil { // the second one serves both
		select {
		case <-me.left:
		case <-r.over:
			r.endAlone(m.Grant, me)
		}
		return
	}
	defer close(other.left)
	wire.Write(me, wire.TypePaired, nil)
	wire.Write(other, wire.TypePaired, nil)
	runtime, manager := me, other
	if isRuntime(other.Conn) {
		runtime, manager = manager, runtime
	}
	r.carryBoth(m.Grant, runtime, manager)
}

// endAlone ends the wait of one whom nobody came to meet; otherwise its pair goes on.
func (r *Relay) endAlone(grant string, me *end) {
	r.mu.Lock()
	alone := r.waiting[grant] == me
	r.mu.Unlock()
	if alone {
		me.Close()
		return
	}
	<-me.left
}

// isRuntime tells by the certificate.
func isRuntime(c *tls.Conn) bool {
	for _, cert := range c.ConnectionState().PeerCertificates {
		for _, uri := range cert.URIs {
			if name, err := identity.ParseName(uri.String()); err == nil && name.Kind == identity.KindDevice {
				return true
			}
		}
	}
	return false
}
