//go:build linux

package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// certName stands in the certificates of the models and of the peers that want one.
const certName = "bench.local"

// floorBuffer is what a model reads and writes at once. Larger ones gain nothing that can be measured.
const floorBuffer = 256 << 10

// runFloor is a process of a model: the least that a program of a design does, so that a figure of Hawser's can be told
// from one of Go's, of TLS's or of the machine's.
//
//	proxy LISTEN TARGET          copies, in the kernel
//	relay LISTEN                 joins two connections, in the kernel
//	agent RELAY BACKEND CERTS    dials out, end-to-end TLS
//	client RELAY FRONT CERTS     the technician's end
func runFloor(args []string) error {
	switch {
	case len(args) == 3 && args[0] == "proxy":
		return listen(args[1], func(c net.Conn) {
			if t, err := net.Dial("tcp", args[2]); err == nil {
				join(c, t)
				return
			}
			c.Close()
		})
	case len(args) == 2 && args[0] == "relay":
		r := &floorRelay{waiting: map[[16]byte]net.Conn{}}
		return listen(args[1], r.serve)
	case len(args) == 4 && args[0] == "agent":
		return floorAgent(args[1], args[2], args[3])
	case len(args) == 4 && args[0] == "client":
		config, err := tlsConfig(args[3], "client")
		if err != nil {
			return err
		}
		return listen(args[2], func(c net.Conn) { floorStream(c, args[1], config) })
	}
	return fmt.Errorf("floor %q", args)
}

// listen serves each connection in a goroutine that ends with the process.
func listen(addr string, serve func(net.Conn)) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go serve(c)
	}
}

// A connection to the relay begins with a byte that says what it is, and 16 that name the pair.
const (
	legControl = 'R' // the agent's, on which it learns of pairs
	legClient  = 'C'
	legAgent   = 'A'
)

type floorRelay struct {
	mu      sync.Mutex // guards control and waiting
	control net.Conn
	waiting map[[16]byte]net.Conn
}

func (r *floorRelay) serve(c net.Conn) {
	var head [17]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		c.Close()
		return
	}
	id := [16]byte(head[1:])
	r.mu.Lock()
	peer := r.waiting[id]
	switch head[0] {
	case legControl:
		r.control = c
		for waiting := range r.waiting { // they came before the agent
			c.Write(waiting[:])
		}
	case legClient:
		r.waiting[id] = c
		if r.control != nil {
			r.control.Write(id[:])
		}
	case legAgent:
		delete(r.waiting, id)
	}
	r.mu.Unlock()
	if head[0] == legAgent && peer != nil {
		join(peer, c)
	}
}

func leg(relay string, kind byte, id [16]byte) (net.Conn, error) {
	c, err := net.Dial("tcp", relay)
	if err == nil {
		_, err = c.Write(append([]byte{kind}, id[:]...))
	}
	return c, err
}

func floorAgent(relay, backend, certs string) error {
	config, err := tlsConfig(certs, "agent")
	if err != nil {
		return err
	}
	control, err := leg(relay, legControl, [16]byte{})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for {
		var id [16]byte
		if _, err := io.ReadFull(control, id[:]); err != nil {
			return err
		}
		go func() {
			raw, err := leg(relay, legAgent, id)
			if err != nil {
				return
			}
			under := gather(raw)
			inner := tls.Server(under, config)
			target, err := net.Dial("tcp", backend)
			if err == nil {
				err = inner.Handshake()
			}
			if err != nil {
				raw.Close()
				return
			}
			bridge(inner, under, target)
		}()
	}
}

// floorStream is one stream of the technician's.
func floorStream(c net.Conn, relay string, config *tls.Config) {
	var id [16]byte
	rand.Read(id[:])
	raw, err := leg(relay, legClient, id)
	if err != nil {
		c.Close()
		return
	}
	under := gather(raw)
	inner := tls.Client(under, config)
	if inner.Handshake() != nil {
		c.Close()
		raw.Close()
		return
	}
	bridge(inner, under, c)
}

// join copies between two sockets, which Go does with splice, until both directions have ended.
func join(a, b net.Conn) {
	var back sync.WaitGroup
	back.Go(func() { splice(a, b) })
	splice(b, a)
	back.Wait()
	a.Close()
	b.Close()
}

func splice(dst, src net.Conn) {
	if _, err := io.Copy(dst, src); err != nil {
		dst.Close()
		src.Close()
	}
	if c, ok := dst.(*net.TCPConn); ok {
		c.CloseWrite()
	}
}

// gatherer is a socket under TLS that writes the records of one piece at once, and reads much at once.
type gatherer struct {
	net.Conn
	in   *bufio.Reader
	out  []byte
	held bool // written by the one goroutine that writes
}

func gather(c net.Conn) *gatherer {
	return &gatherer{Conn: c, in: bufio.NewReaderSize(c, floorBuffer)}
}

// Read is that of a buffer.
func (g *gatherer) Read(b []byte) (int, error) { return g.in.Read(b) }

// Write keeps what comes while the gate is held.
func (g *gatherer) Write(b []byte) (int, error) {
	if !g.held {
		return g.Conn.Write(b)
	}
	g.out = append(g.out, b...)
	return len(b), nil
}

// piece writes through TLS and gives the socket one write.
func (g *gatherer) piece(inner *tls.Conn, b []byte) error {
	g.held = true
	_, err := inner.Write(b)
	g.held = false
	_, werr := g.Conn.Write(g.out)
	g.out = g.out[:0]
	return errors.Join(err, werr)
}

// bridge copies between a stream under TLS and a plain socket.
func bridge(inner *tls.Conn, under *gatherer, plain net.Conn) {
	var back sync.WaitGroup
	back.Go(func() {
		buf := make([]byte, floorBuffer)
		io.CopyBuffer(struct{ io.Writer }{plain}, struct{ io.Reader }{inner}, buf)
		plain.Close()
	})
	buf := make([]byte, floorBuffer)
	for {
		n, err := plain.Read(buf)
		if n > 0 {
			err = errors.Join(err, under.piece(inner, buf[:n]))
		}
		if err != nil {
			break
		}
	}
	inner.Close()
	plain.Close()
	back.Wait()
}

// tlsConfig is TLS 1.3 in which both ends show a certificate.
func tlsConfig(dir, who string) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, who+".pem"), filepath.Join(dir, who+".key"))
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, ServerName: certName,
		RootCAs: roots, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert}, nil
}

// makeCertificates makes an authority and a key for each role, good for a day.
func makeCertificates(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	from, until := time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, NotBefore: from, NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err == nil {
		err = writePEM(filepath.Join(dir, "ca.pem"), "CERTIFICATE", der)
	}
	for i, who := range []string{"relay", "agent", "client"} {
		if err != nil {
			return err
		}
		err = func() error {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				return err
			}
			leaf := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 2)), Subject: pkix.Name{CommonName: who}, NotBefore: from,
				NotAfter: until, DNSNames: []string{certName}, KeyUsage: x509.KeyUsageDigitalSignature,
				ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
			der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
			if err != nil {
				return err
			}
			secret, err := x509.MarshalPKCS8PrivateKey(key)
			if err != nil {
				return err
			}
			return errors.Join(writePEM(filepath.Join(dir, who+".pem"), "CERTIFICATE", der),
				writePEM(filepath.Join(dir, who+".key"), "PRIVATE KEY", secret))
		}()
	}
	return err
}

func writePEM(file, kind string, der []byte) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
