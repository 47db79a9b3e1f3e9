package relay

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"hawser/identity"
	"hawser/internal/durable"
	"hawser/internal/memnet"
	"hawser/server/grant"
	"hawser/transport"
	"hawser/transport/wire"
)

const relayName = "r1"

// An infra is a root and what it certifies, made at the bubble's time.
type infra struct {
	root    *identity.Authority
	issuing *identity.Authority
	roots   *identity.Roots
	grants  grant.Signer
	timeKey crypto.Signer
	time    *x509.Certificate
}

func newInfra(t *testing.T) *infra {
	t.Helper()
	now, access := time.Now(), identity.AccessName("a1")
	root, err := identity.NewRoot(newKey(t), now)
	must(t, err)
	issuing, err := root.NewIssuing(newKey(t), now)
	must(t, err)
	roots, err := identity.NewRoots(root.Cert)
	must(t, err)
	i := &infra{root: root, issuing: issuing, roots: roots, timeKey: newKey(t)}
	i.grants.Key = newKey(t)
	i.grants.Cert, err = root.CertifyGrantKey(access, i.grants.Key.Public(), now)
	must(t, err)
	i.time, err = root.CertifyTimeKey(access, i.timeKey.Public(), now)
	must(t, err)
	return i
}

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := identity.NewKey()
	must(t, err)
	return key
}

// issue makes a certificate that is valid for life from now.
func (i *infra) issue(t *testing.T, name identity.Name, key crypto.Signer, life time.Duration) tls.Certificate {
	t.Helper()
	now := time.Now()
	chain, err := i.issuing.Issue(identity.Request{Name: name, Pub: key.Public(), NotBefore: now, NotAfter: now.Add(life)})
	must(t, err)
	cert := tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert
}

func (i *infra) device(t *testing.T) tls.Certificate {
	return i.issue(t, identity.DeviceName("plant", identity.NewUID()), newKey(t), 30*24*time.Hour)
}

func (i *infra) user(t *testing.T) tls.Certificate {
	return i.issue(t, identity.UserName("plant", "anna"), newKey(t), 12*time.Hour)
}

// grant makes the grant of one end of session, to be changed and signed.
func (r *rig) grant(role wire.Role, holder, peer tls.Certificate, session string) grant.Grant {
	return grant.Grant{
		ID: newInstance(), Relay: relayName, Instance: r.server.instance,
		Session: session, Epoch: 1, Role: role,
		Holder: identity.CertSPKI(holder.Leaf), Peer: identity.CertSPKI(peer.Leaf),
		Permissions: []string{"tcp"}, Crypto: wire.CryptoNested,
		Issued: time.Now(), Expires: time.Now().Add(grant.Life),
	}
}

// A rig is a relay in an in-memory network, reachable on port 443.
type rig struct {
	*infra
	net    *memnet.Network
	server *Server
	addr   netip.Addr
	client *memnet.Host
	conns  sync.WaitGroup
	cancel context.CancelFunc
	log    *logBuffer
}

// newRig starts a relay that has enrolled already. It ends with the test.
func newRig(t *testing.T, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{infra: newInfra(t), net: memnet.New(), addr: netip.MustParseAddr("192.0.2.1"), log: new(logBuffer)}
	host := r.net.Host(r.addr)
	r.client = r.net.Host(netip.MustParseAddr("192.0.2.9"))
	config := Config{
		Dir: filepath.Join(t.TempDir(), "relay"), Access: []string{"192.0.2.2"}, Roots: r.roots,
		Hosts: []string{r.addr.String()}, ServePorts: []transport.Port{443},
		Dialer: &transport.Dialer{DialContext: host.DialContext},
		Logger: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, f := range change {
		f(&config)
	}
	r.settle(t, config.Dir)
	var err error
	r.server, err = New(config)
	must(t, err)
	must(t, r.server.load())
	ln, err := host.Listen(443)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	r.cancel = func() {
		cancel()
		ln.Close()
	}
	r.conns.Go(func() { r.accept(ctx, ln) })
	t.Cleanup(func() {
		r.cancel()
		r.conns.Wait() // hangs, and the bubble says where, if something is left
	})
	return r
}

// settle writes what an enrolled relay has in its directory.
func (r *rig) settle(t *testing.T, dir string) {
	t.Helper()
	key := newKey(t)
	cert := r.issue(t, identity.RelayName(relayName), key, 30*24*time.Hour)
	must(t, durable.OpenDir(dir))
	pem, err := identity.MarshalKey(key)
	must(t, err)
	must(t, durable.WriteFile(filepath.Join(dir, keyFile), pem, 0o600))
	must(t, durable.WriteFile(filepath.Join(dir, identityFile), chainPEM(t, cert), 0o600))
}

func certs(t *testing.T, cert tls.Certificate) (chain []*x509.Certificate) {
	t.Helper()
	for _, der := range cert.Certificate {
		c, err := x509.ParseCertificate(der)
		must(t, err)
		chain = append(chain, c)
	}
	return chain
}

func chainPEM(t *testing.T, cert tls.Certificate) []byte {
	t.Helper()
	return identity.MarshalChain(certs(t, cert))
}

func (r *rig) accept(ctx context.Context, ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		r.conns.Go(func() {
			cert, err := r.server.Certificate()
			if err != nil {
				conn.Close()
				return
			}
			tlsConn := tls.Server(conn, serverConfig(*cert, transport.ALPNRelay))
			if tlsConn.HandshakeContext(ctx) != nil {
				conn.Close()
				return
			}
			r.server.ServeConn(ctx, tlsConn)
		})
	}
}

func serverConfig(cert tls.Certificate, alpn string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, NextProtos: []string{alpn},
		Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert,
	}
}

// dial connects to the relay; no certificate is none.
func (r *rig) dial(t *testing.T, cert tls.Certificate) *transport.Conn {
	t.Helper()
	d := &transport.Dialer{DialContext: r.client.DialContext}
	if cert.Leaf != nil {
		d.Certificate = func() *tls.Certificate { return &cert }
	}
	conn, err := d.Dial(t.Context(), transport.Target{
		Hosts: []string{r.addr.String()}, Ports: []transport.Port{443}, ALPN: transport.ALPNRelay,
		Name: identity.RelayName(relayName), Roots: r.roots,
	})
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func sign(t *testing.T, s grant.Signer, g grant.Grant) string {
	t.Helper()
	token, err := s.Sign(g)
	must(t, err)
	return token
}

// join connects and sends a join; what comes back is for the caller to read.
func (r *rig) join(t *testing.T, cert tls.Certificate, g grant.Grant) *transport.Conn {
	t.Helper()
	return r.joinWith(t, cert, wire.Join{Grant: sign(t, r.grants, g), Crypto: wire.CryptoNested})
}

func (r *rig) joinWith(t *testing.T, cert tls.Certificate, j wire.Join) *transport.Conn {
	t.Helper()
	conn := r.dial(t, cert)
	must(t, wire.WriteJSON(conn, wire.TypeJoin, j))
	return conn
}

// answer reads what the relay says to a join: nil is paired.
func answer(conn net.Conn) error {
	_, err := wire.Expect(conn, wire.TypePaired)
	return err
}

// pair joins both ends of a session.
func (r *rig) pair(t *testing.T, session string) (runtime, manager *transport.Conn) {
	t.Helper()
	device, user := r.device(t), r.user(t)
	runtime = r.join(t, device, r.grant(wire.RoleRuntime, device, user, session))
	manager = r.join(t, user, r.grant(wire.RoleManager, user, device, session))
	must(t, answer(runtime))
	must(t, answer(manager))
	return runtime, manager
}

func wantReason(t *testing.T, err error, want transport.Reason) {
	t.Helper()
	if got := transport.ReasonOf(err); got != want {
		t.Errorf("got reason %q (%v), want %q", got, err, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// logBuffer keeps what was logged.
type logBuffer struct {
	mu   sync.Mutex
	text []byte
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, p...)
	return len(p), nil
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.text)
}
