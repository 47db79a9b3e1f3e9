//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
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
	"hawser/server/store"
	"hawser/transport"
)

// operator is a user whom the founder has stated, logged in on a computer of his own.
func (w *world) operator(tech *manager.Account, name string, r manager.UserRights) *manager.Account {
	w.t.Helper()
	u, err := tech.AddUser(w.t.Context(), name, r)
	if err != nil {
		w.t.Fatal(err)
	}
	host := w.net.Host(techAddr)
	m := &manager.Manager{Home: filepath.Join(w.dir, name), Log: w.logger(name), Resolve: w.static, DialContext: host.DialContext,
		Listen: func(context.Context, string, string) (net.Listener, error) { return host.Listen(1502) }}
	if _, err := m.Login(w.t.Context(), manager.Login{Server: accessName, Code: u.Code, RootFile: w.made.RootFile}); err != nil {
		w.t.Fatal(err)
	}
	a, err := m.Open()
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// A user whom the owner has stated works within his scope, and loses his session within a second of being revoked. He does
// not come back, neither by the registry nor, at a server that does not care, by his statements.
func TestARevokedUserIsCutOff(t *testing.T) {
	t.Attr("id", "T-revoke")
	t.Attr("cases", "3")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stopAccess, stopRelay, stopDNS, stopPLC := w.accessServer(), w.relayServer(), w.resolver(), w.echo()
		tech := w.technician()
		defer tech.Close()
		o := w.enrolled(tech, "press 4")
		a, err := agent.New(o)
		if err != nil {
			t.Fatal(err)
		}
		stopAgent := w.task("agent", a.Run)
		w.within(2*time.Minute, "online", func() bool { return a.Status().State == agent.StateAttached })

		here := netip.AddrPortFrom(machineAddr, 502).String()
		ann := w.operator(tech, "ann", manager.UserRights{Role: identity.RoleOperator, Devices: []string{"*"}, Targets: []string{here}})
		bob := w.operator(tech, "bob", manager.UserRights{Role: identity.RoleOperator, Devices: []string{"*"}, Targets: []string{"192.0.2.254:80"}})
		eve := w.operator(tech, "eve", manager.UserRights{Role: identity.RoleViewer, Devices: []string{"*"}, Targets: []string{"*"}})
		if _, err := eve.Ping(t.Context(), "press 4", 1, nil); transport.ReasonOf(err) != transport.Policy {
			t.Errorf("a viewer opens a session: %v", err)
		}
		forward, err := manager.ParseForward("1502:" + here)
		if err != nil {
			t.Fatal(err)
		}
		connect := func(who *manager.Account) (stop func()) {
			return w.task("connect", func(ctx context.Context) error {
				err := who.Connect(ctx, "press 4", []manager.Forward{forward}, io.Discard, w.log)
				if ctx.Err() != nil {
					return nil
				}
				w.t.Logf("connect ends: %v", err)
				return nil
			})
		}
		stopBob := connect(bob)
		time.Sleep(10 * time.Second)
		if w.reaches() {
			t.Error("bob reaches what is not in his scope")
		}
		stopBob()
		stopAnn := connect(ann)
		w.within(10*time.Second, "ann reads the PLC", w.reaches)
		if err := tech.RevokeUser(t.Context(), "ann", false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if n := len(a.Status().Sessions); n != 0 {
			t.Errorf("a second after ann was revoked %d sessions run", n)
		}
		time.Sleep(time.Minute)
		if w.reaches() || len(a.Status().Sessions) != 0 {
			t.Error("ann is back")
		}
		for _, stop := range []func(){stopAnn, stopAgent, stopPLC, stopRelay, stopAccess, stopDNS} {
			stop()
		}
		for _, who := range []*manager.Account{ann, bob, eve} {
			who.Close()
		}
	})
}

// A stated is a site with a gateway that is online, and ann, who may reach its PLC.
type stated struct {
	*world
	tech, ann *manager.Account
	options   agent.Options
	agent     *agent.Agent
	stopAgent func()
	stops     []func() // of the servers and the PLC
}

func newStated(t *testing.T) *stated {
	t.Helper()
	s := &stated{world: newWorld(t)}
	s.stops = []func(){s.accessServer(), s.relayServer(), s.resolver(), s.echo()}
	s.tech = s.technician()
	s.options = s.enrolled(s.tech, "press 4")
	s.gatewayUp()
	all := []string{"*"}
	s.ann = s.operator(s.tech, "ann", manager.UserRights{Role: identity.RoleOperator, Devices: all, Targets: all})
	return s
}

func (s *stated) gatewayUp() {
	s.t.Helper()
	s.agent, s.stopAgent = s.world.agent("gateway", s.options)
	s.within(2*time.Minute, "the gateway is online", attached(s.agent))
}

// end stops all of it.
func (s *stated) end() {
	s.stopAgent()
	for _, stop := range s.stops {
		stop()
	}
	s.tech.Close()
	s.ann.Close()
}

// connected is a tool of ann's that talks with the PLC through a session of hers.
func (s *stated) connected() (c net.Conn, stop func()) {
	s.t.Helper()
	forward, err := manager.ParseForward("1502:" + netip.AddrPortFrom(machineAddr, 502).String())
	if err != nil {
		s.t.Fatal(err)
	}
	stop = s.task("connect", func(ctx context.Context) error {
		if err := s.ann.Connect(ctx, "press 4", []manager.Forward{forward}, io.Discard, s.log); ctx.Err() == nil {
			s.t.Logf("connect ends: %v", err)
		}
		return nil
	})
	s.within(10*time.Second, "ann reads the PLC", s.reaches)
	c, err = s.net.Host(techAddr).DialContext(s.t.Context(), "tcp", netip.AddrPortFrom(techAddr, 1502).String())
	if err != nil {
		s.t.Fatal(err)
	}
	s.talks(c)
	return c, stop
}

// talks wants an answer of the PLC.
func (s *stated) talks(c net.Conn) {
	s.t.Helper()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, "read registers"); err != nil {
		s.t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 14)); err != nil {
		s.t.Fatal(err)
	}
}

// cut wants a tool to be cut off within a second by what is done now, and ann to be kept out from then on.
func (s *stated) cut(c net.Conn, act func()) {
	s.t.Helper()
	begin := time.Now()
	ended := make(chan time.Duration, 1)
	c.SetDeadline(begin.Add(time.Minute))
	s.tasks.Go(func() {
		c.Read(make([]byte, 1)) // nothing comes but the end
		ended <- time.Since(begin)
	})
	act()
	if took := <-ended; took > time.Second {
		s.t.Errorf("cut off after %v", took)
	}
	c.Close()
	time.Sleep(time.Minute)
	if n := len(s.agent.Status().Sessions); s.reaches() || n != 0 {
		s.t.Errorf("ann is back, %d sessions", n)
	}
}

// A device that is revoked loses the session that runs, and everybody's way to it.
func TestARevokedDeviceIsCutOff(t *testing.T) {
	t.Attr("id", "T-revoke")
	synctest.Test(t, func(t *testing.T) {
		s := newStated(t)
		c, stopConnect := s.connected()
		s.cut(c, func() {
			if _, err := s.tech.RevokeDevice(t.Context(), "press 4"); err != nil {
				t.Error(err)
			}
		})
		if st := s.agent.Status(); st.State != agent.StateQuarantined {
			t.Errorf("the gateway is %s", st.State)
		}
		for who, a := range map[string]*manager.Account{"the founder": s.tech, "ann": s.ann} {
			if _, err := a.Ping(t.Context(), "press 4", 1, nil); err == nil {
				t.Errorf("%s reaches it", who)
			}
		}
		stopConnect()
		s.end()
	})
}

// The server says nothing of ann's revocation: it was put back to a backup of before while the gateway was offline, or
// it was never told. The next technician's session brings what the server does not, and ann's session ends with that.
func TestTheNextTechnicianBringsARevocation(t *testing.T) {
	t.Attr("id", "T-revoke")
	t.Attr("cases", "2")
	for name, revoke := range map[string]func(s *stated){
		"the gateway was offline, and the server has forgotten": func(s *stated) {
			var backup bytes.Buffer
			if err := s.store.Backup(s.t.Context(), &backup); err != nil {
				s.t.Fatal(err)
			}
			s.stopAgent()
			if err := s.tech.RevokeUser(s.t.Context(), "ann", false); err != nil {
				s.t.Fatal(err)
			}
			if _, err := s.ann.Ping(s.t.Context(), "press 4", 1, nil); transport.ReasonOf(err) != transport.Revoked {
				s.t.Errorf("the server that knows it: %v", err)
			}
			s.stops[1]() // a relay that goes on would remember whom it has to refuse
			s.stops[0]()
			s.restore(&backup)
			s.stops[0], s.stops[1] = s.accessServer(), s.relayServer()
			s.gatewayUp()
		},
		"the server has nothing of it to tell, as one that withholds it": func(s *stated) {
			s.net.Cut(techAddr, accessAddr)
			if err := s.tech.RevokeUser(s.t.Context(), "ann", false); transport.ReasonOf(err) != transport.Refused {
				s.t.Errorf("the server was told: %v", err)
			}
			s.net.Heal(techAddr, accessAddr)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStated(t)
				revoke(s)
				c, stopConnect := s.connected() // she is revoked, and neither the gateway nor the server knows
				time.Sleep(time.Minute)
				s.talks(c)
				s.cut(c, func() {
					if _, err := s.tech.Ping(t.Context(), "press 4", 1, nil); err != nil {
						t.Error(err)
					}
				})
				_, err := s.ann.Ping(t.Context(), "press 4", 1, nil)
				if transport.ReasonOf(err) != transport.Revoked || !strings.Contains(err.Error(), "owner") {
					t.Errorf("ann: %v", err)
				}
				stopConnect()
				s.end()
			})
		})
	}
}

// restore puts the store of servers that start from now on back to a backup.
func (w *world) restore(backup io.Reader) {
	w.t.Helper()
	db, err := store.Memory()
	if err != nil {
		w.t.Fatal(err)
	}
	o := store.Options{Database: db, Node: "access1"}
	if _, err := store.Restore(w.t.Context(), o, backup); err != nil {
		w.t.Fatal(err)
	}
	before := w.store
	if w.store, err = store.Open(w.t.Context(), o); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := errors.Join(before.Close(), db.Close()); err != nil {
			w.t.Error(err)
		}
	})
}
