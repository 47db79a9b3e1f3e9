package manager

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"hawser/identity"
	"hawser/internal/memnet"
	"hawser/transport"
	"hawser/transport/wire"
)

// fake is a Server Infrastructure with one gateway, made by hand for these tests: an Access API that answers what a test
// wants, two relays that pair whoever shows the same grant, and a Runtime whose LAN is an echo. None of them is the real
// thing: that the real ones fit together is shown by the tests of the whole path.
type fake struct {
	t       *testing.T
	root    *identity.Authority
	issuing *identity.Authority
	roots   *identity.Roots
	net     *memnet.Network
	client  *memnet.Host
	gateway *memnet.Host

	uid        identity.UID
	gatewayTLS tls.Certificate
	code       identity.Code
	ctx        context.Context // of all that runs
	running    sync.WaitGroup

	mu       sync.Mutex                                          // guards all below
	answers  map[string]http.HandlerFunc                         // by "METHOD /path below /api/v1"; a test replaces some
	calls    []string                                            // "METHOD /path" in order
	sessions int                                                 // opened so far
	user     identity.SPKI                                       // who is logged in
	offered  map[string]wire.Offer                               // the newest to the Manager, by session
	relay    int                                                 // which of relayAddrs the next offer names
	waiting  map[string]net.Conn                                 // at the relays, by grant
	joins    []string                                            // the grants of all joins so far
	life     func(now time.Time) (notBefore, notAfter time.Time) // of user certificates
}

var (
	accessAddr  = netip.MustParseAddr("192.0.2.1")
	relayAddr   = netip.MustParseAddr("192.0.2.2") // of r1
	relayAddr2  = netip.MustParseAddr("192.0.2.3") // of r2
	clientAddr  = netip.MustParseAddr("198.51.100.7")
	gatewayAddr = netip.MustParseAddr("203.0.113.9")
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// newFake starts the infrastructure inside the bubble of t; it ends with the test.
func newFake(t *testing.T) *fake {
	// yamux keeps its timers in a pool of the whole process, and one that was made in an earlier bubble is fatal in this
	// one. A pool is empty after two collections.
	runtime.GC()
	runtime.GC()
	f := &fake{t: t, net: memnet.New(), uid: identity.NewUID(), code: identity.NewCode(), waiting: map[string]net.Conn{}, offered: map[string]wire.Offer{},
		life: func(now time.Time) (time.Time, time.Time) { return now, now.Add(12 * time.Hour) }}
	f.root = must(identity.NewRoot(must(identity.NewKey()), time.Now()))
	f.issuing = must(f.root.NewIssuing(must(identity.NewKey()), time.Now()))
	f.roots = must(identity.NewRoots(f.root.Cert))
	f.client, f.gateway = f.net.Host(clientAddr), f.net.Host(gatewayAddr)
	f.gatewayTLS = f.leaf(identity.DeviceName("default", f.uid))
	f.answers = f.api()

	var cancel context.CancelFunc
	f.ctx, cancel = context.WithCancel(t.Context())
	requests := &chanListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: http.HandlerFunc(f.serveHTTP), ConnContext: func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, peerKey{}, c.(plain).spki)
	}}
	f.running.Go(func() { server.Serve(requests) })
	access := f.listen(accessAddr, transport.ALPNAPI, identity.AccessName("a1"), func(c *tls.Conn) { requests.give(c) })
	relay := f.listen(relayAddr, transport.ALPNRelay, identity.RelayName("r1"), f.serveRelay)
	relay2 := f.listen(relayAddr2, transport.ALPNRelay, identity.RelayName("r2"), f.serveRelay)
	t.Cleanup(func() {
		cancel()
		access.Close()
		relay.Close()
		relay2.Close()
		requests.Close()
		server.Close()
		f.running.Wait()
	})
	return f
}

// leaf issues a certificate for a year to a new key.
func (f *fake) leaf(name identity.Name) tls.Certificate {
	key := must(identity.NewKey())
	c := tls.Certificate{PrivateKey: key}
	for _, cert := range must(f.issuing.Issue(identity.Request{Name: name, Pub: key.Public(),
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0)})) {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return c
}

func (f *fake) listen(addr netip.Addr, alpn string, name identity.Name, serve func(*tls.Conn)) net.Listener {
	l := must(f.net.Host(addr).Listen(443))
	config := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{alpn}, ClientAuth: tls.RequestClientCert,
		Certificates: []tls.Certificate{f.leaf(name)}, SessionTicketsDisabled: true}
	f.running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.running.Go(func() {
				conn := tls.Server(c, config)
				defer context.AfterFunc(f.ctx, func() { c.Close() })()
				if conn.Handshake() != nil {
					c.Close()
					return
				}
				serve(conn)
			})
		}
	})
	return l
}

// chanListener hands http.Server connections that have shaken hands; plain hides the TLS, whose protocol it would refuse.
type chanListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

type plain struct {
	net.Conn
	spki identity.SPKI
}

type peerKey struct{}

func (l *chanListener) give(c *tls.Conn) {
	p := plain{Conn: c}
	if certs := c.ConnectionState().PeerCertificates; len(certs) > 0 {
		p.spki = identity.CertSPKI(certs[0])
	}
	select {
	case l.conns <- p:
	case <-l.closed:
		c.Close()
	}
}

func (l *chanListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *chanListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *chanListener) Addr() net.Addr { return &net.TCPAddr{} }

func (f *fake) serveHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/api/v1")
	f.mu.Lock()
	f.calls = append(f.calls, name)
	answer := f.answers[name]
	f.mu.Unlock()
	if answer == nil {
		answer = problemAnswer(404, "not-found", "no such thing")
	}
	answer(w, r)
}

// answer replaces what the API says to a request.
func (f *fake) answer(name string, h http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[name] = h
}

// called counts the requests of a name so far.
func (f *fake) called(name string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.calls {
		if c == name {
			n++
		}
	}
	return n
}

func problemAnswer(status int, code, detail string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(map[string]any{"status": status, "code": code, "title": code, "detail": detail})
	}
}

func jsonAnswer(v any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(v)
	}
}

// api is what the fake answers unless a test says otherwise.
func (f *fake) api() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"POST /login":    f.login,
		"POST /renew":    f.renew,
		"POST /sessions": f.openSession,
		"GET /relays":    jsonAnswer(wire.Pool{Relays: []wire.Relay{relayNumber(0), relayNumber(1)}}),
		"GET /devices":   jsonAnswer(map[string]any{"devices": []Device{{UID: f.uid, Name: "press", State: "enrolled", Online: true}}}),
	}
}

func (f *fake) login(w http.ResponseWriter, r *http.Request) {
	var in loginRequest
	json.NewDecoder(r.Body).Decode(&in)
	if in.Code != f.code.String() {
		problemAnswer(403, "bad-code", "no such code")(w, r)
		return
	}
	jsonAnswer(loginAnswer{Chain: f.certify(in.CSR), Domain: "default", User: in.User,
		Hosts: []string{accessAddr.String()}, Ports: []transport.Port{443}})(w, r)
}

func (f *fake) renew(w http.ResponseWriter, r *http.Request) {
	var in struct {
		CSR []byte `json:"csr"`
	}
	json.NewDecoder(r.Body).Decode(&in)
	if r.Context().Value(peerKey{}) != f.user {
		problemAnswer(401, "not-logged-in", "who are you?")(w, r)
		return
	}
	jsonAnswer(map[string]string{"chain": f.certify(in.CSR)})(w, r)
}

// certify issues a certificate for the user admin to the key of a CSR, which becomes the one that is logged in.
func (f *fake) certify(csr []byte) string {
	pub := must(identity.ParseCSR(csr))
	notBefore, notAfter := f.life(time.Now())
	chain := must(f.issuing.Issue(identity.Request{Name: identity.UserName("default", "admin"), Pub: pub,
		NotBefore: notBefore, NotAfter: notAfter}))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.user = identity.CertSPKI(chain[0])
	return string(identity.MarshalChain(chain))
}

// manager is a Manager on the client's host with a home of its own.
func (f *fake) manager() *Manager {
	return &Manager{Home: f.t.TempDir() + "/home", DialContext: f.client.DialContext}
}

// loggedIn is an account of a fresh login.
func (f *fake) loggedIn(m *Manager) *Account {
	f.t.Helper()
	_, err := m.Login(f.t.Context(), Login{Server: accessAddr.String(), Code: f.code.String(), User: "admin", Pin: f.pin()})
	if err != nil {
		f.t.Fatal(err)
	}
	a, err := m.Open()
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(a.Close)
	return a
}

func (f *fake) pin() string { return identity.CertSPKI(f.root.Cert).String() }

func readLogin(r *http.Request) (in loginRequest) {
	json.NewDecoder(r.Body).Decode(&in)
	return in
}
