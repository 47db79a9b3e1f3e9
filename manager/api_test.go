package manager

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"hawser/identity"
	"hawser/internal/answer"
	"hawser/transport"
	"hawser/transport/api"
)

func TestParseServer(t *testing.T) {
	for in, want := range map[string]string{
		"access.example": "access.example", "access.example:8443": "access.example:8443", "192.0.2.1": "192.0.2.1",
		"https://access.example": "access.example", "HTTPS://access.example/": "access.example", "https://access.example:443/": "access.example:443",
		"fd00::1": "fd00::1", "[fd00::1]": "fd00::1", "https://[fd00::1]/": "fd00::1", "https://[fd00::1]:8443": "[fd00::1]:8443",
	} {
		if got, err := parseServer(in); got != want || err != nil {
			t.Errorf("%q: %q, %v, want %q", in, got, err, want)
		}
	}
	bad := []string{"", "/", "https://", "http://a", "ftp://a", "https://a/b", "https://u@a", "a?b", "a#b", "a:b", "a:", ":443", "a:443:443", "[a]", "[fd00::1", "a\x1b[2J", strings.Repeat("a", 1<<20)}
	for _, in := range bad {
		if got, err := parseServer(in); ExitCode(err) != answer.ExitUsage {
			t.Errorf("%.50q: %q, %v, want a usage error", in, got, err)
		}
	}
	t.Attr("id", "A1-input")
	t.Attr("cases", fmt.Sprint(len(bad)))
}

func TestHostThatWasUsedStaysFirst(t *testing.T) {
	hosts, ports, ok := mergeHosts("b", []string{"a", "b", "a", "c:8443"}, nil)
	if diff := cmp.Diff([]string{"b", "a", "c:8443"}, hosts); diff != "" || !ok {
		t.Error(diff)
	}
	if diff := cmp.Diff(transport.DefaultPorts(), ports); diff != "" {
		t.Error(diff)
	}
	for name, bad := range map[string]struct {
		hosts []string
		ports []transport.Port
	}{
		"a host that is none": {[]string{"a b"}, nil},
		"an empty host":       {[]string{""}, nil},
		"port 0":              {nil, []transport.Port{443, 0}},
		"too many hosts":      {make([]string, maxHosts+1), nil},
		"too many ports":      {nil, make([]transport.Port, maxPorts+1)},
	} {
		if _, _, ok := mergeHosts("b", bad.hosts, bad.ports); ok {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestProblemDocuments(t *testing.T) {
	const good = `{"status": 409, "code": "offline", "title": "Offline", "detail": "no connection since noon"}`
	cases := []struct {
		name, kind, body string
		code             transport.Reason
		text             string
	}{
		{"plain", "application/problem+json", good, transport.Offline, "no connection since noon"},
		{"with charset", "application/problem+json; charset=utf-8", good, transport.Offline, "no connection since noon"},
		{"title alone", "application/problem+json", `{"code": "no-device", "title": "No such device"}`, transport.NoDevice, "No such device"},
		{"code alone", "application/problem+json", `{"code": "no-device"}`, transport.NoDevice, "status 409"},
		{"unknown members", "application/problem+json", `{"code": "busy", "x": [1]}`, transport.Busy, "status 409"},
		{"another type", "application/json", good, transport.Protocol, "status 409 without a readable reason"},
		{"no type", "", good, transport.Protocol, "status 409 without a readable reason"},
		{"no code", "application/problem+json", `{}`, transport.Protocol, "status 409 without a readable reason"},
		{"code that is none", "application/problem+json", `{"code": "\u001b[2J"}`, transport.Protocol, "status 409 without a readable reason"},
		{"long code", "application/problem+json", `{"code": "` + strings.Repeat("a", 41) + `"}`, transport.Protocol, "status 409 without a readable reason"},
		{"no JSON", "application/problem+json", "<html>", transport.Protocol, "status 409 without a readable reason"},
		{"empty", "application/problem+json", "", transport.Protocol, "status 409 without a readable reason"},
		{"hostile text", "application/problem+json", `{"code": "busy", "detail": "\u001b[2J\n"}`, transport.Busy, "?[2J?"},
		{"long text", "application/problem+json", `{"code": "busy", "detail": "` + strings.Repeat("a", 1000) + `"}`, transport.Busy, strings.Repeat("a", 200) + "..."},
	}
	for _, tt := range cases {
		got := parseProblem(409, http.Header{"Content-Type": {tt.kind}}, []byte(tt.body))
		if got.code != tt.code || got.text != tt.text {
			t.Errorf("%s: %q %q, want %q %q", tt.name, got.code, got.text, tt.code, tt.text)
		}
	}
	t.Attr("id", "A1-input")
	t.Attr("cases", fmt.Sprint(len(cases)))
}

func FuzzProblem(f *testing.F) {
	f.Add("application/problem+json", "10", []byte(`{"code": "offline", "detail": "x"}`))
	f.Fuzz(func(t *testing.T, kind, after string, body []byte) {
		p := parseProblem(500, http.Header{"Content-Type": {kind}, "Retry-After": {after}}, body)
		if !isWord(string(p.code)) || clean(p.text) != p.text || p.retryAfter < 0 || p.retryAfter > maxRetryAfter {
			t.Errorf("%+v", p)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, "3601": time.Hour, "-1": 0, "99999999999999999999": 0, "Wed, 21 Oct 2015 07:28:00 GMT": 0,
	} {
		if got := parseRetryAfter(in); got != want {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
	}
	err := fail(transport.Busy, "x", fail(transport.Busy, "y", &problem{code: transport.Busy, retryAfter: time.Minute}))
	if got := retryAfter(err); got != time.Minute {
		t.Errorf("of a wrapped error: %v", got)
	}
	if retryAfter(nil) != 0 {
		t.Error("of no error")
	}
}

// What each command asks for: method, path, and the device's name escaped.
func TestRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		f.answer("GET /statements", jsonAnswer(api.Statements{Statements: f.chain}))
		var added api.DeviceRequest
		f.answer("POST /devices", func(w http.ResponseWriter, r *http.Request) {
			json.NewDecoder(r.Body).Decode(&added)
			jsonAnswer(api.NewSubject{Name: "Presse Süd, 4", Expires: time.Now()})(w, r)
		})
		f.answer("GET /devices/Presse Süd, 4", jsonAnswer(api.Device{Name: "Presse Süd, 4"}))
		f.answer("POST /devices/"+f.uid.String()+"/revoke", jsonAnswer(api.Device{State: "revoked"}))
		f.answer("GET /audit", func(w http.ResponseWriter, r *http.Request) {
			jsonAnswer(map[string]any{"records": []api.Record{{Detail: r.URL.RawQuery}}})(w, r)
		})
		if d, err := a.AddDevice(t.Context(), "Presse Süd, 4"); err != nil || d.Name != "Presse Süd, 4" {
			t.Errorf("add: %+v, %v", d, err)
		} else if code, err := identity.ParseOwnerCode(d.Code); err != nil || code.LookupID() != added.Code.Lookup || len(added.Code.Statements) != 4 {
			t.Errorf("add: %v, %+v", err, added)
		}
		if d, err := a.Device(t.Context(), "Presse Süd, 4"); err != nil || d.Name != "Presse Süd, 4" {
			t.Errorf("show: %+v, %v", d, err)
		}
		if d, err := a.RevokeDevice(t.Context(), f.uid.String()); err != nil || d.State != "revoked" {
			t.Errorf("revoke: %+v, %v", d, err)
		}
		if r, err := a.Audit(t.Context(), AuditQuery{Limit: 5}); err != nil || len(r) != 1 || r[0].Detail != "limit=5" {
			t.Errorf("audit: %+v, %v", r, err)
		}
		f.answer("POST /devices", problemAnswer(409, "name-taken", "there is one"))
		if _, err := a.AddDevice(t.Context(), "x"); transport.ReasonOf(err) != api.NameTaken {
			t.Errorf("add again: %v", err)
		}
		if _, err := a.Device(t.Context(), "nobody"); transport.ReasonOf(err) != api.NotFound {
			t.Errorf("show nobody: %v", err)
		}
		calls := len(f.calls)
		for _, bad := range []string{"", "..", "a//b", "a?b", " a", "a\n", "-a", strings.Repeat("a", 65)} {
			_, add := a.AddDevice(t.Context(), bad)
			_, show := a.Device(t.Context(), bad)
			_, revoke := a.RevokeDevice(t.Context(), bad)
			for _, err := range []error{add, show, revoke} {
				if ExitCode(err) != answer.ExitUsage {
					t.Errorf("%q: %v, want a usage error", bad, err)
				}
			}
		}
		for _, limit := range []int{-1, 0, api.MaxLimit + 1} {
			if _, err := a.Audit(t.Context(), AuditQuery{Limit: limit}); ExitCode(err) != answer.ExitUsage {
				t.Errorf("limit %d: %v", limit, err)
			}
		}
		if len(f.calls) != calls {
			t.Errorf("a usage error was asked of the server: %v", f.calls[calls:])
		}
		t.Attr("id", "A1-input")
		t.Attr("cases", "27")
	})
}

// A server that takes the request and says nothing holds nobody for ever.
func TestSilentServerTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		f.answer("GET /devices", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		begin := time.Now()
		_, err := a.Devices(t.Context())
		if took := time.Since(begin); took != requestTimeout || ExitCode(err) != answer.ExitUnreachable {
			t.Errorf("after %v: %v", took, err)
		}
		f.net.Cut(clientAddr, accessAddr)
		if _, err := a.Devices(t.Context()); ExitCode(err) != answer.ExitUnreachable || transport.ReasonOf(err) != transport.Refused {
			t.Errorf("without a server: %v", err)
		}
	})
}

// Whoever reads the JSON can count on a list.
func TestListsOfNoneAreLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		f.answer("GET /devices", jsonAnswer(struct{}{}))
		f.answer("GET /audit", jsonAnswer(struct{}{}))
		if d, err := a.Devices(t.Context()); d == nil || err != nil {
			t.Errorf("devices %#v, %v", d, err)
		}
		if r, err := a.Audit(t.Context(), AuditQuery{Limit: 1}); r == nil || err != nil {
			t.Errorf("records %#v, %v", r, err)
		}
	})
}

// A list is read to its end, page by page, and a server that always has another page is given up.
func TestListsAreReadPageByPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		pages := map[string]api.Devices{
			"limit=1000":             {Devices: []api.Device{{Name: "a"}, {Name: "b"}}, Next: "b/2"},
			"after=b%2F2&limit=1000": {Devices: []api.Device{{Name: "c"}}},
		}
		f.answer("GET /devices", func(w http.ResponseWriter, r *http.Request) { jsonAnswer(pages[r.URL.RawQuery])(w, r) })
		if d, err := a.Devices(t.Context()); len(d) != 3 || d[2].Name != "c" || err != nil {
			t.Errorf("%+v, %v", d, err)
		}
		f.answer("GET /relays", jsonAnswer(api.Relays{Next: "x"}))
		if _, err := a.pool(t.Context()); transport.ReasonOf(err) != transport.Protocol {
			t.Errorf("of a list without an end: %v", err)
		}
	})
}
