package access

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/netip"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/accesstest"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// someone is a client, and what it got when it enrolled.
type someone struct {
	*accesstest.Client
	id wire.Identity
}

func newSomeone() *someone { return &someone{Client: accesstest.NewClient()} }

// certified is someone with a certificate that no registry knows, from and until so long from now.
func (w *world) certified(name identity.Name, from, until time.Duration) *someone {
	s := newSomeone()
	s.Chain = w.pki.Chain(s.Key.Public(), name, from, until)
	return s
}

func (s *someone) spki() identity.SPKI { return must(identity.SPKIOf(s.Key.Public())) }

func (s *someone) take(id wire.Identity) *someone {
	if s.id = id; s.Take(id.Chain) != nil {
		panic("the server has answered no chain")
	}
	return s
}

// dial opens an authenticated connection; who nil shows no certificate.
func (w *world) dial(alpn string, who *someone) *tls.Conn {
	return w.dialFrom(clientAddr, alpn, who)
}

func (w *world) dialFrom(from netip.Addr, alpn string, who *someone) *tls.Conn {
	w.t.Helper()
	raw, err := w.net.Host(from).DialContext(w.t.Context(), "tcp", netip.AddrPortFrom(w.addr, 443).String())
	if err != nil {
		w.t.Fatal(err)
	}
	if who == nil {
		who = new(someone)
	}
	cfg := who.TLS(alpn)
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		_, err := identity.Verify(cs.PeerCertificates, w.pki.Roots, time.Now(), identity.KindAccess)
		return err
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
	signed, err := identity.VerifySignedTime(f.Payload, w.pki.Roots, nonce, w.shown(conn), identity.UID{})
	if err != nil {
		w.t.Fatal(err)
	}
	return signed
}

// shown is the Access Server as whom the other end has proven itself.
func (w *world) shown(conn *tls.Conn) identity.Peer {
	w.t.Helper()
	return must(identity.Verify(conn.ConnectionState().PeerCertificates, w.pki.Roots, time.Now(), identity.KindAccess))
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

func (w *world) enroll(code string, who *someone) error {
	id, err := w.ask(w.connect(nil), wire.TypeEnroll, wire.Enroll{Code: code, CSR: who.CSR(), Hints: map[string]string{"board": "b1"}})
	if err == nil {
		who.take(id)
	}
	return err
}

// login returns a logged-in user "admin".
func (w *world) login() *someone {
	w.t.Helper()
	who := newSomeone()
	var answer api.LoginAnswer
	status := w.call(nil, http.MethodPost, "/api/v1/login", api.LoginRequest{Code: w.admin.String(), User: "admin", CSR: who.CSR()}, &answer)
	if status != http.StatusOK {
		w.t.Fatalf("login: %d", status)
	}
	return who.take(wire.Identity{Chain: answer.Chain})
}

// newUser puts a user of a domain into the store and logs it in.
func (w *world) newUser(domain, name string) *someone {
	w.t.Helper()
	who := newSomeone()
	w.put(&store.User{Domain: domain, Name: name, Created: time.Now()})
	var chain string
	err := w.cfg.Store.Update(w.t.Context(), func(tx *store.Tx) (err error) {
		chain, err = w.server.certifyUser(tx, identity.UserName(domain, name), who.Key.Public(), who.spki(), true)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return who.take(wire.Identity{Chain: chain})
}

// addDevice makes a device and enrolls it.
func (w *world) addDevice(admin *someone, name string) *someone {
	w.t.Helper()
	var answer api.NewDevice
	if status := w.call(admin, http.MethodPost, "/api/v1/devices", api.AddRequest{Name: name}, &answer); status != http.StatusCreated {
		w.t.Fatalf("add device: %d", status)
	}
	device := newSomeone()
	if err := w.enroll(answer.Code, device); err != nil {
		w.t.Fatal(err)
	}
	return device
}

// enrollRelay enrolls relay r1.
func (w *world) enrollRelay() *someone {
	w.t.Helper()
	r := newSomeone()
	if err := w.enroll(w.relay.String(), r); err != nil {
		w.t.Fatal(err)
	}
	return r
}

// call makes one API request and decodes the answer, if it is wanted.
func (w *world) call(who *someone, method, path string, body, answer any) (status int) {
	w.t.Helper()
	response, raw := w.callRaw(who, method, path, body)
	if answer != nil && response.StatusCode < 300 {
		if err := json.Unmarshal(raw, answer); err != nil {
			w.t.Fatalf("%s %s: %v: %s", method, path, err, raw)
		}
	}
	return response.StatusCode
}

func (w *world) callRaw(who *someone, method, path string, body any) (*http.Response, []byte) {
	w.t.Helper()
	response, raw, err := accesstest.Ask(w.dial(transport.ALPNAPI, who), method, path, body)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	return response, raw
}
