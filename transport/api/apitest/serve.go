package apitest

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"

	"hawser/identity/identitytest"
	"hawser/transport"
)

// Serve returns what serves an API at l, as somebody with this certificate, and the server, which ends it by Close.
func Serve(l net.Listener, cert tls.Certificate, answer http.HandlerFunc) (run func(), server *http.Server) {
	server = &http.Server{Handler: answer, ConnContext: func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, c.(hidden).Conn)
	}}
	return func() { server.Serve(hiddenTLS{l, identitytest.ServerConfig(cert, transport.ALPNAPI)}) }, server
}

// Conn is the connection of a request that Serve took.
func Conn(r *http.Request) *tls.Conn { return r.Context().Value(connKey{}).(*tls.Conn) }

// hiddenTLS speaks TLS, and hides that from http.Server, which would refuse our protocol.
type hiddenTLS struct {
	net.Listener
	config *tls.Config
}

type hidden struct{ net.Conn }

// Accept returns the next connection; its handshake comes with the first byte.
func (l hiddenTLS) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return hidden{tls.Server(c, l.config)}, nil
}

type connKey struct{}
