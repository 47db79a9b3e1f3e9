//go:build linux

package e2e

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/owner"
	"hawser/server"
	"hawser/transport"
	"hawser/transport/api"
)

// disk is what the gateway has stored of its owner.
func (x *theft) disk() *owner.Owner {
	x.t.Helper()
	known, err := owner.Open(x.options.Config.Data, identity.Peer{Name: x.device, SPKI: x.spki})
	x.must("what the gateway knows", err)
	return known
}

// told gives statements to the gateway, and waits until it has looked at them.
func (x *theft) told(statements ...string) {
	x.t.Helper()
	x.Tell(x.device, statements...)
	time.Sleep(time.Second)
}

// shutOut ends what was stated of a user below a serial.
func shutOut(user string, below uint64) identity.Entry {
	return identity.Entry{Subject: identity.Subject{User: user}, All: below, Until: time.Now().Add(300 * day).Unix()}
}

// listBy is one that a key signs.
func (x *theft) listBy(o *identitytest.Owner, entries ...identity.Entry) string {
	return o.Lists(entries...).JWS
}

// own is how a true user gets in, who is in league with the thief: with his key, and the chain that he has now.
func (x *theft) own(pc, user string) func() error {
	cert := x.PKI.Certify(x.key(pc, "key.pem"), identity.UserName(server.DefaultDomain, user), -time.Hour, 400*day)
	chain := x.chain(identity.UserName(server.DefaultDomain, user), identity.CertSPKI(cert.Leaf))
	return func() error { return x.enter(cert, chain...) }
}

// in wants somebody to get in, which the thief can make happen (identity §16): he withholds what is new.
func (x *theft) in(what string, err error) {
	x.t.Helper()
	if err != nil {
		x.t.Errorf("%s: %v", what, err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.plc, x.dials = 0, 0
}

// A server withholds a list, and replays what is older. Whoever was shut out is out from when any technician has
// brought the list, and nothing that is older lets him in again.
func TestWhatAThiefGetsByOldStatementsAndLists(t *testing.T) {
	t.Attr("id", "T-server")
	synctest.Test(t, func(t *testing.T) {
		x := newTheft(t, nil)
		ann := x.own("ann", "ann") // with the statement that she has now
		base := x.Statements()
		older := x.listBy(x.owner)
		time.Sleep(time.Minute)
		// She is narrowed: a new statement, and the list that ends the one before.
		scope := &identity.Scope{Devices: []string{}, Targets: []string{}}
		narrow := x.owner.User("ann", identity.RoleOperator, scope)
		serial := said[identity.UserStatement]([]string{narrow.JWS})[0].Serial
		list := x.listBy(x.owner, identity.Entry{Subject: identity.Subject{User: "ann"},
			Statements: serial, Until: time.Now().Add(300 * day).Unix()})
		x.Show(append(base, narrow.JWS, list))
		x.list(x.founder) // it is in his home now
		x.Show(base)
		x.in("while the list is withheld", ann())
		con := x.as("con")
		knew := x.owner.UserChain("con", identity.RoleOperator, nil, con.Leaf.PublicKey)
		x.refused("who was stated by somebody who knew the list", x.enter(con, knew...), transport.Stale)
		x.pings("the founder", x.founder)
		x.refused("an old statement", ann(), transport.Revoked)
		x.told(append(base, older)...)
		x.refused("an old list, sent again", ann(), transport.Revoked)
		x.stop()
		x.up()
		x.within(time.Minute, "the gateway is back", func() bool { return x.agent.Status().State == "attached" })
		x.told(append(base, older)...)
		x.refused("an old list, after a power cut", ann(), transport.Revoked)
		cert := x.PKI.Certify(x.key("ann", "key.pem"), identity.UserName(server.DefaultDomain, "ann"), -time.Hour, time.Hour)
		again := x.owner.UserKey("ann", cert.Leaf.PublicKey).JWS
		x.refused("by her new statement", x.enter(cert, narrow.JWS, again), transport.Policy)

		// A device is renamed, and the server shows what was before.
		was := x.honest()
		time.Sleep(time.Minute)
		uid := was.UID
		renamed := x.owner.Device(uid, "press 9").JWS
		now := was
		gateway, err := identity.NewPublicKey(x.Link(x.device).ConnectionState().PeerCertificates[0].PublicKey)
		x.must("public key", err)
		now.Statements = []string{renamed, x.sign(x.owner.DomainKey, identity.KeyStatement{Domain: server.DefaultDomain,
			Subject: identity.Subject{UID: uid}, Key: gateway, Serial: x.owner.Serial()})}
		x.find(now)
		x.told(renamed)
		x.pingsTo("press 9", "the founder", x.founder)
		x.find(was)
		x.refused("an old statement of a device", x.ping(x.founder, "press 4"), transport.Stale)
		x.told(was.Statements...)
		if name := x.agent.Status().Owner.Name; name != "press 9" {
			t.Errorf("the gateway calls itself %s", name)
		}

		// It is revoked, and the server says nothing of that to whoever knows.
		strike := x.listBy(x.owner, identity.Entry{Subject: identity.Subject{UID: uid}, All: x.owner.Serial()})
		before := x.Statements()
		x.Show(append(before, strike))
		x.list(x.founder)
		x.Show(before)
		x.find(now)
		x.refused("a device that was revoked", x.ping(x.founder, "press 9"), transport.Revoked)
	})
	t.Attr("cases", "8")
}

// lastList is the newest list that a Manager has sent to the server.
func (x *theft) lastList(request string) (entries []identity.Entry) {
	x.t.Helper()
	all := x.Asked(request)
	if len(all) == 0 {
		x.t.Fatalf("nobody has asked %s", request)
	}
	var m api.Statements
	x.must("request", json.Unmarshal(all[len(all)-1].Body, &m))
	lists := said[identity.ListStatement](m.Statements)
	if len(lists) == 0 {
		x.t.Fatalf("no list came with %s", request)
	}
	return lists[len(lists)-1].Entries
}

// has reports whether entries shut a user out.
func has(entries []identity.Entry, user string) bool {
	for _, e := range entries {
		if e.User == user && e.All > 0 {
			return true
		}
	}
	return false
}

// A server gives an admin an older list to sign the next one on, and strangers to sign again.
func TestWhatAThiefGetsFromWhatAnAdminSigns(t *testing.T) {
	t.Attr("id", "T-server")
	synctest.Test(t, func(t *testing.T) {
		x := newTheft(t, func(x *theft) {
			for _, name := range []string{"bob", "cat", "dan"} {
				_, err := x.founder.AddUser(t.Context(), name, operator)
				x.must("user add", err)
			}
		})
		base := x.Statements()
		x.must("revoke bob", x.founder.RevokeUser(t.Context(), "bob", false))
		told := x.lastList("POST /users/bob/revoke")
		listed := x.Statements()
		x.Show(base) // the one that he knows is withheld from him
		x.must("revoke cat", x.founder.RevokeUser(t.Context(), "cat", false))
		if next := x.lastList("POST /users/cat/revoke"); !has(told, "bob") || !has(next, "bob") || !has(next, "cat") {
			t.Errorf("an older base list: after %+v the founder signs %+v", told, next)
		}
		both := x.Statements()
		// Ada was never shown either. Her list adds to what gateways have.
		x.Show(base)
		x.must("ada revokes dan", x.ada.RevokeUser(t.Context(), "dan", false))
		hers := x.Statements()
		x.told(both...)
		x.told(hers...)
		for _, user := range []string{"bob", "cat", "dan"} {
			if !has(x.disk().Lists().Entries(), user) {
				t.Errorf("%s is not shut out at the gateway", user)
			}
		}

		// Strangers among what is to be renewed.
		x.Show(listed)
		stranger := identitytest.NewKey()
		forged := identitytest.NewOwner(server.DefaultDomain)
		time.Sleep(time.Minute)
		strange := append(forged.UserChain("ann", identity.RoleAdmin, nil, stranger.Public()),
			forged.UserChain("mallory", identity.RoleOperator, nil, stranger.Public())...)
		// Ada's laptop is stolen as well: she states no key of an admin.
		hersToo := x.with(x.key("ada", "key.pem"))
		strange = append(strange, hersToo.UserKey("admin", stranger.Public()).JWS,
			hersToo.User("eve", identity.RoleAdmin, nil).JWS, hersToo.UserKey("eve", stranger.Public()).JWS)
		x.Show(append(listed, strange...))
		before := len(x.Asked("POST /statements"))
		renewed, err := x.founder.RenewUsers(t.Context(), "ann", "admin")
		if err != nil || len(renewed) != 2 || renewed[0].Role != identity.RoleOperator || renewed[0].User != "ann" {
			t.Errorf("renewed %+v, %v", renewed, err)
		}
		keys := 0
		for _, r := range x.Asked("POST /statements")[before:] {
			var m api.Statements
			x.must("request", json.Unmarshal(r.Body, &m))
			for _, key := range said[identity.KeyStatement](m.Statements) {
				keys++
				if key.Key == x.public(stranger) {
					t.Errorf("the founder signs the key of a stranger: %+v", key)
				}
			}
		}
		if keys < 2 {
			t.Errorf("%d keys are stated again", keys)
		}
		for _, user := range []string{"mallory", "eve"} {
			_, err := x.founder.RenewUsers(t.Context(), user)
			x.refused("a renewal of "+user, err, api.NotFound) // there is no such user
		}
	})
	t.Attr("cases", "4")
}

// A list of the domain key is held back, and delivered late: it takes nothing away that came since, and when a newer
// one came it says nothing at all.
func TestWhatAThiefGetsByAListDeliveredLate(t *testing.T) {
	t.Attr("id", "T-server")
	synctest.Test(t, func(t *testing.T) {
		x := newTheft(t, nil)
		ann := x.own("ann", "ann")
		x.in("before any list", ann())
		held := x.listBy(x.owner, shutOut("eve", x.owner.Serial()))
		time.Sleep(time.Minute)
		ada := x.with(x.key("ada", "key.pem"))
		hers := append(x.chainOf(x.ada, "ada"), x.listBy(ada, shutOut("ann", ada.Serial())))
		x.told(hers...)
		x.refused("by a list of an admin", ann(), transport.Revoked)
		x.told(held)
		x.refused("a list of the domain key, held back and delivered late", ann(), transport.Revoked)
		if !has(x.disk().Lists().Entries(), "eve") {
			t.Error("a list that is late, and not over, does not count")
		}
		// Ada's laptop was stolen: she is struck by a list of the domain key, and what she has listed counts no more.
		time.Sleep(time.Minute)
		x.told(x.listBy(x.owner, shutOut("ada", x.owner.Serial())))
		x.in("after the list that undoes hers", ann())
		x.told(append(hers, held)...)
		x.in("after what is older than it", ann())
		if has(x.disk().Lists().Entries(), "eve") || has(x.disk().Lists().Entries(), "ann") {
			t.Errorf("what is stale counts: %+v", x.disk().Lists().Entries())
		}
		adas := x.own("ada", "ada")
		x.refused("ada", adas(), transport.Revoked)
	})
	t.Attr("cases", "4")
}

// The thief has the laptop of an admin too, and fills the lists. Then only the domain key's own word counts, until a
// list of it makes room.
func TestWhatAThiefGetsByAFullList(t *testing.T) {
	t.Attr("id", "T-server")
	synctest.Test(t, func(t *testing.T) {
		x := newTheft(t, nil)
		ann, ada := x.own("ann", "ann"), x.with(x.key("ada", "key.pem"))
		x.in("before", ann())
		chain := x.chainOf(x.ada, "ada")
		for range 3 {
			var entries []identity.Entry
			for range 400 {
				nobody := spkiOf(identity.NewUID())
				entries = append(entries, identity.Entry{SPKI: nobody, Until: time.Now().Add(300 * day).Unix()})
			}
			x.told(append(chain, x.listBy(ada, entries...))...)
			time.Sleep(time.Minute)
		}
		x.refused("ann, whom an admin has stated", ann(), transport.ListFull)
		cert := x.as("mallory")
		own := x.with(x.key("ada", "key.pem")).UserChain("mallory", identity.RoleOperator, nil, cert.Leaf.PublicKey)
		x.refused("whom the thief states by the laptop", x.enter(cert, append(own, chain...)...), transport.ListFull)
		cert = x.as("whoever")
		chain = x.owner.UserChain("whoever", identity.RoleOperator, nil, cert.Leaf.PublicKey)
		x.gets("whom the domain key has stated", cert, chain...)
		x.told(x.listBy(x.owner, shutOut("ada", x.owner.Serial())))
		x.in("after the list that makes room", ann())
	})
	t.Attr("cases", "2")
}

// spkiOf is the hash of a key that nobody has.
func spkiOf(uid identity.UID) (h identity.SPKI) {
	copy(h[:], uid[:])
	return h
}

// The thief stops the clock, or puts it ahead. A Manager signs nothing by it. A gateway that he leads to believe that
// it is earlier learns better from the first list that a technician brings; one that he leads to believe that it is
// later refuses.
func TestWhatAThiefGetsByTheTime(t *testing.T) {
	t.Attr("id", "T-server")
	for name, off := range map[string]time.Duration{"frozen": 0, "future": 12 * day} {
		synctest.Test(t, func(t *testing.T) {
			x := newTheft(t, nil)
			cert := x.PKI.Certify(identitytest.NewKey(), identity.UserName(server.DefaultDomain, "con"), -time.Hour, 400*day)
			user := identity.UserStatement{Domain: server.DefaultDomain, User: "con", Role: identity.RoleAdmin,
				Exp: time.Now().Add(10 * day).Unix(), Serial: x.owner.Serial()} // a contractor
			chain := []string{x.sign(x.owner.DomainKey, user), x.owner.UserKey("con", cert.Leaf.PublicKey).JWS}
			con := func() error { return x.enter(cert, chain...) }
			x.in("the contractor, in his time", con())
			x.stop()
			said := time.Now().Add(off) // what the server says from now on
			x.Server.Set(func() { x.Now = func() time.Time { return said } })
			before := len(x.Statements())
			time.Sleep(max(11*day-off, time.Hour)) // in any case longer than a Manager relies on an answer
			_, err := x.founder.AddUser(t.Context(), "bob", operator)
			x.refused(name+" time, to an admin", err, transport.ClockWrong)
			if n := len(x.Statements()); n != before {
				t.Errorf("%d statements were signed all the same", n-before)
			}
			x.up()
			x.within(10*time.Minute, "the gateway believes the server", func() bool {
				return x.agent.Status().State == "attached" && x.Link(x.device) != nil
			})
			time.Sleep(time.Minute)
			if off == 0 {
				x.in("he holds expiry back where no technician comes", con())
				x.Show(append(x.Statements(), x.listBy(x.owner)))
				_, err := x.founder.Users(t.Context())
				x.refused("frozen time, to an admin who takes a list", err, transport.ClockWrong)
				x.pings("the founder", x.founder)
			}
			x.refused(name+" time, at the gateway", con(), transport.Expired)
		})
	}
	t.Attr("cases", "5")
}
