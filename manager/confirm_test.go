package manager

import (
	"net/http"
	"slices"
	"testing"
	"testing/synctest"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/transport"
	"hawser/transport/api"
)

// codes lets devices be added and get codes, and keeps what was sent of the last one.
func (f *fake) codes() *api.NewCode {
	last := new(api.NewCode)
	take := func(w http.ResponseWriter, r *http.Request) {
		var in api.DeviceRequest
		decode(r, &in)
		*last = in.Code
		jsonAnswer(api.NewSubject{})(w, r)
	}
	f.answer("POST /devices", take)
	f.answer("POST /devices/"+f.uid.String()+"/code", take)
	return last
}

// enrolls is what a gateway states when it uses a code.
func enrolls(t *testing.T, text string, uid identity.UID) (jws string, spki identity.SPKI) {
	t.Helper()
	code, pub := must(identity.ParseOwnerCode(text)), identitytest.NewKey().Public()
	key := identity.KeyStatement{Domain: "default", Subject: identity.Subject{UID: uid}, Key: must(identity.NewPublicKey(pub))}
	return must(identity.Sign(key, code.InviteKey(0))).JWS, key.Key.SPKI()
}

// New hardware: the key that comes with the new code is confirmed, and the old gateway is out by the same request, also where
// its key was never confirmed, and where it was confirmed after the code was made.
func TestANewKeyIsConfirmedAndTheOldOneListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, late := range map[string]bool{"before the code was made": false, "by another admin meanwhile": true} {
			f := newFake(t)
			a := f.loggedIn(f.manager())
			pool := slices.Clone(f.chain)
			answer := func() { f.answer("GET /statements", jsonAnswer(api.Statements{Statements: pool})) }
			code, sent := f.codes(), f.posted()
			answer()
			d, err := a.DeviceCode(t.Context(), "press")
			if err != nil || d.UID != f.uid || d.Name != "press" {
				t.Fatalf("%+v, %v", d, err)
			}
			pool = append(pool, code.Statements...)
			if late {
				invite := must(identity.ParseStatement(code.Statements[1])).Statement.(identity.InviteStatement)
				old := must(identity.ParseStatement(f.chain[1])).Statement.(identity.KeyStatement)
				old.Serial = invite.Serial + 1000
				pool = append(pool, f.owner.Sign(old).JWS)
			}
			answer()
			if _, err := a.Users(t.Context()); transport.ReasonOf(err) != api.NotFound || len(sent.Statements) != 0 {
				t.Fatalf("%s: before it enrolled: %v, %d statements", name, err, len(sent.Statements))
			}
			key, spki := enrolls(t, d.Code, f.uid)
			pool = append(pool, key)
			answer()
			if _, err := a.Users(t.Context()); transport.ReasonOf(err) != api.NotFound || len(sent.Statements) < 2 {
				t.Fatalf("%s: %v, %d statements", name, err, len(sent.Statements))
			}
			pool = append(pool, sent.Statements...)
			judge := func(spki identity.SPKI) identity.Fault {
				peer := identity.Peer{Name: identity.DeviceName("default", f.uid), SPKI: spki}
				var all statements
				for _, jws := range pool {
					all = append(all, must(identity.ParseStatement(jws)))
				}
				chain, err := a.verifier().Assemble(all, peer, a.statementTime())
				if err == nil {
					var v identity.Verdict
					if v, err = a.verifier().Judge(chain, peer, a.statementTime()); err == nil && !v.Confirmed {
						t.Errorf("%s: the new key is not confirmed", name)
					}
				}
				return identity.FaultOf(err)
			}
			if fault := judge(spki); fault != "" {
				t.Errorf("%s: the new gateway: %s", name, fault)
			}
			if fault := judge(must(identity.SPKIOf(f.gatewayTLS.Leaf.PublicKey))); fault != identity.FaultRevoked {
				t.Errorf("%s: the old gateway: %q", name, fault)
			}
			n := f.called("POST /statements")
			answer()
			if a.Users(t.Context()); f.called("POST /statements") != n {
				t.Errorf("%s: it is confirmed again", name)
			}
		}
	})
}

// Who has copied a code states a second key with it: then none is believed for good, and another code settles it. A code ends
// those before it, also for who uses an old one late.
func TestACodeThatWasCopiedConfirmsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		code, sent := f.codes(), f.posted()
		var pool []string
		confirm := func(add ...string) int {
			pool = append(pool, add...)
			f.answer("GET /statements", jsonAnswer(api.Statements{Statements: pool}))
			*sent = api.Statements{}
			a.Users(t.Context())
			pool = append(pool, sent.Statements...)
			return len(sent.Statements)
		}
		pool = append(pool, f.chain[0])
		confirm()
		first := must(a.DeviceCode(t.Context(), "press"))
		pool = append(pool, code.Statements...)
		one, _ := enrolls(t, first.Code, f.uid)
		two, thief := enrolls(t, first.Code, f.uid)
		if n := confirm(one, two); n != 0 {
			t.Errorf("%d statements confirm one of two keys", n)
		}
		second := must(a.DeviceCode(t.Context(), "press"))
		pool = append(pool, code.Statements...)
		late, _ := enrolls(t, first.Code, f.uid)
		if n := confirm(late); n != 0 {
			t.Errorf("%d statements confirm a key of the code before", n)
		}
		good, _ := enrolls(t, second.Code, f.uid)
		if n := confirm(good); n == 0 {
			t.Error("the key of the new code is not confirmed")
		}
		if got := entries(t, sent.Statements); !slices.Contains(got, identity.Entry{SPKI: thief}) {
			t.Errorf("listed: %+v", got)
		}
	})
}
