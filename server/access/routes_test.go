package access

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
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
func (s *stage) target(t *testing.T, r route, who *someone, session string) (path string, body any) {
	path = strings.NewReplacer("{device}", s.device.id.UID.String(), "{session}", session).Replace(r.pattern)
	switch r.method + " " + r.pattern {
	case "POST /api/v1/renew":
		return path, api.RenewRequest{CSR: who.CSR()}
	case "POST /api/v1/devices":
		return path, api.AddRequest{Name: "new " + newID()[:8]}
	case "POST /api/v1/sessions":
		return path, api.SessionRequest{Device: s.device.id.UID.String(), SessionVersion: wire.SessionVersion}
	case "POST /api/v1/sessions/{session}/move":
		return path, api.MoveRequest{Epoch: 1, Reason: transport.LinkLost}
	case "POST /api/v1/relays":
		return path, api.AddRequest{Name: "r" + newID()[:8]}
	}
	return path, struct{}{}
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
			expired := &someone{Client: &accesstest.Client{Key: s.admin.Key}}
			expired.Chain = s.pki.Chain(s.admin.Key.Public(), name, -2*time.Hour, -time.Hour)
			revoked := s.newUser("plant", "ex")
			s.put(&store.User{Domain: "plant", Name: "ex", Revoked: now})
			renamed := s.certified(name, 0, time.Hour)
			foreign := newIdleWorld(t).certified(name, 0, time.Hour)
			callers := []struct {
				name string
				who  *someone
				want transport.Reason // "" = allowed
			}{
				{"no certificate", nil, api.NotLoggedIn},
				{"device certificate", s.device, transport.WrongKind},
				{"access certificate", s.certified(s.cfg.Name, 0, time.Hour), transport.WrongKind},
				{"another root", foreign, transport.WrongRoot},
				{"revoked user", revoked, transport.Revoked},
				{"unknown user", s.certified(identity.UserName("plant", "nemo"), 0, time.Hour), api.NotLoggedIn},
				{"another key of the name", renamed, api.NotLoggedIn},
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
				if c.want == "" && r.method == "POST" && strings.HasPrefix(r.pattern, "/api/v1/sessions") {
					go func() { // the Runtime consents
						var o wire.Offer
						s.runtime.read(wire.TypeOffer, &o)
						s.runtime.write(wire.TypeOfferAck, wire.OfferAck{Session: o.Session})
					}()
				}
				response, raw := s.callRaw(c.who, r.method, path, body)
				var p api.Problem
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
			var body any = struct{}{}
			if r.pattern == "/api/v1/sessions" {
				body = api.SessionRequest{Device: device, SessionVersion: wire.SessionVersion}
			}
			response, raw := s.callRaw(who, r.method, path, body)
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
