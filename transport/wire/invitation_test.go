package wire

import (
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
)

// The whole way of a code: what a server passes on opens for whoever has the code, and for nobody else.
func TestAnInvitationGivesAChainThatCounts(t *testing.T) {
	o, uid, key := identitytest.NewOwner("plant"), identity.NewUID(), identitytest.NewKey()
	root := identity.SPKI{1}
	code, invitation := o.Invite(o.Device(uid, "press 4"))
	mac, err := invitation.MAC(code, root)
	if err != nil {
		t.Fatal(err)
	}
	said := Invitation{DomainKey: o.Key, MAC: mac[:], Statements: []string{invitation.Subject.JWS, invitation.Invite.JWS}}
	name := identity.DeviceName("plant", uid)
	domain, chain, err := said.Open(code, root, name, key.Public(), "")
	if err != nil || domain != o.Key {
		t.Fatalf("domain key %v, %v", domain, err)
	}
	spki, _ := identity.SPKIOf(key.Public())
	self := identity.Peer{Name: name, SPKI: spki}
	if _, err := (identity.Verifier{Pinned: o.Pinned}).Judge(chain, self, time.Now()); err != nil {
		t.Error(err)
	}
	thief := identitytest.NewOwner("plant")
	for what, spoil := range map[string]func(*Invitation){
		"no MAC":             func(i *Invitation) { i.MAC = nil },
		"another domain key": func(i *Invitation) { i.DomainKey = thief.Key },
		"another statement":  func(i *Invitation) { i.Statements[0] = thief.Device(uid, "press 4").JWS },
		"another list":       func(i *Invitation) { i.List = 1 },
		"no statements":      func(i *Invitation) { i.Statements = nil },
		"none at all":        func(i *Invitation) { *i = Invitation{} },
	} {
		bad := said
		bad.Statements = append([]string(nil), said.Statements...)
		spoil(&bad)
		if _, chain, err := bad.Open(code, root, name, key.Public(), ""); err == nil || chain != nil {
			t.Errorf("%s: it opens", what)
		}
	}
}
