//go:build linux

package e2e

import (
	"context"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"hawser/agent"
	"hawser/identity"
	"hawser/manager"
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
