package access

import (
	"context"
	"crypto/tls"
	"net"
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
	addr    netip.Addr    // of the server
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
	w := &world{t: t, net: memnet.New(), addr: serverAddr}
	w.root = must(identity.NewRoot(must(identity.NewKey()), now))
	w.issuing = must(w.root.NewIssuing(must(identity.NewKey()), now))
	w.roots = must(identity.NewRoots(w.root.Cert))
	w.cfg = w.config("a1")
	w.cfg.Store = store
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

// config returns that of an Access Server under the world's root, which has
// its own keys but no store.
func (w *world) config(name string) Config {
	now, id := time.Now(), identity.AccessName(name)
	timeKey, grantKey := must(identity.NewKey()), must(identity.NewKey())
	return Config{
		Name: id, Node: name, Hosts: []string{w.addr.String()}, Ports: []transport.Port{443},
		Roots: w.roots, Issuing: must(w.root.NewIssuing(must(identity.NewKey()), now)),
		TimeKey: timeKey, TimeCert: must(w.root.CertifyTimeKey(id, timeKey.Public(), now)),
		Grant: grant.Signer{Key: grantKey, Cert: must(w.root.CertifyGrantKey(id, grantKey.Public(), now))},
	}
}

// start runs a new server process on the store, as server/'s listener does.
func (w *world) start() {
	w.t.Helper()
	w.server = must(New(w.cfg))
	ctx, cancel := context.WithCancel(context.Background())
	listener := must(w.net.Host(w.addr).Listen(443))
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
