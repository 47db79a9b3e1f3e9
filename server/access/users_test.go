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
func TestUserRenewsWhileHeIsSeen(t *testing.T) {
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
		for range 5 { // there is no cliff: a year after the login it is as before
			time.Sleep(90 * 24 * time.Hour)
			if status := renew(admin.CSR()); status != 200 {
				t.Errorf("after 90 days more: %d", status)
			}
		}
		time.Sleep(90*24*time.Hour + time.Minute)
		if status := renew(admin.CSR()); status != 401 {
			t.Errorf("after more than 90 days: %d", status)
		}
	})
}

// ownCode is a code that a user's own key has made.
func (w *world) ownCode(who *someone, name string, chain []string) (identity.OwnerCode, api.NewCode) {
	o, code := w.owner("plant"), identity.NewOwnerCode()
	serial := o.Serial()
	subject := must(identity.ParseStatement(chain[0]))
	i := must(o.Pinned.Invite(code, subject, 0, time.UnixMilli(int64(serial)).Add(identity.UserInviteLifetime), serial, o.List, who.Key))
	return code, must(api.CodeOf(code, i, w.pki.Pin(), chain[1:]))
}

// A user lets his next PC in himself, and neither anybody else nor more of them than the room of others allows. One key of
// his is shut out without the others.
func TestAUserMakesACodeForHisNextPC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		first := s.stranger("plant", "bob")
		chain := s.owner("plant").UserChain("bob", identity.RoleOperator, nil, first.Key.Public())
		s.state("plant", chain...)
		carol := s.newUserAs("carol", identity.RoleOperator, nil)
		code, body := s.ownCode(first, "bob", chain)
		if got := s.code(carol, "POST", "/api/v1/code", api.UserRequest{Code: body}); got != transport.Policy {
			t.Errorf("for another one: %q", got)
		}
		for range 2 { // the first answer may have been lost
			if got := s.code(first, "POST", "/api/v1/code", api.UserRequest{Code: body}); got != "" {
				t.Fatalf("%q", got)
			}
		}
		twice := body
		twice.Lookup = identity.NewOwnerCode().LookupID()
		if got := s.code(first, "POST", "/api/v1/code", api.UserRequest{Code: twice}); got != transport.CodeTaken {
			t.Errorf("its invite with another code: %q", got)
		}
		second := newSomeone()
		answer, reason := s.loginBy(code, second)
		if reason != "" {
			t.Fatalf("login: %q", reason)
		}
		_, his, err := answer.Invitation.Open(code, s.pki.Pin(), identity.UserName("plant", "bob"), second.Key.Public(), "PC 2")
		if err != nil {
			t.Fatal(err)
		}
		if got := s.code(second, "POST", "/api/v1/statements", api.Statements{Statements: his[1:2]}); got != "" {
			t.Errorf("his key: %q", got)
		}
		if got := s.code(second, "GET", "/api/v1/devices", nil); got != "" {
			t.Errorf("the next PC: %q", got)
		}
		_, forged := s.ownCode(second, "bob", his)
		if got := s.code(second, "POST", "/api/v1/code", api.UserRequest{Code: forged}); got != transport.NotStated {
			t.Errorf("a key that is not confirmed makes a code: %q", got)
		}
		made := 1
		for ; made < 2*maxOwnInvites; made++ {
			if _, body := s.ownCode(first, "bob", chain); s.code(first, "POST", "/api/v1/code", api.UserRequest{Code: body}) != "" {
				break
			}
		}
		if made != maxOwnInvites {
			t.Errorf("%d codes for next PCs", made)
		}
		_, more := s.newCode(s.owner("plant").User("bob", identity.RoleOperator, nil))
		if got := s.code(s.admin, "POST", "/api/v1/users/bob/code", api.UserRequest{Code: more}); got != "" {
			t.Errorf("an admin's code beside them: %q", got)
		}
		// The first one is lost. An admin lists it, and the next one goes as well, which it has invited.
		o := s.owner("plant")
		list := o.Lists(identity.Entry{SPKI: first.spki(), Until: time.Now().Add(identity.EntryLifetime - time.Hour).Unix()})
		out := api.UserRevocation{Statements: []string{list.JWS}, Keys: []identity.SPKI{first.spki(), carol.spki()}}
		if got := s.code(s.admin, "POST", "/api/v1/users/bob/revoke", out); got != "" {
			t.Errorf("%q", got)
		}
		for name, want := range map[*someone]transport.Reason{first: transport.Revoked, second: transport.Revoked, carol: ""} {
			if got := s.code(name, "GET", "/api/v1/devices", nil); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
		if got := s.code(second, "POST", "/api/v1/renew", api.RenewRequest{CSR: second.CSR()}); got != "" {
			t.Errorf("the registry has shut out more than was said: %q", got)
		}
	})
}

// Who logs out is out with this key, or with all of his, and nobody else is.
func TestLogoutEndsTheKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		one := s.newUserAs("bob", identity.RoleOperator, nil)
		two := s.newUserAs("bob", identity.RoleOperator, nil)
		three := s.newUserAs("bob", identity.RoleOperator, nil)
		carol := s.newUserAs("carol", identity.RoleOperator, nil)
		s.runtime.beQuiet()
		out := func(who *someone, all bool, gone ...*someone) {
			t.Helper()
			if got := s.code(who, "POST", "/api/v1/logout", api.LogoutRequest{All: all}); got != "" {
				t.Fatalf("%q", got)
			}
			var revoked wire.Revoked
			s.runtime.read(wire.TypeRevoked, &revoked)
			for _, g := range gone {
				if !slices.Contains(revoked.SPKI, g.spki()) {
					t.Errorf("Runtimes are told of %v", revoked.SPKI)
				}
				if got := s.code(g, "GET", "/api/v1/devices", nil); got != api.NotLoggedIn && got != transport.Revoked {
					t.Errorf("after it: %q", got)
				}
				if got := s.code(g, "POST", "/api/v1/renew", api.RenewRequest{CSR: g.CSR()}); got != api.NotLoggedIn && got != transport.Revoked {
					t.Errorf("renew: %q", got)
				}
			}
		}
		out(one, false, one)
		if got := s.code(two, "GET", "/api/v1/devices", nil); got != "" {
			t.Errorf("his other PC: %q", got)
		}
		out(two, true, one, two, three)
		if got := s.code(carol, "GET", "/api/v1/devices", nil); got != "" {
			t.Errorf("somebody else: %q", got)
		}
		if got := s.actions(2); !slices.Equal(got, []string{"logout ok", "logout ok"}) {
			t.Errorf("audit: %v", got)
		}
	})
}
