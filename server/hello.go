package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"time"

	"hawser/server/gate"
)

// What a stranger may send before it is known which role it wants (wire §1.3). All of it is read before anything of TLS
// is made, so that a connection that says nothing, or half of it, costs a few KiB.
const (
	firstByteTime = 3 * time.Second
	recordHeader  = 5       // type, version, length (RFC 8446 §5.1)
	maxHello      = 4 << 10 // of the body; ours are of 251 to 1700 bytes
	typeHandshake = 22
)

// readHello reads the first record of a connection, which is the whole hello of a client of ours. The header is returned
// also with an error.
func readHello(conn net.Conn, place *gate.Place, until time.Time) (hello []byte, err error) {
	first := make([]byte, recordHeader)
	conn.SetReadDeadline(time.Now().Add(firstByteTime))
	n, err := io.ReadAtLeast(conn, first, 1)
	if err != nil {
		return nil, err
	}
	place.Progress()
	conn.SetReadDeadline(until)
	if _, err := io.ReadFull(conn, first[n:]); err != nil {
		return first[:n], err
	}
	size := int(binary.BigEndian.Uint16(first[3:]))
	if first[0] != typeHandshake || size > maxHello {
		return first, errNoHello
	}
	hello = append(first, make([]byte, size)...)
	if _, err := io.ReadFull(conn, hello[recordHeader:]); err != nil {
		return first, err
	}
	place.Progress()
	return hello, nil
}

var errNoHello = errors.New("the first bytes are no hello of a client")

// stranger is what somebody is who does not begin with a hello.
type stranger int

const (
	unknown  stranger = iota
	webUser           // sends a plain HTTP request
	balancer          // sends the PROXY protocol, version 1 or 2
)

// methods begin a plain HTTP request.
var methods = []string{"GET ", "HEAD ", "POST ", "PUT ", "OPTIO", "DELET", "PATCH", "TRACE", "CONNE"}

// judgeFirst says who sends such first bytes. It is pure.
func judgeFirst(first []byte) stranger {
	begins := func(with string) bool { return bytes.HasPrefix(first, []byte(with)) }
	switch {
	case begins("PROXY"), begins("\r\n\r\n\x00"):
		return balancer
	case slices.ContainsFunc(methods, begins):
		return webUser
	}
	return unknown
}

// protocolsOf returns the ALPN protocols of a hello. Package tls reads it, in a handshake that goes no further: nothing
// of it is answered, and nothing is calculated.
func protocolsOf(hello []byte) (protocols []string, err error) {
	err = errNoHello
	read := &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		protocols, err = h.SupportedProtos, nil
		return nil, errNoHello // it has served
	}}
	tls.Server(&script{rest: hello}, read).HandshakeContext(context.Background())
	return protocols, err
}

// script is a connection from which bytes are read that are known already.
type script struct {
	net.Conn // nil: nothing else is asked of it
	rest     []byte
}

// Read reads them, and then ends.
func (s *script) Read(b []byte) (int, error) {
	if len(s.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Write drops what tls has to say of the handshake.
func (s *script) Write(b []byte) (int, error) { return len(b), nil }

// Close does nothing.
func (s *script) Close() error { return nil }

// webLine is what a browser shows (wire §1.3).
const webLine = "This port is for Hawser, which connects technicians to machines, and not for browsers. " +
	"To test the way to here: hawser-agent netcheck --access HOST\n"

// webAnswer is the answer to every HTTP request, plain or by TLS. 421: this server cannot answer for what was asked.
const webAnswer = "HTTP/1.1 421 Misdirected Request\r\nContent-Type: text/plain\r\nContent-Length: 148\r\n" +
	"Cache-Control: no-store\r\nConnection: close\r\n\r\n" + webLine

const (
	webTime  = 2 * time.Second
	webBytes = 16 << 10 // of a request
)

// answerWeb answers a request, of which the first bytes may have been read, and closes. It does not look at the request:
// whatever is asked for, the answer is the same. What still comes is read, because closing a socket with unread bytes
// resets it, and the client's kernel throws the answer away.
func answerWeb(conn net.Conn) {
	conn.SetDeadline(time.Now().Add(webTime))
	defer conn.Close()
	if _, err := io.WriteString(conn, webAnswer); err != nil {
		return
	}
	if half, ok := conn.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
		return
	}
	io.CopyN(io.Discard, conn, webBytes)
}

// webALPN is what a browser asks for; it takes HTTP/1.1 where there is no h2.
const webALPN = "http/1.1"

// webRole answers a browser by TLS, with the certificate of another role, which the browser does not know.
func webRole(certificate func() (*tls.Certificate, error)) role {
	return role{webALPN, certificate, func(_ context.Context, c *tls.Conn) { answerWeb(c) }}
}
