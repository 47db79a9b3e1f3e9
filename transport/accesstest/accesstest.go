// Package accesstest is a fake Access Server, for the tests of those who connect to one: the Runtime, the relay, and
// transport/control itself.
//
// It is made by hand of frames and of identitytest's certificates, because the real server cannot be told to lie, to stay
// silent, or to refuse a good client. Unless it is told otherwise it does what wire §4 says of a good one: it proves the
// time, certifies whoever enrolls or renews, welcomes who says hello, and answers pings. That the real server does the
// same is shown by internal/e2e, which has no fakes.
//
//	access := accesstest.New(t, identitytest.New(time.Now()), network.Host(addr))
//	access.RefuseHello = &wire.Refusal{Reason: transport.Busy}
package accesstest

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/memnet"
	"hawser/transport"
	"hawser/transport/wire"
)

// Server answers on port 443 of one host. Its fields say how; they are changed before a client connects, or in Set.
type Server struct {
	PKI  *identitytest.PKI
	Leaf tls.Certificate  // that it shows
	Now  func() time.Time // its clock

	Reset       []byte        // a floor reset before the signed time; nil: none
	Refused     []byte        // a list of refused keys before it; nil: none
	RefuseTime  *wire.Refusal // instead of the signed time
	RefuseHello *wire.Refusal // instead of Welcome
	Welcome     wire.Welcome
	Mute        bool // on control connections it takes everything and answers nothing
	// Identify answers to enroll and renew, given the CSR; see Certify.
	Identify func(wire.Type, []byte) (wire.Identity, *wire.Refusal)
	// Invitation is in the answer to enroll, and Code what it is the answer to; see Invite. While there is no Code, who asks
	// whether he is claimed is told to wait.
	Invitation wire.Invitation
	Code       identity.OwnerCode
	// Script takes the place of all this on each connection whose TLS is up. What the client says after it is in Rest.
	Script func(*tls.Conn)

	Links chan *Link // control connections, once they are welcomed

	tb   testing.TB
	host *memnet.Host
	port *memnet.Service

	mu     sync.Mutex // guards all below, and the fields that tests change
	dials  int
	heard  []Frame
	rest   []byte
	newest *Link
}

// Frame is what a client sent, and when it arrived.
type Frame struct {
	wire.Frame
	At time.Time
}

// Link is the server's end of a control connection.
type Link struct {
	*tls.Conn
	Hello  wire.Hello
	Frames chan wire.Frame // what the client sent, except pings; the first thousand that nobody has taken
	Ended  chan struct{}   // closed when the connection is over
}

// New starts a server whose leaf is good for five years from an hour ago. It ends with the test, and breaks what is
// connected then.
func New(tb testing.TB, pki *identitytest.PKI, host *memnet.Host) *Server {
	tb.Helper()
	s := &Server{PKI: pki, Now: time.Now, Welcome: wire.Welcome{HeartbeatS: 120}, Links: make(chan *Link, 1000), tb: tb, host: host}
	s.Leaf = pki.Leaf(pki.Access, -time.Hour, 5*365*24*time.Hour)
	s.Up()
	tb.Cleanup(s.Down)
	return s
}

// Up opens the port.
func (s *Server) Up() {
	s.tb.Helper()
	var err error
	if s.port, err = s.host.Serve(443, s.serve); err != nil {
		s.tb.Fatal(err)
	}
}

// Down closes the port, breaks all connections, and waits until nothing runs.
func (s *Server) Down() { s.port.Kill() }

// Stop is Down, but leaves the end of the connections to the clients: in a bubble, one that is left open shows.
func (s *Server) Stop() { s.port.Stop() }

// Drop breaks all connections.
func (s *Server) Drop() { s.port.Cut() }

// Set changes how the server answers from now on.
func (s *Server) Set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// Dials counts the connections so far, TLS or not.
func (s *Server) Dials() (n int) {
	s.Set(func() { n = s.dials })
	return n
}

// Heard lists the frames of these types, or all, that clients have sent so far.
func (s *Server) Heard(types ...wire.Type) (list []Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.heard {
		if len(types) == 0 || slices.Contains(types, f.Type) {
			list = append(list, f)
		}
	}
	return list
}

// Forget empties Heard.
func (s *Server) Forget() { s.Set(func() { s.heard = nil }) }

// Types lists the types of the frames that clients have sent so far.
func (s *Server) Types() (list []wire.Type) {
	for _, f := range s.Heard() {
		list = append(list, f.Type)
	}
	return list
}

// Saw tells whether a client has sent these bytes in a frame.
func (s *Server) Saw(b []byte) bool {
	return slices.ContainsFunc(s.Heard(), func(f Frame) bool { return bytes.Contains(f.Payload, b) })
}

// Rest is what clients said after Script, so far as their connections are over.
func (s *Server) Rest() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.rest)
}

// Newest is the newest control connection, nil before the first.
func (s *Server) Newest() *Link {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest
}

// serve takes its settings at the begin of a connection: Set in the middle of one changes the next.
func (s *Server) serve(tcp net.Conn) {
	s.mu.Lock()
	conn := tls.Server(tcp, identitytest.ServerConfig(s.Leaf, transport.ALPNAccess))
	s.dials++
	script := s.Script
	s.mu.Unlock()
	if conn.Handshake() != nil {
		return
	}
	if script == nil {
		s.talk(conn)
		return
	}
	script(conn)
	rest, _ := io.ReadAll(conn)
	s.Set(func() { s.rest = append(s.rest, rest...) })
}

// talk does what the Access Server does on a connection.
func (s *Server) talk(c *tls.Conn) {
	c.SetDeadline(time.Now().Add(30 * time.Second))
	ask, err := s.read(c)
	if err != nil || ask.Type != wire.TypeTimeRequest || len(ask.Payload) != wire.TimeRequestBytes || !s.tellTime(c, ask) {
		return
	}
	f, err := s.read(c)
	switch {
	case err != nil:
	case f.Type == wire.TypeEnroll || f.Type == wire.TypeRenew:
		s.identify(c, f)
	case f.Type == wire.TypeHello:
		s.link(c, f)
	}
}

func (s *Server) read(c net.Conn) (wire.Frame, error) {
	f, err := wire.Read(c)
	if err == nil {
		s.Set(func() { s.heard = append(s.heard, Frame{f, time.Now()}) })
	}
	return f, err
}

func (s *Server) tellTime(c net.Conn, ask wire.Frame) bool {
	s.mu.Lock()
	refusal, reset, refused := s.RefuseTime, s.Reset, s.Refused
	s.mu.Unlock()
	if reset != nil && ask.Type == wire.TypeTimeRequest {
		wire.Write(c, wire.TypeFloorReset, reset)
	}
	if refused != nil {
		wire.Write(c, wire.TypeRefusedKeys, refused)
	}
	if refusal != nil {
		wire.Refuse(c, refusal)
		return false
	}
	return wire.Write(c, wire.TypeTime, s.Time(ask, nil)) == nil
}

// Prelude reads a request for the time on a connection and answers it; spoil, unless it is nil, changes what is signed.
func (s *Server) Prelude(c net.Conn, spoil func(*identity.SignedTime)) {
	f, err := wire.Expect(c, wire.TypeTimeRequest)
	if err != nil {
		s.tb.Error(err)
		return
	}
	wire.Write(c, wire.TypeTime, s.Time(f, spoil))
}

// Time is the signed time for a request, spoiled before it is signed.
func (s *Server) Time(request wire.Frame, spoil func(*identity.SignedTime)) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := wire.TimeRequest(request.Payload)
	t := identity.SignedTime{Nonce: q.Nonce(), Time: s.Now(), Server: identity.CertSPKI(s.Leaf.Leaf), UID: q.UID(), Sequence: 1}
	if spoil != nil {
		spoil(&t)
	}
	return s.PKI.SignTime(t)
}

func (s *Server) identify(c net.Conn, f wire.Frame) {
	var m wire.Enroll // a Renew is one without a code
	if f.Decode(&m) != nil {
		return
	}
	s.mu.Lock()
	identify, invitation, code := s.Identify, s.Invitation, s.Code
	s.mu.Unlock()
	if m.Claim && code == (identity.OwnerCode{}) {
		wire.Refuse(c, &wire.Refusal{Reason: transport.Pending, RetryAfter: 30 * time.Second})
		return
	}
	if auth := code.Auth(); m.Lookup != "" && (m.Lookup != code.LookupID() || !bytes.Equal(m.Auth, auth[:])) {
		wire.Refuse(c, &wire.Refusal{Reason: transport.BadCode})
		return
	}
	id, refusal := identify(f.Type, m.CSR)
	if f.Type == wire.TypeEnroll {
		id.Invitation = invitation
	}
	if refusal != nil {
		wire.Refuse(c, refusal)
		return
	}
	wire.WriteJSON(c, wire.TypeIdentity, id)
}

// Invite makes the server pass on what an owner says to whoever enrolls with the code that it returns. The subject is a
// statement about a device or user. With more than one code the newest counts.
func (s *Server) Invite(owner *identitytest.Owner, subject identity.Signed) identity.OwnerCode {
	code := identity.NewOwnerCode()
	s.InviteBy(owner, code, subject)
	return code
}

// InviteBy is Invite with a code that a client has made.
func (s *Server) InviteBy(owner *identitytest.Owner, code identity.OwnerCode, subject identity.Signed) {
	said := owner.InviteBy(code, subject)
	mac, err := said.MAC(code, s.PKI.Pin())
	if err != nil {
		s.tb.Error(err)
	}
	s.Set(func() {
		s.Code = code
		s.Invitation = wire.Invitation{DomainKey: said.Key, MAC: mac[:], List: said.List,
			Statements: []string{said.Subject.JWS, said.Invite.JWS}}
	})
}

// Certify makes the server certify this name for any CSR, for life from its present.
func (s *Server) Certify(name identity.Name, life time.Duration) {
	s.Set(func() {
		s.Identify = func(_ wire.Type, csr []byte) (wire.Identity, *wire.Refusal) { return s.Identity(name, csr, life), nil }
	})
}

// Identity certifies a name for the key of a CSR. A device is labelled "gateway 7".
func (s *Server) Identity(name identity.Name, csr []byte, life time.Duration) wire.Identity {
	return s.IdentityBy(s.PKI, name, csr, life)
}

// IdentityBy is Identity by authorities that may be those of somebody else.
func (s *Server) IdentityBy(pki *identitytest.PKI, name identity.Name, csr []byte, life time.Duration) wire.Identity {
	pub, err := identity.ParseCSR(csr)
	if err != nil {
		s.tb.Errorf("the client sent a CSR that is none: %v", err)
		return wire.Identity{}
	}
	var now time.Duration
	s.Set(func() { now = time.Until(s.Now()) })
	id := wire.Identity{Domain: name.Domain, Name: name.ID,
		Chain: string(identity.MarshalChain(pki.Chain(pub, name, now-time.Minute, now+life)))}
	if name.Kind == identity.KindDevice {
		id.UID, err = identity.ParseUID(name.ID)
		id.Name = "gateway 7"
	}
	if err != nil {
		s.tb.Error(err)
	}
	return id
}

// link answers pings unless it is mute, and goes on reading if it is: a server that hangs still acknowledges TCP.
func (s *Server) link(c *tls.Conn, hello wire.Frame) {
	s.mu.Lock()
	welcome, refusal, mute := s.Welcome, s.RefuseHello, s.Mute
	s.mu.Unlock()
	l := &Link{Conn: c, Frames: make(chan wire.Frame, 1000), Ended: make(chan struct{})}
	defer close(l.Ended)
	switch {
	case hello.Decode(&l.Hello) != nil:
		return
	case refusal != nil:
		wire.Refuse(c, refusal)
		return
	case !mute:
		c.SetDeadline(time.Time{})
		s.Set(func() { s.newest = l }) // before the client can know that it is there
		wire.WriteJSON(c, wire.TypeWelcome, welcome)
		s.Links <- l
	}
	for {
		f, err := s.read(c)
		if err != nil {
			return
		}
		s.Set(func() { mute = s.Mute })
		if !mute {
			s.reply(l, f)
		}
	}
}

func (s *Server) reply(l *Link, f wire.Frame) {
	switch f.Type {
	case wire.TypePing:
		wire.Write(l, wire.TypePong, nil)
	case wire.TypeTimeAgain:
		s.tellTime(l, f)
	default:
		select {
		case l.Frames <- f:
		// Dropped: a test that does not take frames must not stop the server from answering pings.
		default:
		}
	}
}
