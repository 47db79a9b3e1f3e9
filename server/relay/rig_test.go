package relay

import (
	"context"
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
	"hawser/identity/identitytest"
	"hawser/internal/durable"
	"hawser/internal/memnet"
	"hawser/server/grant"
	"hawser/transport"
	"hawser/transport/record"
	"hawser/transport/wire"
)

const relayName = "r1"

// infra is the authorities of these tests, made at the bubble's time.
type infra struct{ *identitytest.PKI }

func newInfra() infra { return infra{identitytest.New(time.Now())} }

// issue certifies a new key from now on.
func (i infra) issue(name identity.Name, life time.Duration) tls.Certificate {
	return i.Leaf(name, 0, life)
}

func (i infra) device() tls.Certificate {
	return i.issue(identity.DeviceName("plant", identity.NewUID()), 30*24*time.Hour)
}

func (i infra) user() tls.Certificate {
	return i.issue(identity.UserName("plant", "anna"), 12*time.Hour)
}

// grant makes the grant of one end of session, to be changed and signed.
func (r *rig) grant(role wire.Role, holder, peer tls.Certificate, session string) grant.Grant {
	return grant.Grant{
		ID: newInstance(), Relay: relayName, Instance: r.server.instance,
		Session: session, Epoch: 1, Role: role,
		Holder: identity.CertSPKI(holder.Leaf), Peer: identity.CertSPKI(peer.Leaf),
		Permissions: []string{"tcp"},
		Issued:      time.Now(), Expires: time.Now().Add(grant.Life),
	}
}

// A rig is a relay in an in-memory network, reachable on port 443.
type rig struct {
	infra
	net    *memnet.Network
	server *Server
	addr   netip.Addr
	host   *memnet.Host // of the relay
	client *memnet.Host

	dialContext func(ctx context.Context, network, addr string) (net.Conn, error) // of the clients
	cancel      context.CancelFunc                                                // closes the port too
	wait        func()                                                            // until no connection is left
	log         *logBuffer
}

// newRig starts a relay that has enrolled already. It ends with the test.
func newRig(t *testing.T, change ...func(*Config)) *rig {
	t.Helper()
	r := newIdleRig(t, change...)
	ctx, cancel := context.WithCancel(t.Context())
	port, err := r.host.Serve(443, func(conn net.Conn) { r.serve(ctx, conn) })
	must(t, err)
	r.cancel = func() {
		cancel()
		port.Close()
	}
	r.wait = port.Stop
	t.Cleanup(func() {
		r.cancel()
		r.wait() // hangs, and the bubble says where, if something is left
	})
	return r
}

// newIdleRig is a rig that does not listen.
func newIdleRig(t testing.TB, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{infra: newInfra(), net: memnet.New(), addr: netip.MustParseAddr("192.0.2.1"), log: new(logBuffer)}
	r.host = r.net.Host(r.addr)
	r.client = r.net.Host(netip.MustParseAddr("192.0.2.9"))
	r.dialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return r.client.DialContext(ctx, network, addr)
	}
	config := Config{
		Dir: filepath.Join(t.TempDir(), "relay"), Access: []string{"192.0.2.2"}, Roots: r.Roots,
		Hosts: []string{r.addr.String()}, ServePorts: []transport.Port{443},
		Dialer: &transport.Dialer{DialContext: r.host.DialContext},
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
	return r
}

func (r *rig) signer() grant.Signer { return grant.Signer(r.Grant) }

// settle writes what an enrolled relay has in its directory.
func (r *rig) settle(t testing.TB, dir string) {
	t.Helper()
	key := identitytest.NewKey()
	cert := r.Certify(key, identity.RelayName(relayName), 0, 30*24*time.Hour)
	must(t, durable.OpenDir(dir))
	pem, err := identity.MarshalKey(key)
	must(t, err)
	must(t, durable.WriteFile(filepath.Join(dir, keyFile), pem, 0o600))
	must(t, durable.WriteFile(filepath.Join(dir, identityFile), identity.MarshalChain(certs(t, cert)), 0o600))
}

func certs(t testing.TB, cert tls.Certificate) (chain []*x509.Certificate) {
	t.Helper()
	for _, der := range cert.Certificate {
		c, err := x509.ParseCertificate(der)
		must(t, err)
		chain = append(chain, c)
	}
	return chain
}

func (r *rig) serve(ctx context.Context, conn net.Conn) {
	cert, err := r.server.Certificate()
	if err != nil {
		return
	}
	tlsConn := tls.Server(record.New(conn), identitytest.ServerConfig(*cert, transport.ALPNRelay))
	if tlsConn.HandshakeContext(ctx) == nil {
		r.server.ServeConn(ctx, tlsConn)
	}
}

// A client is an end before its switch.
type client struct {
	*transport.Conn
	under *record.Conn
}

// A line is an end after the switches of both directions.
type line struct{ net.Conn }

func (l *line) CloseWrite() error { return l.Conn.(interface{ CloseWrite() error }).CloseWrite() }

// dial connects to the relay; no certificate is none.
func (r *rig) dial(t testing.TB, cert tls.Certificate) *client {
	t.Helper()
	return r.dialAt(t, r.addr.String(), 443, cert)
}

func (r *rig) dialAt(t testing.TB, host string, port transport.Port, cert tls.Certificate) *client {
	t.Helper()
	var under *record.Conn
	d := &transport.Dialer{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := r.dialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		under = record.New(conn)
		return under, nil
	}}
	if cert.Leaf != nil {
		d.Certificate = func() *tls.Certificate { return &cert }
	}
	conn, err := d.Dial(t.Context(), transport.Target{
		Hosts: []string{host}, Ports: []transport.Port{port}, ALPN: transport.ALPNRelay,
		Name: identity.RelayName(relayName), Roots: r.Roots,
	})
	must(t, err)
	t.Cleanup(func() { under.Close() })
	return &client{conn, under}
}

// frame sends a frame, and leave the last one.
func (c *client) frame(t testing.TB, kind wire.Type, payload string) {
	t.Helper()
	must(t, wire.Write(c, kind, []byte(payload)))
}

func (c *client) leave(t testing.TB) {
	t.Helper()
	c.frame(t, wire.TypeSwitch, "")
	c.under.Shut()
}

// wantFrame reads a frame.
func (c *client) wantFrame(t testing.TB, kind wire.Type, payload string) {
	t.Helper()
	f, err := wire.Read(c)
	if err != nil || f.Type != kind || string(f.Payload) != payload {
		t.Errorf("got %#02x %q, %v, want %#02x %q", byte(f.Type), f.Payload, err, byte(kind), payload)
	}
}

func sign(t testing.TB, s grant.Signer, g grant.Grant) string {
	t.Helper()
	token, err := s.Sign(g)
	must(t, err)
	return token
}

// join connects and sends a join; what comes back is for the caller to read.
func (r *rig) join(t *testing.T, cert tls.Certificate, g grant.Grant) *client {
	t.Helper()
	return r.joinWith(t, cert, wire.Join{Grant: sign(t, grant.Signer(r.Grant), g)})
}

func (r *rig) joinWith(t *testing.T, cert tls.Certificate, j wire.Join) *client {
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

// pair joins both ends of a session, and lets them switch.
func (r *rig) pair(t *testing.T, session string) (runtime, manager *line) {
	t.Helper()
	return change(t)(r.meet(t, session))
}

// change lets both ends switch.
func change(t testing.TB) func(runtime, manager *client) (*line, *line) {
	return func(runtime, manager *client) (*line, *line) {
		t.Helper()
		manager.leave(t)
		runtime.leave(t)
		runtime.wantFrame(t, wire.TypeSwitch, "")
		manager.wantFrame(t, wire.TypeSwitch, "")
		return &line{runtime.under.Raw()}, &line{manager.under.Raw()}
	}
}

// meet joins both ends of a session.
func (r *rig) meet(t *testing.T, session string) (runtime, manager *client) {
	t.Helper()
	device, user := r.device(), r.user()
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

func must(t testing.TB, err error) {
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
