package manager

import (
	"crypto/ed25519"
	"encoding/base64"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/answer"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// Whatever a server offers: only the device that the owner has stated gets a byte, and none is dialled before.
func TestADeviceThatTheOwnerDidNotStateGetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		f.answer("GET /statements", jsonAnswer(api.Statements{}))
		pub, thief := f.gatewayTLS.Leaf.PublicKey, identitytest.NewOwner("default")
		old := f.owner.DeviceChain(f.uid, "press", pub)
		fresh := f.owner.DeviceChain(f.uid, "press", pub)
		other := identity.NewUID()
		f.answer("POST /sessions", func(w http.ResponseWriter, r *http.Request) { f.openSessionWith(f.gatewayTLS, fresh, w, r) })
		if _, err := a.Ping(t.Context(), "press", 1, nil); err != nil {
			t.Fatal(err)
		}
		after := f.owner.Lists() // of which this Manager is never told
		late := f.owner.DeviceChain(f.uid, "press", pub)
		renamed := f.owner.Sign(identity.DeviceStatement{Domain: "default", UID: f.uid, Name: "press 5", Serial: f.owner.Serial()})
		for name, tt := range map[string]struct {
			chain []string
			want  transport.Reason
		}{
			"no statements":                 {nil, transport.Protocol},
			"those of another domain key":   {thief.DeviceChain(f.uid, "press", pub), transport.NotStated},
			"those of another domain":       {identitytest.NewOwner("other").DeviceChain(f.uid, "press", pub), transport.NotStated},
			"those of another device":       {f.owner.DeviceChain(other, "press", pub), transport.NotStated},
			"those of another key":          {f.owner.DeviceChain(f.uid, "press", identitytest.NewKey().Public()), transport.NotStated},
			"a user's":                      {f.owner.UserChain("ann", identity.RoleAdmin, nil, pub), transport.NotStated},
			"an older one than was seen":    {old, transport.Stale},
			"another name than was asked":   {[]string{renamed.JWS, fresh[1]}, transport.WrongDevice},
			"a list that it does not have":  {late, transport.Stale},
			"one that was released":         {[]string{f.owner.Sign(identity.DeviceStatement{Domain: "default", UID: f.uid, Name: "press", Serial: f.owner.Serial(), Released: true}).JWS, fresh[1]}, transport.NotStated},
			"nine statements":               {append(fresh, append(old, append(late, fresh...)...)...), transport.Protocol},
			"what does not parse":           {[]string{"a.b.c", "d.e.f"}, transport.Protocol},
			"the statement without the key": {fresh[:1], transport.Protocol},
		} {
			f.answer("POST /sessions", func(w http.ResponseWriter, r *http.Request) { f.openSessionWith(f.gatewayTLS, tt.chain, w, r) })
			_, err := a.Ping(t.Context(), "press", 1, nil)
			if got := transport.ReasonOf(err); got != tt.want || !strings.Contains(err.Error(), "by the owner's statements") {
				t.Errorf("%s: %v, want %s", name, err, tt.want)
			}
		}
		// With the list, what knows of it counts.
		f.answer("GET /statements", jsonAnswer(api.Statements{Statements: []string{after.JWS}}))
		newest := f.owner.DeviceChain(f.uid, "press", pub)
		f.answer("POST /sessions", func(w http.ResponseWriter, r *http.Request) { f.openSessionWith(f.gatewayTLS, newest, w, r) })
		if _, err := a.Ping(t.Context(), "press", 1, nil); err != nil {
			t.Errorf("after the list came: %v", err)
		}
	})
}

// A name is pinned to the device that had it: another one with this name may be an owner's replacement, or a thief's.
func TestANameThatMeansAnotherDeviceIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		if _, err := a.Ping(t.Context(), "press", 1, nil); err != nil {
			t.Fatal(err)
		}
		f.uid = identity.NewUID()
		f.gatewayTLS = f.leaf(identity.DeviceName("default", f.uid))
		f.chain = f.owner.DeviceChain(f.uid, "press", f.gatewayTLS.Leaf.PublicKey)
		if _, err := a.Ping(t.Context(), "press", 1, nil); transport.ReasonOf(err) != transport.WrongDevice || !strings.Contains(err.Error(), f.uid.String()) {
			t.Errorf("the name moved: %v", err)
		}
		for _, device := range []string{f.uid.String(), "press"} {
			if _, err := a.Ping(t.Context(), device, 1, nil); err != nil {
				t.Errorf("%s, after it was said by its UID: %v", device, err)
			}
		}
	})
}

// invited answers a login by a code as a good server does, and returns the login.
func (f *fake) invited(user identity.Signed, spoil func(*api.LoginAnswer)) Login {
	code, invitation := f.owner.Invite(user)
	mac := must(invitation.MAC(code, f.pki.Pin()))
	name := identity.UserName("default", user.Statement.(identity.UserStatement).User)
	f.answer("POST /login", func(w http.ResponseWriter, r *http.Request) {
		in := readLogin(r)
		auth := code.Auth()
		if in.Lookup != code.LookupID() || string(in.Auth) != string(auth[:]) || in.Code != "" || !in.DomainKey.IsZero() {
			problemAnswer(403, "bad-code", "no such code")(w, r)
			return
		}
		chain := f.pki.Chain(must(identity.ParseCSR(in.CSR)), name, 0, 12*time.Hour)
		a := api.LoginAnswer{Chain: string(identity.MarshalChain(chain)), Domain: "default", User: name.ID,
			Hosts: []string{accessAddr.String()}, Ports: []transport.Port{443},
			Invitation: wire.Invitation{DomainKey: f.owner.Key, MAC: mac[:], List: f.owner.List,
				Statements: []string{invitation.Subject.JWS, invitation.Invite.JWS}}}
		spoil(&a)
		jsonAnswer(a)(w, r)
	})
	return Login{Server: accessAddr.String(), Code: code.String(), Pin: f.pin()}
}

func TestAUserLogsInByAnAdminsCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		var told api.Statements
		f.answer("POST /statements", func(w http.ResponseWriter, r *http.Request) {
			decode(r, &told)
			w.WriteHeader(http.StatusNoContent)
		})
		m := &Manager{Home: filepath.Join(t.TempDir(), "home"), DialContext: f.client.DialContext}
		login := f.invited(f.owner.User("ann", identity.RoleOperator, nil), func(*api.LoginAnswer) {})
		info, err := m.Login(t.Context(), login)
		if err != nil || info.User != "ann" || info.Domain != "default" {
			t.Fatalf("%+v, %v", info, err)
		}
		a := must(m.Open())
		defer a.Close()
		d, err := a.Domain()
		if err != nil || d.Key != f.owner.Key || d.Held {
			t.Errorf("domain %+v, %v", d, err)
		}
		if len(told.Statements) != 1 || told.Statements[0] != a.state.owner.Chain()[1] {
			t.Errorf("the server was told %q", told.Statements)
		}
		if _, err := a.AddDevice(t.Context(), "x"); ExitCode(err) != answer.ExitRefused && transport.ReasonOf(err) != api.NotFound {
			t.Errorf("an operator states a device: %v", err)
		}
	})
}

// A server that has the code's auth, and all that it was given, cannot make another invitation of it.
func TestALoginByACodeRefusesWhatItsMakerDidNotSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		thief := identitytest.NewOwner("default")
		ann := f.owner.User("ann", identity.RoleOperator, nil)
		for name, spoil := range map[string]func(*api.LoginAnswer){
			"no invitation":            func(a *api.LoginAnswer) { a.Invitation = wire.Invitation{} },
			"no MAC":                   func(a *api.LoginAnswer) { a.MAC = nil },
			"another domain key":       func(a *api.LoginAnswer) { a.DomainKey = thief.Key },
			"a thief's statements":     func(a *api.LoginAnswer) { a.Statements[0] = thief.User("ann", identity.RoleAdmin, nil).JWS },
			"more rights, same signer": func(a *api.LoginAnswer) { a.Statements[0] = f.owner.User("ann", identity.RoleAdmin, nil).JWS },
			"an older list":            func(a *api.LoginAnswer) { a.List++ },
			"another user": func(a *api.LoginAnswer) {
				a.User = "eve"
			},
		} {
			m := &Manager{Home: filepath.Join(t.TempDir(), "home"), DialContext: f.client.DialContext}
			if _, err := m.Login(t.Context(), f.invited(ann, spoil)); err == nil {
				t.Errorf("%s: logged in", name)
			}
			if _, err := m.Open(); ExitCode(err) != answer.ExitNotEnrolled {
				t.Errorf("%s: something was kept: %v", name, err)
			}
			for _, file := range []string{"owner.0", domainFile} {
				if _, err := os.Stat(filepath.Join(m.Home, file)); err == nil {
					t.Errorf("%s: there is a %s", name, file)
				}
			}
		}
		t.Attr("id", "A1-refuse")
		t.Attr("cases", "7")
	})
}

// A lost laptop: the founder revokes the user, and never signs a list without that again.
func TestARevocationIsSignedAndKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		f.answer("GET /statements", jsonAnswer(api.Statements{}))
		var sent api.Statements
		f.answer("POST /users/ann/revoke", func(w http.ResponseWriter, r *http.Request) {
			decode(r, &sent)
			problemAnswer(503, "busy", "try later")(w, r)
		})
		if err := a.RevokeUser(t.Context(), "ann", false); transport.ReasonOf(err) != transport.Busy {
			t.Errorf("the server refused: %v", err)
		}
		f.answer("POST /users/bob/revoke", func(w http.ResponseWriter, r *http.Request) {
			decode(r, &sent)
			w.WriteHeader(http.StatusNoContent)
		})
		if err := a.RevokeUser(t.Context(), "bob", false); err != nil {
			t.Error(err)
		}
		var users []string
		for _, jws := range sent.Statements {
			if list, ok := must(identity.ParseStatement(jws)).Statement.(identity.ListStatement); ok {
				for _, e := range list.Entries {
					users = append(users, e.User)
				}
			}
		}
		if strings.Join(users, " ") != "ann bob" {
			t.Errorf("the second list strikes %v", users)
		}
	})
}

func TestDomainKeyIsKeptUnderAPassphrase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		m := &Manager{Home: filepath.Join(t.TempDir(), "home"), DialContext: f.client.DialContext, work: 10}
		if _, err := m.Login(t.Context(), f.founder()); ExitCode(err) != answer.ExitUsage || f.called("POST /login") != 0 {
			t.Errorf("without anybody to ask: %v", err)
		}
		phrase := "correct horse battery"
		m.Passphrase = func(bool) (string, error) { return phrase, nil }
		if _, err := m.Login(t.Context(), f.founder()); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(m.Home, domainFile)
		if b := must(os.ReadFile(file)); !strings.HasPrefix(string(b), ageHeader) {
			t.Errorf("the key is kept as %.40q", b)
		}
		a := must(m.Open())
		defer a.Close()
		if d, err := a.Domain(); err != nil || !d.Held || !d.Locked {
			t.Errorf("%+v, %v", d, err)
		}
		out := filepath.Join(t.TempDir(), "copy.age")
		if err := a.ExportDomain(out); err != nil {
			t.Fatal(err)
		}
		if d, err := a.Domain(); err != nil || !d.Copied {
			t.Errorf("after the export: %+v, %v", d, err)
		}
		if err := a.ExportDomain(out); ExitCode(err) != answer.ExitUsage {
			t.Errorf("a copy over a copy: %v", err)
		}
		other := &Manager{Home: filepath.Join(t.TempDir(), "home"), Passphrase: func(bool) (string, error) { return "wrong", nil }}
		if _, err := other.ImportDomain(out); ExitCode(err) != answer.ExitUsage {
			t.Errorf("the wrong passphrase: %v", err)
		}
		other.Passphrase = m.Passphrase
		spki, err := other.ImportDomain(out)
		if d, _ := a.Domain(); err != nil || spki != d.SPKI {
			t.Errorf("imported %v, %v", spki, err)
		}
		if _, err := other.ImportDomain(out); ExitCode(err) != answer.ExitUsage {
			t.Errorf("a key over a key: %v", err)
		}
		phrase = "short"
		if _, err := m.seal(f.owner.DomainKey); ExitCode(err) != answer.ExitUsage {
			t.Errorf("a short passphrase: %v", err)
		}
	})
}

// mailbox keeps statements as a server does, without judging them, and loses its answers when it is told. Who adds to it
// while somebody asks does so by deliver.
func (f *fake) mailbox() (kept *[]string, fail *bool) {
	kept, fail = new([]string), new(bool)
	f.answer("GET /statements", func(w http.ResponseWriter, r *http.Request) {
		f.mail.Lock()
		defer f.mail.Unlock()
		jsonAnswer(api.Statements{Statements: *kept})(w, r)
	})
	f.answer("POST /statements", func(w http.ResponseWriter, r *http.Request) {
		var in api.Statements
		decode(r, &in)
		f.deliver(kept, in.Statements...)
		if *fail {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return kept, fail
}

func (f *fake) deliver(kept *[]string, texts ...string) {
	f.mail.Lock()
	defer f.mail.Unlock()
	*kept = append(*kept, texts...)
}

// A change of the domain key that is cut off anywhere is finished by the next run, and everybody who counted counts then.
func TestADomainKeyIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		m := f.manager()
		a := f.loggedIn(m)
		kept, fail := f.mailbox()
		ann, bob := identitytest.NewKey(), identitytest.NewKey()
		*kept = append(*kept, a.state.owner.Chain()...)
		*kept = append(*kept, f.chain...)
		*kept = append(*kept, f.owner.UserChain("ann", identity.RoleOperator, nil, ann.Public())...)
		*kept = append(*kept, f.owner.UserChain("bob", identity.RoleViewer, nil, bob.Public())...)
		*kept = append(*kept, identitytest.NewOwner("default").UserChain("eve", identity.RoleAdmin, nil, bob.Public())...)
		_, open := f.owner.Invite(f.owner.User("carol", identity.RoleOperator, nil))
		*kept = append(*kept, open.Subject.JWS, open.Invite.JWS)
		if err := a.home.learnDevice("00", knownDevice{}, nil); err != nil { // not looked at here
			t.Fatal(err)
		}
		*fail = true
		if _, err := a.RotateDomain(t.Context()); err == nil {
			t.Fatal("the answer was lost")
		}
		*fail = false
		a = must(m.Open())
		r, err := a.RotateDomain(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if r.Was != f.owner.Key.SPKI() || strings.Join(r.Users, " ") != "admin ann bob carol" || r.Devices != 1 || r.Codes != 1 {
			t.Errorf("stated again: %+v", r)
		}
		d, err := must(m.Open()).Domain()
		if err != nil || d.SPKI != r.Is || !d.Held || d.List == 0 {
			t.Errorf("the domain is %+v, %v", d, err)
		}
		if _, err := os.Stat(filepath.Join(m.Home, nextFile)); err == nil {
			t.Error("the next key is still the next one")
		}
		// Whoever was away follows, and knows everybody.
		pool := must(must(m.Open()).read(t.Context()))
		key := f.owner.Key
		for range pool {
			for _, s := range pool {
				if next, err := identity.Successor(s, "default", key); err == nil {
					key = next
				}
			}
		}
		v := identity.Verifier{Pinned: identity.Pinned{Domain: "default", Key: key}, Lists: must(m.Open()).state.owner.Lists()}
		for name, key := range map[identity.Name]any{identity.UserName("default", "ann"): ann.Public(), identity.UserName("default", "bob"): bob.Public(),
			identity.DeviceName("default", f.uid): f.gatewayTLS.Leaf.PublicKey} {
			if _, err := v.Assemble(pool, identity.Peer{Name: name, SPKI: must(identity.SPKIOf(key))}, time.Now()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := v.Assemble(pool, identity.Peer{Name: identity.UserName("default", "eve"), SPKI: must(identity.SPKIOf(bob.Public()))}, time.Now()); err == nil {
			t.Error("eve, whom the owner has never stated, is stated now")
		}
	})
}

// What a server sees of the codes that Managers make: what finds them, and what opens its own answer. Nothing that it hears
// leads to the MAC or to the invite's key.
func TestNoServerSeesTheSecretOfACode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		kept, _ := f.mailbox()
		f.answer("POST /devices", jsonAnswer(api.NewSubject{}))
		f.batches(kept)
		claimed := identity.NewOwnerCode()
		f.answer("GET /claims/"+claimed.LookupID(), jsonAnswer(api.Claim{}))
		must(a.Waiting(t.Context(), claimed))
		must(a.ClaimDevice(t.Context(), claimed, "press 6", ""))
		batch := must(a.AddBatch(t.Context(), "press", "", 3, 30))
		f.answer("POST /users", jsonAnswer(api.NewSubject{}))
		device := must(a.AddDevice(t.Context(), "press 5"))
		user := must(a.AddUser(t.Context(), "ann", UserRights{Role: identity.RoleViewer, Devices: []string{"*"}, Targets: []string{"*"}}))
		m := &Manager{Home: filepath.Join(t.TempDir(), "home"), DialContext: f.client.DialContext}
		login := f.invited(f.owner.User("bob", identity.RoleOperator, nil), func(*api.LoginAnswer) {})
		if _, err := m.Login(t.Context(), login); err != nil {
			t.Fatal(err)
		}
		f.deliver(kept, f.chain...)
		f.deliver(kept, f.owner.UserChain("carol", identity.RoleOperator, nil, identitytest.NewKey().Public())...)
		for _, path := range []string{"/code", "/users/carol/code", "/devices/" + f.uid.String() + "/code"} {
			f.answer("POST "+path, jsonAnswer(api.NewSubject{}))
		}
		next, again := must(a.AnotherCode(t.Context())), must(a.UserCode(t.Context(), "carol"))
		anew := must(a.DeviceCode(t.Context(), "press"))
		f.mu.Lock()
		heard := string(f.heard)
		f.mu.Unlock()
		for what, typed := range map[string]string{"a device's": device.Code, "a user's": user.Code, "a code that was used": login.Code,
			"a gateway's own": claimed.String(), "a batch's": batch.Code, "his own next PC's": next.Code,
			"a user's next PC's": again.Code, "new hardware's": anew.Code} {
			code := must(identity.ParseOwnerCode(typed))
			if !strings.Contains(heard, code.LookupID()) {
				t.Errorf("%s: the server was not told of it", what)
			}
			chars := strings.ReplaceAll(strings.TrimPrefix(code.String(), "U"), "-", "")
			secret := chars[6 : len(chars)-1]
			for i := 0; i+8 <= len(secret); i++ {
				if strings.Contains(heard, secret[i:i+8]) {
					t.Fatalf("%s: the server has seen a part of the secret", what)
				}
			}
			for slot := range uint32(4) {
				seed := code.InviteKey(slot).(ed25519.PrivateKey).Seed()
				if strings.Contains(heard, base64.StdEncoding.EncodeToString(seed)) {
					t.Errorf("%s: the server has seen the invite's key", what)
				}
			}
		}
		t.Attr("id", "T-code")
		t.Attr("cases", "8")
	})
}

// A list is signed again once a day, by whoever of the admins does something, and keeps what it says.
func TestAListIsSignedAgainEveryDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		kept, _ := f.mailbox()
		*kept = append(*kept, a.state.owner.Chain()...)
		f.answer("GET /users", jsonAnswer(api.Users{}))
		f.answer("POST /users/ann/revoke", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
		if err := a.RevokeUser(t.Context(), "ann", false); err != nil {
			t.Fatal(err)
		}
		first := a.state.owner.Lists().Time()
		for _, tt := range []struct {
			wait time.Duration
			want bool
		}{{23 * time.Hour, false}, {2 * time.Hour, true}, {time.Hour, false}} {
			time.Sleep(tt.wait)
			if _, err := a.Users(t.Context()); err != nil {
				t.Fatal(err)
			}
			now := a.state.owner.Lists().Time()
			if now.After(first) != tt.want {
				t.Errorf("after %v more: signed again %v", tt.wait, now.After(first))
			}
			first = now
		}
		if e := a.state.owner.Lists().Entries(); len(e) != 1 || e[0].User != "ann" {
			t.Errorf("the list says %+v", e)
		}
	})
}

// A server that shows nothing does not keep anybody in.
func TestAUserIsRevokedThoughTheServerShowsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		f.answer("GET /statements", problemAnswer(503, "busy", "try later"))
		f.answer("POST /users/ann/revoke", problemAnswer(503, "busy", "try later"))
		if err := a.RevokeUser(t.Context(), "ann", false); transport.ReasonOf(err) != transport.Busy {
			t.Errorf("the server refused: %v", err)
		}
		if e := a.state.owner.Lists().Entries(); len(e) != 1 || e[0].User != "ann" {
			t.Errorf("the list says %+v", e)
		}
		if err := a.RevokeUser(t.Context(), "ann", true); err == nil {
			t.Error("with --keep, which needs what the server has")
		}
	})
}
