package accesstest

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/transport/wire"
)

// Client is a key with its certificate, or without one yet, that talks to a real Access Server. It is as bare as can be,
// so that a test decides what is said and when: it believes every server that has the
// protocol, keeps no connection, and tries nothing twice.
type Client struct {
	Key   crypto.Signer
	Chain []*x509.Certificate // none before it has enrolled or logged in
	// Stated is a device's own hawser-key, which belongs into its hello.
	Stated string
}

// NewClient makes a key.
func NewClient() *Client { return &Client{Key: identitytest.NewKey()} }

// CSR is what asks for a certificate of the key.
func (c *Client) CSR() []byte {
	csr, err := identity.NewCSR(c.Key)
	if err != nil {
		panic(err)
	}
	return csr
}

// Take stores a chain in PEM, as a server answers it.
func (c *Client) Take(chain string) (err error) {
	c.Chain, err = identity.ParseChain([]byte(chain))
	return err
}

// TLS is how the client connects for a protocol; nil shows no certificate.
func (c *Client) TLS(alpn string) *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{alpn}, InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if s.NegotiatedProtocol != alpn { // crypto/tls lets a server choose none
				return fmt.Errorf("the server chose %q, want %s", s.NegotiatedProtocol, alpn)
			}
			return nil
		}}
	if c != nil && c.Chain != nil {
		config.Certificates = []tls.Certificate{identitytest.Certificate(c.Key, c.Chain)}
	}
	return config
}

// Prelude asks for the time, which comes before everything else (wire §3), and does not look at the answer.
func Prelude(conn net.Conn) error {
	request := wire.NewTimeRequest([32]byte{}, identity.UID{})
	if err := wire.Write(conn, wire.TypeTimeRequest, request[:]); err != nil {
		return err
	}
	_, err := wire.Expect(conn, wire.TypeTime)
	return err
}

// Ask makes one request of the API on a connection, and closes it. A body of type []byte is sent as it is, any other as
// JSON. An error: there was no whole answer.
func Ask(conn net.Conn, method, path string, body any) (*http.Response, []byte, error) {
	raw, ready := body.([]byte)
	if body != nil && !ready {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return nil, nil, err
		}
	}
	request, err := http.NewRequest(method, "https://access"+path, bytes.NewReader(raw))
	if err != nil {
		return nil, nil, err
	}
	var writing sync.WaitGroup
	defer writing.Wait()
	defer conn.Close()
	writing.Go(func() { request.Write(conn) }) // beside the reading: a server that refuses early may not take it all
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		return nil, nil, err
	}
	answer, err := io.ReadAll(response.Body)
	return response, answer, err
}
