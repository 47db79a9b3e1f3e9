package access

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

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
	raw, err := w.net.Host(from).DialContext(w.t.Context(), "tcp", netip.AddrPortFrom(w.addr, 443).String())
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
	signed, err := identity.VerifySignedTime(f.Payload, w.roots, nonce, w.shown(conn), identity.UID{})
	if err != nil {
		w.t.Fatal(err)
	}
	return signed
}

// shown is the Access Server as whom the other end has proven itself.
func (w *world) shown(conn *tls.Conn) identity.Peer {
	w.t.Helper()
	return must(identity.Verify(conn.ConnectionState().PeerCertificates, w.roots, time.Now(), identity.KindAccess))
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
