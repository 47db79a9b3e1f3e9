package access

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// Revocation cuts the control connection, ends the sessions, and tells the relays, within a second, and lets nobody back
// in, over a restart too.
func TestRevocationWorksAtOnce(t *testing.T) {
	t.Attr("id", "A1-refuse")
	t.Attr("id", "T-revoke")
	t.Attr("cases", "2")
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		s.session()
		start := time.Now()
		var v api.Device
		if status := s.call(s.admin, "POST", "/api/v1/devices/press%201/revoke", nil, &v); status != 200 || v.State != "revoked" || v.Online {
			t.Errorf("%d %+v", status, v)
		}
		if got := refusal(s.runtime); got != transport.Revoked {
			t.Errorf("Runtime is told %q", got)
		}
		var list wire.Revoked
		s.relay.read(wire.TypeRevoked, &list)
		if !slices.Equal(list.SPKI, []identity.SPKI{s.device.spki()}) {
			t.Errorf("relay is told %v", list)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("took %v", took)
		}
		if n := len(s.server.sessions.of(s.device.id.UID)); n != 0 {
			t.Errorf("%d sessions left", n)
		}
		refused := func() {
			t.Helper()
			conn := s.connect(s.device)
			defer conn.Close()
			wire.WriteJSON(conn, wire.TypeHello, hello("01"))
			if got := refusal(conn); got != transport.Revoked {
				t.Errorf("hello: %q", got)
			}
		}
		refused()
		s.stop()
		s.start()
		refused()
		if status := s.call(s.admin, "POST", "/api/v1/devices/press%201/revoke", nil, nil); status != 200 {
			t.Errorf("revoked again: %d", status)
		}
	})
}

// Whoever is revoked between its check and its attachment does not slip in.
func TestRevokedDuringHelloDoesNotSlipIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		l := newLink(s.runtime.Conn, identity.Peer{Name: identity.RelayName("r7"), SPKI: identity.SPKI{7}}, hello("01"), time.Now())
		l.onEnd = func() {}
		s.server.presence.revoke(identity.SPKI{7}, time.Now())
		s.server.presence.attach(l, wire.Welcome{}, time.Now())
		if s.server.presence.find(l.peer.Name) != nil {
			t.Error("attached")
		}
		l.writer.Wait()
		if l.why == nil || l.why.Reason != transport.Revoked {
			t.Errorf("%v", l.why)
		}
	})
}

// The list that a Manager has signed is kept with the registry's word, or neither is.
func TestARevocationBringsTheOwnersList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		o, device := s.owner("plant"), s.device.id.UID
		entries := []identity.Entry{{Subject: identity.Subject{UID: device}, All: o.Serial()}, {SPKI: s.device.spki()}}
		revoke := func(who *someone, statements ...string) int {
			return s.call(who, "POST", "/api/v1/devices/press%201/revoke", api.Statements{Statements: statements}, nil)
		}
		late, list := o.Lists(), o.Lists(entries...)
		operator := s.newUserAs("ann", identity.RoleOperator, nil)
		for name, got := range map[string]int{
			"an operator":          revoke(operator, list.JWS),
			"a list of a stranger": revoke(s.admin, identitytest.NewOwner("plant").Lists(entries...).JWS),
			"what is no statement": revoke(s.admin, list.JWS, "x"),
		} {
			if got < 400 {
				t.Errorf("%s: %d", name, got)
			}
		}
		m := store.Member{Kind: identity.KindDevice, ID: device.String()}
		if s.get(&m); !m.Revoked.IsZero() {
			t.Error("what was refused has revoked the device")
		}
		if status := revoke(s.admin, list.JWS); status != 200 {
			t.Errorf("revoke: %d", status)
		}
		var got api.Statements
		if s.call(s.admin, "GET", "/api/v1/statements", nil, &got); !slices.Contains(got.Statements, list.JWS) {
			t.Error("the list was not kept")
		}
		// One that was held back, and comes late, takes nothing back.
		if status := s.call(s.admin, "POST", "/api/v1/statements", api.Statements{Statements: []string{late.JWS}}, nil); status < 400 {
			t.Errorf("an older list: %d", status)
		}
		if s.get(&m); m.Revoked.IsZero() {
			t.Error("the device is back")
		}
	})
}
