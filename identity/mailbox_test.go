package identity_test

import (
	"crypto"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
)

func TestKeepTakesWhatSomebodyWillBelieve(t *testing.T) {
	o, now := identitytest.NewOwner("plant"), time.Now()
	key := func() crypto.Signer { return identitytest.NewKey() }
	public := func(k crypto.Signer) identity.PublicKey { return must(identity.NewPublicKey(k.Public())) }
	admin, operator, first, second, pc := key(), key(), key(), key(), key()
	uid := identity.NewUID()
	device, bob := o.Device(uid, "press 1"), o.User("bob", identity.RoleOperator, nil)
	code, said := o.Invite(device)
	invited := code.InviteKey(0)
	pool := []identity.Signed{device, said.Invite, o.User("ann", identity.RoleAdmin, nil), o.UserKey("ann", admin.Public()), bob, o.UserKey("bob", operator.Public()), o.User("dan", identity.RoleAdmin, nil)}
	sign := func(s identity.Statement, by crypto.Signer) identity.Signed { return must(identity.Sign(s, by)) }
	deviceKey := func(k crypto.Signer, serial uint64) identity.KeyStatement {
		return identity.KeyStatement{Domain: "plant", Subject: identity.Subject{UID: uid}, Key: public(k), Serial: serial}
	}
	invite := func(user string, by crypto.Signer) identity.Signed {
		s := identity.InviteStatement{Domain: "plant", Subject: identity.Subject{User: user}, Key: public(pc), Exp: now.Unix() + 3600, Serial: o.Serial()}
		return sign(s, by)
	}
	user := func(role identity.Role, exp time.Time) identity.UserStatement {
		s := identity.UserStatement{Domain: "plant", User: "eve", Role: role, Exp: exp.Unix(), Serial: o.Serial()}
		if role != identity.RoleAdmin {
			s.Scope = &identity.Scope{Devices: []string{}, Targets: []string{}}
		}
		return s
	}
	cases := map[string]struct {
		s    identity.Signed
		want identity.Fault
	}{
		"device by the domain key":       {device, ""},
		"device by an admin":             {sign(identity.DeviceStatement{Domain: "plant", UID: uid, Name: "x", Serial: 1}, admin), ""},
		"device by an operator":          {sign(identity.DeviceStatement{Domain: "plant", UID: uid, Name: "x", Serial: 1}, operator), identity.FaultNotStated},
		"device by an invite":            {sign(identity.DeviceStatement{Domain: "plant", UID: uid, Name: "x", Serial: 1}, invited), identity.FaultNotStated},
		"device of another domain":       {identitytest.NewOwner("mill").Device(uid, "x"), identity.FaultNotStated},
		"key by the invite":              {sign(deviceKey(first, 0), invited), ""},
		"key by the invite, confirmed":   {sign(deviceKey(first, 7), invited), identity.FaultNotStated},
		"key of somebody, by an invite":  {sign(identity.KeyStatement{Domain: "plant", Subject: identity.Subject{User: "bob"}, Key: public(first)}, invited), identity.FaultNotStated},
		"key by nobody":                  {sign(deviceKey(first, 0), second), identity.FaultNotStated},
		"key by an admin, not confirmed": {sign(deviceKey(first, 0), admin), identity.FaultNotStated},
		"admin by an admin":              {sign(user(identity.RoleAdmin, now.Add(time.Hour)), admin), identity.FaultNotStated},
		"viewer by an admin":             {sign(user(identity.RoleViewer, now.Add(time.Hour)), admin), ""},
		"viewer who has ended":           {sign(user(identity.RoleViewer, now.Add(-time.Hour)), admin), identity.FaultExpired},
		"key of an admin, by an admin":   {sign(identity.KeyStatement{Domain: "plant", Subject: identity.Subject{User: "dan"}, Key: public(first), Serial: 7}, admin), identity.FaultNotStated},
		"invite of an admin, by another": {invite("dan", admin), identity.FaultNotStated},
		"next PC of an admin":            {invite("ann", admin), ""},
		"next PC of a user":              {invite("bob", operator), ""},
		"next PC of another user":        {invite("ann", operator), identity.FaultNotStated},
		"list by an admin":               {sign(identity.ListStatement{Domain: "plant", Serial: o.Serial(), Iat: now.Unix(), Entries: []identity.Entry{}}, admin), ""},
		"list by an operator":            {sign(identity.ListStatement{Domain: "plant", Serial: o.Serial(), Iat: now.Unix(), Entries: []identity.Entry{}}, operator), identity.FaultNotStated},
		"change of the domain key":       {o.Sign(identity.DomainStatement{Domain: "plant", Old: o.Key, New: public(pc), Serial: 1}), identity.FaultNotStated},
	}
	v := identity.Verifier{Pinned: o.Pinned}
	for name, c := range cases {
		if got := identity.FaultOf(v.Keep(c.s, pool, now)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	// What a list strikes is kept no more, nor what its signer has said.
	until := now.Add(identity.EntryLifetime - time.Hour).Unix()
	list := o.Lists(identity.Entry{Subject: identity.Subject{User: "ann"}, All: o.Serial(), Until: until})
	v.Lists = must(v.Lists.Add(list, pool, o.Pinned, identity.Holder{}, now))
	for _, name := range []string{"device by an admin", "viewer by an admin", "list by an admin"} {
		if got := identity.FaultOf(v.Keep(cases[name].s, pool, now)); got != identity.FaultRevoked {
			t.Errorf("%s, who was listed: %q", name, got)
		}
	}
	// An unconfirmed key ends with its invite.
	unconfirmed := cases["key by the invite"].s
	if end := unconfirmed.Ends(pool); end.IsZero() || v.Keep(unconfirmed, pool, end) != nil || identity.FaultOf(v.Keep(unconfirmed, pool, end.Add(time.Second))) != identity.FaultExpired {
		t.Errorf("it ends %v", end)
	}
	if end := device.Ends(pool); !end.IsZero() {
		t.Errorf("a device ends %v", end)
	}
}

// Whoever may send statements can send two that vouch for each other: his invite, signed by the key that it states.
func TestKeepRefusesStatementsThatSignEachOther(t *testing.T) {
	o, now := identitytest.NewOwner("plant"), time.Now()
	own, invited := identitytest.NewKey(), identitytest.NewKey()
	bob := identity.Subject{User: "bob"}
	key := must(identity.Sign(identity.KeyStatement{Domain: "plant", Subject: bob, Serial: 1, Key: must(identity.NewPublicKey(own.Public()))}, invited))
	invite := must(identity.Sign(identity.InviteStatement{Domain: "plant", Subject: bob, Key: must(identity.NewPublicKey(invited.Public())),
		Exp: now.Unix() + 3600, Serial: o.Serial()}, own))
	v := identity.Verifier{Pinned: o.Pinned}
	for _, s := range []identity.Signed{key, invite} {
		if got := identity.FaultOf(v.Keep(s, []identity.Signed{key, invite}, now)); got != identity.FaultNotStated {
			t.Errorf("%T: %q", s.Statement, got)
		}
	}
}
