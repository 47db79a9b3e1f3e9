//go:build linux

package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"time"
)

// impose is the role of an imposter on port 443: "silent", "reset", "close" or "tls". It records every byte that it
// receives, of TLS what was inside as well, in a file, until it is killed.
func impose(args []string) any {
	file, err := os.OpenFile(args[1], os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return answer{Error: err.Error()}
	}
	cert, err := selfSigned("Imposter")
	if err != nil {
		return answer{Error: err.Error()}
	}
	l, err := net.Listen("tcp", ":443")
	if err != nil {
		return answer{Error: err.Error()}
	}
	fmt.Println("listening")
	for {
		c, err := l.Accept()
		if err != nil {
			return answer{Error: err.Error()}
		}
		go receive(args[0], c.(*net.TCPConn), file, cert) // ends with the connection, at the latest with this program
	}
}

// receive plays the imposter for one connection. Each write to the file is whole: it was opened to append.
func receive(mode string, c *net.TCPConn, file io.Writer, cert tls.Certificate) {
	defer c.Close()
	switch heard := (&recorded{c, file}); mode {
	case "silent":
		_, _ = io.Copy(io.Discard, heard)
	case "reset":
		_, _ = heard.Read(make([]byte, 4096))
		_ = c.SetLinger(0)
	case "close":
		_, _ = heard.Read(make([]byte, 4096))
	case "tls":
		inner := tls.Server(heard, &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert,
			NextProtos: []string{"hawser-access/1", "http/1.1"}})
		if inner.Handshake() != nil {
			return
		}
		for _, shown := range inner.ConnectionState().PeerCertificates {
			_, _ = file.Write(shown.Raw)
		}
		_, _ = io.Copy(file, inner)
	}
}

// recorded writes down what is read from a connection.
type recorded struct {
	net.Conn
	file io.Writer
}

func (r *recorded) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	_, _ = r.file.Write(b[:n])
	return n, err
}

func selfSigned(name string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{accessName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
