package access

import (
	"encoding/json"
	"net/url"
	"slices"
	"testing"
	"testing/synctest"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// place is a newer statement about a device.
func place(o *identitytest.Owner, uid identity.UID, name, folder string) identity.DeviceStatement {
	return identity.DeviceStatement{Domain: o.Domain, UID: uid, Name: name, Folder: folder, Serial: o.Serial(), Seen: o.List}
}

// The registry follows the owner's newest statement about a device, whoever brings which one, and when; the gateway is told.
func TestADeviceIsRenamedAndMovedByItsOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		o, uid := s.owner("plant"), s.device.id.UID
		s.addDevice(s.admin, "press 2")
		state := func(who *someone, statement string) transport.Reason {
			_, raw := s.callRaw(who, "POST", "/api/v1/statements", api.Statements{Statements: []string{statement}})
			return reasonIn(raw)
		}
		scope := &identity.Scope{Devices: []string{"north"}, Targets: []string{"*"}}
		ann := s.newUserAs("ann", identity.RoleOperator, scope)
		late := o.Sign(place(o, uid, "press 7", "south"))
		moved := o.Sign(place(o, uid, "press 9", "north/hall"))
		taken := o.Sign(place(o, uid, "press 2", "north/hall"))
		thief := identitytest.NewOwner("plant").Sign(place(o, uid, "press 8", ""))
		for _, tt := range []struct {
			what, statement string
			who             *someone
			want            transport.Reason
		}{
			{"by who is no admin", moved.JWS, ann, transport.Policy},
			{"by a stranger's key", thief.JWS, s.admin, transport.NotStated},
			{"to a name that is another's", taken.JWS, s.admin, api.NameTaken},
			{"by the owner", moved.JWS, s.admin, ""},
			{"by an older statement that was held back", late.JWS, s.admin, ""},
		} {
			if got := state(tt.who, tt.statement); got != tt.want {
				t.Errorf("%s: %q, want %q", tt.what, got, tt.want)
			}
		}
		for typed, want := range map[string]int{
			"press 9": 200, "north/hall/press 9": 200, uid.String(): 200,
			"press 1": 404, "press 7": 404, "south/press 9": 404, "north/press 9": 404, "/press 9": 404,
			"north/hall/" + uid.String(): 404, "north/hall/": 404,
		} {
			var v api.Device
			for _, who := range []*someone{s.admin, ann} {
				if status := s.call(who, "GET", "/api/v1/devices/"+url.PathEscape(typed), nil, &v); status != want {
					t.Errorf("%s: %d, want %d", typed, status, want)
				}
			}
			if want == 200 && (v.Name != "press 9" || v.Folder != "north/hall") {
				t.Errorf("%s: %+v", typed, v)
			}
		}
		told := func() []string {
			var m wire.Statements
			s.runtime.read(wire.TypeStatements, &m)
			return m.Statements
		}
		if got := told(); !slices.Contains(got, moved.JWS) {
			t.Errorf("the gateway was told %v", got)
		}
		if got := told(); !slices.Contains(got, moved.JWS) || slices.Contains(got, late.JWS) {
			t.Errorf("after the late one the gateway was told %v", got)
		}
	})
}

func reasonIn(raw []byte) transport.Reason {
	var p api.Problem
	json.Unmarshal(raw, &p)
	return p.Code
}

// Another code for a device: the gateway that enrolls with it is the device, and the one before is nobody any more.
func TestAnotherGatewayTakesThePlaceOfADevice(t *testing.T) {
	t.Attr("id", "A1-refuse")
	t.Attr("cases", "5")
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		s.session()
		o, uid := s.owner("plant"), s.device.id.UID
		next := func() (identity.OwnerCode, api.DeviceRequest) {
			code, body := s.newCode(o.Sign(place(o, uid, "press 1", "")))
			return code, api.DeviceRequest{Code: body}
		}
		post := func(who *someone, path string, body api.DeviceRequest) int {
			return s.call(who, "POST", "/api/v1/devices/"+path+"/code", body, nil)
		}
		other, another := s.addDevice(s.admin, "press 2"), s.newUserAs("ann", identity.RoleOperator, nil)
		lost, bodyOfLost := next()
		code, body := next()
		for what, got := range map[string]int{
			"by who is no admin": post(another, "press%201", bodyOfLost),
			"for another device": post(s.admin, other.id.UID.String(), bodyOfLost),
		} {
			if got < 400 {
				t.Errorf("a code %s: %d", what, got)
			}
		}
		for _, b := range []api.DeviceRequest{bodyOfLost, body, body} { // the answer was lost
			if status := post(s.admin, "press%201", b); status != 201 {
				t.Fatalf("code: %d", status)
			}
		}
		wantReason(t, "the code before", s.enroll(lost.String(), newSomeone()), transport.BadCode)
		if s.server.presence.find(identity.DeviceName("plant", uid)) == nil {
			t.Error("the gateway is gone before another one is there")
		}
		fresh := newSomeone()
		if err := s.enroll(code.String(), fresh); err != nil || fresh.id.UID != uid {
			t.Fatalf("%v, %v", fresh.id.UID, err)
		}
		if got := refusal(s.runtime); got != transport.Revoked {
			t.Errorf("the old gateway is told %q", got)
		}
		if n := len(s.server.sessions.of(uid)); n != 0 {
			t.Errorf("%d of its sessions are left", n)
		}
		wantReason(t, "the same code once more", s.enroll(code.String(), newSomeone()), transport.BadCode)
		if err := s.enroll(code.String(), fresh); err != nil { // its answer was lost
			t.Errorf("the same gateway again: %v", err)
		}
		conn := s.connect(s.device)
		defer conn.Close()
		wire.WriteJSON(conn, wire.TypeHello, hello("01"))
		if got := refusal(conn); got != transport.Revoked {
			t.Errorf("the old gateway comes back: %q", got)
		}
		renewing := s.connect(s.device)
		if _, err := s.ask(renewing, wire.TypeRenew, wire.Renew{CSR: s.device.CSR()}); err == nil {
			t.Error("the old gateway renews")
		}
		s.device = fresh
		runtime := s.control(fresh, hello("02"))
		defer runtime.Close()
		s.runtime = runtime
		runtime.read(wire.TypeRevoked, nil)
		s.session()
		if status := s.call(s.admin, "POST", "/api/v1/devices/press%201/revoke", nil, nil); status != 200 {
			t.Errorf("revoke: %d", status)
		}
		_, body = next()
		if status := post(s.admin, uid.String(), body); status < 400 {
			t.Errorf("a code for a revoked device: %d", status)
		}
	})
}

// A released gateway is told so, now or when it comes, until it is gone; nobody gets in meanwhile, and its name is free.
func TestAReleasedGatewayIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		o, uid := s.owner("plant"), s.device.id.UID
		statement := place(o, uid, "press 1", "")
		statement.Released = true
		released := o.Sign(statement)
		list := o.Lists(identity.Entry{Subject: identity.Subject{UID: uid}, All: statement.Serial})
		body := api.Statements{Statements: []string{released.JWS, list.JWS}}
		if status := s.call(s.admin, "POST", "/api/v1/statements", body, nil); status != 204 {
			t.Fatalf("release: %d", status)
		}
		heard := func(c *control) (all []string) {
			for range 2 { // the list, which everybody is told, and what is about itself
				var m wire.Statements
				c.read(wire.TypeStatements, &m)
				if all = append(all, m.Statements...); slices.Contains(all, released.JWS) && slices.Contains(all, list.JWS) {
					break
				}
			}
			return all
		}
		if got := heard(s.runtime); !slices.Contains(got, released.JWS) {
			t.Errorf("it was told %v", got)
		}
		again := s.control(s.device, hello("02"))
		defer again.Close()
		if got := heard(again); !slices.Contains(got, released.JWS) {
			t.Errorf("when it comes back it was told %v", got)
		}
		var v api.Device
		if s.call(s.admin, "GET", "/api/v1/devices/"+uid.String(), nil, &v); v.State != api.StateReleased {
			t.Errorf("%+v", v)
		}
		_, raw := s.callRaw(s.admin, "POST", "/api/v1/sessions", api.SessionRequest{Device: uid.String(), SessionVersion: wire.SessionVersion})
		if got := reasonIn(raw); got != transport.NotStated {
			t.Errorf("a session with it: %q", got)
		}
		s.addPending(s.admin, "press 1")
		other := s.addDevice(s.admin, "press 2")
		statement = place(o, other.id.UID, "press 2", "")
		statement.Released = true
		body = api.Statements{Statements: []string{o.Sign(statement).JWS}}
		if status := s.call(s.admin, "POST", "/api/v1/statements", body, nil); status != 204 {
			t.Errorf("release of a second one: %d", status)
		}
	})
}

// A revoked relay is cut off, in the list of refused keys, and carries nothing any more; its name stays taken.
func TestARelayIsRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		forRuntime, _ := s.session()
		list := func() (got []api.RegisteredRelay) {
			var answer api.RegisteredRelays
			if status := s.call(s.admin, "GET", "/api/v1/relays/registered", nil, &answer); status != 200 {
				t.Errorf("list: %d", status)
			}
			return answer.Relays
		}
		if got := list(); len(got) != 1 || got[0].Name != "r1" || !got[0].Online || got[0].State != api.StateEnrolled || len(got[0].Hosts) != 1 {
			t.Errorf("%+v", got)
		}
		if status := s.call(s.newUser("other", "eve"), "POST", "/api/v1/relays/r1/revoke", nil, nil); status != 403 {
			t.Errorf("by an admin of another domain: %d", status)
		}
		if status := s.call(s.admin, "POST", "/api/v1/relays/r9/revoke", nil, nil); status != 404 {
			t.Errorf("one that is not there: %d", status)
		}
		var v api.RegisteredRelay
		if status := s.call(s.admin, "POST", "/api/v1/relays/r1/revoke", nil, &v); status != 200 || v.State != api.StateRevoked || v.Online {
			t.Errorf("%d %+v", status, v)
		}
		if got := refusal(s.relay); got != transport.Revoked {
			t.Errorf("the relay is told %q", got)
		}
		var revoked wire.Revoked
		s.runtime.read(wire.TypeRevoked, &revoked)
		if !slices.Equal(revoked.SPKI, []identity.SPKI{s.carrier.spki()}) {
			t.Errorf("the gateway is told %v", revoked)
		}
		var end wire.EndSession
		for f, err := wire.Read(s.runtime); ; f, err = wire.Read(s.runtime) { // the pool changes, too
			if err != nil {
				t.Fatal(err)
			}
			if f.Type == wire.TypeEndSession {
				f.Decode(&end)
				break
			}
		}
		if end.Session != forRuntime.Session || end.Reason != transport.LinkLost {
			t.Errorf("%+v", end)
		}
		if got := list(); len(got) != 1 || got[0].State != api.StateRevoked {
			t.Errorf("%+v", got)
		}
		if status := s.call(s.admin, "POST", "/api/v1/relays", relayRequest("r1"), nil); status != 409 {
			t.Errorf("the name again: %d", status)
		}
		conn := s.connect(s.carrier)
		defer conn.Close()
		wire.WriteJSON(conn, wire.TypeHello, relayHello("cd34"))
		if got := refusal(conn); got != transport.Revoked {
			t.Errorf("it comes back: %q", got)
		}
	})
}
