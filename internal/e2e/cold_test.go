//go:build linux

package e2e

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hawser/agent"
	"hawser/identity"
	"hawser/internal/owner"
	"hawser/manager"
	"hawser/server"
)

// A cold is a site in which somebody comes, from a PC that was never in a session, to a gateway that never had one.
type cold struct {
	*site
	who, pc string // and from where
}

func newCold(t *testing.T, who, pc string) *cold {
	t.Helper()
	s := &cold{&site{world: newWorld(t)}, who, pc}
	t.Cleanup(s.resolver())
	t.Cleanup(s.echo())
	s.awake()
	return s
}

// newShortest is a site whose founder has stated and confirmed everything himself, and comes himself.
func newShortest(t *testing.T) *cold {
	s := newCold(t, "admin", "tech")
	s.founder = s.technician()
	s.options = s.enrolled(s.founder, "press 4")
	s.stops = append(s.stops, s.gatewayUp())
	s.list(s.founder)
	return s
}

// newLongest is a site in which one admin has stated ann and the gateway, and another one has confirmed her key and
// moved the gateway. She comes from her next PC, which has the word of that key.
func newLongest(t *testing.T) *cold {
	s := newCold(t, "ann", "ann-second")
	s.founder = s.technician()
	s.ada = s.user(s.founder, "ada", identity.RoleAdmin)
	abe := s.user(s.founder, "abe", identity.RoleAdmin)
	s.list(s.founder)
	first := s.user(s.ada, "ann", identity.RoleOperator)
	s.list(abe)
	u, err := first.AnotherCode(t.Context())
	s.must("login --another", err)
	s.login(s.pc, u.Code).Close()
	device, err := s.ada.AddDevice(t.Context(), "press 4")
	s.must("device add", err)
	_, err = abe.MoveDevice(t.Context(), "press 4", "hall")
	s.must("device move", err)
	s.options = s.gateway()
	_, err = agent.Enroll(t.Context(), s.options, agent.EnrollOptions{Code: parsed(t, device.Code)})
	s.must("enroll", err)
	s.stops = append(s.stops, s.gatewayUp())
	return s
}

// shown is how many statements the user and the gateway have to show.
func (s *cold) shown() (user, device int) {
	s.t.Helper()
	m := &manager.Manager{Home: filepath.Join(s.dir, s.pc), NoPassphrase: true}
	a, err := m.Open()
	s.must("open", err)
	defer a.Close()
	dir := s.options.Config.Data
	id, err := agent.ShowIdentity(dir)
	s.must("identity show", err)
	uid, err1 := identity.ParseUID(id.UID)
	spki, err2 := identity.ParseSPKI(id.SPKI)
	s.must("identity show", errors.Join(err1, err2))
	count := func(dir string, name identity.Name, spki identity.SPKI) int {
		o, err := owner.Open(dir, identity.Peer{Name: name, SPKI: spki})
		s.must("read what is stated", err)
		return len(o.Chain())
	}
	return count(m.Home, identity.UserName(server.DefaultDomain, s.who), a.Info().SPKI),
		count(dir, identity.DeviceName(id.Domain, uid), spki)
}

// firstByte is how long it takes from connect to the first byte of the PLC's answer, with this latency between two
// hosts, by a process that has just been started.
func (s *cold) firstByte(latency time.Duration) time.Duration {
	s.t.Helper()
	host := s.net.Host(techAddr)
	m := &manager.Manager{Home: filepath.Join(s.dir, s.pc), NoPassphrase: true, Log: s.logger("cold"), Resolve: s.static,
		DialContext: host.DialContext,
		Listen:      func(context.Context, string, string) (net.Listener, error) { return host.Listen(1502) }}
	forward, err := manager.ParseForward("1502:" + netip.AddrPortFrom(machineAddr, 502).String())
	s.must("forward", err)
	s.net.SetLatency(latency)
	ready := &signal{at: make(chan struct{})}
	begin := time.Now()
	a, err := m.Open()
	s.must("open", err)
	defer a.Close()
	stop := s.task("connect", func(ctx context.Context) error {
		return a.Connect(ctx, "press 4", []manager.Forward{forward}, ready, s.log)
	})
	defer stop()
	<-ready.at
	c, err := host.DialContext(s.t.Context(), "tcp", netip.AddrPortFrom(techAddr, 1502).String())
	s.must("dial the forward", err)
	defer c.Close()
	_, err = io.WriteString(c, "read registers")
	s.must("write", err)
	_, err = io.ReadFull(c, make([]byte, 1))
	s.must("read", err)
	return time.Since(begin)
}

// A signal tells of the first write.
type signal struct {
	once sync.Once
	at   chan struct{}
}

// Write is the forward that is ready.
func (s *signal) Write(b []byte) (int, error) {
	s.once.Do(func() { close(s.at) })
	return len(b), nil
}

// What both ends show of their owner's statements goes along with what they have to say anyway: the longest chains that
// there are cost a session no round trip more than the shortest.
func TestStatementsCostAColdSessionNoRoundTrip(t *testing.T) {
	const latency = 50 * time.Millisecond
	t.Attr("id", "T-cold")
	t.Attr("cases", "2")
	var took []time.Duration
	for _, tt := range []struct {
		build        func(*testing.T) *cold
		user, device int
	}{{newShortest, 2, 4}, {newLongest, 8, 7}} {
		synctest.Test(t, func(t *testing.T) {
			s := tt.build(t)
			time.Sleep(10 * time.Minute) // whatever goes on after an enrollment is over
			user, device := s.shown()
			if user != tt.user || device != tt.device {
				t.Errorf("chains of %d and %d statements, want %d and %d", user, device, tt.user, tt.device)
			}
			took = append(took, s.firstByte(latency))
			t.Logf("%d and %d statements: %.2f round trips", user, device, float64(took[len(took)-1])/float64(2*latency))
			s.asleep(0)
		})
	}
	if took[0] != took[1] || took[0] < 4*latency {
		t.Errorf("%v with the shortest chains, %v with the longest", took[0], took[1])
	}
}
