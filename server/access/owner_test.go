package access

import (
	"encoding/json"
	"fmt"
	"net/http"
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

// loginBy logs somebody in by an owner's code.
func (w *world) loginBy(code identity.OwnerCode, who *someone) (answer api.LoginAnswer, reason transport.Reason) {
	w.t.Helper()
	auth := code.Auth()
	response, raw := w.callRaw(nil, "POST", "/api/v1/login", api.LoginRequest{Lookup: code.LookupID(), Auth: auth[:], CSR: who.CSR()})
	if response.StatusCode >= 300 {
		var p api.Problem
		json.Unmarshal(raw, &p)
		return answer, p.Code
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		w.t.Fatal(err)
	}
	who.take(wire.Identity{Chain: answer.Chain})
	return answer, ""
}

// The first founder brings the domain key; after that the server knows no other one.
func TestFounderBringsTheDomainKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		who, thief := newSomeone(), identitytest.NewOwner("plant")
		ask := func(change func(*api.LoginRequest)) transport.Reason {
			body := w.founder(w.admin, "admin", who)
			change(&body)
			return w.code(nil, "POST", "/api/v1/login", body)
		}
		o := w.owner("plant")
		cases := map[string]func(*api.LoginRequest){
			"no key":         func(b *api.LoginRequest) { b.DomainKey = identity.PublicKey{} },
			"no statements":  func(b *api.LoginRequest) { b.Statements = nil },
			"of another key": func(b *api.LoginRequest) { b.DomainKey = thief.Key },
			"of another user": func(b *api.LoginRequest) {
				b.Statements = o.UserChain("eve", identity.RoleAdmin, nil, who.Key.Public())
			},
			"no admin": func(b *api.LoginRequest) {
				b.Statements = o.UserChain("admin", identity.RoleOperator, nil, who.Key.Public())
			},
			"of another PC": func(b *api.LoginRequest) {
				b.Statements = o.UserChain("admin", identity.RoleAdmin, nil, newSomeone().Key.Public())
			},
			"of another owner": func(b *api.LoginRequest) {
				b.Statements = identitytest.NewOwner("mill").UserChain("admin", identity.RoleAdmin, nil, who.Key.Public())
			},
			"with a lookup id": func(b *api.LoginRequest) { b.Lookup = "ABCDEF" },
		}
		for name, change := range cases {
			if got := ask(change); got == "" {
				t.Errorf("%s: taken", name)
			}
		}
		d := store.Domain{Name: "plant"}
		if w.get(&d); !d.Key.IsZero() {
			t.Error("a key was kept of a login that was refused")
		}
		if got := ask(func(*api.LoginRequest) {}); got != "" {
			t.Fatalf("without a fault: %q", got)
		}
		if w.get(&d); d.Key != o.Key {
			t.Error("the key is not kept")
		}
		// Another code, and another key: what a thief of the server's directory would do.
		var code identity.Code
		w.update(func(tx *store.Tx) (err error) {
			code, _, err = newCode(tx, identity.KindUser, "plant", "admin", time.Now())
			return err
		})
		body := w.founder(code, "admin", newSomeone())
		body.DomainKey, body.Statements = thief.Key, thief.UserChain("admin", identity.RoleAdmin, nil, who.Key.Public())
		body.CSR = who.CSR()
		if got := w.code(nil, "POST", "/api/v1/login", body); got != transport.DomainTaken {
			t.Errorf("another key: %q", got)
		}
		if w.get(&d); d.Key != o.Key {
			t.Error("another key was kept")
		}
		again := newSomeone()
		if got := w.code(nil, "POST", "/api/v1/login", w.founder(code, "admin", again)); got != "" {
			t.Errorf("the same key with the other code: %q", got)
		}
	})
}

// A user logs in by a code of which the server has not got the secret, and is nobody until he has stated his key.
func TestUserLogsInByAnOwnersCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		o := s.owner("plant")
		code, body := s.newCode(o.User("bob", identity.RoleOperator, nil))
		var added api.NewSubject
		for range 2 { // the first answer may have been lost
			if status := s.call(s.admin, "POST", "/api/v1/users", api.UserRequest{Code: body}, &added); status != 201 || added.Name != "bob" {
				t.Fatalf("%d %+v", status, added)
			}
		}
		_, other := s.newCode(o.User("bob", identity.RoleOperator, nil))
		if got := s.code(s.admin, "POST", "/api/v1/users", api.UserRequest{Code: other}); got != api.NameTaken {
			t.Errorf("twice: %q", got)
		}
		bob := newSomeone()
		answer, reason := s.loginBy(code, bob)
		if reason != "" || answer.User != "bob" || answer.Domain != "plant" {
			t.Fatalf("%q %+v", reason, answer)
		}
		key, chain, err := answer.Invitation.Open(code, s.pki.Pin(), identity.UserName("plant", "bob"), bob.Key.Public(), "PC")
		if err != nil || key != o.Key {
			t.Fatal(err)
		}
		if got := s.code(bob, "GET", "/api/v1/devices", nil); got != transport.NotStated {
			t.Errorf("before his key is stated: %q", got)
		}
		if status := s.call(bob, "POST", "/api/v1/statements", api.Statements{Statements: chain}, nil); status != 204 {
			t.Errorf("his key: %d", status)
		}
		if got := s.code(bob, "GET", "/api/v1/devices", nil); got != "" {
			t.Errorf("stated: %q", got)
		}
		if _, reason := s.loginBy(code, newSomeone()); reason != transport.BadCode {
			t.Errorf("the code with another key: %q", reason)
		}
		if _, reason := s.loginBy(code, bob); reason != "" {
			t.Errorf("the code again: %q", reason)
		}
		var users api.Users
		s.call(s.admin, "GET", "/api/v1/users", nil, &users)
		if len(users.Users) != 2 || users.Users[1].Name != "bob" || users.Users[1].Role != identity.RoleOperator ||
			len(users.Users[1].Keys) != 1 || users.Users[1].Keys[0].SPKI != bob.spki() || users.Users[1].Ends.IsZero() {
			t.Errorf("%+v", users)
		}
	})
}

// Who is revoked is out at once: his keys, his sessions, and what he asks; and comes back by a new statement only.
func TestUserIsRevokedAtOnce(t *testing.T) {
	t.Attr("id", "A1-refuse")
	t.Attr("cases", "2")
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		bob := s.newUserAs("bob", identity.RoleOperator, nil)
		s.runtime.beQuiet()
		done := s.open(bob, "press 1")
		offer := s.consent("")
		if got := <-done; got.status != 201 {
			t.Fatalf("%+v", got)
		}
		o, start := s.owner("plant"), time.Now()
		entry := identity.Entry{Subject: identity.Subject{User: "bob"}, All: o.Serial(), Until: start.Add(identity.EntryLifetime - time.Hour).Unix()}
		list := o.Lists(entry)
		if status := s.call(s.admin, "POST", "/api/v1/users/bob/revoke", api.Statements{Statements: []string{list.JWS}}, nil); status != 204 {
			t.Fatalf("%d", status)
		}
		var told wire.Statements
		s.runtime.read(wire.TypeStatements, &told)
		var revoked wire.Revoked
		s.runtime.read(wire.TypeRevoked, &revoked)
		var end wire.EndSession
		s.runtime.read(wire.TypeEndSession, &end)
		if !slices.Equal(told.Statements, []string{list.JWS}) || !slices.Equal(revoked.SPKI, []identity.SPKI{bob.spki()}) || end.Session != offer.Session {
			t.Errorf("%v %v %v", told, revoked, end)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("took %v", took)
		}
		if got := s.code(bob, "POST", "/api/v1/renew", api.RenewRequest{CSR: bob.CSR()}); got != transport.Revoked {
			t.Errorf("renew: %q", got)
		}
		code, body := s.newCode(o.User("bob", identity.RoleOperator, nil))
		if status := s.call(s.admin, "POST", "/api/v1/users/bob/code", api.UserRequest{Code: body}, nil); status != 201 {
			t.Errorf("a new code: %d", status)
		}
		if _, reason := s.loginBy(code, bob); reason != "" {
			t.Errorf("login: %q", reason)
		}
		if got := s.code(bob, "GET", "/api/v1/devices", nil); got != transport.Revoked {
			t.Errorf("the old key: %q", got)
		}
	})
}

// A list that is newer than what a device says it has comes after the welcome, and one that comes later at once, through
// whichever node.
func TestListsReachEveryDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		defer p.end()
		o := p.owner("plant")
		first := o.Lists()
		if status := p.second.call(p.admin, "POST", "/api/v1/statements", api.Statements{Statements: []string{first.JWS}}, nil); status != 204 {
			t.Fatalf("%d", status)
		}
		var told wire.Statements
		if p.runtime.read(wire.TypeStatements, &told); !slices.Equal(told.Statements, []string{first.JWS}) {
			t.Errorf("pushed: %v", told)
		}
		for _, knows := range []uint64{0, o.List} {
			h := p.device.hello("01")
			h.List = knows
			c := p.second.control(p.device, h)
			refusal(p.runtime)
			p.runtime.Close()
			p.runtime = c
			if knows == 0 {
				if c.read(wire.TypeStatements, &told); !slices.Equal(told.Statements, []string{first.JWS}) {
					t.Errorf("after welcome: %v", told)
				}
			}
		}
		second := o.Lists()
		p.state("plant", second.JWS) // at the node where the device is not
		if p.runtime.read(wire.TypeStatements, &told); !slices.Equal(told.Statements, []string{second.JWS}) {
			t.Errorf("the second one: %v", told)
		}
		moved := o.Device(p.device.id.UID, "press 9")
		p.second.state("plant", moved.JWS)
		if p.runtime.read(wire.TypeStatements, &told); len(told.Statements) == 0 || told.Statements[0] != moved.JWS {
			t.Errorf("another name: %v", told)
		}
		var all api.Statements
		p.call(p.admin, "GET", "/api/v1/statements", nil, &all)
		if slices.Contains(all.Statements, first.JWS) || !slices.Contains(all.Statements, second.JWS) {
			t.Error("a list of the domain key has not taken the place of the one before")
		}
	})
}

// What is new about a device is told to it, with its name in the registry.
func TestDeviceIsToldWhatIsStatedOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		o, uid := s.owner("plant"), s.device.id.UID
		moved := o.Sign(identity.DeviceStatement{Domain: "plant", UID: uid, Name: "press 7", Folder: "north/hall", Serial: o.Serial()})
		if status := s.call(s.admin, "POST", "/api/v1/statements", api.Statements{Statements: []string{moved.JWS}}, nil); status != 204 {
			t.Fatalf("%d", status)
		}
		var told wire.Statements
		if s.runtime.read(wire.TypeStatements, &told); len(told.Statements) != 3 || told.Statements[0] != moved.JWS {
			t.Errorf("%d statements", len(told.Statements))
		}
		var v api.Device
		if s.call(s.admin, "GET", "/api/v1/devices/press%207", nil, &v); v.UID != uid {
			t.Errorf("%+v", v)
		}
		north := s.newUserAs("nora", identity.RoleOperator, &identity.Scope{Devices: []string{"north"}, Targets: []string{"*"}})
		south := s.newUserAs("sam", identity.RoleOperator, &identity.Scope{Devices: []string{identity.NewUID().String(), "south"}, Targets: []string{"*"}})
		for who, want := range map[*someone]int{north: 1, south: 0} {
			var page api.Devices
			if s.call(who, "GET", "/api/v1/devices?limit=1", nil, &page); len(page.Devices) != want {
				t.Errorf("%+v", page)
			}
			var stated api.Statements
			if s.call(who, "GET", "/api/v1/statements", nil, &stated); slices.Contains(stated.Statements, moved.JWS) != (want == 1) {
				t.Errorf("sees the statement: %v", want == 0)
			}
		}
	})
}

// A gateway of which nobody has a key's statement gets no session: the Manager could not believe it.
func TestSessionNeedsTheChainOfTheDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		second := s.addDevice(s.admin, "press 2")
		key := second.key
		second.key = ""
		c := s.control(second, hello("02"))
		if got := <-s.open(s.admin, "press 2"); got.code != transport.NotStated {
			t.Errorf("%+v", got)
		}
		c.Close()
		for _, forged := range []string{"x", s.device.key, identitytest.NewOwner("plant").DeviceKey(second.id.UID, second.Key.Public()).JWS} {
			second.key = forged
			s.control(second, hello("02")).Close()
			if got := <-s.open(s.admin, "press 2"); got.code == "" {
				t.Error("a key that nobody states is believed")
			}
		}
		second.key = key
		c = s.control(second, hello("02"))
		defer c.Close()
		done := s.open(s.admin, "press 2")
		var offer wire.Offer
		c.read(wire.TypeOffer, &offer)
		c.write(wire.TypeOfferAck, wire.OfferAck{Session: offer.Session})
		got := <-done
		v := identity.Verifier{Pinned: s.owner("plant").Pinned}
		verdict, err := v.Judge(got.offer.Statements, identity.Peer{Name: identity.DeviceName("plant", second.id.UID), SPKI: second.spki()}, time.Now())
		if err != nil || verdict.Device.Name != "press 2" || len(offer.Statements) != 0 {
			t.Errorf("%+v, %v; to the device: %v", verdict, err, offer.Statements)
		}
	})
}

// Codes of one class open nothing of the other.
func TestCodesKeepTheirClass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		admin := w.login()
		var code identity.Code
		w.update(func(tx *store.Tx) (err error) {
			_, code, err = newMember(tx, store.Member{Kind: identity.KindDevice, ID: identity.NewUID().String(), Domain: "plant", Name: "x", Created: time.Now()})
			return err
		})
		wantReason(t, "a device by a server's code", w.enroll(code.String(), newSomeone()), transport.BadCode)
		bob, body := w.newCode(w.owner("plant").User("bob", identity.RoleViewer, nil))
		w.call(admin, "POST", "/api/v1/users", api.UserRequest{Code: body}, nil)
		wantReason(t, "a device by a user's code", w.enroll(bob.String(), newSomeone()), transport.BadCode)
		pending, _ := w.addPending(admin, "press 1")
		device := must(identity.ParseOwnerCode(pending))
		if _, reason := w.loginBy(device, newSomeone()); reason != transport.BadCode {
			t.Errorf("a user by a device's code: %q", reason)
		}
		auth := device.Auth()
		for name, m := range map[string]wire.Enroll{
			"with both":        {Code: w.relay.String(), Lookup: device.LookupID(), Auth: auth[:]},
			"the lookup alone": {Lookup: device.LookupID()},
			"auth too short":   {Lookup: device.LookupID(), Auth: auth[:31]},
			"another auth":     {Lookup: device.LookupID(), Auth: make([]byte, 32)},
			"a whole code":     {Code: device.String()},
		} {
			m.CSR = newSomeone().CSR()
			_, err := w.ask(w.connect(nil), wire.TypeEnroll, m)
			wantReason(t, name, err, transport.BadCode)
		}
		wantReason(t, "without a fault", w.enroll(pending, newSomeone()), "")
	})
}

// The server keeps what somebody will believe, and nothing else.
func TestMailboxTakesNoRubbish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		o, thief := s.owner("plant"), identitytest.NewOwner("plant")
		opera := s.newUserAs("opera", identity.RoleOperator, nil)
		uid := identity.NewUID()
		old := o.Lists()
		s.state("plant", o.Lists().JWS)
		sign := func(st identity.Statement, by *someone) string { return must(identity.Sign(st, by.Key)).JWS }
		cases := []struct {
			name, jws string
			by        *someone
			want      transport.Reason
		}{
			{"no statement", "x.y.z", s.admin, api.BadRequest},
			{"another key", thief.Device(uid, "x").JWS, s.admin, transport.NotStated},
			{"another domain", identitytest.NewOwner("mill").Device(uid, "x").JWS, s.admin, transport.NotStated},
			{"an older list", old.JWS, s.admin, transport.Stale},
			{"by an operator", sign(identity.DeviceStatement{Domain: "plant", UID: uid, Name: "x", Serial: 1}, opera), s.admin, transport.NotStated},
			{"an admin by an admin", sign(identity.UserStatement{Domain: "plant", User: "eve", Role: identity.RoleAdmin, Exp: time.Now().Unix() + 9, Serial: o.Serial()}, s.admin),
				s.admin, transport.NotStated},
			{"a change of the domain key that it has not signed", thief.Sign(identity.DomainStatement{Domain: "plant", Old: o.Key, New: thief.Key, Serial: 1}).JWS, s.admin, transport.NotStated},
			{"a device that nobody has added yet", o.Sign(identity.DeviceStatement{Domain: "plant", UID: uid, Name: "press 1", Serial: o.Serial()}).JWS, s.admin, ""},
			{"others, by an operator", o.User("eve", identity.RoleViewer, nil).JWS, opera, transport.Policy},
			{"himself, by an operator", o.User("opera", identity.RoleViewer, nil).JWS, opera, ""},
		}
		t.Attr("id", "A1-refuse")
		t.Attr("cases", fmt.Sprint(len(cases)-2))
		for _, c := range cases {
			if got := s.code(c.by, "POST", "/api/v1/statements", api.Statements{Statements: []string{c.jws}}); got != c.want {
				t.Errorf("%s: %q, want %q", c.name, got, c.want)
			}
		}
		// All of it, or nothing.
		good := o.Device(uid, "y").JWS
		s.code(s.admin, "POST", "/api/v1/statements", api.Statements{Statements: []string{good, "x"}})
		var all api.Statements
		if s.call(s.admin, "GET", "/api/v1/statements?limit=1000", nil, &all); slices.Contains(all.Statements, good) {
			t.Error("half of a request is kept")
		}
		// An admin states by his own key what the domain key has let him, and a list of his adds to what there is.
		byAdmin := sign(identity.DeviceStatement{Domain: "plant", UID: uid, Name: "z", Serial: o.Serial()}, s.admin)
		list := sign(identity.ListStatement{Domain: "plant", Serial: o.Serial(), Iat: time.Now().Unix(), Entries: []identity.Entry{}}, s.admin)
		if status := s.call(s.admin, "POST", "/api/v1/statements", api.Statements{Statements: []string{byAdmin, list}}, nil); status != http.StatusNoContent {
			t.Errorf("by an admin: %d", status)
		}
		var told wire.Statements
		for len(told.Statements) < 3 { // with the two statements about his key
			s.runtime.read(wire.TypeStatements, &told)
		}
		if told.Statements[0] != list {
			t.Errorf("%v", told)
		}
	})
}

// Pages are whole, and in order.
func TestStatementsInPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		admin := w.login()
		for i := range 7 {
			w.addPending(admin, fmt.Sprint("press ", i))
		}
		var whole, page api.Statements
		w.call(admin, "GET", "/api/v1/statements", nil, &whole)
		var parts []string
		path := "/api/v1/statements?limit=4"
		for {
			page = api.Statements{}
			if status := w.call(admin, "GET", path, nil, &page); status != 200 || len(page.Statements) > 4 {
				t.Fatalf("%d, %d", status, len(page.Statements))
			}
			parts = append(parts, page.Statements...)
			if path = "/api/v1/statements?limit=4&after=" + page.Next; page.Next == "" {
				break
			}
		}
		if len(whole.Statements) != 2+7*2 || !slices.Equal(parts, whole.Statements) {
			t.Errorf("%d and %d", len(whole.Statements), len(parts))
		}
	})
}

// A second domain has a founder of its own, and its devices are nobody else's.
func TestDomainsAreFoundedApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		code, expires, err := AddDomain(t.Context(), w.cfg.Store, "mill", "ann", time.Now())
		if err != nil || time.Until(expires) != codeLife {
			t.Fatal(expires, err)
		}
		if _, _, err := AddDomain(t.Context(), w.cfg.Store, "mill", "ann", time.Now()); err == nil {
			t.Error("a domain twice")
		}
		who, o := newSomeone(), w.owner("mill")
		body := api.LoginRequest{Code: code.String(), User: "ann", CSR: who.CSR(), DomainKey: o.Key,
			Statements: o.UserChain("ann", identity.RoleAdmin, nil, who.Key.Public())}
		var answer api.LoginAnswer
		if status := w.call(nil, "POST", "/api/v1/login", body, &answer); status != 200 || answer.Domain != "mill" {
			t.Fatalf("%d %+v", status, answer)
		}
		who.take(wire.Identity{Chain: answer.Chain})
		w.addDevice(who, "press 1")
		w.addDevice(w.login(), "press 1") // in another domain a name is another name
		if got := w.code(who, "POST", "/api/v1/relays", relayRequest("r9")); got != transport.Policy {
			t.Errorf("a relay: %q", got)
		}
		if got := w.actions(20); !slices.Contains(got, "domain-add ok") {
			t.Errorf("%v", got)
		}
	})
}

// The longest list that there can be comes to the server and to every gateway, with what proves its signer.
func TestTheLongestListReachesEveryDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		o, ada := s.owner("plant"), identitytest.NewKey()
		signers := o.UserChain("ada", identity.RoleAdmin, nil, ada.Public())
		list := identity.ListStatement{Domain: "plant", Serial: o.Serial() + 1, Iat: time.Now().Unix()}
		var longest identity.Signed
		for { // as many as fit
			list.Entries = identity.SortEntries(append(list.Entries, identity.Entry{Subject: identity.Subject{User: fmt.Sprintf("user-%d", len(list.Entries))},
				All: list.Serial, Until: list.Iat + 1000}))
			signed, err := identity.Sign(list, ada)
			if err != nil {
				break
			}
			longest = signed
		}
		if len(longest.JWS) < 64<<10-200 {
			t.Fatalf("it has %d bytes", len(longest.JWS))
		}
		told := append([]string{longest.JWS}, signers[1], signers[0])
		if status := s.call(s.admin, "POST", "/api/v1/statements", api.Statements{Statements: told}, nil); status != 204 {
			t.Fatalf("%d", status)
		}
		var got wire.Statements
		if s.runtime.read(wire.TypeStatements, &got); !slices.Equal(got.Statements, told) {
			t.Errorf("to whom is attached: %d statements", len(got.Statements))
		}
		// To one that knows nothing, not even itself: in a frame behind that.
		again := s.control(s.device, s.device.hello("02"))
		if again.read(wire.TypeStatements, &got); len(got.Statements) == 0 {
			t.Error("nothing about itself")
		}
		for !slices.Contains(got.Statements, longest.JWS) {
			again.read(wire.TypeStatements, &got)
		}
		if i := slices.Index(got.Statements, longest.JWS); !slices.Equal(got.Statements[i:], told) {
			t.Errorf("after welcome: %d statements", len(got.Statements))
		}
		again.Close()
		var all api.Statements
		if s.call(s.admin, "GET", "/api/v1/statements", nil, &all); !slices.Contains(all.Statements, longest.JWS) {
			t.Error("an admin does not get it")
		}
	})
}
