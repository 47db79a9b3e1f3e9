package transport

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/memnet"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// good certifies a new key for now.
func good(pki *identitytest.PKI, name identity.Name) tls.Certificate {
	return pki.Leaf(name, -time.Hour, time.Hour)
}

// foreign is what an intercepting proxy shows: a leaf of its own CA, sent with it.
func foreign() tls.Certificate {
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Example Proxy CA"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	caKey, key := identitytest.NewKey(), identitytest.NewKey()
	caCert := must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey))))
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{"access.example"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter}
	cert := must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, leaf, caCert, key.Public(), caKey))))
	return identitytest.Certificate(key, []*x509.Certificate{cert, caCert})
}

var (
	clientAddr = netip.MustParseAddr("198.51.100.7")
	serverAddr = netip.MustParseAddr("192.0.2.1")
	access     = identity.AccessName("a1")
)

// site is a bubble's network with one client and one server, and a log of what the client dialled.
type site struct {
	t      *testing.T
	pki    *identitytest.PKI
	net    *memnet.Network
	server *memnet.Host
	d      *Dialer
	target Target
	begin  time.Time

	mu       sync.Mutex // guards all below
	dialled  []dialled
	inFlight int
	most     int // in flight at once
}

type dialled struct {
	addr string
	at   time.Duration
}

func newSite(t *testing.T) *site {
	s := &site{t: t, pki: identitytest.New(time.Now()), net: memnet.New(), begin: time.Now()}
	s.server = s.net.Host(serverAddr)
	client := s.net.Host(clientAddr)
	s.d = &Dialer{
		Resolve: func(context.Context, string) ([]netip.Addr, error) { return []netip.Addr{serverAddr}, nil },
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			s.dialling(address, 1)
			defer s.dialling("", -1)
			return client.DialContext(ctx, network, address)
		},
	}
	s.target = Target{Hosts: []string{"access.example"}, Ports: DefaultPorts(), ALPN: ALPNAccess,
		Name: identity.Name{Kind: identity.KindAccess}, Roots: s.pki.Roots}
	return s
}

func (s *site) dialling(addr string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight += n
	s.most = max(s.most, s.inFlight)
	if addr != "" {
		s.dialled = append(s.dialled, dialled{addr, time.Since(s.begin)})
	}
}

// restart forgets what was dialled; times count from now.
func (s *site) restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begin, s.dialled, s.most = time.Now(), nil, 0
}

// serve hands each connection to a port to a goroutine. It ends with the bubble, which shows a connection that the client
// has left open.
func (s *site) serve(port uint16, handle func(net.Conn)) {
	s.t.Cleanup(must(s.server.Serve(port, handle)).Stop)
}

// serveTLS is a server as it should be on the given ports.
func (s *site) serveTLS(ports ...uint16) {
	for _, p := range ports {
		s.serve(p, tlsHandler(serverTLS(good(s.pki, access))))
	}
}

// serverTLS has TLS 1.2 too, so that only the client keeps it out.
func serverTLS(c tls.Certificate) *tls.Config {
	config := identitytest.ServerConfig(c, ALPNAccess)
	config.MinVersion = tls.VersionTLS12
	return config
}

func tlsHandler(config *tls.Config) func(net.Conn) {
	return func(c net.Conn) {
		conn := tls.Server(c, config)
		if conn.Handshake() == nil {
			io.Copy(io.Discard, conn)
		}
	}
}

// say waits for the hello, answers with a text, and waits for the end.
func say(text string) func(net.Conn) {
	return func(c net.Conn) {
		c.Read(make([]byte, 4096))
		io.WriteString(c, text)
		io.Copy(io.Discard, c)
	}
}

func silent(c net.Conn) { io.Copy(io.Discard, c) }

// block makes ports unreachable.
func (s *site) block(v map[uint16]memnet.Verdict) {
	s.net.Firewall(func(_ netip.Addr, to netip.AddrPort) memnet.Verdict { return v[to.Port()] })
}

// dial searches and wants the port that is open, or zero, after so long.
func (s *site) dial(port uint16, took time.Duration) *DialError {
	s.t.Helper()
	s.restart()
	conn, err := s.d.Dial(s.t.Context(), s.target)
	if since := time.Since(s.begin); since != took {
		s.t.Errorf("it took %v, want %v; dialled %v", since, took, s.dialled)
	}
	var got uint16
	if err == nil {
		got = conn.Candidate.Addr.Port()
		conn.Close()
	}
	if got != port {
		s.t.Errorf("open is %d (%v), want %d", got, err, port)
	}
	failed, _ := errors.AsType[*DialError](err)
	return failed
}

func addrPort(port uint16) netip.AddrPort { return netip.AddrPortFrom(serverAddr, port) }
