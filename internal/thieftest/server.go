package thieftest

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/credential"
	"hawser/internal/memnet"
	"hawser/server/grant"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/accesstest"
	"hawser/transport/mux"
	"hawser/transport/session"
	"hawser/transport/wire"
)

// Server is a stolen Access Server in the hands of its thief, at its address: it has every key but the root's, so that
// whatever it says is proven for everybody, and it says what he likes. Gateways, relays and Managers meet it as they
// met the true one. What it does of itself is what that would do, for everybody who asks: whom it lets in is not the
// question.
type Server struct {
	*accesstest.Server // what gateways and relays meet

	// Find is whom it says that a technician reaches by a name. Read and changed within Set.
	Find func(typed string) Device
	// Relay, unless it is nil, changes where it says that the relay is, for an end. Likewise.
	Relay func(wire.Role, *wire.Relay)

	tb      testing.TB
	from    *memnet.Host // where the thief himself sits
	resolve func(context.Context, string) ([]netip.Addr, error)
	ctx     context.Context // of all that runs
	tasks   sync.WaitGroup

	mu      sync.Mutex // guards all below
	answers map[string]Answer
	asked   []Request
	kept    []string
	links   map[identity.Name]*accesstest.Link
	got     []byte
}

// Device is a gateway, or what the thief has put in its place.
type Device struct {
	UID        identity.UID
	SPKI       identity.SPKI // the technician is told
	Statements []string      // likewise
	// Self is what the thief shows who comes himself; nil: the gateway is asked.
	Self *tls.Certificate
}

// Run starts the server with what was stolen: dir, which has its keys, and what is stated in the store. It answers at
// host, of which nobody has the ports 443 and 80, until the test is over; the thief's own ends come from another one.
func Run(tb testing.TB, dir string, st *store.Store, domain string, host, from *memnet.Host,
	resolve func(context.Context, string) ([]netip.Addr, error)) *Server {
	tb.Helper()
	pki, err := stolen(dir)
	if err != nil {
		tb.Fatal(err)
	}
	s := &Server{Server: accesstest.New(tb, pki, host), tb: tb, from: from, resolve: resolve,
		links: map[identity.Name]*accesstest.Link{}}
	err = st.View(tb.Context(), func(tx *store.Tx) error {
		rows, err := tx.Statements(domain, store.StatementPlace{}, 1000)
		for _, row := range rows {
			s.kept = append(s.kept, row.JWS)
		}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	s.answers = s.honest()
	var cancel context.CancelFunc
	s.ctx, cancel = context.WithCancel(tb.Context())
	stop, err := s.serveAPI(host)
	if err != nil {
		tb.Fatal(err)
	}
	s.tasks.Go(s.meet)
	tb.Cleanup(func() {
		cancel()
		stop()
		s.tasks.Wait()
	})
	return s
}

// stolen reads the keys of an Access Server.
func stolen(dir string) (*identitytest.PKI, error) {
	p := &identitytest.PKI{Issuing: &identity.Authority{}}
	read := func(name string) (credential.Credential, error) {
		key, err := credential.Load(filepath.Join(dir, name+".key"), identity.ParseKey)
		chain, fault := credential.LoadPublic(filepath.Join(dir, name+".pem"), identity.ParseChain)
		return credential.Credential{Key: key, Chain: chain}, errors.Join(err, fault)
	}
	issuing, err1 := read("issuing")
	clock, err2 := read("time")
	grants, err3 := read("grant")
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	root := issuing.Chain[len(issuing.Chain)-1]
	p.Root = &identity.Authority{Cert: root} // its key is not here
	p.Issuing = &identity.Authority{Cert: issuing.Chain[0], Key: issuing.Key, Chain: issuing.Chain[1:]}
	p.Time = identitytest.Signer{Key: clock.Key, Cert: clock.Chain[0]}
	p.Grant = identitytest.Signer{Key: grants.Key, Cert: grants.Chain[0]}
	var err error
	if p.Roots, err = identity.NewRoots(root); err == nil {
		p.Access, err = identity.VerifyGrantKey(p.Grant.Cert, p.Roots, time.Now())
	}
	return p, err
}

// meet notes who is attached.
func (s *Server) meet() {
	for {
		select {
		case l := <-s.Links:
			name, _, err := peerOf(l.Conn)
			if err != nil {
				s.tb.Error(err)
				continue
			}
			s.mu.Lock()
			s.links[name] = l
			s.mu.Unlock()
		case <-s.ctx.Done():
			return
		}
	}
}

// peerOf is whose certificate the other end has shown, and its key.
func peerOf(c *tls.Conn) (identity.Name, identity.SPKI, error) {
	certs := c.ConnectionState().PeerCertificates
	if len(certs) == 0 || len(certs[0].URIs) != 1 {
		return identity.Name{}, identity.SPKI{}, errors.New("it shows no certificate of ours")
	}
	name, err := identity.ParseName(certs[0].URIs[0].String())
	return name, identity.CertSPKI(certs[0]), err
}

// Link is the control connection of a gateway or relay, nil while there is none.
func (s *Server) Link(name identity.Name) *accesstest.Link {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.links[name]
}

// relay is the one that is attached.
func (s *Server) relay() (relay wire.Relay, instance string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, l := range s.links {
		if name.Kind == identity.KindRelay {
			return wire.Relay{Name: name.ID, Hosts: l.Hello.Hosts, Ports: l.Hello.Ports}, l.Hello.Instance
		}
	}
	return relay, ""
}

// Attached reports whether a relay and a gateway are.
func (s *Server) Attached(device identity.Name) bool {
	relay, _ := s.relay()
	return relay.Name != "" && s.Link(device) != nil
}

// Tell sends statements to a gateway, on its control connection.
func (s *Server) Tell(device identity.Name, statements ...string) {
	s.tb.Helper()
	if err := wire.WriteJSON(s.Link(device), wire.TypeStatements, wire.Statements{Statements: statements}); err != nil {
		s.tb.Error(err)
	}
}

// random is 128 bits in hex.
func random() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// peer is an end of a session.
type peer struct {
	name identity.Name
	spki identity.SPKI
}

// offer is that of one end, with a grant that the relay takes.
func (s *Server) offer(id string, role wire.Role, holder, other peer, user string) wire.Offer {
	relay, instance := s.relay()
	now := time.Now().UTC().Truncate(time.Second)
	permissions := []string{string(wire.ServiceTCP), string(wire.ServicePing)}
	token, err := grant.Signer(s.PKI.Grant).Sign(grant.Grant{ID: random(), Relay: relay.Name, Instance: instance,
		Session: id, Epoch: 1, Role: role, Holder: holder.spki, Peer: other.spki, Permissions: permissions,
		Issued: now, Expires: now.Add(grant.Life)})
	if err != nil {
		s.tb.Error(err)
	}
	s.Set(func() {
		if s.Relay != nil {
			s.Relay(role, &relay)
		}
	})
	return wire.Offer{Session: id, Epoch: 1, Role: role, Relay: relay, Grant: token, Peer: other.name.String(),
		PeerSPKI: other.spki, Permissions: permissions, User: user}
}

// give offers a session to a gateway, and waits for its answer.
func (s *Server) give(device identity.Name, o wire.Offer) error {
	l := s.Link(device)
	if l == nil {
		return &wire.Refusal{Reason: transport.Offline}
	}
	if err := wire.WriteJSON(l, wire.TypeOffer, o); err != nil {
		return err
	}
	for {
		select {
		case f := <-l.Frames:
			var ack wire.OfferAck
			if f.Type != wire.TypeOfferAck || f.Decode(&ack) != nil || ack.Session != o.Session {
				continue
			}
			if ack.Reason != "" {
				return &wire.Refusal{Reason: ack.Reason, Text: ack.Text}
			}
			return nil
		case <-l.Ended:
			return &wire.Refusal{Reason: transport.Offline}
		}
	}
}

// dialer is the thief's own.
func (s *Server) dialer(cert *tls.Certificate) *transport.Dialer {
	return &transport.Dialer{DialContext: s.from.DialContext, Resolve: s.resolve,
		Certificate: func() *tls.Certificate { return cert }}
}

// Enter goes to a gateway as whoever a certificate names, shows this hello, and asks for a stream to a machine and
// writes to it at once, before anybody has let him in. The error is the gateway's.
func (s *Server) Enter(ctx context.Context, cert tls.Certificate, device identity.Name, h mux.Hello, target string) (
	answer []byte, err error) {
	l := s.Link(device)
	if l == nil {
		return nil, &wire.Refusal{Reason: transport.Offline}
	}
	_, spki, err := peerOf(l.Conn)
	if err != nil {
		return nil, err
	}
	name, err := identity.ParseName(cert.Leaf.URIs[0].String())
	if err != nil {
		return nil, err
	}
	self, gateway, id := peer{name, identity.CertSPKI(cert.Leaf)}, peer{device, spki}, random()
	if err := s.give(device, s.offer(id, wire.RoleRuntime, gateway, self, name.ID)); err != nil {
		return nil, err
	}
	joined, err := session.Join(ctx, session.Config{Dialer: s.dialer(&cert), Certificate: cert, Roots: s.PKI.Roots,
		Offer: s.offer(id, wire.RoleManager, self, gateway, name.ID), Hello: h})
	if err != nil {
		return nil, err
	}
	defer joined.Close()
	stream, err := joined.Ask(mux.Open{Service: wire.ServiceTCP, Target: target})
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	stream.Write([]byte("open"))
	if err := joined.Ready(ctx); err != nil {
		return nil, err
	}
	if err := stream.Await(ctx); err != nil {
		return nil, err
	}
	answer = make([]byte, 4)
	_, err = io.ReadFull(stream, answer)
	return answer, err
}

// standIn is the thief's own end in place of a gateway: it takes whatever is asked of it, and notes what comes.
func (s *Server) standIn(cert *tls.Certificate, o wire.Offer) {
	joined, err := session.Join(s.ctx, session.Config{Dialer: s.dialer(cert), Certificate: *cert, Roots: s.PKI.Roots,
		Offer: o})
	if err != nil {
		return // nobody has come
	}
	defer joined.Close()
	for {
		stream, err := joined.Accept(s.ctx)
		if err != nil {
			return
		}
		stream.Grant()
		s.tasks.Go(func() {
			defer stream.Close()
			buf := make([]byte, 4096)
			for {
				n, err := stream.Read(buf)
				s.mu.Lock()
				s.got = append(s.got, buf[:n]...)
				s.mu.Unlock()
				if err != nil {
					return
				}
				stream.Write(buf[:n])
			}
		})
	}
}

// Got is what technicians have sent through his own ends, for a machine, since the last call.
func (s *Server) Got() (got []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	got, s.got = s.got, nil
	return got
}

// Certify is a certificate of a new key of the thief for any name.
func (s *Server) Certify(name identity.Name) tls.Certificate {
	return s.PKI.Leaf(name, -time.Hour, 24*time.Hour)
}
