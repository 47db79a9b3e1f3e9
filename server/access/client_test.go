package access

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/accesstest"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// someone is a client, and what it got when it enrolled.
type someone struct {
	*accesstest.Client
	id     wire.Identity
	key    string // a device's own hawser-key
	stated uint64 // serial of its statement
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

// enroll enrolls with a code of either kind. What the owner says with his is opened, as a device does.
func (w *world) enroll(code string, who *someone) error {
	request := wire.Enroll{Code: code, CSR: who.CSR(), Hints: map[string]string{"board": "b1"}}
	owners, err := identity.ParseOwnerCode(code)
	if err == nil {
		auth := owners.Auth()
		request.Code, request.Lookup, request.Auth = "", owners.LookupID(), auth[:]
	}
	id, failed := w.ask(w.connect(nil), wire.TypeEnroll, request)
	if failed != nil {
		return failed
	}
	who.take(id)
	if err == nil {
		name := identity.DeviceName(id.Domain, id.UID)
		_, chain, err := id.Invitation.Open(owners, w.pki.Pin(), name, who.Key.Public(), "")
		if err != nil {
			return err
		}
		who.key, who.stated = chain[1], must(identity.ParseStatement(chain[0])).Statement.(identity.DeviceStatement).Serial
	}
	return nil
}

// owner is the owner of a domain.
func (w *world) owner(domain string) *identitytest.Owner {
	o := w.owners[domain]
	if o == nil {
		o = identitytest.NewOwner(domain)
		w.owners[domain] = o
	}
	return o
}

// founder is what the founder of plant sends with a server's code.
func (w *world) founder(code identity.Code, user string, who *someone) api.LoginRequest {
	o := w.owner("plant")
	return api.LoginRequest{Code: code.String(), User: user, CSR: who.CSR(), DomainKey: o.Key,
		Statements: o.UserChain(user, identity.RoleAdmin, nil, who.Key.Public())}
}

// login returns a logged-in user "admin", the founder of domain plant.
func (w *world) login() *someone {
	w.t.Helper()
	who := newSomeone()
	var answer api.LoginAnswer
	status := w.call(nil, http.MethodPost, "/api/v1/login", w.founder(w.admin, "admin", who), &answer)
	if status != http.StatusOK {
		w.t.Fatalf("login: %d", status)
	}
	return who.take(wire.Identity{Chain: answer.Chain})
}

// newUser makes an admin of a domain past the API, and logs him in.
func (w *world) newUser(domain, name string) *someone {
	w.t.Helper()
	who := w.stranger(domain, name)
	w.state(domain, w.owner(domain).UserChain(name, identity.RoleAdmin, nil, who.Key.Public())...)
	return who
}

// newUserAs is newUser with another role and scope; nil is everything.
func (w *world) newUserAs(name string, role identity.Role, scope *identity.Scope) *someone {
	w.t.Helper()
	who := w.stranger("plant", name)
	w.state("plant", w.owner("plant").UserChain(name, role, scope, who.Key.Public())...)
	return who
}

// stranger is a user of a domain who is logged in and of whom the owner has not said anything.
func (w *world) stranger(domain, name string) *someone {
	w.t.Helper()
	who := newSomeone()
	var chain string
	err := w.cfg.Store.Update(w.t.Context(), func(tx *store.Tx) (err error) {
		d := store.Domain{Name: domain}
		if err := tx.Get(&d); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		d.Key = w.owner(domain).Key
		u := store.User{Domain: domain, Name: name, Created: time.Now()}
		if err := errors.Join(tx.Put(&d), tx.Put(&u)); err != nil {
			return err
		}
		chain, err = w.server.certifyUser(tx, identity.UserName(domain, name), who.Key.Public(), who.spki(), true)
		return err
	})
	w.server.owners.drop(domain)
	if err != nil {
		w.t.Fatal(err)
	}
	return who.take(wire.Identity{Chain: chain})
}

// state keeps what the owner of a domain says, past the API.
func (w *world) state(domain string, statements ...string) {
	w.t.Helper()
	err := w.server.changeOwner(w.t.Context(), domain, func(tx *store.Tx, o *owner) (kept, error) {
		return w.server.keep(tx, o, statements, nil)
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// newCode makes an owner's code for somebody who is stated, and what the server gets of it.
func (w *world) newCode(subject identity.Signed) (identity.OwnerCode, api.NewCode) {
	domain := "plant"
	switch s := subject.Statement.(type) {
	case identity.UserStatement:
		domain = s.Domain
	case identity.DeviceStatement:
		domain = s.Domain
	}
	code, invitation := w.owner(domain).Invite(subject)
	return code, must(api.CodeOf(code, invitation, w.pki.Pin(), nil))
}

// newDevice states a device of the domain of a user, and makes its code.
func (w *world) newDevice(of *someone, name string) (identity.OwnerCode, api.DeviceRequest) {
	domain := must(identity.VerifyIgnoringDates(of.Chain, w.pki.Roots, identity.KindUser)).Name.Domain
	code, body := w.newCode(w.owner(domain).Device(identity.NewUID(), name))
	return code, api.DeviceRequest{Code: body}
}

// addPending makes a device that waits for its code.
func (w *world) addPending(admin *someone, name string) (code string, added api.NewSubject) {
	w.t.Helper()
	c, body := w.newDevice(admin, name)
	if status := w.call(admin, http.MethodPost, "/api/v1/devices", body, &added); status != http.StatusCreated {
		w.t.Fatalf("add device %s: %d", name, status)
	}
	return c.String(), added
}

// addDevice makes a device and enrolls it.
func (w *world) addDevice(admin *someone, name string) *someone {
	w.t.Helper()
	code, _ := w.addPending(admin, name)
	device := newSomeone()
	if err := w.enroll(code, device); err != nil {
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
