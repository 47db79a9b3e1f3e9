package access

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/accesstest"
	"hawser/transport/api"
	"hawser/transport/wire"
)

func TestEveryRouteSaysWhoMayCallIt(t *testing.T) {
	seen := make(map[string]bool)
	for _, r := range routes() {
		name := r.method + " " + r.pattern
		if r.who <= nobody || r.who > infrastructure {
			t.Errorf("%s has no policy", name)
		}
		if r.handle == nil || seen[name] || !strings.HasPrefix(r.pattern, "/api/v1/") {
			t.Errorf("%s: twice, or without a handler, or elsewhere", name)
		}
		seen[name] = true
	}
}

func withCommonName(r *x509.CertificateRequest) { r.Subject.CommonName = "admin" }

// A route that forgot its policy is closed to everybody.
func TestRouteWithoutPolicyIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		admin := w.login()
		_, err := w.server.verifyCaller(nobody, nil)
		wantReason(t, "no certificate", err, api.NotLoggedIn)
		_, err = w.server.verifyCaller(nobody, admin.Chain)
		wantReason(t, "the owner", err, transport.Policy)
	})
}

// target is a route with the objects of domain plant put in, and a good body.
func (s *stage) target(r route, who *someone, session string) (path string, body any) {
	path = strings.NewReplacer("{device}", s.device.id.UID.String(), "{session}", session, "{user}", "bob", "{relay}", "r1").Replace(r.pattern)
	o := s.owner("plant")
	user := func(name string) api.UserRequest {
		_, code := s.newCode(o.User(name, identity.RoleOperator, nil))
		return api.UserRequest{Code: code}
	}
	switch r.method + " " + r.pattern {
	case "POST /api/v1/login":
		code, request := s.newCode(o.User("u"+newID()[:8], identity.RoleViewer, nil))
		status := s.call(s.admin, "POST", "/api/v1/users", api.UserRequest{Code: request}, nil)
		if status != http.StatusCreated {
			s.t.Fatalf("a code to log in with: %d", status)
		}
		auth := code.Auth()
		return path, api.LoginRequest{Lookup: code.LookupID(), Auth: auth[:], CSR: newSomeone().CSR()}
	case "POST /api/v1/time":
		return path, api.TimeRequest{Nonce: make([]byte, 32)}
	case "POST /api/v1/renew":
		return path, api.RenewRequest{CSR: who.CSR()}
	case "POST /api/v1/statements", "POST /api/v1/users/{user}/revoke":
		return path, api.Statements{Statements: []string{o.Lists().JWS}}
	case "POST /api/v1/code":
		own := identity.UserName("plant", "nobody")
		if len(who.Chain) > 0 {
			if name, err := identity.ParseName(who.Chain[0].URIs[0].String()); err == nil {
				own = name
			}
		}
		if own.Kind != identity.KindUser {
			return path, struct{}{}
		}
		_, code := s.newCode(o.User(own.ID, identity.RoleOperator, nil))
		return path, api.UserRequest{Code: code}
	case "POST /api/v1/users":
		return path, user("u" + newID()[:8])
	case "POST /api/v1/users/{user}/code":
		return path, user("bob")
	case "POST /api/v1/batches":
		_, body := s.newBatch("new "+newID()[:8], 2)
		return path, body
	case "POST /api/v1/batches/{lookup}/end":
		return "/api/v1/batches/" + s.addBatch(s.admin, "new "+newID()[:8], 2).LookupID() + "/end", struct{}{}
	case "GET /api/v1/claims/{lookup}":
		code := identity.NewOwnerCode()
		s.awaits(code, newSomeone())
		return claimPath(code), struct{}{}
	case "POST /api/v1/devices":
		_, body := s.newDevice(s.admin, "new "+newID()[:8])
		return path, body
	case "POST /api/v1/devices/{device}/code":
		_, code := s.newCode(o.Device(s.device.id.UID, "press 1"))
		return path, api.DeviceRequest{Code: code}
	case "POST /api/v1/devices/{device}/accept":
		fresh, now := newSomeone(), time.Now()
		key := must(identity.NewPublicKey(fresh.Key.Public()))
		s.put(&store.Join{ID: s.device.id.UID.String(), Domain: "plant", SPKI: s.device.spki(), Cloned: now, Fresh: []store.FreshKey{{Key: key, Since: now, At: now}}})
		return path, s.acceptance(s.device.id.UID, "press 1", fresh, s.device)
	case "POST /api/v1/sessions":
		return path, api.SessionRequest{Device: s.device.id.UID.String(), SessionVersion: wire.SessionVersion}
	case "POST /api/v1/sessions/{session}/move":
		return path, api.MoveRequest{Epoch: 1, Reason: transport.LinkLost}
	case "POST /api/v1/relays":
		return path, relayRequest("r" + newID()[:8])
	}
	return path, struct{}{}
}

// asker is somebody who calls a route.
type asker struct {
	name string
	who  *someone
	role who              // the most that a route may want of him
	want transport.Reason // the answer of a route that wants more
}

// askers is everybody who may call, with the objects that belong to him.
func (s *stage) askers(t *testing.T) []asker {
	name := identity.UserName("plant", "admin")
	expired := &someone{Client: &accesstest.Client{Key: s.admin.Key}}
	expired.Chain = s.pki.Chain(s.admin.Key.Public(), name, -2*time.Hour, -time.Hour)
	revoked := s.newUser("plant", "ex")
	s.put(&store.User{Domain: "plant", Name: "ex", Revoked: time.Now()})
	lapsed := s.stranger("plant", "lapsed")
	ends := identity.UserStatement{Domain: "plant", User: "lapsed", Role: identity.RoleAdmin, Exp: time.Now().Unix() + 1, Serial: s.owner("plant").Serial()}
	s.state("plant", s.owner("plant").Sign(ends).JWS, s.owner("plant").UserKey("lapsed", lapsed.Key.Public()).JWS)
	time.Sleep(3 * time.Second)
	listed := s.newUserAs("listed", identity.RoleOperator, nil)
	o := s.owner("plant")
	entry := identity.Entry{Subject: identity.Subject{User: "listed"}, All: o.Serial() + 1, Until: time.Now().Add(identity.EntryLifetime - time.Hour).Unix()}
	s.state("plant", o.Lists(entry).JWS)
	none := &identity.Scope{Devices: []string{}, Targets: []string{}}
	return []asker{
		{"nobody", nil, nobody, api.NotLoggedIn},
		{"a device", s.device, nobody, transport.WrongKind},
		{"a relay", s.carrier, nobody, transport.WrongKind},
		{"an Access Server", s.certified(s.cfg.Name, 0, time.Hour), nobody, transport.WrongKind},
		{"another root", newIdleWorld(t).certified(name, 0, time.Hour), nobody, transport.WrongRoot},
		{"an unknown user", s.certified(identity.UserName("plant", "nemo"), 0, time.Hour), nobody, api.NotLoggedIn},
		{"another key of the name", s.certified(name, 0, time.Hour), nobody, api.NotLoggedIn},
		{"revoked", revoked, nobody, transport.Revoked},
		{"expired", expired, key, transport.Expired},
		{"not stated yet", s.stranger("plant", "new"), user, transport.NotStated},
		{"whose statement has ended", lapsed, user, transport.NotStated},
		{"listed", listed, user, transport.Revoked},
		{"viewer", s.newUserAs("vera", identity.RoleViewer, nil), viewer, transport.Policy},
		{"viewer of nothing", s.newUserAs("victor", identity.RoleViewer, none), viewer, transport.Policy},
		{"operator", s.newUserAs("oscar", identity.RoleOperator, nil), operator, transport.Policy},
		{"operator of nothing", s.newUserAs("olga", identity.RoleOperator, none), operator, transport.Policy},
		{"admin", s.admin, infrastructure, ""},
		{"another admin", s.newUser("plant", "anna"), infrastructure, ""},
		{"admin of another domain", s.newUser("other", "eve"), admin, transport.Policy},
	}
}

// answer is what an asker gets of a route, beside a good answer: by his role, and by what belongs to him.
func (a asker) answer(r route) (reasons []transport.Reason) {
	switch {
	case r.who == anyone: // judged by a code, or by nothing: a certificate, of whoever, neither helps nor hinders
		return []transport.Reason{""}
	case a.role < r.who:
		return []transport.Reason{a.want}
	case a.role == key || a.role == user: // renewal, and a statement of his own
		return []transport.Reason{""}
	case a.name == "admin":
		return []transport.Reason{""}
	case strings.Contains(r.pattern, "/claims/"): // of no domain: who knows the code sees who waits with it
		return []transport.Reason{""}
	case strings.Contains(r.pattern, "/batches/"):
		if a.name == "admin of another domain" {
			return []transport.Reason{api.NotFound}
		}
		return []transport.Reason{""}
	case strings.Contains(r.pattern, "{session}"): // another one's
		if a.name == "another admin" && r.method == http.MethodDelete {
			return []transport.Reason{""}
		}
		return []transport.Reason{api.NotFound}
	case strings.HasSuffix(a.name, "of nothing") || a.name == "admin of another domain":
		switch {
		case strings.Contains(r.pattern, "{"):
			return []transport.Reason{api.NotFound}
		case r.method == http.MethodPost && r.pattern == "/api/v1/sessions":
			return []transport.Reason{transport.NoDevice}
		case a.name == "admin of another domain" && r.method == http.MethodPost && !strings.HasSuffix(r.pattern, "measurements") && !strings.HasSuffix(r.pattern, "logout") && r.who > key:
			return []transport.Reason{transport.NotStated} // the statements are of this domain
		}
	}
	return []transport.Reason{""}
}

// TestAuthorisationMatrix calls every route as everybody.
func TestAuthorisationMatrix(t *testing.T) {
	var cells atomic.Int64
	for _, r := range routes() {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t)
			defer s.end()
			s.runtime.beQuiet()
			go s.runtime.consentToAll()
			offer := (<-s.open(s.admin, "press 1")).offer
			bob := s.newUserAs("bob", identity.RoleOperator, nil)
			for _, a := range s.askers(t) {
				cells.Add(1)
				who := a.who
				if who == nil {
					who = bob
				}
				path, body := s.target(r, who, offer.Session)
				response, raw := s.callRaw(a.who, r.method, path, body)
				var p api.Problem
				if response.StatusCode >= 300 {
					json.Unmarshal(raw, &p)
				}
				if want := a.answer(r); !slices.Contains(want, p.Code) {
					t.Errorf("%s %s by %s: %d %s, want %q", r.method, r.pattern, a.name, response.StatusCode, raw, want)
				}
				if r.who == anyone {
					s.wantNothingOfTheCaller(a, raw)
				}
				if strings.Contains(r.pattern, "{session}") && response.StatusCode < 300 {
					offer = (<-s.open(s.admin, "press 1")).offer
				}
			}
		})
	}
	t.Attr("id", "T-matrix")
	t.Attr("cases", fmt.Sprint(cells.Load()))
}

// wantNothingOfTheCaller wants what a route answers that anyone may call to be about the code alone: it logs in its
// user, with the key of the request, whoever has shown which certificate.
func (s *stage) wantNothingOfTheCaller(a asker, raw []byte) {
	s.t.Helper()
	var answer struct {
		api.LoginAnswer
		api.TimeAnswer
	}
	if err := json.Unmarshal(raw, &answer); err != nil || answer.Chain == "" && len(answer.Time) == 0 {
		s.t.Errorf("%s is answered %s, %v", a.name, raw, err)
		return
	}
	if answer.Chain == "" {
		return
	}
	chain, err := identity.ParseChain([]byte(answer.Chain))
	if err != nil {
		s.t.Fatal(err)
	}
	got, err := identity.Verify(chain, s.pki.Roots, time.Now(), identity.KindUser)
	if err != nil || got.Name.Domain != "plant" || got.Name.ID != answer.User || len(answer.User) != 9 ||
		a.who != nil && got.SPKI == a.who.spki() {
		s.t.Errorf("%s is logged in as %v, %v", a.name, got, err)
	}
}

// What belongs to another domain answers byte for byte as what does not exist.
func TestOtherDomainsObjectsDoNotExist(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		offer, _ := s.session()
		stranger := s.newUser("other", "eve")
		ask := func(who *someone, r route, device, session string) (int, []byte, http.Header) {
			path := strings.NewReplacer("{device}", device, "{session}", session).Replace(r.pattern)
			var body any = struct{}{}
			if r.pattern == "/api/v1/sessions" {
				body = api.SessionRequest{Device: device, SessionVersion: wire.SessionVersion}
			}
			response, raw := s.callRaw(who, r.method, path, body)
			return response.StatusCode, raw, response.Header
		}
		for _, r := range routes() {
			if !strings.Contains(r.pattern, "{") && !(r.method == "POST" && r.pattern == "/api/v1/sessions") || r.who == infrastructure {
				continue
			}
			for _, device := range []string{s.device.id.UID.String(), "press%201"} {
				status, theirs, h1 := ask(stranger, r, device, offer.Session)
				_, nothing, h2 := ask(stranger, r, identity.NewUID().String(), newID())
				if status != http.StatusNotFound || !bytes.Equal(theirs, nothing) || !headersEqual(h1, h2) {
					t.Errorf("%s %s: %d %s, want %s", r.method, r.pattern, status, theirs, nothing)
				}
			}
		}
		var devices struct{ Devices []api.Device }
		var audit struct{ Records []store.Record }
		s.call(stranger, "GET", "/api/v1/devices", nil, &devices)
		s.call(stranger, "GET", "/api/v1/audit", nil, &audit)
		if len(devices.Devices) != 0 || len(audit.Records) != 0 {
			t.Errorf("another domain sees %v, %v", devices, audit)
		}
		if s.server.presence.find(identity.DeviceName("plant", s.device.id.UID)) == nil || len(s.server.sessions.of(s.device.id.UID)) != 1 {
			t.Error("a stranger changed something")
		}
	})
}

func headersEqual(a, b http.Header) bool {
	a.Del("Date")
	b.Del("Date")
	return fmt.Sprint(a) == fmt.Sprint(b)
}

func TestPathsAreComparedAsSent(t *testing.T) {
	cases := map[string]transport.Reason{
		"/api/v1/devices":              "",
		"/api/v1/devices/":             api.NotFound,
		"/api/v1//devices":             api.NotFound,
		"//api/v1/devices":             api.NotFound,
		"/api/v1/devices;x":            api.NotFound,
		"/API/v1/devices":              api.NotFound,
		"/api/v1/%64evices":            api.NotFound,
		"/api/v1/x/../devices":         api.NotFound,
		"/api/v1/devices/a%2Frevoke":   "", // a name, which no device has
		"/api/v1/devices/%zz":          api.NotFound,
		"/":                            api.NotFound,
		"":                             api.NotFound,
		"/api/v1/setup":                api.NotFound,
		"/api/v1/devices/a/revoke/now": api.NotFound,
	}
	for path, want := range cases {
		_, _, err := match(routes(), http.MethodGet, path)
		wantReason(t, path, err, want)
	}
	_, vars, err := match(routes(), http.MethodGet, "/api/v1/devices/press%201")
	if err != nil || vars["device"] != "press 1" {
		t.Errorf("%v, %v", vars, err)
	}
}

func FuzzMatch(f *testing.F) {
	for _, path := range []string{"/api/v1/devices", "/api/v1/devices/a%20b/revoke", "/%", "", "//"} {
		f.Add("GET", path)
	}
	table := routes()
	f.Fuzz(func(t *testing.T, method, path string) {
		r, vars, err := match(table, method, path)
		if err != nil {
			return
		}
		if r.method != method || strings.Count(r.pattern, "/") != strings.Count(path, "/") {
			t.Errorf("%q is taken for %s", path, r.pattern)
		}
		for name, value := range vars {
			if value == "" {
				t.Errorf("%s is empty", name)
			}
		}
	})
}
