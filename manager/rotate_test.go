package manager

import (
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
)

// An admin has moved a device that the domain key had stated elsewhere. Another domain key does not take that back: whoever may
// reach the folder of before would reach it again.
func TestAnotherDomainKeyTakesNoMoveBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		kept, _ := f.mailbox()
		*kept = append(*kept, a.state.owner.Chain()...)
		ada, uid, gateway := identitytest.NewKey(), identity.NewUID(), identitytest.NewKey().Public()
		*kept = append(*kept, f.owner.UserChain("ada", identity.RoleAdmin, nil, ada.Public())...)
		*kept = append(*kept, f.owner.DeviceChain(uid, "press", gateway)...)
		moved := identity.DeviceStatement{Domain: "default", UID: uid, Name: "press", Folder: "south", Serial: f.owner.Serial()}
		*kept = append(*kept, must(identity.Sign(moved, ada)).JWS)
		_, open := f.owner.Invite(f.owner.User("eva", identity.RoleAdmin, nil))
		*kept = append(*kept, open.Subject.JWS, open.Invite.JWS)
		before := len(*kept)
		r, err := a.RotateDomain(t.Context())
		if err != nil || r.Codes != 1 {
			t.Fatalf("%+v, %v", r, err)
		}
		if again := said[identity.DeviceStatement]((*kept)[before:]); len(again) != 0 || r.Devices != 0 {
			t.Errorf("stated again: %+v", again)
		}
		// It is where she has put it, by the new key.
		pool := parsed(*kept)
		v := a.verifier()
		chain, err := v.Assemble(pool, identity.Peer{Name: identity.DeviceName("default", uid), SPKI: must(identity.SPKIOf(gateway))}, a.m.now())
		if err != nil || len(chain) == 0 {
			t.Fatalf("it is not stated any more: %v", err)
		}
		if s := must(identity.ParseStatement(chain[0])); s.Statement.(identity.DeviceStatement).Folder != "south" {
			t.Errorf("it is stated as %+v", s.Statement)
		}
	})
}

// A server says nothing, and another admin, whose clock is ahead, has stated the user a moment ago. The list strikes that, too.
func TestARevocationWithoutTheServerStrikesWhatIsNotSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		f.answer("GET /statements", problemAnswer(503, "busy", "try later"))
		ahead := identity.UserStatement{User: "ann", Serial: uint64(time.Now().Add(maxClockOff - time.Minute).UnixMilli())}
		if err := a.RevokeUser(t.Context(), "ann", false); err == nil {
			t.Fatal("the server has taken it")
		}
		if !a.struck(ahead) {
			t.Errorf("the lists are %+v", a.state.owner.Lists().Entries())
		}
	})
}
