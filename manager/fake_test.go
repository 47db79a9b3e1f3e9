package manager

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/credential"
	"hawser/internal/durable"
	"hawser/internal/memnet"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/api/apitest"
	"hawser/transport/mux"
	"hawser/transport/relaytest"
	"hawser/transport/session"
	"hawser/transport/wire"
)

// fake is a Server Infrastructure with one gateway, made by hand for these tests: an Access API that answers what a test
// wants, two fake relays, and a Runtime whose LAN is an echo. None of them is the real
// thing: that the real ones fit together is shown by the tests of the whole path.
type fake struct {
	t       *testing.T
	pki     *identitytest.PKI
	net     *memnet.Network
	client  *memnet.Host
	gateway *memnet.Host

	owner      *identitytest.Owner
	uid        identity.UID
	gatewayTLS tls.Certificate
	leafSPKI   identity.SPKI // of the Access Server
	chain      []string      // of the gateway
	code       identity.Code
	relays     [2]*relaytest.Relay
	ctx        context.Context // of all that runs
	running    sync.WaitGroup

	mail sync.Mutex // guards what mailbox keeps

	mu       sync.Mutex                  // guards all below
	answers  map[string]http.HandlerFunc // by "METHOD /path below /api/v1"; a test replaces some
	calls    []string                    // "METHOD /path" in order
	heard    []byte                      // all bodies and queries
	sessions int                         // opened so far
	user     identity.SPKI               // who is logged in
	offered  map[string]wire.Offer       // the newest to the Manager, by session
	relay    int                         // which of relayAddrs the next offer names
	live     *session.Session            // the Runtime's end of the newest session
	hello    mux.Hello                   // what the Runtime says of its owner
	admit    func(*session.Session)      // lets the Manager in, or not; nil: he is let in at once
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
	f := &fake{t: t, pki: identitytest.New(time.Now()), net: memnet.New(), uid: identity.NewUID(), code: identity.NewCode(), offered: map[string]wire.Offer{}}
	f.client, f.gateway = f.net.Host(clientAddr), f.net.Host(gatewayAddr)
	f.gatewayTLS = f.leaf(identity.DeviceName("default", f.uid))
	server1 := f.leaf(identity.AccessName("a1"))
	f.leafSPKI = identity.CertSPKI(server1.Leaf)
	f.owner = identitytest.NewOwner("default")
	f.chain = f.owner.DeviceChain(f.uid, "press", f.gatewayTLS.Leaf.PublicKey)
	f.answers = f.api()

	var cancel context.CancelFunc
	f.ctx, cancel = context.WithCancel(t.Context())
	run, server := apitest.Serve(must(f.net.Host(accessAddr).Listen(443)), server1, f.serveHTTP)
	f.running.Go(run)
	f.relays[0] = relaytest.New(t, f.pki, f.net.Host(relayAddr), "r1")
	f.relays[1] = relaytest.New(t, f.pki, f.net.Host(relayAddr2), "r2")
	t.Cleanup(func() {
		cancel()
		server.Close()
		f.running.Wait()
	})
	return f
}

// leaf certifies a new key for a year.
func (f *fake) leaf(name identity.Name) tls.Certificate {
	return f.pki.Leaf(name, -time.Hour, 365*24*time.Hour)
}

// peer is the key of who sent a request; zero without a certificate.
func peer(r *http.Request) identity.SPKI {
	certs := apitest.Conn(r).ConnectionState().PeerCertificates
	if len(certs) == 0 {
		return identity.SPKI{}
	}
	return identity.CertSPKI(certs[0])
}

func (f *fake) serveHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/api/v1")
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	f.mu.Lock()
	f.calls, f.heard = append(f.calls, name), append(append(f.heard, body...), r.URL.RawQuery...)
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
		"POST /time":     f.time,
		"POST /sessions": f.openSession,
		"GET /relays":    jsonAnswer(wire.Pool{Relays: []wire.Relay{relayNumber(0), relayNumber(1)}}),
		"GET /devices":   jsonAnswer(map[string]any{"devices": []api.Device{{UID: f.uid, Name: "press", State: "enrolled", Online: true}}}),
	}
}

func (f *fake) login(w http.ResponseWriter, r *http.Request) {
	var in api.LoginRequest
	json.NewDecoder(r.Body).Decode(&in)
	if in.Code != f.code.String() {
		problemAnswer(403, "bad-code", "no such code")(w, r)
		return
	}
	jsonAnswer(api.LoginAnswer{Chain: f.certify(in.CSR), Domain: "default", User: in.User,
		Hosts: []string{accessAddr.String()}, Ports: []transport.Port{443}})(w, r)
}

// time signs what time it is in the bubble.
func (f *fake) time(w http.ResponseWriter, r *http.Request) {
	var in api.TimeRequest
	decode(r, &in)
	jsonAnswer(api.TimeAnswer{Time: f.pki.SignTime(identity.SignedTime{Nonce: [32]byte(in.Nonce), Time: time.Now(), Server: f.leafSPKI})})(w, r)
}

func (f *fake) renew(w http.ResponseWriter, r *http.Request) {
	var in struct {
		CSR []byte `json:"csr"`
	}
	json.NewDecoder(r.Body).Decode(&in)
	if peer(r) != f.user {
		problemAnswer(401, "not-logged-in", "who are you?")(w, r)
		return
	}
	jsonAnswer(map[string]string{"chain": f.certify(in.CSR)})(w, r)
}

// certify issues a certificate for the user admin to the key of a CSR, which becomes the one that is logged in.
func (f *fake) certify(csr []byte) string {
	chain := f.pki.Chain(must(identity.ParseCSR(csr)), identity.UserName("default", "admin"), 0, 12*time.Hour)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.user = identity.CertSPKI(chain[0])
	return string(identity.MarshalChain(chain))
}

// manager is a Manager on the client's host with a home of its own, in which there is the domain key.
func (f *fake) manager() *Manager {
	m := &Manager{Home: f.t.TempDir() + "/home", DialContext: f.client.DialContext}
	if err := durable.OpenDir(m.Home); err != nil {
		f.t.Fatal(err)
	}
	if err := credential.Write(m.Home, must(credential.KeyFile(domainFile, f.owner.DomainKey))); err != nil {
		f.t.Fatal(err)
	}
	return m
}

// loggedIn is an account of a fresh login.
func (f *fake) loggedIn(m *Manager) *Account {
	f.t.Helper()
	_, err := m.Login(f.t.Context(), f.founder())
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

// founder is the login of whoever founds the domain.
func (f *fake) founder() Login {
	return Login{Server: accessAddr.String(), Code: f.code.String(), User: "admin", Domain: "default", Pin: f.pin()}
}

func (f *fake) pin() string { return f.pki.Pin().String() }

func readLogin(r *http.Request) (in api.LoginRequest) {
	decode(r, &in)
	return in
}

func decode(r *http.Request, into any) { json.NewDecoder(r.Body).Decode(into) }
