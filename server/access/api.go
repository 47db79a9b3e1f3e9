package access

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// Limits of the API (access §6). A stranger may open connections too: the short time for headers keeps those cheap that
// send nothing, and writes end before a client that stopped reading holds a goroutine for long.
const (
	maxHeaderBytes = 16 << 10
	headerTimeout  = 10 * time.Second
	requestTimeout = 30 * time.Second // reading one, and answering it
	idleTimeout    = 2 * time.Minute  // between two
)

// ServeAPI serves one accepted hawser-api/1 connection whose handshake is done: HTTP/1.1 with the API of access §6. It
// blocks until the connection or ctx ends, and closes it. TLS must have asked for a client certificate without
// verifying it. A panic ends only its request.
func (s *Server) ServeAPI(ctx context.Context, conn *tls.Conn) {
	defer conn.Close()
	place, known := s.placeFor(conn, s.places.anonymous, identity.KindUser)
	if place == nil {
		s.turnAway(conn, tellNoPlaceAPI)
		return
	}
	defer place.Leave()
	late := time.AfterFunc(anonymousTime, func() { conn.NetConn().Close() })
	defer late.Stop()
	// A certificate may be expired, and its user gone: only the registry's word frees the place.
	proven := func() {
		place.Leave()
		late.Stop()
	}
	ctx, cancel, ok := s.whenReady(ctx)
	defer cancel()
	if !ok {
		return
	}
	serveHTTP(ctx, conn, known, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, conn, proven) }))
}

// serveHTTP serves HTTP/1.1 on one connection until it or ctx ends. The whole of net/http is used for one connection,
// because our listener serves all protocols on one port and has accepted it already. Unless it is to be kept, it is
// closed after one request.
func serveHTTP(ctx context.Context, conn *tls.Conn, keep bool, h http.Handler) {
	one := &oneConn{Conn: conn, closed: make(chan struct{})}
	defer context.AfterFunc(ctx, func() { one.Close() })()
	ended := make(chan struct{})
	server := &http.Server{
		Handler: h,
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed { // reported at the end of the goroutine that net/http starts
				close(ended)
			}
		},
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		// net/http would log each malformed request of a stranger.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	server.SetKeepAlivesEnabled(keep)
	server.Serve(one) // the error only says that the one connection was closed
	<-ended
}

// oneConn is a connection and also a listener that accepts it once. It hides that the connection is TLS, because
// net/http closes TLS connections with an ALPN protocol that it does not know.
type oneConn struct {
	net.Conn
	once     sync.Once
	closed   chan struct{}
	accepted bool
}

// Accept returns the connection, then blocks until that is closed.
func (c *oneConn) Accept() (net.Conn, error) {
	if !c.accepted {
		c.accepted = true
		return c, nil
	}
	<-c.closed
	return nil, net.ErrClosed
}

// Addr makes it a listener.
func (c *oneConn) Addr() net.Addr { return c.LocalAddr() }

// Close closes the connection, and the listener with it.
func (c *oneConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// answer serves one request: route, caller, handler. Every error becomes a problem document. The body of a panic goes
// to the log and never to the client. proven is called when the caller is known.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, conn *tls.Conn, proven func()) {
	defer func() {
		if v := recover(); v != nil {
			s.counted.panics.Inc()
			s.log.Error("request panicked", "addr", r.RemoteAddr, "err", fmt.Sprintf("%v\n%s", v, debug.Stack()))
			writeProblem(w, &wire.Refusal{Reason: transport.Internal})
		}
	}()
	defer s.counted.api.UpdateDuration(time.Now())
	r.Body = http.MaxBytesReader(w, r.Body, api.MaxBodyBytes)
	status, body, err := s.dispatch(r, conn, proven)
	if err != nil {
		refusal := refusalOf(err)
		s.counted.apiRefused.Reason(refusal.Reason)
		if isInternal(err) {
			s.logFailure("request failed", err, "addr", r.RemoteAddr)
		}
		if allow, ok := errors.AsType[*methodError](err); ok {
			w.Header().Set("Allow", allow.methods)
		}
		writeProblem(w, refusal)
		return
	}
	writeJSON(w, status, "application/json", body)
}

// dispatch finds the route before the caller: what does not exist is told to everybody alike, and who may call is the
// route's to say.
func (s *Server) dispatch(r *http.Request, conn *tls.Conn, proven func()) (status int, body any, err error) {
	if _, ok := s.clock.trusted(); !ok {
		return 0, nil, errClock // certificates and records must not get a wrong time
	}
	route, vars, err := match(routes(), r.Method, r.URL.EscapedPath())
	if err != nil {
		return 0, nil, err
	}
	c, err := s.identifyCaller(r.Context(), route.who, conn)
	if err != nil {
		return 0, nil, err
	}
	if route.who != anyone {
		proven()
	}
	if err := s.authorize(r.Context(), route.who, &c); err != nil {
		return 0, nil, err
	}
	return route.handle(s, request{r, c, vars})
}

// request is what a handler gets.
type request struct {
	*http.Request
	caller caller
	vars   map[string]string // of the route's pattern
}

// read parses the body strictly: a client that sends an unknown member expects an effect, and must not believe that it
// had one.
func (r request) read(into any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		err = errors.New("more than one value")
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return refuse(api.TooLarge, "the body is over 96 KiB")
	}
	return refuse(api.BadRequest, "body: "+err.Error())
}

// writeJSON forbids caches: answers hold codes and certificates, and who is online now.
func writeJSON(w http.ResponseWriter, status int, kind string, body any) {
	if status == http.StatusNoContent {
		w.WriteHeader(status)
		return
	}
	b, err := json.Marshal(body)
	if err != nil { // cannot happen: all of package api can be encoded
		status, b = http.StatusInternalServerError, nil
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(b)
}
