package access

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

func TestLoginRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		who, other := newSomeone(), newSomeone()
		code := w.admin.String()
		founder := func(code, user string, who *someone) api.LoginRequest {
			body := w.founder(w.admin, user, who)
			body.Code = code
			return body
		}
		cases := []struct {
			name string
			body api.LoginRequest
			code transport.Reason
		}{
			{"CSR with a name", api.LoginRequest{Code: code, User: "admin", CSR: csrFor(who.Key, withCommonName)}, transport.BadCSR},
			{"no CSR", api.LoginRequest{Code: code, User: "admin", CSR: nil}, transport.BadCSR},
			{"unknown code", api.LoginRequest{Code: identity.NewCode().String(), User: "admin", CSR: who.CSR()}, transport.BadCode},
			{"activation code", api.LoginRequest{Code: w.relay.String(), User: "admin", CSR: who.CSR()}, transport.BadCode},
			{"another user", founder(code, "anna", who), transport.BadCode},
			{"no fault", founder(code, "admin", who), ""},
			{"again with the same key", founder(strings.ToLower(code), "admin", who), ""},
			{"again with another key", founder(code, "admin", other), transport.BadCode},
		}
		t.Attr("id", "A1-refuse")
		t.Attr("cases", fmt.Sprint(len(cases)-2))
		for _, c := range cases {
			_, raw := w.callRaw(nil, "POST", "/api/v1/login", c.body)
			var p api.Problem
			json.Unmarshal(raw, &p)
			if p.Code != c.code {
				t.Errorf("%s: %s, want %q", c.name, raw, c.code)
			}
		}
		if got := w.actions(3); !slices.Equal(got, []string{"login ok", "login ok", "login bad-code"}) {
			t.Errorf("audit: %v", got)
		}
		for range limitFailures { // one of them was above
			w.call(nil, "POST", "/api/v1/login", founder(code, "eve", who), nil)
		}
		response, _ := w.callRaw(nil, "POST", "/api/v1/login", founder(code, "admin", who))
		if response.StatusCode != 429 || response.Header.Get("Retry-After") == "" {
			t.Errorf("%d %v", response.StatusCode, response.Header)
		}
	})
}

// A user renews silently for 30 days after the login, whatever the dates of
// the certificate, and then has to log in again.
func TestUserRenewsFor30Days(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		admin := w.login()
		if life := time.Until(admin.Chain[0].NotAfter); life != userLife {
			t.Errorf("life %v", life)
		}
		renew := func(csr []byte) int {
			var answer api.RenewAnswer
			status := w.call(admin, "POST", "/api/v1/renew", api.RenewRequest{CSR: csr}, &answer)
			if status == 200 {
				admin.take(wire.Identity{Chain: answer.Chain})
			}
			return status
		}
		time.Sleep(13 * time.Hour)
		if status := w.call(admin, "GET", "/api/v1/devices", nil, nil); status != 401 {
			t.Errorf("with an expired certificate: %d", status)
		}
		if status := renew(newSomeone().CSR()); status != 403 {
			t.Errorf("with another key: %d", status)
		}
		if status := renew(admin.CSR()); status != 200 {
			t.Errorf("renew: %d", status)
		}
		if status := w.call(admin, "GET", "/api/v1/devices", nil, nil); status != 200 {
			t.Errorf("renewed: %d", status)
		}
		time.Sleep(29 * 24 * time.Hour)
		if status := renew(admin.CSR()); status != 200 {
			t.Errorf("after 29.5 days: %d", status)
		}
		time.Sleep(24 * time.Hour)
		if status := renew(admin.CSR()); status != 401 {
			t.Errorf("after 30.5 days: %d", status)
		}
	})
}
