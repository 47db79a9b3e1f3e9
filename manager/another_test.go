package manager

import (
	"crypto"
	"net/http"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/transport"
	"hawser/transport/api"
)

func spkiOf(key crypto.Signer) identity.SPKI { return must(identity.SPKIOf(key.Public())) }

// invites is an invite of ann that a key signs, and the key that is stated with it.
func (f *fake) invites(by crypto.Signer, serial uint64, key crypto.Signer) (jws [2]string, code identity.OwnerCode) {
	code = identity.NewOwnerCode()
	pub := must(identity.NewPublicKey(code.InviteKey(0).Public()))
	invite := identity.InviteStatement{Domain: "default", Subject: identity.Subject{User: "ann"}, Key: pub, Serial: serial,
		Exp: min(int64(serial/1000), time.Now().Unix()) + 3600}
	stated := identity.KeyStatement{Domain: "default", Subject: identity.Subject{User: "ann"}, Label: "PC 2",
		Key: must(identity.NewPublicKey(key.Public()))}
	return [2]string{must(identity.Sign(invite, by)).JWS, must(identity.Sign(stated, code.InviteKey(0))).JWS}, code
}

// A key that a user has invited himself lasts when a person says so, and not without one. The serial of his invite, however
// great, keeps nobody from saying something of him.
func TestAKeyThatAUserHasInvitedIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		m := f.manager()
		a := f.loggedIn(m)
		kept, _ := f.mailbox()
		f.answer("GET /users", jsonAnswer(api.Users{}))
		f.answer("POST /users/ann/revoke", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
		first, second := identitytest.NewKey(), identitytest.NewKey()
		invited, _ := f.invites(first, identity.MaxSerial, second)
		*kept = append(append(*kept, f.owner.UserChain("ann", identity.RoleOperator, nil, first.Public())...), invited[:]...)
		*kept = append(*kept, a.state.owner.Chain()...)
		var asked []InvitedKey
		var told int
		say := false
		for _, tt := range []struct {
			name        string
			ask         bool
			say         bool
			asked, told int
			confirmed   bool
		}{
			{"nobody to ask", false, false, 0, 1, false},
			{"no", true, false, 1, 1, false},
			{"yes", true, true, 2, 1, true},
			{"it is confirmed", true, true, 2, 1, true},
		} {
			m.Notice, m.Confirm, say = func(string) { told++ }, nil, tt.say
			if tt.ask {
				m.Confirm = func(k InvitedKey) bool { asked = append(asked, k); return say }
			}
			a = must(m.Open())
			for range 2 { // once a command
				if _, err := a.Users(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			got := slices.ContainsFunc(said[identity.KeyStatement](*kept), func(k identity.KeyStatement) bool {
				return k.Serial != 0 && k.Key.SPKI() == spkiOf(second)
			})
			if got != tt.confirmed || len(asked) != tt.asked || told != tt.told {
				t.Errorf("%s: confirmed %v, asked %d, told %d", tt.name, got, len(asked), told)
			}
		}
		if want := (InvitedKey{"ann", "PC 2", spkiOf(second), spkiOf(first), ""}); asked[0] != want {
			t.Errorf("asked about %+v, want %+v", asked[0], want)
		}
		if err := a.RevokeUser(t.Context(), "ann", false); err != nil {
			t.Errorf("she cannot be revoked any more: %v", err)
		}
	})
}

// One PC of a user is lost. Its key goes with those that it has let in, though an admin has confirmed them since, and with no
// other: who has it can state any key with an invite.
func TestALostPCGoesWithWhatItHasInvited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		kept, _ := f.mailbox()
		lost, next, third, good, bob := identitytest.NewKey(), identitytest.NewKey(), identitytest.NewKey(), identitytest.NewKey(), identitytest.NewKey()
		*kept = append(*kept, f.owner.UserChain("ann", identity.RoleOperator, nil, lost.Public())...)
		*kept = append(*kept, f.owner.UserChain("bob", identity.RoleOperator, nil, bob.Public())...)
		// The other PC of ann came with an admin's code.
		code, invitation := f.owner.Invite(must(identity.ParseStatement((*kept)[0])))
		own := identity.KeyStatement{Domain: "default", Subject: identity.Subject{User: "ann"}, Key: must(identity.NewPublicKey(good.Public()))}
		*kept = append(*kept, invitation.Invite.JWS, must(identity.Sign(own, code.InviteKey(0))).JWS)
		for _, by := range [][2]crypto.Signer{{lost, next}, {next, third}, {lost, good}, {lost, bob}, {lost, a.state.Key}} {
			texts, _ := f.invites(by[0], f.owner.Serial(), by[1])
			*kept = append(*kept, texts[:]...)
		}
		for _, key := range []crypto.Signer{next, third, good} {
			*kept = append(*kept, f.owner.UserKey("ann", key.Public()).JWS)
		}
		*kept = append(*kept, a.state.owner.Chain()...)
		var sent api.UserRevocation
		f.answer("POST /users/ann/revoke", func(w http.ResponseWriter, r *http.Request) {
			decode(r, &sent)
			w.WriteHeader(http.StatusNoContent)
		})
		keys, err := a.RevokeUserKey(t.Context(), "ann", spkiOf(lost))
		want := []identity.SPKI{spkiOf(lost), spkiOf(next), spkiOf(third)}
		if err != nil || !slices.Equal(keys, want) || !slices.Equal(sent.Keys, want) {
			t.Errorf("listed %v, want %v, %v", keys, want, err)
		}
		if e := entries(t, sent.Statements); len(e) != 3 {
			t.Errorf("the list says %+v", e)
		}
		if _, err := a.RevokeUserKey(t.Context(), "ann", identity.SPKI{1}); transport.ReasonOf(err) != api.NotFound {
			t.Errorf("a key that nobody knows: %v", err)
		}
	})
}

// A logout removes key and certificate when a server has heard of it, and nothing else.
func TestLogoutLeavesTheDomainKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		m := f.manager()
		a := f.loggedIn(m)
		for name, h := range map[string]http.HandlerFunc{"busy": problemAnswer(503, "busy", "later"), "cut": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }} {
			f.answer("POST /logout", h)
			if _, err := a.Logout(t.Context(), false); err == nil {
				t.Errorf("%s: done", name)
			}
			if _, err := m.Open(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		f.answer("POST /logout", problemAnswer(401, "not-logged-in", "the key was logged out")) // the answer before was lost
		out, err := a.Logout(t.Context(), false)
		if err != nil || !out.DomainKey || out.SPKI != a.Info().SPKI {
			t.Errorf("%+v, %v", out, err)
		}
		if _, err := m.Open(); transport.ReasonOf(err) != api.NotLoggedIn {
			t.Errorf("afterwards: %v", err)
		}
		var files []string
		for _, e := range must(os.ReadDir(m.Home)) {
			files = append(files, e.Name())
		}
		if want := []string{"domain.key", "lock", "owner.0", "owner.1", "root.pem"}; !slices.Equal(files, want) {
			t.Errorf("left: %v, want %v", files, want)
		}
		if _, err := m.Login(t.Context(), f.founder()); err != nil {
			t.Errorf("logged in again: %v", err)
		}
	})
}
