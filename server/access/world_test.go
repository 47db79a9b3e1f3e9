package access

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"hawser/identity"
	"hawser/internal/memnet"
	"hawser/server/grant"
	"hawser/transport"
	"hawser/transport/wire"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// world is an infrastructure in memory with one Access Server. It lives inside
// a bubble; outside of one, only what needs no network may be used.
type world struct {
	t       testing.TB
	net     *memnet.Network
	root    *identity.Authority
	issuing *identity.Authority
	roots   *identity.Roots
	cfg     Config
	server  *Server
	admin   identity.Code // login code of user "admin" in domain "plant"
	relay   identity.Code // activation code of relay "r1"
	stop    func()
}

var (
	serverAddr = netip.MustParseAddr("192.0.2.1")
	clientAddr = netip.MustParseAddr("198.51.100.7")
)

// newWorld makes a world and starts its server; configs may change the config before.
func newWorld(t testing.TB, store Store, configs ...func(*Config)) *world {
	t.Helper()
	w := newIdleWorld(t, store, configs...)
	w.start()
	return w
}

func newIdleWorld(t testing.TB, store Store, configs ...func(*Config)) *world {
	t.Helper()
	now := time.Now()
	w := &world{t: t, net: memnet.New()}
	w.root = must(identity.NewRoot(must(identity.NewKey()), now))
	w.issuing = must(w.root.NewIssuing(must(identity.NewKey()), now))
	w.roots = must(identity.NewRoots(w.root.Cert))
	name, timeKey, grantKey := identity.AccessName("a1"), must(identity.NewKey()), must(identity.NewKey())
	w.cfg = Config{
		Name: name, Node: "a1", Hosts: []string{"192.0.2.1"}, Ports: []transport.Port{443},
		Roots: w.roots, Issuing: w.issuing,
		TimeKey: timeKey, TimeCert: must(w.root.CertifyTimeKey(name, timeKey.Public(), now)),
		Grant: grant.Signer{Key: grantKey, Cert: must(w.root.CertifyGrantKey(name, grantKey.Public(), now))},
		Store: store,
	}
	for _, c := range configs {
		c(&w.cfg)
	}
	var err error
	w.admin, w.relay, err = Bootstrap(t.Context(), store, "plant", "admin", "r1", now)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// start runs a new server process on the store, as server/'s listener does.
func (w *world) start() {
	w.t.Helper()
	w.server = must(New(w.cfg))
	ctx, cancel := context.WithCancel(context.Background())
	listener := must(w.net.Host(serverAddr).Listen(443))
	var owned sync.WaitGroup
	owned.Go(func() {
		if err := w.server.Run(ctx); err != nil {
			w.t.Error(err)
		}
	})
	owned.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			owned.Go(func() { w.accept(ctx, conn) })
		}
	})
	w.stop = func() {
		cancel()
		listener.Close()
		owned.Wait()
	}
}

func (w *world) accept(ctx context.Context, raw net.Conn) {
	conn := tls.Server(raw, &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{transport.ALPNAccess, transport.ALPNAPI},
		ClientAuth: tls.RequestClientCert, SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return w.server.Certificate() },
	})
	if conn.HandshakeContext(ctx) != nil {
		raw.Close()
		return
	}
	if conn.ConnectionState().NegotiatedProtocol == transport.ALPNAPI {
		w.server.ServeAPI(ctx, conn)
	} else {
		w.server.ServeConn(ctx, conn)
	}
}

// someone is a key with its certificate, or without one yet.
type someone struct {
	key   crypto.Signer
	chain []*x509.Certificate
	id    wire.Identity
}

func newSomeone() *someone { return &someone{key: must(identity.NewKey())} }

// certified is someone with a certificate that no registry knows.
func (w *world) certified(name identity.Name, from, to time.Time) *someone {
	s := newSomeone()
	s.chain = must(w.issuing.Issue(identity.Request{Name: name, Pub: s.key.Public(), NotBefore: from, NotAfter: to}))
	return s
}

func (s *someone) csr() []byte         { return must(identity.NewCSR(s.key)) }
func (s *someone) spki() identity.SPKI { return must(identity.SPKIOf(s.key.Public())) }

func (s *someone) take(id wire.Identity) *someone {
	s.id, s.chain = id, must(identity.ParseChain([]byte(id.Chain)))
	return s
}

// dial opens an authenticated connection; who nil shows no certificate.
func (w *world) dial(alpn string, who *someone) *tls.Conn {
	return w.dialFrom(clientAddr, alpn, who)
}

func (w *world) dialFrom(from netip.Addr, alpn string, who *someone) *tls.Conn {
	w.t.Helper()
	raw, err := w.net.Host(from).DialContext(w.t.Context(), "tcp", netip.AddrPortFrom(serverAddr, 443).String())
	if err != nil {
		w.t.Fatal(err)
	}
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{alpn},
		InsecureSkipVerify: true, // VerifyConnection does it all: the names are not DNS names
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := identity.Verify(cs.PeerCertificates, w.roots, time.Now(), identity.KindAccess)
			return err
		},
	}
	if who != nil && who.chain != nil {
		own := tls.Certificate{PrivateKey: who.key}
		for _, c := range who.chain {
			own.Certificate = append(own.Certificate, c.Raw)
		}
		cfg.Certificates = []tls.Certificate{own}
	}
	conn := tls.Client(raw, cfg)
	if err := conn.Handshake(); err != nil {
		w.t.Fatal(err)
	}
	return conn
}

// askTime does the prelude as a client does.
func (w *world) askTime(conn *tls.Conn) identity.SignedTime {
	w.t.Helper()
	var nonce [32]byte
	rand.Read(nonce[:])
	request := wire.NewTimeRequest(nonce, identity.UID{})
	if err := wire.Write(conn, wire.TypeTimeRequest, request[:]); err != nil {
		w.t.Fatal(err)
	}
	f, err := wire.Expect(conn, wire.TypeTime)
	if err != nil {
		w.t.Fatal(err)
	}
	leaf := identity.CertSPKI(conn.ConnectionState().PeerCertificates[0])
	signed, err := identity.VerifySignedTime(f.Payload, w.roots, nonce, leaf, identity.UID{})
	if err != nil {
		w.t.Fatal(err)
	}
	return signed
}

// connect dials and does the prelude.
func (w *world) connect(who *someone) *tls.Conn {
	w.t.Helper()
	conn := w.dial(transport.ALPNAccess, who)
	w.askTime(conn)
	return conn
}

// ask sends one purpose frame and returns the identity that is answered.
func (w *world) ask(conn *tls.Conn, t wire.Type, body any) (wire.Identity, error) {
	defer conn.Close()
	if err := wire.WriteJSON(conn, t, body); err != nil {
		return wire.Identity{}, err
	}
	f, err := wire.Expect(conn, wire.TypeIdentity)
	if err != nil {
		return wire.Identity{}, err
	}
	var id wire.Identity
	return id, f.Decode(&id)
}

func (w *world) enrol(code string, who *someone) error {
	id, err := w.ask(w.connect(nil), wire.TypeEnrol, wire.Enrol{Code: code, CSR: who.csr(), Hints: map[string]string{"board": "b1"}})
	if err == nil {
		who.take(id)
	}
	return err
}

// login returns a logged-in user "admin".
func (w *world) login() *someone {
	w.t.Helper()
	who := newSomeone()
	var answer loginAnswer
	status := w.call(nil, http.MethodPost, "/api/v1/login", loginBody{w.admin.String(), "admin", who.csr()}, &answer)
	if status != http.StatusOK {
		w.t.Fatalf("login: %d", status)
	}
	return who.take(wire.Identity{Chain: answer.Chain})
}

// newUser puts a user of a domain into the store and logs it in.
func (w *world) newUser(domain, name string) *someone {
	w.t.Helper()
	who := newSomeone()
	ctx := w.t.Context()
	if err := save(ctx, w.cfg.Store, bucketUsers, userKeyOf(domain, name), userRecord{}, 0); err != nil {
		w.t.Fatal(err)
	}
	chain := must(w.server.certifyUser(ctx, identity.UserName(domain, name), who.key.Public(), who.spki(), true))
	return who.take(wire.Identity{Chain: chain})
}

// addDevice makes a device and enrols it.
func (w *world) addDevice(admin *someone, name string) *someone {
	w.t.Helper()
	var answer addAnswer
	if status := w.call(admin, http.MethodPost, "/api/v1/devices", addBody{name}, &answer); status != http.StatusCreated {
		w.t.Fatalf("add device: %d", status)
	}
	device := newSomeone()
	if err := w.enrol(answer.Code, device); err != nil {
		w.t.Fatal(err)
	}
	return device
}

// enrolRelay enrols relay r1.
func (w *world) enrolRelay() *someone {
	w.t.Helper()
	r := newSomeone()
	if err := w.enrol(w.relay.String(), r); err != nil {
		w.t.Fatal(err)
	}
	return r
}

// call makes one API request and decodes the answer, if it is wanted.
func (w *world) call(who *someone, method, path string, body, answer any) (status int) {
	w.t.Helper()
	var b []byte
	if body != nil {
		b = must(json.Marshal(body))
	}
	response, raw := w.callRaw(who, method, path, b)
	if answer != nil && response.StatusCode < 300 {
		if err := json.Unmarshal(raw, answer); err != nil {
			w.t.Fatalf("%s %s: %v: %s", method, path, err, raw)
		}
	}
	return response.StatusCode
}

func (w *world) callRaw(who *someone, method, path string, body []byte) (*http.Response, []byte) {
	w.t.Helper()
	conn := w.dial(transport.ALPNAPI, who)
	defer conn.Close()
	request := must(http.NewRequest(method, "https://a1"+path, bytes.NewReader(body)))
	// A server that refuses early may not read it all.
	written := make(chan struct{})
	go func() { defer close(written); request.Write(conn) }()
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		w.t.Fatal(err)
	}
	raw := must(io.ReadAll(response.Body))
	conn.Close()
	<-written
	return response, raw
}

// control is a client's control connection.
type control struct {
	t testing.TB
	*tls.Conn
	welcome wire.Welcome
}

func hello(instance string) wire.Hello { return wire.Hello{Version: "test", Instance: instance} }

func relayHello(instance string) wire.Hello {
	return wire.Hello{Version: "test", Instance: instance, Hosts: []string{"r1.example"}, Ports: []transport.Port{443}}
}

func (w *world) control(who *someone, h wire.Hello) *control {
	w.t.Helper()
	c := &control{t: w.t, Conn: w.connect(who)}
	c.write(wire.TypeHello, h)
	c.read(wire.TypeWelcome, &c.welcome)
	return c
}

func (c *control) write(t wire.Type, v any) {
	c.t.Helper()
	if err := wire.WriteJSON(c, t, v); err != nil {
		c.t.Fatal(err)
	}
}

// read wants a frame of type t.
func (c *control) read(t wire.Type, into any) {
	c.t.Helper()
	f, err := wire.Expect(c, t)
	if err == nil && into != nil {
		err = f.Decode(into)
	}
	if err != nil {
		c.t.Fatalf("want frame %#02x: %v", byte(t), err)
	}
}

// refusal reads until the connection ends and returns the reason given.
func refusal(conn net.Conn) transport.Reason {
	for {
		f, err := wire.Read(conn)
		if err != nil {
			return ""
		}
		if f.Type == wire.TypeRefuse {
			return f.Refusal().Reason
		}
	}
}

func wantReason(t testing.TB, what string, err error, want transport.Reason) {
	t.Helper()
	if got := transport.ReasonOf(err); got != want {
		t.Errorf("%s: %q (%v), want %q", what, got, err, want)
	}
}

// actions returns the newest n audit records as "action result".
func (w *world) actions(n int) (list []string) {
	w.t.Helper()
	for _, r := range must(readAudit(w.t.Context(), w.cfg.Store, "", "", n)) {
		list = append(list, r.Action+" "+r.Result)
	}
	return list
}
