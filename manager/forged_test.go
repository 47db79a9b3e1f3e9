package manager

import (
	"crypto"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/transport"
	"hawser/transport/api"
)

// said are the statements of some type among texts.
func said[S identity.Statement](texts []string) (found []S) {
	for _, s := range parsed(texts) {
		if is, ok := s.Statement.(S); ok {
			found = append(found, is)
		}
	}
	return found
}

// A server shows an admin what it likes. What he signs again is what the owner has said, and not the server.
func TestARenewalTakesNothingThatTheServerSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		kept, _ := f.mailbox()
		ann, stranger, thief := identitytest.NewKey(), identitytest.NewKey(), identitytest.NewOwner("default")
		scope := &identity.Scope{Devices: []string{"north"}, Targets: []string{}}
		*kept = append(*kept, f.owner.UserChain("ann", identity.RoleViewer, scope, ann.Public())...)
		time.Sleep(time.Second) // so that what is forged is newer
		*kept = append(*kept, thief.UserChain("ann", identity.RoleAdmin, nil, stranger.Public())...)
		*kept = append(*kept, thief.Sign(identity.KeyStatement{Domain: "default", Subject: identity.Subject{User: "ann"},
			Key: f.owner.Key, Serial: identity.MaxSerial}).JWS)
		before := len(*kept)
		u, err := renewed(a.RenewUsers(t.Context(), "ann"))
		if err != nil || u.Role != identity.RoleViewer || u.Scope == nil || strings.Join(u.Scope.Devices, " ") != "north" {
			t.Errorf("ann is %+v, %v", u, err)
		}
		for _, key := range said[identity.KeyStatement]((*kept)[before:]) {
			if key.Key.SPKI() != must(identity.SPKIOf(ann.Public())) {
				t.Errorf("a key that the owner has not stated is stated: %s", key.Key)
			}
		}
		// Nor does it keep him from revoking her.
		f.answer("POST /users/ann/revoke", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
		if err := a.RevokeUser(t.Context(), "ann", false); err != nil {
			t.Errorf("revoke: %v", err)
		}
		// A key that was revoked does not come back.
		if _, err := renewed(a.RenewUsers(t.Context(), "ann")); transport.ReasonOf(err) != transport.Revoked {
			t.Errorf("renewed after she was revoked: %v", err)
		}
		if _, err := a.UserCode(t.Context(), "ann"); transport.ReasonOf(err) != transport.Revoked {
			t.Errorf("a code after she was revoked: %v", err)
		}
		time.Sleep(time.Second)
		*kept = append(*kept, f.owner.User("ann", identity.RoleViewer, scope).JWS)
		before = len(*kept)
		if _, err := renewed(a.RenewUsers(t.Context(), "ann")); err != nil {
			t.Errorf("stated again: %v", err)
		}
		if keys := said[identity.KeyStatement]((*kept)[before:]); len(keys) != 0 {
			t.Errorf("the key that was revoked is stated again")
		}
	})
}

// Whoever has a copy of a code can state a second key with it. An admin's Manager confirms one key of an invite.
func TestTheSecondKeyOfAnInviteIsNotConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		kept, _ := f.mailbox()
		f.answer("GET /users", jsonAnswer(api.Users{}))
		state := func(code identity.OwnerCode, user string, key crypto.Signer) string {
			return must(identity.Sign(identity.KeyStatement{Domain: "default", Subject: identity.Subject{User: user},
				Key: must(identity.NewPublicKey(key.Public()))}, code.InviteKey(0))).JWS
		}
		confirmed := func(key crypto.Signer) bool {
			if _, err := a.Users(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, s := range said[identity.KeyStatement](*kept) {
				if s.Serial != 0 && s.Key.SPKI() == must(identity.SPKIOf(key.Public())) {
					return true
				}
			}
			return false
		}
		own, thief := identitytest.NewKey(), identitytest.NewKey()
		code, invitation := f.owner.Invite(f.owner.User("ann", identity.RoleOperator, nil))
		*kept = append(*kept, invitation.Subject.JWS, invitation.Invite.JWS, state(code, "ann", own))
		if !confirmed(own) {
			t.Error("the first key is not confirmed")
		}
		*kept = append(*kept, state(code, "ann", thief))
		if confirmed(thief) {
			t.Error("the second key of an invite is confirmed")
		}
		// A server that hides the first.
		*kept = []string{invitation.Subject.JWS, invitation.Invite.JWS, state(code, "ann", thief)}
		if confirmed(thief) {
			t.Error("the second key is confirmed while the first is hidden")
		}
		// Both at once: nobody can tell which is hers.
		code, invitation = f.owner.Invite(f.owner.User("bob", identity.RoleOperator, nil))
		*kept = []string{invitation.Subject.JWS, invitation.Invite.JWS, state(code, "bob", own), state(code, "bob", thief)}
		if confirmed(thief) || confirmed(own) {
			t.Error("one of two keys of an invite is confirmed")
		}
		// Another code settles it: the keys and the code are listed, once.
		f.answer("POST /users/bob/code", jsonAnswer(api.NewSubject{}))
		for range 2 {
			if _, err := a.UserCode(t.Context(), "bob"); err != nil {
				t.Fatal(err)
			}
		}
		lists := said[identity.ListStatement](*kept)
		var listed []identity.SPKI
		for _, e := range lists[len(lists)-1].Entries {
			listed = append(listed, e.SPKI)
		}
		for what, spki := range map[string]identity.SPKI{"her key": must(identity.SPKIOf(own.Public())), "the thief's": must(identity.SPKIOf(thief.Public())),
			"the code": must(identity.SPKIOf(code.InviteKey(0).Public()))} {
			if !slices.Contains(listed, spki) {
				t.Errorf("%s is not listed", what)
			}
		}
		if len(lists) != 1 || len(listed) != 3 {
			t.Errorf("%d lists, of %d entries", len(lists), len(listed))
		}
	})
}

// Somebody had the laptop of an admin, and has stated a user of his own. He goes with her, unless whoever revokes her knows
// that nobody had her key.
func TestWhomAThiefHasStatedFallsWithTheAdmin(t *testing.T) {
	for keep, want := range map[bool]int{false: 0, true: 1} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t)
			a := f.loggedIn(f.manager())
			kept, _ := f.mailbox()
			ada, own := identitytest.NewKey(), identitytest.NewKey()
			*kept = append(*kept, f.owner.UserChain("ada", identity.RoleAdmin, nil, ada.Public())...)
			// What her key signs.
			hers := *f.owner
			hers.DomainKey = ada
			*kept = append(*kept, hers.UserChain("mallory", identity.RoleOperator, nil, own.Public())...)
			f.answer("POST /users/ada/revoke", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
			before := len(*kept)
			if err := a.RevokeUser(t.Context(), "ada", keep); err != nil {
				t.Fatal(err)
			}
			if again := said[identity.UserStatement]((*kept)[before:]); len(again) != want {
				t.Errorf("keep %v: stated again: %+v", keep, again)
			}
		})
	}
}

// Somebody of whom too much is stated, by himself, must not keep an admin from revoking him.
func TestAKeyThatTheServerDoesNotKeepStopsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		kept, _ := f.mailbox()
		for _, user := range []string{"ann", "bob"} {
			code, invitation := f.owner.Invite(f.owner.User(user, identity.RoleOperator, nil))
			key := must(identity.Sign(identity.KeyStatement{Domain: "default", Subject: identity.Subject{User: user},
				Key: must(identity.NewPublicKey(identitytest.NewKey().Public()))}, code.InviteKey(0)))
			*kept = append(*kept, invitation.Subject.JWS, invitation.Invite.JWS, key.JWS)
		}
		var confirmed []string
		f.answer("POST /statements", func(w http.ResponseWriter, r *http.Request) {
			var in api.Statements
			decode(r, &in)
			for _, key := range said[identity.KeyStatement](in.Statements) {
				if key.User == "ann" {
					problemAnswer(403, "policy", "too much is stated of ann")(w, r)
					return
				}
				confirmed = append(confirmed, key.User)
			}
			w.WriteHeader(http.StatusNoContent)
		})
		f.answer("POST /users/ann/revoke", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
		if err := a.RevokeUser(t.Context(), "ann", false); err != nil {
			t.Errorf("revoke: %v", err)
		}
		if strings.Join(confirmed, " ") != "bob" {
			t.Errorf("confirmed: %v", confirmed)
		}
	})
}

// A stolen admin's list with the greatest serial must not be what everybody has to know for ever.
func TestNobodyHasToKnowTheListOfAnAdminWhoIsShutOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		kept, _ := f.mailbox()
		ada := identitytest.NewKey()
		list := identity.ListStatement{Domain: "default", Serial: identity.MaxSerial, Iat: time.Now().Unix(), Entries: []identity.Entry{}}
		*kept = append(f.owner.UserChain("ada", identity.RoleAdmin, nil, ada.Public()), must(identity.Sign(list, ada)).JWS)
		f.answer("POST /users/ada/revoke", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
		if err := a.RevokeUser(t.Context(), "ada", false); err != nil {
			t.Fatal(err)
		}
		var sent api.UserRequest
		f.answer("POST /users", func(w http.ResponseWriter, r *http.Request) {
			decode(r, &sent)
			jsonAnswer(api.NewSubject{})(w, r)
		})
		if _, err := a.AddUser(t.Context(), "ann", UserRights{Role: identity.RoleViewer}); err != nil {
			t.Fatal(err)
		}
		if u := said[identity.UserStatement](sent.Code.Statements); u[0].Seen == 0 || u[0].Seen > u[0].Serial {
			t.Errorf("she needs the list %d, and is stated at %d", u[0].Seen, u[0].Serial)
		}
	})
}

// Of two commands at once the one that knows less may be the last.
func TestAnOlderStatementOfADeviceIsNotLearnt(t *testing.T) {
	h := home(filepath.Join(t.TempDir(), "home"))
	if err := h.create(); err != nil {
		t.Fatal(err)
	}
	for _, serial := range []uint64{7, 5} {
		if err := h.learnDevice("00", knownDevice{Name: "press", Serial: serial}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if known := must(h.readDevices()); known.serial("00", nil) != 7 {
		t.Errorf("the newest known is %d", known.serial("00", nil))
	}
}

// A thief's list from the future ends what everybody was stated for, wherever it comes. A new domain key is the way back.
func TestANewDomainKeyUndoesAListFromTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		kept, _ := f.mailbox()
		*kept = append(*kept, a.state.owner.Chain()...)
		ada, later := identitytest.NewKey(), time.Now().Add(20*365*24*time.Hour)
		list := identity.ListStatement{Domain: "default", Serial: uint64(later.UnixMilli()), Iat: later.Unix(), Entries: []identity.Entry{}}
		brought := append(f.owner.UserChain("ada", identity.RoleAdmin, nil, ada.Public()), must(identity.Sign(list, ada)).JWS)
		if listed, err := a.state.owner.Take(brought, time.Now()); err != nil || !listed {
			t.Fatal(err)
		}
		r, err := a.RotateDomain(t.Context())
		if err != nil || strings.Join(r.Users, " ") != "admin" {
			t.Fatalf("stated again: %+v, %v", r, err)
		}
		if e := a.state.owner.Lists().Time(); e.After(time.Now()) {
			t.Errorf("it is %v by the lists", e)
		}
	})
}

// Two commands that change the domain key at once make one key: the other one would be lost, and gateways follow it.
func TestTwoChangesOfTheDomainKeyMakeOneKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		m := f.manager()
		a := f.loggedIn(m)
		var keys [8]crypto.Signer
		var commands sync.WaitGroup
		for i := range keys {
			commands.Go(func() { keys[i] = must(a.nextKey()) })
		}
		commands.Wait()
		for _, key := range keys[1:] {
			if must(identity.SPKIOf(key.Public())) != must(identity.SPKIOf(keys[0].Public())) {
				t.Fatal("another key")
			}
		}
	})
}

// A thief with the key of an admin uses up the serials of everybody. When that key is struck, what he has said is worth nothing:
// it blocks nobody, takes no revocation back, and is not stated again.
func TestTheGreatestSerialOfWhoIsStruckBlocksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		kept, _ := f.mailbox()
		ada, bob, cat, stranger := identitytest.NewKey(), identitytest.NewKey(), identitytest.NewKey(), identitytest.NewKey()
		pub := func(key crypto.Signer) identity.PublicKey { return must(identity.NewPublicKey(key.Public())) }
		*kept = append(f.owner.UserChain("ada", identity.RoleAdmin, nil, ada.Public()), f.chain...)
		*kept = append(*kept, f.owner.UserChain("bob", identity.RoleViewer, nil, bob.Public())...)
		all := &identity.Scope{Devices: []string{"*"}, Targets: []string{"*"}}
		of := func(s identity.Statement) string { return must(identity.Sign(s, ada)).JWS }
		user, device := identity.Subject{User: "bob"}, identity.Subject{UID: f.uid}
		stolen := []string{
			of(identity.DeviceStatement{Domain: "default", UID: f.uid, Name: "press", Serial: identity.MaxSerial}), f.chain[1]}
		*kept = append(*kept, stolen[0],
			of(identity.UserStatement{Domain: "default", User: "bob", Role: identity.RoleOperator, Scope: all, Exp: time.Now().Unix() + 3600, Serial: identity.MaxSerial}),
			of(identity.KeyStatement{Domain: "default", Subject: user, Key: pub(stranger), Serial: identity.MaxSerial}),
			of(identity.KeyStatement{Domain: "default", Subject: device, Key: pub(stranger), Serial: identity.MaxSerial}))
		// Whom she alone has stated a person states again, who knows him.
		*kept = append(*kept,
			of(identity.UserStatement{Domain: "default", User: "cat", Role: identity.RoleViewer, Scope: all, Exp: time.Now().Unix() + 3600, Serial: f.owner.Serial()}),
			of(identity.KeyStatement{Domain: "default", Subject: identity.Subject{User: "cat"}, Key: pub(cat), Serial: f.owner.Serial()}))
		f.answer("POST /sessions", func(w http.ResponseWriter, r *http.Request) {
			f.openSessionWith(f.gatewayTLS, append(stolen, (*kept)[:2]...), w, r)
		})
		if _, err := a.Ping(t.Context(), "press", 1, nil); err != nil {
			t.Fatalf("while she counts: %v", err)
		}
		for _, user := range []string{"ada", "bob"} {
			f.answer("POST /users/"+user+"/revoke", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
		}
		f.answer("POST /devices/"+f.uid.String()+"/revoke", jsonAnswer(api.Device{}))
		f.answer("GET /devices/"+f.uid.String(), jsonAnswer(api.Device{}))
		if err := a.RevokeUser(t.Context(), "ada", false); err != nil {
			t.Fatal(err)
		}

		before := len(*kept)
		for name, key := range map[string]crypto.Signer{"bob": bob, "cat": cat} {
			if u, err := renewed(a.RenewUsers(t.Context(), name)); err != nil || u.Role != identity.RoleViewer || u.Serial > uint64(time.Now().UnixMilli())+9 {
				t.Errorf("%s is %+v, %v", name, u, err)
			}
			again := slices.ContainsFunc(said[identity.KeyStatement]((*kept)[before:]), func(k identity.KeyStatement) bool { return k.User == name && k.Key == pub(key) })
			if again != (name == "bob") { // cat's was stated by her who is struck
				t.Errorf("the key of %s is stated again: %v", name, again)
			}
		}
		if _, err := a.RenameDevice(t.Context(), "press", "press 5"); err != nil {
			t.Errorf("rename: %v", err)
		}
		for _, key := range said[identity.KeyStatement]((*kept)[before:]) {
			if key.Key == pub(stranger) {
				t.Errorf("the thief's key is stated again: %+v", key)
			}
		}
		if err := a.RevokeUser(t.Context(), "bob", false); err != nil {
			t.Errorf("revoke bob: %v", err)
		}
		if _, err := a.RevokeDevice(t.Context(), "press 5"); err != nil {
			t.Errorf("revoke the device: %v", err)
		}
		pool := must(a.read(t.Context()))
		for name, key := range map[identity.Name]any{identity.UserName("default", "bob"): bob.Public(),
			identity.DeviceName("default", f.uid): f.gatewayTLS.Leaf.PublicKey} {
			_, err := a.verifier().Assemble(pool, identity.Peer{Name: name, SPKI: must(identity.SPKIOf(key))}, time.Now())
			if identity.FaultOf(err) != identity.FaultRevoked {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// A user signs invites of himself. With the greatest serial they would keep him in.
func TestNobodyKeepsHimselfFromBeingRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		kept, _ := f.mailbox()
		bob, next := identitytest.NewKey(), identity.NewOwnerCode().InviteKey(0)
		for user, role := range map[string]identity.Role{"bob": identity.RoleOperator, "eve": identity.RoleAdmin} {
			*kept = append(f.owner.UserChain(user, role, nil, bob.Public()), must(identity.Sign(identity.InviteStatement{Domain: "default",
				Subject: identity.Subject{User: user}, Key: must(identity.NewPublicKey(next.Public())), Exp: time.Now().Unix() + 3600, Serial: identity.MaxSerial}, bob)).JWS)
			f.answer("POST /users/"+user+"/revoke", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
			if err := a.RevokeUser(t.Context(), user, false); err != nil {
				t.Errorf("%s: %v", user, err)
			}
		}
	})
}

// An admin states no admin (identity §15.2), and the domain key does not state for him whom he has stated.
func TestAnAdminIsNotStatedAgainByAnothersWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		kept, _ := f.mailbox()
		ada, eve, stranger := identitytest.NewKey(), identitytest.NewKey(), identitytest.NewKey()
		*kept = append(f.owner.UserChain("ada", identity.RoleAdmin, nil, ada.Public()), f.owner.UserChain("eve", identity.RoleAdmin, nil, eve.Public())...)
		*kept = append(*kept, must(identity.Sign(identity.KeyStatement{Domain: "default", Subject: identity.Subject{User: "ada"},
			Key: must(identity.NewPublicKey(stranger.Public())), Serial: f.owner.Serial()}, eve)).JWS)
		before := len(*kept)
		if _, err := renewed(a.RenewUsers(t.Context(), "ada")); err != nil {
			t.Fatal(err)
		}
		if keys := said[identity.KeyStatement]((*kept)[before:]); len(keys) != 1 || keys[0].Key.SPKI() != must(identity.SPKIOf(ada.Public())) {
			t.Errorf("stated again: %+v", keys)
		}
	})
}

// A server says of thousands that they are admins. Nobody is judged by that: each statement would be, by all of the others.
func TestAServerMakesNobodyAnAdmin(t *testing.T) {
	owner, thief := identitytest.NewOwner("default"), identitytest.NewOwner("default")
	var texts []string
	for i := range 300 {
		texts = append(texts, thief.UserChain(fmt.Sprint("mallory-", i), identity.RoleAdmin, nil, identitytest.NewKey().Public())...)
	}
	texts = append(texts, owner.UserChain("ada", identity.RoleAdmin, nil, identitytest.NewKey().Public())...)
	texts = append(texts, thief.UserChain("ada", identity.RoleAdmin, nil, identitytest.NewKey().Public())...)
	near := parsed(texts).near(owner.Key)
	if of := near[identity.Subject{User: "mallory-7"}]; len(of) != 4 {
		t.Errorf("%d statements decide about one, want 2 about him and 2 about ada", len(of))
	}
	if of := near[identity.Subject{User: "ada"}]; len(of) != 4 {
		t.Errorf("%d statements decide about ada, want the 4 about her", len(of))
	}
}
