package manager

import (
	"net/http"
	"slices"
	"testing"
	"testing/synctest"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/answer"
	"hawser/transport"
	"hawser/transport/api"
)

// entries are those of the newest list among statements.
func entries(t *testing.T, statements []string) (found []identity.Entry) {
	t.Helper()
	for _, jws := range statements {
		if list, ok := must(identity.ParseStatement(jws)).Statement.(identity.ListStatement); ok {
			found = list.Entries
		}
	}
	return found
}

// A device is revoked by its UID, which the owner has stated: the server does not say who is meant, nor with which keys.
func TestARevokedDeviceIsListedWithItsKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		thief, other := identitytest.NewOwner("default"), identity.NewUID()
		own := must(identity.NewPublicKey(a.state.Key.Public()))
		// Of this device too, says the gateway: whoever shuts it out would shut out himself.
		taken := f.owner.Sign(identity.KeyStatement{Domain: "default", Subject: identity.Subject{UID: f.uid}, Key: own, Serial: f.owner.Serial()})
		pool := slices.Concat(f.chain, thief.DeviceChain(other, "press", f.gatewayTLS.Leaf.PublicKey),
			[]string{taken.JWS}, a.state.owner.Chain())
		f.answer("GET /statements", jsonAnswer(api.Statements{Statements: pool}))
		var sent api.Statements
		stale := 1
		f.answer("POST /devices/"+f.uid.String()+"/revoke", func(w http.ResponseWriter, r *http.Request) {
			decode(r, &sent)
			if stale--; stale >= 0 {
				problemAnswer(409, "stale", "there is a newer list")(w, r)
				return
			}
			jsonAnswer(api.Device{UID: f.uid, State: api.StateRevoked})(w, r)
		})
		if d, err := a.RevokeDevice(t.Context(), "press"); err != nil || d.State != api.StateRevoked {
			t.Fatalf("%+v, %v", d, err)
		}
		spki := must(identity.SPKIOf(f.gatewayTLS.Leaf.PublicKey))
		got := entries(t, sent.Statements)
		if len(got) != 2 || !slices.ContainsFunc(got, func(e identity.Entry) bool { return e.UID == f.uid && e.All > 0 && e.Until == 0 }) ||
			!slices.Contains(got, identity.Entry{SPKI: spki}) {
			t.Errorf("listed: %+v", got)
		}
		// It is remembered here, whatever the server gives.
		peer := identity.Peer{Name: identity.DeviceName("default", f.uid), SPKI: spki}
		if _, err := a.state.owner.Judge(f.chain, peer, 0, a.m.now()); identity.FaultOf(err) != identity.FaultRevoked {
			t.Errorf("its chain: %v", err)
		}
		if _, err := a.RevokeDevice(t.Context(), "press"); transport.ReasonOf(err) != api.NotFound {
			t.Errorf("again: %v", err)
		}
	})
}

// A server that withholds the newest statement, or has made one up, decides nothing.
func TestADeviceIsFoundInTheOwnersWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		f.answer("GET /statements", jsonAnswer(api.Statements{Statements: f.chain}))
		if _, err := a.Ping(t.Context(), "press", 1, nil); err != nil {
			t.Fatal(err)
		}
		thief := identitytest.NewOwner("default")
		other := f.owner.DeviceChain(identity.NewUID(), "press", identitytest.NewKey().Public())
		renamed := f.owner.Device(f.uid, "press 5")
		old := f.owner.Sign(identity.DeviceStatement{Domain: "default", UID: f.uid, Name: "press", Serial: 1})
		for name, tt := range map[string]struct {
			pool []string
			want transport.Reason
		}{
			"no statement":            {nil, api.NotFound},
			"a thief's":               {thief.DeviceChain(f.uid, "press", f.gatewayTLS.Leaf.PublicKey), api.NotFound},
			"an older one":            {[]string{old.JWS}, transport.Stale},
			"two of one name":         {slices.Concat(f.chain, other), transport.Policy},
			"another name since then": {append(f.chain, renamed.JWS), api.NotFound},
		} {
			f.answer("GET /statements", jsonAnswer(api.Statements{Statements: tt.pool}))
			if _, err := a.RevokeDevice(t.Context(), "press"); transport.ReasonOf(err) != tt.want {
				t.Errorf("%s: %v, want %s", name, err, tt.want)
			}
		}
		if n := f.called("POST /devices/" + f.uid.String() + "/revoke"); n != 0 {
			t.Errorf("%d requests were sent", n)
		}
	})
}

// Who renews a user signs what the owner has said of him, and not what a server has put there.
func TestARenewalTakesNoStrangersRights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		thief, key := identitytest.NewOwner("default"), identitytest.NewKey().Public()
		ann := f.owner.UserChain("ann", identity.RoleViewer, nil, key)
		var forged []string
		for range 3 {
			forged = thief.UserChain("ann", identity.RoleAdmin, nil, identitytest.NewKey().Public())
		}
		far := thief.Sign(identity.UserStatement{Domain: "default", User: "ann", Role: identity.RoleAdmin, Exp: 1, Serial: identity.MaxSerial})
		f.answer("GET /statements", jsonAnswer(api.Statements{Statements: append(slices.Concat(ann, forged), far.JWS)}))
		var sent api.Statements
		f.answer("POST /statements", func(w http.ResponseWriter, r *http.Request) {
			decode(r, &sent)
			w.WriteHeader(http.StatusNoContent)
		})
		u, err := renewed(a.RenewUsers(t.Context(), "ann"))
		if err != nil || u.Role != identity.RoleViewer {
			t.Fatalf("%+v, %v", u, err)
		}
		if len(sent.Statements) != 2 {
			t.Errorf("%d statements were signed, want the user's and that of the one key", len(sent.Statements))
		}
		if limit := a.m.now().Add(userLife).Unix() + 1; u.Exp > limit {
			t.Errorf("until %d, which a forged serial has moved", u.Exp)
		}
	})
}

// posted answers POST /statements, and returns what was sent last.
func (f *fake) posted() *api.Statements {
	sent := new(api.Statements)
	f.answer("POST /statements", func(w http.ResponseWriter, r *http.Request) {
		*sent = api.Statements{}
		decode(r, sent)
		w.WriteHeader(http.StatusNoContent)
	})
	return sent
}

// A rename and a move say all that was said before, with a higher serial; this home follows its own word.
func TestRenameAndMoveAreNewerStatements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		pool := slices.Clone(f.chain)
		sent := f.posted()
		f.answer("GET /devices/"+f.uid.String(), jsonAnswer(api.Device{UID: f.uid}))
		stated := must(identity.ParseStatement(pool[0])).Statement.(identity.DeviceStatement)
		for _, step := range []struct {
			typed, name, folder string
			do                  func(typed string) (api.Device, error)
		}{
			{"press", "press 5", "", func(typed string) (api.Device, error) { return a.RenameDevice(t.Context(), typed, "press 5") }},
			{"press 5", "press 5", "north/hall", func(typed string) (api.Device, error) { return a.MoveDevice(t.Context(), typed, "north/hall") }},
			{"north/hall/press 5", "press 6", "north/hall", func(typed string) (api.Device, error) { return a.RenameDevice(t.Context(), typed, "press 6") }},
			{f.uid.String(), "press 6", "", func(typed string) (api.Device, error) { return a.MoveDevice(t.Context(), typed, "") }},
		} {
			f.answer("GET /statements", jsonAnswer(api.Statements{Statements: pool}))
			if _, err := step.do(step.typed); err != nil {
				t.Fatalf("%s: %v", step.typed, err)
			}
			next := must(identity.ParseStatement(sent.Statements[0])).Statement.(identity.DeviceStatement)
			if next.UID != f.uid || next.Name != step.name || next.Folder != step.folder || next.Serial <= stated.Serial || next.Released {
				t.Errorf("%s: %+v", step.typed, next)
			}
			stated, pool = next, append(pool, sent.Statements...)
		}
		if known := must(a.home.readDevices())[f.uid.String()]; known.Name != "press 6" || known.Serial != stated.Serial {
			t.Errorf("known: %+v", known)
		}
		calls := len(f.calls)
		for _, bad := range []string{"", "a//b", "-a", f.uid.String()} {
			_, renamed := a.RenameDevice(t.Context(), "press 6", bad)
			if ExitCode(renamed) != answer.ExitUsage {
				t.Errorf("name %q: %v", bad, renamed)
			}
		}
		if _, err := a.MoveDevice(t.Context(), "press 6", "a//b"); ExitCode(err) != answer.ExitUsage || len(f.calls) != calls {
			t.Errorf("a folder that is none: %v", err)
		}
	})
}

// A session is asked for by folder and name as well, and only the device of that place gets it.
func TestADeviceIsReachedByFolderAndName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		pub := f.gatewayTLS.Leaf.PublicKey
		moved := f.owner.Sign(identity.DeviceStatement{Domain: "default", UID: f.uid, Name: "press", Folder: "north/hall", Serial: f.owner.Serial()})
		f.chain = []string{moved.JWS, f.owner.DeviceKey(f.uid, pub).JWS}
		for typed, want := range map[string]transport.Reason{
			"north/hall/press": "", "press": "", "south/press": transport.WrongDevice, "hall/press": transport.WrongDevice,
		} {
			if _, err := a.Ping(t.Context(), typed, 1, nil); transport.ReasonOf(err) != want {
				t.Errorf("%s: %v, want %q", typed, err, want)
			}
		}
	})
}

// A release is one request: the statement, and the list that strikes all before it but not the statement itself.
func TestAReleaseStrikesAllBeforeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		f.answer("GET /statements", jsonAnswer(api.Statements{Statements: f.chain}))
		f.answer("GET /devices/"+f.uid.String(), jsonAnswer(api.Device{UID: f.uid, State: api.StateReleased}))
		sent := f.posted()
		if d, err := a.ReleaseDevice(t.Context(), "press"); err != nil || d.State != api.StateReleased {
			t.Fatalf("%+v, %v", d, err)
		}
		released := must(identity.ParseStatement(sent.Statements[0])).Statement.(identity.DeviceStatement)
		if got := entries(t, sent.Statements); !released.Released || released.UID != f.uid || len(got) != 1 ||
			got[0] != (identity.Entry{Subject: identity.Subject{UID: f.uid}, All: released.Serial}) {
			t.Errorf("%+v, listed %+v", released, got)
		}
		f.answer("GET /statements", jsonAnswer(api.Statements{Statements: slices.Concat(f.chain, sent.Statements)}))
		for what, do := range map[string]func() error{
			"renamed":      func() error { _, err := a.RenameDevice(t.Context(), f.uid.String(), "x"); return err },
			"given a code": func() error { _, err := a.DeviceCode(t.Context(), f.uid.String()); return err },
		} {
			if err := do(); transport.ReasonOf(err) != transport.Policy {
				t.Errorf("%s after that: %v", what, err)
			}
		}
	})
}
