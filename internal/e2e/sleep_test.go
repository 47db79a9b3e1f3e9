//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/agent"
	"hawser/identity"
	"hawser/manager"
	"hawser/server"
	"hawser/server/access"
	"hawser/transport"
	"hawser/transport/api"
)

const day = 24 * time.Hour

// site is a world with its founder, an admin without the domain key (ada), a technician (ann), and a gateway that all of them
// have reached, with servers that can be put to sleep.
type site struct {
	*world
	founder, ada, ann *manager.Account
	options           agent.Options
	stops             []func()
}

// awake starts the servers.
func (s *site) awake() { s.stops = []func(){s.accessServer(), s.relayServer()} }

// asleep stops the servers, and lets time pass.
func (s *site) asleep(d time.Duration) {
	for _, stop := range s.stops {
		stop()
	}
	s.stops = nil
	time.Sleep(d)
}

// login logs somebody in on a PC with an owner's code.
func (s *site) login(pc, code string) *manager.Account {
	s.t.Helper()
	host := s.net.Host(netip.MustParseAddr(fmt.Sprintf("203.0.113.%d", 20+len(pc))))
	m := &manager.Manager{Home: filepath.Join(s.dir, pc), NoPassphrase: true, Log: s.logger(pc), Resolve: s.static, DialContext: host.DialContext,
		Listen: func(context.Context, string, string) (net.Listener, error) { return host.Listen(0) }}
	l := manager.Login{Server: accessName, Code: code, User: "admin", Domain: server.DefaultDomain, RootFile: s.made.RootFile}
	if _, err := m.Login(s.t.Context(), l); err != nil {
		s.t.Fatalf("%s: %v", pc, err)
	}
	a, err := m.Open()
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

// must stops the test at an error.
func (s *site) must(what string, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
}

// list is hawser user list, by which an admin confirms what is new.
func (s *site) list(a *manager.Account) {
	s.t.Helper()
	_, err := a.Users(s.t.Context())
	s.must("user list", err)
}

// code is hawser user code, and who then logs in with it.
func (s *site) code(of *manager.Account, user, pc string) *manager.Account {
	s.t.Helper()
	u, err := of.UserCode(s.t.Context(), user)
	s.must("user code "+user, err)
	return s.login(pc, u.Code)
}

// gatewayUp starts the gateway and waits until it is online.
func (s *site) gatewayUp() (stop func()) {
	s.t.Helper()
	a, err := agent.New(s.options)
	s.must("start the gateway", err)
	stop = s.task("agent", a.Run)
	s.within(3*time.Minute, "the gateway is online", func() bool { return a.Status().State == agent.StateAttached })
	return stop
}

// pings reaches the gateway, at least when it has heard what it lacks.
func (s *site) pings(who string, a *manager.Account) {
	s.t.Helper()
	s.pingsTo("press 4", who, a)
}

func (s *site) pingsTo(device, who string, a *manager.Account) {
	s.t.Helper()
	var err error
	for range 10 {
		if _, err = a.Ping(s.t.Context(), device, 1, nil); err == nil {
			return
		}
		time.Sleep(10 * time.Second)
	}
	s.t.Errorf("%s does not reach %s: %v", who, device, err)
}

// user adds a user, who logs in.
func (s *site) user(by *manager.Account, name string, role identity.Role) *manager.Account {
	s.t.Helper()
	r := manager.UserRights{Role: role}
	if role != identity.RoleAdmin {
		r.Devices, r.Targets = []string{"*"}, []string{"*"}
	}
	u, err := by.AddUser(s.t.Context(), name, r)
	s.must("user add "+name, err)
	return s.login(name, u.Code)
}

// newSite is a site whose gateway the founder has added, or ada if hers.
func newSite(t *testing.T, hers bool) *site {
	s := &site{world: newWorld(t)}
	t.Cleanup(s.resolver())
	s.awake()
	s.founder = s.technician()
	s.ada, s.ann = s.user(s.founder, "ada", identity.RoleAdmin), s.user(s.founder, "ann", identity.RoleOperator)
	s.list(s.founder)
	by := s.founder
	if hers {
		by = s.ada
	}
	s.options = s.enrolled(by, "press 4")
	stop := s.gatewayUp()
	s.list(by)
	for who, a := range map[string]*manager.Account{"the founder": s.founder, "ada": s.ada, "ann": s.ann} {
		s.pings(who, a)
	}
	stop()
	return s
}

// tended lets time pass for everybody but the founder, who looks after the domain as the guide says: he keeps logged in, and
// renews himself before his year is over.
func (s *site) tended(d time.Duration) {
	s.t.Helper()
	renewed := false
	for slept := time.Duration(0); slept < d; {
		step := min(25*day, d-slept)
		s.asleep(step)
		s.awake()
		slept += step
		s.founder = s.code(s.founder, "admin", "tech")
		if s.list(s.founder); slept >= 300*day && !renewed {
			_, err := s.founder.RenewUsers(s.t.Context(), "admin")
			s.must("user renew admin", err)
			renewed = true
		}
	}
}

// Whoever slept comes back: a gateway by itself, everybody else as the guide says.
func TestWhoHasSleptComesBack(t *testing.T) {
	t.Attr("id", "T-lost")
	for _, days := range []int{31, 200, 400} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, false)
			s.tended(time.Duration(days) * day)
			defer s.gatewayUp()()
			s.pings("the founder", s.founder)
			for _, one := range []struct {
				name string
				a    *manager.Account
			}{{"ann", s.ann}, {"ada", s.ada}} {
				_, err := one.a.Ping(t.Context(), "press 4", 1, nil)
				if err == nil && days < 100 {
					continue // the login still counted
				}
				if transport.ReasonOf(err) != api.NotLoggedIn {
					t.Errorf("%s after %d days: %v", one.name, days, err)
				}
				if days > 365 {
					_, err := s.founder.RenewUsers(t.Context(), one.name)
					s.must("user renew "+one.name, err)
				}
				one.a = s.code(s.founder, one.name, one.name)
				s.list(s.founder)
				s.pings(one.name, one.a)
				if one.name == "ada" { // she signs again
					_, err := one.a.AddUser(t.Context(), "bob", manager.UserRights{Role: identity.RoleViewer, Devices: []string{"*"}, Targets: []string{}})
					s.must("ada states bob", err)
				}
			}
			s.asleep(0)
		})
	}
	t.Attr("cases", "12")
}

// Everything has slept, the founder and his servers too. The operator's code brings him back, and he brings the rest back.
func TestAFounderWhoHasSleptComesBack(t *testing.T) {
	t.Attr("id", "T-lost")
	for _, days := range []int{31, 200, 400} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, false)
			s.asleep(time.Duration(days) * day)
			s.awake()
			if _, err := s.founder.Users(t.Context()); err == nil && days > 100 {
				t.Errorf("after %d days his login still counts", days)
			}
			code, _, err := access.FounderCode(t.Context(), s.store, server.DefaultDomain, "admin", time.Now())
			s.must("domain code", err)
			s.founder = s.login("tech", code.String())
			_, err = s.founder.RenewUsers(t.Context(), "admin") // his keys of before, by which gateways are stated
			s.must("user renew admin", err)
			defer s.gatewayUp()()
			s.pings("the founder", s.founder)
			if days > 365 {
				_, err := s.founder.RenewUsers(t.Context(), "ann")
				s.must("user renew ann", err)
			}
			s.ann = s.code(s.founder, "ann", "ann")
			s.list(s.founder)
			s.pings("ann", s.ann)
			s.asleep(0)
		})
	}
	t.Attr("cases", "6")
}

// An admin has slept for longer than she was stated for, and the gateway that she has added is reached by nobody, until she is
// renewed: at once, by whoever has the domain key.
func TestAGatewayComesBackWithTheAdminWhoHasLapsed(t *testing.T) {
	t.Attr("id", "T-lost")
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, true)
		s.tended(400 * day)
		defer s.gatewayUp()()
		if _, err := s.founder.Ping(t.Context(), "press 4", 1, nil); transport.ReasonOf(err) != transport.NotStated {
			t.Errorf("the gateway of an admin who has lapsed: %v", err)
		}
		_, err := s.founder.RenewUsers(t.Context(), "ada")
		s.must("user renew ada", err)
		s.pings("the founder", s.founder)
		s.ada = s.code(s.founder, "ada", "ada")
		s.list(s.founder)
		s.pings("ada", s.ada)
		s.asleep(0)
	})
	t.Attr("cases", "1")
}

// The laptop of an admin is lost. She is out, and what she has stated with her, unless it is stated again first; she herself
// comes back by the domain key, and what fell as the guide says.
func TestTheLaptopOfAnAdminIsLost(t *testing.T) {
	t.Attr("id", "T-lost")
	for keep := range map[bool]bool{false: true, true: true} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, true)
			stop := s.gatewayUp()
			bob := s.user(s.ada, "bob", identity.RoleOperator)
			s.list(s.ada)
			s.pings("bob", bob)
			s.must("user revoke ada", s.founder.RevokeUser(t.Context(), "ada", keep))
			if _, err := s.ada.Ping(t.Context(), "press 4", 1, nil); !isOut(err) {
				t.Errorf("ada: %v", err)
			}
			device := "press 4"
			if !keep {
				for who, a := range map[string]*manager.Account{"bob": bob, "the founder": s.founder} {
					if _, err := a.Ping(t.Context(), device, 1, nil); err == nil {
						t.Errorf("%s reaches a gateway that nobody states", who)
					}
				}
				_, err := s.founder.RenewUsers(t.Context(), "bob")
				s.must("user renew bob", err)
				bob = s.code(s.founder, "bob", "bob's new one")
				s.list(s.founder)
				// The gateway is added and enrolled again.
				stop()
				device = "press 5"
				added, err := s.founder.AddDevice(t.Context(), device)
				s.must("device add", err)
				s.options = s.gateway()
				s.options.Config.Data += "-again"
				_, err = agent.Enroll(t.Context(), s.options, agent.EnrollOptions{Code: parsed(t, added.Code)})
				s.must("enroll", err)
				stop = s.gatewayUp()
			}
			s.pingsTo(device, "the founder", s.founder)
			s.pingsTo(device, "bob", bob)
			s.pingsTo(device, "ann", s.ann)
			u, err := s.founder.AddUser(t.Context(), "ada", manager.UserRights{Role: identity.RoleAdmin})
			s.must("user add ada", err)
			s.ada = s.login("ada's new", u.Code)
			s.list(s.founder)
			s.pingsTo(device, "ada", s.ada)
			stop()
			s.asleep(0)
		})
	}
	t.Attr("cases", "2")
}

// A laptop is lost on which its user had let another PC in. Both are out, the session that runs with one of them at once; the
// PC that came with an admin's code goes on, and so does the next one.
func TestOneOfThePCsOfAUserIsLost(t *testing.T) {
	t.Attr("id", "T-lost")
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, false)
		defer s.gatewayUp()()
		other := s.code(s.founder, "ann", "ann-desk")
		s.list(s.founder)
		s.pings("her other PC", other)
		u, err := s.ann.AnotherCode(t.Context())
		s.must("login --another", err)
		second := s.login("ann-second", u.Code)
		s.pings("her second PC, not confirmed", second)
		m := &manager.Manager{Home: filepath.Join(s.dir, "tech"), NoPassphrase: true, Resolve: s.static, DialContext: s.net.Host(techAddr).DialContext}
		asked := 0
		m.Confirm = func(k manager.InvitedKey) bool {
			asked++
			return k.SPKI == second.Info().SPKI && k.By == s.ann.Info().SPKI
		}
		if s.founder, err = m.Open(); err != nil {
			t.Fatal(err)
		}
		s.list(s.founder)
		if asked != 1 {
			t.Errorf("an admin is asked %d times", asked)
		}
		s.pings("her second PC", second)
		ended := make(chan error, 1)
		forward, err := manager.ParseForward("0:" + machineAddr.String() + ":502")
		s.must("forward", err)
		s.tasks.Go(func() { ended <- second.Connect(t.Context(), "press 4", []manager.Forward{forward}, io.Discard, s.log) })
		time.Sleep(20 * time.Second)
		begin := time.Now()
		keys, err := s.founder.RevokeUserKey(t.Context(), "ann", s.ann.Info().SPKI)
		if err != nil || len(keys) != 2 {
			t.Fatalf("listed %v, %v", keys, err)
		}
		select {
		case err := <-ended:
			if took := time.Since(begin); took > time.Second || !isOut(err) {
				t.Errorf("its session ended after %v: %v", took, err)
			}
		case <-time.After(time.Minute):
			t.Error("its session goes on")
		}
		for who, a := range map[string]*manager.Account{"the lost one": s.ann, "the one that it let in": second} {
			if _, err := a.Ping(t.Context(), "press 4", 1, nil); !isOut(err) {
				t.Errorf("%s: %v", who, err)
			}
		}
		s.pings("her other PC", other)
		s.ann = s.code(s.founder, "ann", "ann-new")
		s.pings("her new PC", s.ann)
		out, err := other.Logout(t.Context(), true)
		if err != nil || out.DomainKey {
			t.Errorf("logout: %+v, %v", out, err)
		}
		if _, err := s.ann.Ping(t.Context(), "press 4", 1, nil); !isOut(err) {
			t.Errorf("after logout --all on another PC: %v", err)
		}
		s.asleep(0)
	})
	t.Attr("cases", "3")
}

// isOut reports whether an error says that a key is not believed any more.
func isOut(err error) bool {
	switch transport.ReasonOf(err) {
	case transport.Revoked, api.NotLoggedIn:
		return true
	}
	return err != nil && (errors.Is(err, net.ErrClosed) || strings.Contains(err.Error(), string(transport.Revoked)))
}
