package access

import (
	"context"
	"crypto/tls"
	"database/sql"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/memnet"
	"hawser/server/grant"
	"hawser/server/store"
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
	t      testing.TB
	net    *memnet.Network
	pki    *identitytest.PKI
	db     *database
	cfg    Config
	server *Server
	admin  identity.Code // login code of user "admin" in domain "plant"
	relay  identity.Code // activation code of relay "r1"
	addr   netip.Addr    // of the server
	stop   func()
	owners map[string]*identitytest.Owner // by domain: see owner
}

var (
	serverAddr = netip.MustParseAddr("192.0.2.1")
	clientAddr = netip.MustParseAddr("198.51.100.7")
)

// database is an SQLite database in memory, which the nodes of a world share. A
// fault of a node's connection to it can be switched on.
type database struct {
	t  testing.TB
	db *sql.DB
}

func newDatabase(t testing.TB) *database {
	d := &database{t, must(store.Memory())}
	t.Cleanup(func() { d.db.Close() })
	return d
}

// open opens it as a node, until the end of the test.
func (d *database) open(node string, shared bool, fault func() error) *store.Store {
	d.t.Helper()
	st, err := store.Open(d.t.Context(), store.Options{Database: d.db, Node: node, Shared: shared, Fault: fault})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { st.Close() })
	return st
}

// newWorld makes a world and starts its server; configs may change the config before.
func newWorld(t testing.TB, configs ...func(*Config)) *world {
	t.Helper()
	w := newIdleWorld(t, configs...)
	w.start()
	return w
}

func newIdleWorld(t testing.TB, configs ...func(*Config)) *world {
	t.Helper()
	now := time.Now()
	w := &world{t: t, net: memnet.New(), addr: serverAddr, db: newDatabase(t), pki: identitytest.New(now), owners: make(map[string]*identitytest.Owner)}
	w.cfg = w.config(w.pki)
	first := w.db.open("a1", false, nil)
	var err error
	w.admin, w.relay, err = Bootstrap(t.Context(), first, "plant", "admin", "r1", now)
	for _, c := range configs {
		c(&w.cfg)
	}
	if w.cfg.Store == nil {
		w.cfg.Store = w.db.open("a1", w.cfg.Shared, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// config returns that of the Access Server of a PKI. It has no store.
func (w *world) config(pki *identitytest.PKI) Config {
	return Config{
		Name: pki.Access, Hosts: []string{w.addr.String()}, Ports: []transport.Port{443},
		Roots: pki.Roots, Issuing: pki.Issuing, TimeKey: pki.Time.Key, TimeCert: pki.Time.Cert, Grant: grant.Signer(pki.Grant),
	}
}

// start runs a new server process on the store, as server/'s listener does.
func (w *world) start() {
	w.t.Helper()
	w.server = must(New(w.cfg))
	ctx, cancel := context.WithCancel(context.Background())
	port := must(w.net.Host(w.addr).Serve(443, func(conn net.Conn) { w.accept(ctx, conn) }))
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.server.Run(ctx); err != nil {
			w.t.Error(err)
		}
	})
	w.stop = func() {
		cancel()
		port.Stop()
		running.Wait()
	}
}

func (w *world) accept(ctx context.Context, raw net.Conn) {
	conn := tls.Server(raw, &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{transport.ALPNAccess, transport.ALPNAPI},
		ClientAuth: tls.RequestClientCert, SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return w.server.Certificate() },
	})
	if conn.HandshakeContext(ctx) != nil {
		return
	}
	if conn.ConnectionState().NegotiatedProtocol == transport.ALPNAPI {
		w.server.ServeAPI(ctx, conn)
	} else {
		w.server.ServeConn(ctx, conn)
	}
}

// control is a client's control connection.
type control struct {
	t testing.TB
	*tls.Conn
	welcome wire.Welcome
}

func hello(instance string) wire.Hello {
	return wire.Hello{Version: "test", Instance: instance, SessionVersion: wire.SessionVersion}
}

// hello is that of a device that knows what its owner says of it.
func (s *someone) hello(instance string) wire.Hello {
	h := hello(instance)
	h.Key, h.Device = s.key, s.stated
	return h
}

func relayHello(instance string) wire.Hello {
	return wire.Hello{Version: "test", Instance: instance, Hosts: []string{"r1.example"}, Ports: []transport.Port{443}}
}

func (w *world) control(who *someone, h wire.Hello) *control {
	w.t.Helper()
	c := &control{t: w.t, Conn: w.connect(who)}
	if h.Key == "" {
		h.Key, h.Device = who.key, who.stated
	}
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

// read wants a frame of type t. Join-states are passed by, which come when they come, unless one is wanted.
func (c *control) read(t wire.Type, into any) {
	c.t.Helper()
	f, err := wire.Expect(c, t, wire.TypeJoinState)
	for err == nil && f.Type != t {
		f, err = wire.Expect(c, t, wire.TypeJoinState)
	}
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

// records returns the newest n audit records. A commit takes along what waits to be written.
func (w *world) records(n int) (list []store.Record) {
	w.t.Helper()
	w.put()
	w.view(func(tx *store.Tx) (err error) {
		list, err = tx.Audit(store.AuditFilter{Limit: n})
		return err
	})
	return list
}

// actions returns the newest n audit records as "action result".
func (w *world) actions(n int) (list []string) {
	w.t.Helper()
	for _, r := range w.records(n) {
		list = append(list, r.Action+" "+r.Result)
	}
	return list
}

func (w *world) view(f func(*store.Tx) error) {
	w.t.Helper()
	if err := w.cfg.Store.View(w.t.Context(), f); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) update(f func(*store.Tx) error) {
	w.t.Helper()
	if err := w.cfg.Store.Update(w.t.Context(), f); err != nil {
		w.t.Fatal(err)
	}
}

// get fills a row whose key is set.
func (w *world) get(r store.Row) {
	w.t.Helper()
	w.view(func(tx *store.Tx) error { return tx.Get(r) })
}

// put writes rows past the server.
func (w *world) put(rows ...store.Row) {
	w.t.Helper()
	err := w.cfg.Store.Update(w.t.Context(), func(tx *store.Tx) error {
		for _, r := range rows {
			if err := tx.Put(r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}
