package manager

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/transport"
	"hawser/transport/api"
)

// claimable lets a code be claimed. The device of it is pending until enrolled says otherwise.
func (f *fake) claimable(kept *[]string) (sent *api.NewCode) {
	sent = new(api.NewCode)
	f.answer("POST /devices", func(w http.ResponseWriter, r *http.Request) {
		var in api.DeviceRequest
		decode(r, &in)
		if sent.Lookup != "" {
			problemAnswer(409, "code-taken", "the code is used already")(w, r)
			return
		}
		*sent = in.Code
		*kept = append(*kept, in.Code.Statements...)
		invite := must(identity.ParseStatement(in.Code.Statements[1])).Statement.(identity.InviteStatement)
		f.enrolled(invite.UID, identity.SPKI{})
		jsonAnswer(api.NewSubject{UID: invite.UID, Expires: time.Unix(invite.Exp, 0)})(w, r)
	})
	return sent
}

// enrolled is what the server says of a device and its key.
func (f *fake) enrolled(uid identity.UID, spki identity.SPKI) {
	d := api.Device{UID: uid, State: api.StatePending, SPKI: spki}
	if !spki.IsZero() {
		d.State, d.Online = api.StateEnrolled, true
	}
	f.answer("GET /devices/"+uid.String(), jsonAnswer(d))
}

func TestAGatewayIsClaimedByItsCode(t *testing.T) {
	t.Attr("id", "T-claim")
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		kept, _ := f.mailbox()
		sent := f.claimable(kept)
		code := identity.NewOwnerCode()
		if _, err := a.Waiting(t.Context(), code); transport.ReasonOf(err) != api.NotFound || !IsNotFound(err) {
			t.Errorf("nobody waits: %v", err)
		}
		f.answer("GET /claims/"+code.LookupID(), jsonAnswer(api.Claim{Address: "192.0.2.77", Hints: map[string]string{"serial": "b\x1b1"}}))
		c, err := a.Waiting(t.Context(), code)
		var text strings.Builder
		if err != nil || c.Address != "192.0.2.77" || WriteClaim(&text, c) != nil || strings.Contains(text.String(), "\x1b") {
			t.Errorf("%+v, %v, %q", c, err, text.String())
		}
		d, err := a.ClaimDevice(t.Context(), code, "press 9", "north")
		if err != nil || d.Code != "" || sent.Lookup != code.LookupID() {
			t.Fatalf("%+v, %v", d, err)
		}
		said := identity.Invitation{Domain: "default", Key: a.state.owner.Pinned().Key, Subject: must(identity.ParseStatement(sent.Statements[0])),
			Invite: must(identity.ParseStatement(sent.Statements[1])), List: sent.List}
		if _, err := said.Open(code, sent.MAC, a.rootPin(), identity.DeviceName("default", d.UID)); err != nil {
			t.Errorf("the gateway refuses it: %v", err)
		}
		time.AfterFunc(70*time.Second, func() {
			key, spki := enrolls(t, code.String(), d.UID)
			f.enrolled(d.UID, spki)
			f.deliver(kept, key)
		})
		seen, err := a.AwaitDevice(t.Context(), d)
		if err != nil || seen.Key != KeyConfirmed {
			t.Errorf("%+v, %v", seen, err)
		}
	})
}

// The answer may be lost, and the command given again; another admin of the domain, or another domain, may have been faster.
func TestAClaimThatWasMadeBeforeIsFound(t *testing.T) {
	t.Attr("id", "T-claim")
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		kept, _ := f.mailbox()
		f.claimable(kept)
		code := identity.NewOwnerCode()
		d := must(a.ClaimDevice(t.Context(), code, "press 9", ""))
		again, err := a.ClaimDevice(t.Context(), code, "press 9", "")
		if err != nil || again.UID != d.UID || again.Expires.IsZero() || f.called("POST /devices") != 1 {
			t.Errorf("again: %+v, %v", again, err)
		}
		if _, err := a.ClaimDevice(t.Context(), code, "press 10", ""); transport.ReasonOf(err) != transport.CodeTaken || !strings.Contains(err.Error(), "press 9") {
			t.Errorf("by another name: %v", err)
		}
		if _, err := a.ClaimDevice(t.Context(), identity.NewOwnerCode(), "press 11", ""); transport.ReasonOf(err) != transport.CodeTaken ||
			!strings.Contains(err.Error(), "somebody else") || f.called("POST /devices") != 2 {
			t.Errorf("another domain was faster: %v", err)
		}
	})
}

// A server that has let a key of its own in shows it as the gateway's, with a statement that it has signed itself.
func TestAServerConfirmsNoKeyOfAClaim(t *testing.T) {
	t.Attr("id", "T-claim")
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		kept, _ := f.mailbox()
		f.claimable(kept)
		d := must(a.ClaimDevice(t.Context(), identity.NewOwnerCode(), "press 9", ""))
		key, spki := enrolls(t, identity.NewOwnerCode().String(), d.UID)
		*kept = append(*kept, key, identitytest.NewOwner("default").DeviceKey(d.UID, identitytest.NewKey().Public()).JWS)
		before := slices.Clone(*kept)
		f.enrolled(d.UID, spki)
		time.AfterFunc(5*time.Minute, func() { f.answer("GET /devices/"+d.UID.String(), problemAnswer(403, "revoked", "over")) })
		if seen, err := a.AwaitDevice(t.Context(), d); err == nil {
			t.Errorf("%+v", seen)
		}
		if len(*kept) != len(before) {
			t.Error("something was stated")
		}
	})
}

// What is mistyped is found without asking anybody.
func TestAMistypedCodeIsNotSent(t *testing.T) {
	t.Attr("id", "T-claim")
	code := identity.NewOwnerCode().String()
	bad := []string{"", "U", code[:len(code)-1], code + "A", strings.TrimPrefix(code, "U-"), identity.NewCode().String()}
	for i := range code { // each single slip
		if code[i] != '-' && i > 0 {
			other := byte('7')
			if code[i] == '7' {
				other = '8'
			}
			bad = append(bad, code[:i]+string(other)+code[i+1:])
		}
	}
	for _, typed := range bad {
		if _, err := ParseClaim(typed); ExitCode(err) != 2 || len(typed) > 12 && strings.Contains(err.Error(), typed[4:12]) {
			t.Errorf("%q: %v", typed, err)
		}
	}
	if got, err := ParseClaim(" " + strings.ToLower(code) + "\n"); err != nil || got.String() != code {
		t.Errorf("%v, %v", got, err)
	}
}
