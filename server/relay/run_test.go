package relay

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/internal/durable"
	"hawser/internal/memnet"
	"hawser/transport"
	"hawser/transport/wire"
)

// An accessServer is as much of an Access Server as a relay sees.
type accessServer struct {
	*infra
	t    *testing.T
	cert tls.Certificate
	life time.Duration // of the identities that it gives out

	mu      sync.Mutex
	refusal *wire.Refusal // its answer to everything, when set
	codes   []string      // that it was shown
	renewed int
	hellos  []wire.Hello
	loads   []load
	links   []*tls.Conn
	clients sync.WaitGroup
}

// load is what a relay told, and when.
type load struct {
	wire.Load
	at time.Time
}

// newAccess starts an Access Server on host, port 443.
func newAccess(t *testing.T, i *infra, host *memnet.Host) *accessServer {
	t.Helper()
	a := &accessServer{infra: i, t: t, life: 30 * 24 * time.Hour}
	a.cert = i.issue(t, identity.AccessName("a1"), newKey(t), 365*24*time.Hour)
	ln, err := host.Listen(443)
	must(t, err)
	a.clients.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			a.clients.Go(func() { a.serve(conn) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		a.drop()
		a.clients.Wait()
	})
	return a
}

func (a *accessServer) serve(raw net.Conn) {
	conn := tls.Server(raw, serverConfig(a.cert, transport.ALPNAccess))
	defer conn.Close()
	f, err := wire.Expect(conn, wire.TypeTimeRequest)
	if err != nil {
		return
	}
	request := wire.TimeRequest(f.Payload)
	signed, err := identity.SignedTime{
		Nonce: request.Nonce(), UID: request.UID(), Time: time.Now(), Server: identity.CertSPKI(a.cert.Leaf),
	}.Sign(a.timeKey, a.time)
	if err != nil || wire.Write(conn, wire.TypeTime, signed) != nil {
		return
	}
	if f, err = wire.Read(conn); err != nil {
		return
	}
	a.answer(conn, f)
}

func (a *accessServer) answer(conn *tls.Conn, f wire.Frame) {
	a.mu.Lock()
	refusal := a.refusal
	a.mu.Unlock()
	if refusal != nil {
		wire.Refuse(conn, refusal)
		return
	}
	switch f.Type {
	case wire.TypeEnrol:
		var m wire.Enrol
		if f.Decode(&m) == nil {
			a.note(func() { a.codes = append(a.codes, m.Code) })
			a.give(conn, m.CSR)
		}
	case wire.TypeRenew:
		var m wire.Renew
		if f.Decode(&m) == nil {
			a.note(func() { a.renewed++ })
			a.give(conn, m.CSR)
		}
	case wire.TypeHello:
		var m wire.Hello
		if f.Decode(&m) == nil {
			a.note(func() { a.hellos, a.links = append(a.hellos, m), append(a.links, conn) })
			a.link(conn)
		}
	}
}

func (a *accessServer) give(conn *tls.Conn, csr []byte) {
	pub, err := identity.ParseCSR(csr)
	if err != nil {
		a.t.Errorf("relay sent a bad CSR: %v", err)
		return
	}
	now := time.Now()
	chain, err := a.issuing.Issue(identity.Request{
		Name: identity.RelayName(relayName), Pub: pub, NotBefore: now, NotAfter: now.Add(a.life),
	})
	if err != nil {
		a.t.Errorf("issue: %v", err)
		return
	}
	wire.WriteJSON(conn, wire.TypeIdentity, wire.Identity{Chain: string(identity.MarshalChain(chain)), Name: relayName})
}

// link answers pings until the connection ends.
func (a *accessServer) link(conn *tls.Conn) {
	if wire.WriteJSON(conn, wire.TypeWelcome, wire.Welcome{HeartbeatS: 120}) != nil {
		return
	}
	for {
		f, err := wire.Read(conn)
		if err != nil {
			return
		}
		switch f.Type {
		case wire.TypePing:
			a.note(func() { wire.Write(conn, wire.TypePong, nil) })
		case wire.TypeLoad:
			var m wire.Load
			must(a.t, f.Decode(&m))
			a.note(func() { a.loads = append(a.loads, load{m, time.Now()}) })
		}
	}
}

func (a *accessServer) note(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

// seen is what the server was asked so far.
func (a *accessServer) seen() (codes []string, renewed int, hellos []wire.Hello) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.codes), a.renewed, slices.Clone(a.hellos)
}

// refuse answers everything with r from now on; nil: nothing any more.
func (a *accessServer) refuse(r *wire.Refusal) { a.note(func() { a.refusal = r }) }

// push sends a frame on the newest control connection.
func (a *accessServer) push(t wire.Type, v any) {
	a.note(func() { must(a.t, wire.WriteJSON(a.links[len(a.links)-1], t, v)) })
}

// drop breaks every control connection.
func (a *accessServer) drop() {
	a.note(func() {
		for _, l := range a.links {
			l.NetConn().Close()
		}
	})
}

// fresh is a rig whose relay has only an activation code.
type fresh struct {
	*rig
	access *accessServer
	dir    string
	done   chan error
}

const testCode = "ABCD-EFGH"

// newFresh makes a relay that has not enrolled, and an Access Server for it.
func newFresh(t *testing.T) *fresh {
	t.Helper()
	f := &fresh{done: make(chan error, 1)}
	f.rig = newRig(t, func(c *Config) { f.dir = c.Dir; c.Version = "v1" })
	f.access = newAccess(t, f.infra, f.net.Host(netip.MustParseAddr("192.0.2.2")))
	for _, name := range []string{keyFile, identityFile} {
		must(t, os.Remove(filepath.Join(f.dir, name)))
	}
	must(t, durable.WriteFile(filepath.Join(f.dir, codeFile), []byte(testCode+"\n"), 0o600))
	f.restart(t)
	return f
}

// restart makes the relay anew, as a restarted process has it.
func (f *fresh) restart(t *testing.T) {
	t.Helper()
	config := f.server.config
	config.Dialer = &transport.Dialer{DialContext: config.Dialer.DialContext}
	var err error
	f.server, err = New(config)
	must(t, err)
}

// run starts the relay; stop ends it and returns what Run gave.
func (f *fresh) run(t *testing.T) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { f.done <- f.server.Run(ctx) }()
	return func() error {
		cancel()
		return <-f.done
	}
}

func TestRelayEnrolsOnceAndRegisters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFresh(t)
		stop := f.run(t)
		time.Sleep(10 * time.Second)
		must(t, stop())
		codes, _, hellos := f.access.seen()
		if len(codes) != 1 || codes[0] != testCode {
			t.Errorf("codes shown: %q", codes)
		}
		if _, err := os.Stat(filepath.Join(f.dir, codeFile)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the used code is still there: %v", err)
		}
		want := wire.Hello{Version: "v1", Instance: f.server.instance, Hosts: []string{"192.0.2.1"}, Ports: []transport.Port{443}}
		if len(hellos) != 1 || !equalHello(hellos[0], want) {
			t.Errorf("hellos: %+v, want one %+v", hellos, want)
		}
		instance := f.server.instance
		f.restart(t)
		stop = f.run(t)
		time.Sleep(10 * time.Second)
		must(t, stop())
		if codes, _, hellos = f.access.seen(); len(codes) != 1 || len(hellos) != 2 {
			t.Fatalf("after a restart: %d codes, %d hellos", len(codes), len(hellos))
		}
		if hellos[1].Instance == instance {
			t.Error("the instance outlived the process")
		}
	})
}

func equalHello(a, b wire.Hello) bool {
	return a.Version == b.Version && a.Instance == b.Instance &&
		strings.Join(a.Hosts, ",") == strings.Join(b.Hosts, ",") && len(a.Ports) == len(b.Ports)
}

func TestEnrolledRelayCarriesSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFresh(t)
		stop := f.run(t)
		time.Sleep(10 * time.Second)
		runtime, manager := f.pair(t, "s1")
		f.access.push(wire.TypeEndSession, wire.EndSession{Session: "s1", Reason: transport.Closed})
		wantEnd(t, runtime)
		wantEnd(t, manager)
		runtime, _ = f.pair(t, "s2")
		f.access.push(wire.TypeRevoked, wire.Revoked{SPKI: []identity.SPKI{f.holder(t, "s2")}})
		wantEnd(t, runtime)
		must(t, stop())
	})
}

func TestPipesOutliveTheAccessServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFresh(t)
		stop := f.run(t)
		time.Sleep(10 * time.Second)
		runtime, manager := f.pair(t, "s1")
		f.access.refuse(&wire.Refusal{Reason: transport.Busy, RetryAfter: 10 * time.Minute})
		f.access.drop()
		time.Sleep(5 * time.Minute)
		send(t, runtime, []byte("still here"))
		receive(t, manager, []byte("still here"))
		if _, _, hellos := f.access.seen(); len(hellos) != 1 {
			t.Errorf("%d hellos within the time it was told to wait", len(hellos))
		}
		f.access.refuse(nil)
		time.Sleep(10 * time.Minute)
		if _, _, hellos := f.access.seen(); len(hellos) != 2 {
			t.Errorf("%d hellos in all, want 2", len(hellos))
		}
		must(t, stop())
	})
}

func TestRelayKeepsTryingToEnrol(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFresh(t)
		f.access.refuse(&wire.Refusal{Reason: transport.BadCode})
		stop := f.run(t)
		time.Sleep(time.Hour)
		if _, err := f.server.Certificate(); err == nil {
			t.Fatal("enrolled by a server that refuses")
		}
		f.access.refuse(nil)
		time.Sleep(2 * longWait)
		_, err := f.server.Certificate()
		must(t, err)
		must(t, stop())
	})
}

func TestRelayRenewsAtHalfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFresh(t)
		stop := f.run(t)
		time.Sleep(10 * time.Second)
		first, err := f.server.Certificate()
		must(t, err)
		half := f.access.life / 2
		time.Sleep(half - half/10 - time.Minute)
		if _, renewed, _ := f.access.seen(); renewed != 0 {
			t.Error("renewed before half-life - 10 %")
		}
		time.Sleep(half/5 + 2*lookAgain)
		if _, renewed, _ := f.access.seen(); renewed != 1 {
			t.Errorf("renewed %d times until half-life + 10 %%", renewed)
		}
		second, err := f.server.Certificate()
		must(t, err)
		if first.Leaf.Equal(second.Leaf) || identity.CertSPKI(first.Leaf) != identity.CertSPKI(second.Leaf) {
			t.Error("want another certificate for the same key")
		}
		must(t, stop())
	})
}

// TestRelayComesBackAfterYears: its certificate has expired, and it renews by
// its key (access §3) before it registers.
func TestRelayComesBackAfterYears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFresh(t)
		stop := f.run(t)
		time.Sleep(10 * time.Second)
		must(t, stop())
		time.Sleep(100 * 24 * time.Hour)
		f.restart(t)
		stop = f.run(t)
		time.Sleep(10 * time.Second)
		cert, err := f.server.Certificate()
		must(t, err)
		if _, renewed, _ := f.access.seen(); renewed != 1 || time.Now().After(cert.Leaf.NotAfter) {
			t.Errorf("renewed %d times, valid until %v", renewed, cert.Leaf.NotAfter)
		}
		must(t, stop())
	})
}

func TestRelayWithoutCodeSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFresh(t)
		must(t, os.Remove(filepath.Join(f.dir, codeFile)))
		if err := f.server.Run(t.Context()); !errors.Is(err, errNoCode) {
			t.Errorf("Run gave %v", err)
		}
	})
}

func TestRelayRefusesAnIdentityThatIsNotIts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInfra(t)
		key := newKey(t)
		day := 24 * time.Hour
		tests := []struct {
			name string
			cert tls.Certificate
		}{
			{"another key", i.issue(t, identity.RelayName(relayName), newKey(t), day)},
			{"another kind", i.issue(t, identity.AccessName("a1"), key, day)},
			{"another name", i.issue(t, identity.RelayName("r2"), key, day)},
			{"another root", newInfra(t).issue(t, identity.RelayName(relayName), key, day)},
		}
		for _, c := range tests {
			if _, err := newOwn(certs(t, c.cert), key, i.roots, relayName); err == nil {
				t.Errorf("%s: taken", c.name)
			}
		}
		if _, err := newOwn([]*x509.Certificate{}, key, i.roots, relayName); err == nil {
			t.Error("no certificate: taken")
		}
		_, err := newOwn(certs(t, i.issue(t, identity.RelayName(relayName), key, day)), key, i.roots, relayName)
		must(t, err)
	})
}

func TestRelayRefusesExposedFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFresh(t)
		must(t, os.Chmod(filepath.Join(f.dir, codeFile), 0o644))
		if _, err := f.server.home.code(); !errors.Is(err, durable.ErrExposed) {
			t.Errorf("a code that others can read gave %v", err)
		}
		must(t, os.Chmod(f.dir, 0o755))
		if err := f.server.Run(t.Context()); !errors.Is(err, durable.ErrExposed) {
			t.Errorf("a directory that others can read gave %v", err)
		}
	})
}

func TestBackoffDoublesWithFullJitterAndObeysTheServer(t *testing.T) {
	for tries := range 20 {
		bound := min(time.Second<<min(tries, 10), time.Minute)
		for range 50 {
			if d := backoff(tries, nil); d < 0 || d >= bound {
				t.Fatalf("try %d: %v is not below %v", tries, d, bound)
			}
		}
		if d := backoff(tries, &wire.Refusal{RetryAfter: time.Hour}); d < time.Hour {
			t.Fatalf("try %d: %v, told to wait an hour", tries, d)
		}
	}
}
