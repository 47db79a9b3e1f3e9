package server

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hawser/internal/wait"
	"hawser/transport"
	"hawser/transport/record"
)

// What a stranger gets before TLS has finished.
const (
	handshakeTime = 10 * time.Second
	maxHandshakes = 4096 // at once, about 16 KiB each; over it, new connections are closed
)

// How long an accept loop waits after an error, doubled with each one. When the process has no file descriptors left,
// Accept fails at once, and a loop without a pause would use all of the processor.
const (
	firstPause = 5 * time.Millisecond
	longPause  = time.Second
)

// A role is what one ALPN protocol leads to (wire §1.2).
type role struct {
	alpn        string
	certificate func() (*tls.Certificate, error)       // the present one
	serve       func(ctx context.Context, c *tls.Conn) // serves and closes a connection
}

// front serves TLS on every port, with every role on each of them. One TLS front for all roles: sites leave one port
// open, and each role must be behind it (wire §1.2).
type front struct {
	roles []role
	log   *slog.Logger
	slots chan struct{} // one for each handshake that may run

	proxied atomic.Pointer[time.Time] // when it was last said that a PROXY header came
}

func newFront(log *slog.Logger, roles ...role) *front {
	return &front{roles: roles, log: log, slots: make(chan struct{}, maxHandshakes)}
}

// serve accepts until ctx is cancelled, closes ln, and returns when every connection that it accepted is over. It has
// no bound for connections after their handshake: each role has its own (wire §5.3, access §4).
func (f *front) serve(ctx context.Context, ln net.Listener) {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	var conns sync.WaitGroup
	defer conns.Wait()
	pause := firstPause
	for {
		conn, err := ln.Accept()
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			if err == nil {
				conn.Close()
			}
			return
		}
		if err != nil {
			f.log.Warn("cannot accept connections", "addr", ln.Addr().String(), "err", err)
			wait.Sleep(ctx, pause)
			pause = min(2*pause, longPause)
			continue
		}
		pause = firstPause
		select {
		case f.slots <- struct{}{}:
			conns.Go(func() { f.handle(ctx, conn) })
		// Closed and not queued: its client tries another port or server at once.
		default:
			conn.Close()
		}
	}
}

// handle does the handshake and hands the connection to its role.
func (f *front) handle(ctx context.Context, conn net.Conn) {
	// The slot is free before the role serves: control connections stay for months.
	tlsConn, r, err := f.handshake(ctx, conn)
	<-f.slots
	if err != nil {
		conn.Close()
		f.log.Debug("handshake failed", "addr", conn.RemoteAddr().String(), "err", err)
		if proxyHeader(err) {
			f.warnOfProxy(conn)
		}
		return
	}
	r.serve(ctx, tlsConn)
}

// The protocol is looked up once more after the handshake: what was negotiated counts, and not what was asked for. Each
// connection is read record by record until then, because one with a relay leaves its TLS later (session §2).
func (f *front) handshake(ctx context.Context, conn net.Conn) (*tls.Conn, role, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	under := record.New(conn)
	tlsConn := tls.Server(under, f.config())
	if err := tlsConn.HandshakeContext(ctx); err != nil {
		return nil, role{}, err
	}
	r, ok := f.role([]string{tlsConn.ConnectionState().NegotiatedProtocol})
	if !ok {
		return nil, role{}, errNoRole
	}
	if r.alpn != transport.ALPNRelay {
		under.Through()
	}
	return tlsConn, r, nil
}

// proxyHeader reports whether a client began with the PROXY protocol, version 1 or 2, and not with TLS.
func proxyHeader(err error) bool {
	record, ok := errors.AsType[tls.RecordHeaderError](err)
	return ok && (string(record.RecordHeader[:]) == "PROXY" || string(record.RecordHeader[:]) == "\r\n\r\n\x00")
}

// warnOfProxy tells the operator why nobody gets in: clients see a connection that ends after their hello, and blame a
// firewall. A load balancer comes with each client, and strangers must not fill the log, so it says so once a minute.
func (f *front) warnOfProxy(conn net.Conn) {
	now, said := time.Now(), f.proxied.Load()
	if said != nil && now.Sub(*said) < time.Minute || !f.proxied.CompareAndSwap(said, &now) {
		return
	}
	f.log.Warn("a PROXY header came where TLS was expected: switch the PROXY protocol off in the load balancer", "addr", conn.RemoteAddr().String())
}

// role returns the first role that is among the protocols of a hello.
func (f *front) role(protocols []string) (role, bool) {
	for _, p := range protocols {
		if i := slices.IndexFunc(f.roles, func(r role) bool { return r.alpn == p }); i >= 0 {
			return f.roles[i], true
		}
	}
	return role{}, false
}

var errNoRole = errors.New("hello asks for no role of this server")

// config serves the hello with what its role needs. Client certificates are asked for and their keys proven, but who
// may come is for the role to judge (wire §1.1): an enrolling client has none, and a renewing one's is expired.
func (f *front) config() *tls.Config {
	base := &tls.Config{MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true}
	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		r, ok := f.role(hello.SupportedProtos)
		if !ok {
			return nil, refuseProtocol(hello.Conn)
		}
		cert, err := r.certificate()
		if err != nil {
			return nil, err
		}
		// Made for each hello: the certificate may have been renewed since the last one.
		return &tls.Config{
			MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true,
			NextProtos: []string{r.alpn}, Certificates: []tls.Certificate{*cert},
			ClientAuth: tls.RequestClientCert, DynamicRecordSizingDisabled: true,
		}, nil
	}
	return base
}

// refuseProtocol sends the alert no_application_protocol (RFC 7301 §3.2), as wire §1.2 wants. Package tls can send it
// only after a hello that has ALPN at all, and never from here; nothing is encrypted yet, so these are its bytes.
func refuseProtocol(conn net.Conn) error {
	const alert, fatal, noApplicationProtocol = 21, 2, 120
	_, err := conn.Write([]byte{alert, 3, 3, 0, 2, fatal, noApplicationProtocol})
	return errors.Join(errNoRole, err)
}
