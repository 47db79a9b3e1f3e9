//go:build linux

package e2e

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/manager"
	"hawser/transport"
)

// A user loses rights while he works. His session ends at once, and the gateway takes the statement of before from nobody. What
// he is given ends nothing.
func TestWhoLosesRightsIsOutAtOnce(t *testing.T) {
	t.Attr("id", "T-revoke")
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, false)
		defer s.gatewayUp()()
		forward, err := manager.ParseForward("0:" + machineAddr.String() + ":502")
		s.must("forward", err)
		connect := func() (ended chan error) {
			ended = make(chan error, 1)
			s.tasks.Go(func() { ended <- s.ann.Connect(t.Context(), "press 4", []manager.Forward{forward}, io.Discard, s.log) })
			time.Sleep(20 * time.Second)
			return ended
		}
		goesOn := func(what string, ended chan error, want bool) {
			t.Helper()
			time.Sleep(time.Second)
			select {
			case err := <-ended:
				if want {
					t.Errorf("%s: her session ended: %v", what, err)
				}
			default:
				if !want {
					t.Errorf("%s: her session goes on", what)
				}
			}
		}
		change := func(r manager.NewRights) {
			t.Helper()
			_, err := s.founder.ChangeUser(t.Context(), "ann", r, false)
			s.must("user renew ann", err)
		}
		live := connect()
		change(manager.NewRights{Life: 365 * day})
		goesOn("as much as before", live, true)
		change(manager.NewRights{Role: identity.RoleViewer})
		goesOn("a viewer", live, false)
		if _, err := s.ann.Ping(t.Context(), "press 4", 1, nil); transport.ReasonOf(err) != transport.Policy {
			t.Errorf("a viewer's session: %v", err)
		}
		change(manager.NewRights{Role: identity.RoleOperator})
		s.pings("ann", s.ann)
		s.asleep(0)
	})
	t.Attr("cases", "3")
}

// An admin becomes an operator. What hangs on her word falls with it, or is stated again first; she goes on as an operator.
func TestAnAdminBecomesAnOperator(t *testing.T) {
	t.Attr("id", "T-revoke")
	for keep := range map[bool]bool{false: true, true: true} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, true)
			defer s.gatewayUp()()
			u, err := s.founder.ChangeUser(t.Context(), "ada", manager.NewRights{Role: identity.RoleOperator}, keep)
			if err != nil || u.Scope == nil {
				t.Fatalf("%+v, %v", u, err)
			}
			if _, err := s.ada.AddDevice(t.Context(), "press 9"); transport.ReasonOf(err) != transport.Policy {
				t.Errorf("an operator adds a device: %v", err)
			}
			if keep {
				s.pings("ada", s.ada)
				s.pings("ann", s.ann)
			} else if _, err := s.ann.Ping(t.Context(), "press 4", 1, nil); err == nil {
				t.Error("a gateway is reached that nobody states")
			}
			s.asleep(0)
		})
	}
	t.Attr("cases", "2")
}
