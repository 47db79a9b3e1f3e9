//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"hawser/agent"
	"hawser/agent/clock"
	"hawser/board/boardtest"
	"hawser/identity"
	"hawser/internal/memnet"
	"hawser/manager"
	"hawser/server"
	"hawser/server/store"
	"hawser/transport"
)

// The world of a bubble: who has which address.
var (
	accessAddr  = netip.MustParseAddr("192.0.2.1")
	relayAddr   = netip.MustParseAddr("192.0.2.2")
	dnsAddr     = netip.MustParseAddr("192.0.2.53")
	gatewayAddr = netip.MustParseAddr("198.51.100.7")
	machineAddr = netip.MustParseAddr("192.168.10.50")
	techAddr    = netip.MustParseAddr("203.0.113.9")
)

const (
	accessName = "access.example.test"
	relayHost  = "relay.example.test"
)

// world is a whole Hawser in one bubble. Only the DNS server is a fake: a real
// one has no place in fake time.
type world struct {
	t     *testing.T
	net   *memnet.Network
	dir   string
	made  server.Made
	store *store.Store
	log   *tail
	tasks sync.WaitGroup
	now   func() time.Time // the clock of servers that start from now on; nil: the true time
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, net: memnet.New(), dir: t.TempDir(), log: new(tail)}
	db, err := store.Memory()
	if err != nil {
		t.Fatal(err)
	}
	if w.store, err = store.Open(t.Context(), store.Options{Database: db, Node: "access1"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(w.store.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	})
	w.made, err = server.Init(t.Context(), server.Options{Dir: filepath.Join(w.dir, "server"), Hosts: []string{accessName}, Store: w.store})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.tasks.Wait() // here they know that the test is over, whatever it died of
		if t.Failed() {
			t.Log(w.log)
		}
	})
	return w
}

func (w *world) logger(who string) *slog.Logger {
	return slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})).With("who", who)
}

// task runs until its context ends or stop is called; stop waits.
func (w *world) task(name string, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	w.tasks.Go(func() {
		defer close(done)
		if err := run(ctx); err != nil && ctx.Err() == nil {
			w.t.Errorf("%s ended: %v", name, err)
		}
	})
	return func() { cancel(); <-done }
}

// server starts one server; stop cuts its power: its peers are not told.
func (w *world) server(addr netip.Addr, change func(*server.Config)) (stop func()) {
	w.t.Helper()
	c, err := server.Load(w.made.Config)
	if err != nil {
		w.t.Fatal(err)
	}
	change(&c)
	host := w.net.Host(addr)
	ready := make(chan struct{})
	s := server.Server{Config: c, Logger: w.logger(c.Hosts[0]), Store: w.store, Now: w.now, Ready: func([]string) { close(ready) },
		Listen: func(_, address string) (net.Listener, error) {
			_, port, _ := net.SplitHostPort(address)
			var n uint16
			fmt.Sscan(port, &n)
			return host.Listen(n)
		},
		Dialer: &transport.Dialer{DialContext: host.DialContext, Resolve: w.static},
	}
	end := w.task(c.Hosts[0], s.Run)
	<-ready
	return func() { host.Down(); end() }
}

func (w *world) accessServer() (stop func()) {
	return w.server(accessAddr, func(c *server.Config) { c.Relay = nil })
}

func (w *world) relayServer() (stop func()) {
	return w.server(relayAddr, func(c *server.Config) {
		c.Access, c.Hosts, c.Relay.Access = nil, []string{relayHost}, []string{accessName}
	})
}

// static resolves for servers and the technician, whose DNS is not the subject.
func (w *world) static(_ context.Context, host string) ([]netip.Addr, error) {
	switch host {
	case accessName:
		return []netip.Addr{accessAddr}, nil
	case relayHost:
		return []netip.Addr{relayAddr}, nil
	}
	return nil, errors.New("no such host")
}

// resolver answers the gateway's questions over UDP.
func (w *world) resolver() (stop func()) {
	host := w.net.Host(dnsAddr)
	pc, err := host.ListenPacket(53)
	if err != nil {
		w.t.Fatal(err)
	}
	end := w.task("dns", func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() { pc.Close() })()
		buf := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return err
			}
			var q, r dns.Msg
			if q.Unpack(buf[:n]) != nil || len(q.Question) != 1 {
				continue
			}
			r.SetReply(&q)
			if addrs, err := w.static(ctx, strings.ToLower(strings.TrimSuffix(q.Question[0].Name, "."))); err == nil && q.Question[0].Qtype == dns.TypeA {
				r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: addrs[0].AsSlice()}}
			}
			b, _ := r.Pack()
			pc.WriteTo(b, from)
		}
	})
	return end
}

// gateway is the options of the agent: it has just woken in 1970.
func (w *world) gateway() agent.Options {
	roots, err := agent.LoadRoots(w.made.RootFile)
	if err != nil {
		w.t.Fatal(err)
	}
	return agent.Options{
		Config: agent.Config{Data: filepath.Join(w.dir, "gateway"), Access: []string{accessName}, Ports: transport.DefaultPorts(),
			Roots: roots, DNS: []netip.AddrPort{netip.AddrPortFrom(dnsAddr, 53)}},
		Board:       boardtest.New(time.Unix(0, 0)),
		Build:       time.Date(1999, 6, 1, 0, 0, 0, 0, time.UTC), // a bubble begins in 2000
		Log:         w.logger("gateway"),
		DialContext: w.net.Host(gatewayAddr).DialContext,
	}
}

// enrolled is the options of the agent of a gateway that the technician has added and that has enrolled.
func (w *world) enrolled(tech *manager.Account, name string) agent.Options {
	w.t.Helper()
	device, err := tech.AddDevice(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	o := w.gateway()
	if _, err := agent.Enroll(w.t.Context(), o, agent.EnrollOptions{Code: parsed(w.t, device.Code)}); err != nil {
		w.t.Fatal(err)
	}
	return o
}

func (w *world) technician() *manager.Account {
	w.t.Helper()
	host := w.net.Host(techAddr)
	m := &manager.Manager{Home: filepath.Join(w.dir, "tech"), NoPassphrase: true, Log: w.logger("technician"), Resolve: w.static, DialContext: host.DialContext,
		Listen: func(context.Context, string, string) (net.Listener, error) { return host.Listen(1502) }}
	_, err := m.Login(w.t.Context(), manager.Login{Server: accessName, Code: w.made.AdminCode.String(), User: "admin", Domain: server.DefaultDomain, RootFile: w.made.RootFile})
	if err != nil {
		w.t.Fatal(err)
	}
	a, err := m.Open()
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// within waits until ok holds and fails when that takes longer than limit of
// fake time; it returns how long it took.
func (w *world) within(limit time.Duration, what string, ok func() bool) time.Duration {
	w.t.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > limit {
			w.t.Fatalf("%s: not within %v", what, limit)
		}
		time.Sleep(100 * time.Millisecond)
	}
	took := time.Since(begin).Round(100 * time.Millisecond)
	w.t.Logf("%-60s %v", what, took)
	return took
}

// echo is the PLC: it sends back what it gets.
func (w *world) echo() (stop func()) {
	l, err := w.net.Host(machineAddr).Listen(502)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.task("plc", func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() { l.Close() })()
		var conns sync.WaitGroup
		defer conns.Wait()
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			conns.Go(func() {
				defer context.AfterFunc(ctx, func() { c.Close() })()
				io.Copy(c, c)
				c.Close()
			})
		}
	})
}

// reaches reports whether a tool at the technician gets an answer from the PLC.
func (w *world) reaches() bool {
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Second)
	defer cancel()
	c, err := w.net.Host(techAddr).DialContext(ctx, "tcp", netip.AddrPortFrom(techAddr, 1502).String())
	if err != nil {
		return false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := c.Write([]byte("read registers")); err != nil {
		return false
	}
	_, err = io.ReadFull(c, make([]byte, 14))
	return err == nil
}

func TestWholeSystemHealsByItself(t *testing.T) {
	t.Attr("id", "A1-bubble")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stopAccess, stopRelay := w.accessServer(), w.relayServer()
		tech := w.technician()
		defer tech.Close()
		device, err := tech.AddDevice(t.Context(), "press 4")
		if err != nil {
			t.Fatal(err)
		}

		// The site: of the three ports one is rejected, one dropped.
		w.net.Firewall(func(from netip.Addr, to netip.AddrPort) memnet.Verdict {
			switch {
			case from != gatewayAddr || to.Addr() == machineAddr || to.Port() == 80:
				return memnet.Pass
			case to.Port() == 443:
				return memnet.Drop
			}
			return memnet.Reject
		})

		// It wakes in 1970, and DNS is dead.
		o := w.gateway()
		enrolled := make(chan error, 1)
		w.tasks.Go(func() {
			for {
				_, err := agent.Enroll(t.Context(), o, agent.EnrollOptions{Code: parsed(t, device.Code)})
				if err == nil || t.Context().Err() != nil {
					enrolled <- err
					return
				}
			}
		})
		a, err := agent.New(o)
		if err != nil {
			t.Fatal(err)
		}
		stopAgent := w.task("agent", a.Run)
		online := func() bool { return a.Status().State == agent.StateAttached }
		time.Sleep(time.Minute)
		if online() {
			t.Fatal("online without DNS?")
		}
		stopDNS := w.resolver()
		w.within(30*time.Second, "1970, DNS comes back: enrolled and online", online)
		if err := <-enrolled; err != nil {
			t.Fatal(err)
		}
		if st := a.Status(); st.Clock.State != clock.Authentic || st.UID != device.UID.String() || st.Access.Port != 80 {
			t.Errorf("status %+v", st)
		}

		// A session, and a tool through it.
		stopPLC := w.echo()
		forward, err := manager.ParseForward("1502:" + machineAddr.String() + ":502")
		if err != nil {
			t.Fatal(err)
		}
		stopConnect := w.task("connect", func(ctx context.Context) error {
			return tech.Connect(ctx, "press 4", []manager.Forward{forward}, io.Discard, w.log)
		})
		w.within(10*time.Second, "first session: a tool reads the PLC", w.reaches)

		stopRelay()
		time.Sleep(time.Minute)
		if w.reaches() {
			t.Error("a tool gets through without a relay")
		}
		stopRelay = w.relayServer()
		w.within(90*time.Second, "relay restarted: the tool reads again", w.reaches)

		stopAccess()
		for range 10 {
			time.Sleep(30 * time.Second)
			if !w.reaches() {
				t.Error("the session did not outlive the Access Server")
			}
		}
		stopAccess = w.accessServer()
		w.within(2*time.Minute, "Access restarted: online again", online)
		if !w.reaches() {
			t.Error("the session did not outlive the return of the Access Server")
		}

		// The cable is pulled for ten minutes.
		for _, server := range []netip.Addr{accessAddr, relayAddr} {
			w.net.Stall(gatewayAddr, server)
		}
		w.within(20*time.Second, "cable pulled: the agent notices", func() bool { return !online() })
		time.Sleep(10 * time.Minute)
		for _, server := range []netip.Addr{accessAddr, relayAddr} {
			w.net.Heal(gatewayAddr, server)
		}
		w.within(90*time.Second, "cable back: the tool reads again", w.reaches)

		// All restart at once.
		stopAgent()
		stopRelay()
		stopAccess()
		stopAccess, stopRelay = w.accessServer(), w.relayServer()
		if a, err = agent.New(w.gateway()); err != nil {
			t.Fatal(err)
		}
		stopAgent = w.task("agent", a.Run)
		w.within(2*time.Minute, "everything restarted: the tool reads again", w.reaches)

		for _, stop := range []func(){stopConnect, stopAgent, stopPLC, stopRelay, stopAccess, stopDNS} {
			stop()
		}
	})
}

// parsed is a code as the command line takes it.
func parsed(t *testing.T, code string) identity.OwnerCode {
	t.Helper()
	c, err := identity.ParseOwnerCode(code)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
