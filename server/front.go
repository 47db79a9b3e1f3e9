package server

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"
)

// What a stranger gets before TLS has finished.
const (
	handshakeTime = 10 * time.Second
	maxHandshakes = 4096 // at once, about 16 KiB each; over it, new connections are closed
)

// How long an accept loop waits after an error, doubled with each: with no file
// descriptors left, trying at once would only burn the processor.
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

// front is the one listener: TLS on every port, every role on each of them.
type front struct {
	roles []role
	log   *slog.Logger
	slots chan struct{} // one for each handshake that may run
}

func newFront(log *slog.Logger, roles ...role) *front {
	return &front{roles, log, make(chan struct{}, maxHandshakes)}
}

// serve accepts until ctx is cancelled, closes ln, and returns when every
// connection that it accepted is over.
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
			rest(ctx, pause)
			pause = min(2*pause, longPause)
			continue
		}
		pause = firstPause
		select {
		case f.slots <- struct{}{}:
			conns.Go(func() { f.handle(ctx, conn) })
		default:
			conn.Close()
		}
	}
}

// handle does the handshake and hands the connection to its role.
func (f *front) handle(ctx context.Context, conn net.Conn) {
	tlsConn, r, err := f.handshake(ctx, conn)
	<-f.slots
	if err != nil {
		conn.Close()
		f.log.Debug("handshake failed", "addr", conn.RemoteAddr().String(), "err", err)
		return
	}
	r.serve(ctx, tlsConn)
}

func (f *front) handshake(ctx context.Context, conn net.Conn) (*tls.Conn, role, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	tlsConn := tls.Server(conn, f.config())
	if err := tlsConn.HandshakeContext(ctx); err != nil {
		return nil, role{}, err
	}
	r, ok := f.role([]string{tlsConn.ConnectionState().NegotiatedProtocol})
	if !ok {
		return nil, role{}, errNoRole
	}
	return tlsConn, r, nil
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

// config serves the hello with what its role needs. Client certificates are
// asked for and their keys proven, but who may come is for the role to judge
// (wire §1.1): an enrolling client has none, and a renewing one's is expired.
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
		return &tls.Config{
			MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true,
			NextProtos: []string{r.alpn}, Certificates: []tls.Certificate{*cert},
			ClientAuth: tls.RequestClientCert,
		}, nil
	}
	return base
}

// refuseProtocol sends the alert no_application_protocol (RFC 7301 §3.2), as
// wire §1.2 wants. Package tls can send it only after a hello that has ALPN at
// all, and never from here; nothing is encrypted yet, so these are its bytes.
func refuseProtocol(conn net.Conn) error {
	const alert, fatal, noApplicationProtocol = 21, 2, 120
	_, err := conn.Write([]byte{alert, 3, 3, 0, 2, fatal, noApplicationProtocol})
	return errors.Join(errNoRole, err)
}

// rest waits for d, or until ctx is cancelled.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
