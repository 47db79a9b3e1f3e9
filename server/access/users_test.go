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
	"hawser/transport/wire"
)

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
