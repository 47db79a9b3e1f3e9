package access

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

func jsonOf(v any) ([]byte, error)       { return json.Marshal(v) }
func unmarshal(b []byte, into any) error { return json.Unmarshal(b, into) }

func TestEveryRouteSaysWhoMayCallIt(t *testing.T) {
	seen := make(map[string]bool)
	for _, r := range routes() {
		name := r.method + " " + r.pattern
		if r.who <= nobody || r.who > key {
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
		w := newWorld(t, NewMemory())
		defer w.stop()
		admin := w.login()
		_, err := w.server.judgeCaller(nobody, nil)
		wantReason(t, "no certificate", err, codeNotLoggedIn)
		_, err = w.server.judgeCaller(nobody, admin.chain)
		wantReason(t, "the owner", err, transport.Policy)
	})
}

// target is a route with the objects of domain plant put in, and a good body.
func (s *stage) target(t *testing.T, r route, who *someone, session string) (path string, body any) {
	path = strings.NewReplacer("{device}", s.device.id.UID.String(), "{session}", session).Replace(r.pattern)
	switch r.method + " " + r.pattern {
	case "POST /api/v1/renew":
		return path, renewBody{who.csr()}
	case "POST /api/v1/devices":
		return path, addBody{"new " + newID()[:8]}
	case "POST /api/v1/sessions":
		return path, sessionBody{s.device.id.UID.String()}
	}
	return path, nil
}

// TestAuthorisationMatrix calls every route as everybody.
func TestAuthorisationMatrix(t *testing.T) {
	cells := 0
	for _, r := range routes() {
		if r.who == anyone {
			continue // judged by its code: see the login tests
		}
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t)
			defer s.end()
			offer, _ := s.session()
			now := time.Now()
			name := identity.UserName("plant", "admin")
			expired := newSomeone()
			expired.key = s.admin.key
			expired.chain = must(s.issuing.Issue(identity.Request{
				Name: name, Pub: s.admin.key.Public(), NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)}))
			revoked := s.newUser("plant", "ex")
			if _, err := update(t.Context(), s.cfg.Store, bucketUsers, "plant.ex", func(u *userRecord) (bool, error) {
				u.Revoked = &now
				return true, nil
			}); err != nil {
				t.Fatal(err)
			}
			renamed := s.certified(name, now, now.Add(time.Hour))
			foreign := newIdleWorld(t, NewMemory()).certified(name, now, now.Add(time.Hour))
			callers := []struct {
				name string
				who  *someone
				want transport.Reason // "" = allowed
			}{
				{"no certificate", nil, codeNotLoggedIn},
				{"device certificate", s.device, transport.WrongKind},
				{"access certificate", s.certified(s.cfg.Name, now, now.Add(time.Hour)), transport.WrongKind},
				{"another root", foreign, transport.WrongRoot},
				{"revoked user", revoked, transport.Revoked},
				{"unknown user", s.certified(identity.UserName("plant", "nemo"), now, now.Add(time.Hour)), codeNotLoggedIn},
				{"another key of the name", renamed, codeNotLoggedIn},
				{"expired user", expired, transport.Expired},
				{"owner", s.admin, ""},
			}
			for _, c := range callers {
				cells++
				if r.who == key && c.name == "expired user" {
					c.want = ""
				}
				who := c.who
				if who == nil {
					who = s.admin
				}
				path, body := s.target(t, r, who, offer.Session)
				if c.want == "" && r.pattern == "/api/v1/sessions" {
					go func() { // the Runtime consents
						var o wire.Offer
						s.runtime.read(wire.TypeOffer, &o)
						s.runtime.write(wire.TypeOfferAck, wire.OfferAck{Session: o.Session})
					}()
				}
				response, raw := s.callRaw(c.who, r.method, path, must(jsonOf(body)))
				var p problem
				json.Unmarshal(raw, &p)
				if allowed := response.StatusCode < 300; allowed != (c.want == "") || !allowed && p.Code != c.want {
					t.Errorf("%s %s by %s: %d %s, want %q", r.method, r.pattern, c.name, response.StatusCode, raw, c.want)
				}
			}
		})
	}
	t.Attr("id", "A1-refuse")
	t.Attr("cases", fmt.Sprint(cells))
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
			var body any
			if r.pattern == "/api/v1/sessions" {
				body = sessionBody{device}
			}
			response, raw := s.callRaw(who, r.method, path, must(jsonOf(body)))
			return response.StatusCode, raw, response.Header
		}
		for _, r := range routes() {
			if !strings.Contains(r.pattern, "{") && !(r.method == "POST" && r.pattern == "/api/v1/sessions") {
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
		var devices struct{ Devices []deviceView }
		var audit struct{ Records []Record }
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
		"/api/v1/devices/":             codeNotFound,
		"/api/v1//devices":             codeNotFound,
		"//api/v1/devices":             codeNotFound,
		"/api/v1/devices;x":            codeNotFound,
		"/API/v1/devices":              codeNotFound,
		"/api/v1/%64evices":            codeNotFound,
		"/api/v1/x/../devices":         codeNotFound,
		"/api/v1/devices/a%2Frevoke":   "", // a name, which no device has
		"/api/v1/devices/%zz":          codeNotFound,
		"/":                            codeNotFound,
		"":                             codeNotFound,
		"/api/v1/setup":                codeNotFound,
		"/api/v1/devices/a/revoke/now": codeNotFound,
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

func TestRequestFaultsAreProblems(t *testing.T) {
	big := `{"name":"` + strings.Repeat("x", maxBodyBytes) + `"}`
	cases := []struct {
		name, method, path, body string
		status                   int
		code                     transport.Reason
	}{
		{"unknown path", "GET", "/api/v2", "", 404, codeNotFound},
		{"method", "PUT", "/api/v1/devices", "{}", 405, codeMethodNotAllowed},
		{"HEAD", "DELETE", "/api/v1/audit", "", 405, codeMethodNotAllowed},
		{"no body", "POST", "/api/v1/devices", "", 400, codeBadRequest},
		{"not JSON", "POST", "/api/v1/devices", "name=x", 400, codeBadRequest},
		{"a list", "POST", "/api/v1/devices", "[]", 400, codeBadRequest},
		{"unknown member", "POST", "/api/v1/devices", `{"name":"x","admin":true}`, 400, codeBadRequest},
		{"two values", "POST", "/api/v1/devices", `{"name":"x"}{"name":"y"}`, 400, codeBadRequest},
		{"cut off", "POST", "/api/v1/devices", `{"name":"x`, 400, codeBadRequest},
		{"deep nesting", "POST", "/api/v1/devices", strings.Repeat("[", 60000), 400, codeBadRequest},
		{"oversized", "POST", "/api/v1/devices", big, 413, codeTooLarge},
		{"name with a newline", "POST", "/api/v1/devices", `{"name":"x\ny"}`, 400, codeBadRequest},
		{"name with bidi", "POST", "/api/v1/devices", `{"name":"x\u202ey"}`, 400, codeBadRequest},
		{"empty name", "POST", "/api/v1/devices", `{"name":""}`, 400, codeBadRequest},
		{"name like a UID", "POST", "/api/v1/devices", `{"name":"` + identity.NewUID().String() + `"}`, 400, codeBadRequest},
		{"audit limit 0", "GET", "/api/v1/audit?limit=0", "", 400, codeBadRequest},
		{"audit limit 1001", "GET", "/api/v1/audit?limit=1001", "", 400, codeBadRequest},
		{"audit limit x", "GET", "/api/v1/audit?limit=x", "", 400, codeBadRequest},
		{"session id with a dot", "DELETE", "/api/v1/sessions/a.b", "", 404, codeNotFound},
		{"device with a wildcard", "GET", "/api/v1/devices/%3E", "", 404, codeNotFound},
	}
	t.Attr("id", "A1-input")
	t.Attr("cases", fmt.Sprint(len(cases)))
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, NewMemory())
		defer w.stop()
		admin := w.login()
		for _, c := range cases {
			response, raw := w.callRaw(admin, c.method, c.path, []byte(c.body))
			var p problem
			if err := json.Unmarshal(raw, &p); err != nil {
				t.Errorf("%s: %v: %s", c.name, err, raw)
			}
			if response.StatusCode != c.status || p.Code != c.code || p.Status != c.status || p.Title == "" ||
				response.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s: %d %s", c.name, response.StatusCode, raw)
			}
			if allow := response.Header.Get("Allow"); (c.status == 405) != (allow != "") {
				t.Errorf("%s: Allow %q", c.name, allow)
			}
		}
		if status := w.call(admin, "POST", "/api/v1/devices", addBody{"x"}, nil); status != 201 {
			t.Errorf("without a fault: %d", status)
		}
	})
}

func TestLoginRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, NewMemory())
		defer w.stop()
		who, other := newSomeone(), newSomeone()
		code := w.admin.String()
		cases := []struct {
			name string
			body loginBody
			code transport.Reason
		}{
			{"CSR with a name", loginBody{code, "admin", csrFor(who.key, withCommonName)}, transport.BadCSR},
			{"no CSR", loginBody{code, "admin", nil}, transport.BadCSR},
			{"unknown code", loginBody{identity.NewCode().String(), "admin", who.csr()}, transport.BadCode},
			{"activation code", loginBody{w.relay.String(), "admin", who.csr()}, transport.BadCode},
			{"another user", loginBody{code, "anna", who.csr()}, transport.BadCode},
			{"no fault", loginBody{code, "admin", who.csr()}, ""},
			{"again with the same key", loginBody{strings.ToLower(code), "admin", who.csr()}, ""},
			{"again with another key", loginBody{code, "admin", other.csr()}, transport.BadCode},
		}
		t.Attr("id", "A1-refuse")
		t.Attr("cases", fmt.Sprint(len(cases)-2))
		for _, c := range cases {
			_, raw := w.callRaw(nil, "POST", "/api/v1/login", must(jsonOf(c.body)))
			var p problem
			json.Unmarshal(raw, &p)
			if p.Code != c.code {
				t.Errorf("%s: %s, want %q", c.name, raw, c.code)
			}
		}
		if got := w.actions(3); !slices.Equal(got, []string{"login ok", "login ok", "login bad-code"}) {
			t.Errorf("audit: %v", got)
		}
		for range limitPerAddress {
			w.call(nil, "POST", "/api/v1/login", loginBody{identity.NewCode().String(), "admin", who.csr()}, nil)
		}
		response, _ := w.callRaw(nil, "POST", "/api/v1/login", must(jsonOf(loginBody{code, "admin", who.csr()})))
		if response.StatusCode != 429 || response.Header.Get("Retry-After") == "" {
			t.Errorf("%d %v", response.StatusCode, response.Header)
		}
	})
}

// A user renews silently for 30 days after the login, whatever the dates of
// the certificate, and then has to log in again.
func TestUserRenewsFor30Days(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, NewMemory())
		defer w.stop()
		admin := w.login()
		if life := time.Until(admin.chain[0].NotAfter); life != userLife {
			t.Errorf("life %v", life)
		}
		renew := func(csr []byte) int {
			var answer renewAnswer
			status := w.call(admin, "POST", "/api/v1/renew", renewBody{csr}, &answer)
			if status == 200 {
				admin.take(wire.Identity{Chain: answer.Chain})
			}
			return status
		}
		time.Sleep(13 * time.Hour)
		if status := w.call(admin, "GET", "/api/v1/devices", nil, nil); status != 401 {
			t.Errorf("with an expired certificate: %d", status)
		}
		if status := renew(newSomeone().csr()); status != 403 {
			t.Errorf("with another key: %d", status)
		}
		if status := renew(admin.csr()); status != 200 {
			t.Errorf("renew: %d", status)
		}
		if status := w.call(admin, "GET", "/api/v1/devices", nil, nil); status != 200 {
			t.Errorf("renewed: %d", status)
		}
		time.Sleep(29 * 24 * time.Hour)
		if status := renew(admin.csr()); status != 200 {
			t.Errorf("after 29.5 days: %d", status)
		}
		time.Sleep(24 * time.Hour)
		if status := renew(admin.csr()); status != 401 {
			t.Errorf("after 30.5 days: %d", status)
		}
	})
}

func TestDevicesThroughTheAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, NewMemory())
		defer w.stop()
		admin := w.login()
		var added addAnswer
		w.call(admin, "POST", "/api/v1/devices", addBody{"press 1"}, &added)
		if status := w.call(admin, "POST", "/api/v1/devices", addBody{"press 1"}, nil); status != 409 {
			t.Errorf("the same name: %d", status)
		}
		if left := time.Until(added.Expires); left != codeLife {
			t.Errorf("code lives %v", left)
		}
		show := func(device string) (v deviceView) { w.call(admin, "GET", "/api/v1/devices/"+device, nil, &v); return v }
		if v := show("press%201"); v.State != "pending" || v.Online || v.NotAfter != nil || v.UID != added.UID || v.Hints == nil {
			t.Errorf("pending: %+v", v)
		}
		device := newSomeone()
		w.enrol(added.Code, device)
		v := show(added.UID.String())
		if v.State != "enrolled" || v.SPKI != device.spki() || !v.NotAfter.Equal(device.chain[0].NotAfter) || v.Hints["board"] != "b1" {
			t.Errorf("enrolled: %+v", v)
		}
		c := w.control(device, wire.Hello{Instance: "01", Hints: map[string]string{"board": "b2"}})
		if v := show("press%201"); !v.Online || v.Since == nil || !strings.HasPrefix(v.Address, clientAddr.String()) || v.Hints["board"] != "b2" {
			t.Errorf("online: %+v", v)
		}
		c.Close()
		synctest.Wait()
		w.addDevice(admin, "lathe 2")
		var all struct{ Devices []deviceView }
		w.call(admin, "GET", "/api/v1/devices", nil, &all)
		if len(all.Devices) != 2 || all.Devices[0].Name != "lathe 2" || all.Devices[1].Online {
			t.Errorf("%+v", all)
		}
		w.call(admin, "POST", "/api/v1/devices/press%201/revoke", nil, nil)
		if v := show("press%201"); v.State != "revoked" {
			t.Errorf("revoked: %+v", v)
		}
		if status := w.call(admin, "POST", "/api/v1/devices", addBody{"press 1"}, &added); status != 201 {
			t.Errorf("a replacement with the name of a revoked device: %d", status)
		}
		if v := show("press%201"); v.UID != added.UID {
			t.Errorf("%+v", v)
		}
	})
}

// A server that died while it added a device leaves a name that can be used
// again after a minute.
func TestReservedNameIsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, NewMemory())
		defer w.stop()
		admin := w.login()
		left := nameRecord{identity.NewUID(), time.Now()}
		if err := save(t.Context(), w.cfg.Store, bucketNames, nameKeyOf("plant", "press 1"), left, 0); err != nil {
			t.Fatal(err)
		}
		if status := w.call(admin, "POST", "/api/v1/devices", addBody{"press 1"}, nil); status != 409 {
			t.Errorf("at once: %d", status)
		}
		time.Sleep(claimGrace)
		if status := w.call(admin, "POST", "/api/v1/devices", addBody{"press 1"}, nil); status != 201 {
			t.Errorf("later: %d", status)
		}
	})
}

func TestAuditThroughTheAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, NewMemory())
		defer w.stop()
		admin := w.login()
		w.addDevice(admin, "press 1")
		var got struct{ Records []Record }
		w.call(admin, "GET", "/api/v1/audit", nil, &got)
		var actions []string
		for _, r := range got.Records {
			actions = append(actions, r.Action)
		}
		if !slices.Equal(actions, []string{"init", "login", "device-add", "enrol"}) {
			t.Errorf("%v", actions)
		}
		if last := got.Records[3]; last.Actor != clientAddr.String() || last.Node != "a1" || last.Result != "ok" {
			t.Errorf("%+v", last)
		}
		w.call(admin, "GET", "/api/v1/audit?limit=1", nil, &got)
		if len(got.Records) != 1 || got.Records[0].Action != "enrol" {
			t.Errorf("%+v", got)
		}
	})
}

// One connection carries many requests, and a silent one is closed.
func TestAPIConnectionIsKeptAndThenClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, NewMemory())
		defer w.stop()
		conn := w.dial(transport.ALPNAPI, nil)
		defer conn.Close()
		for range 3 {
			fmt.Fprint(conn, "GET /nothing HTTP/1.1\r\nHost: a1\r\n\r\n")
			b := make([]byte, 4096)
			if n, err := conn.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "HTTP/1.1 404") {
				t.Fatalf("%s, %v", b[:n], err)
			}
		}
		start := time.Now()
		if _, err := conn.Read(make([]byte, 1)); err == nil || time.Since(start) != idleTimeout {
			t.Errorf("closed after %v: %v", time.Since(start), err)
		}
	})
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
