//go:build linux

package e2e

import (
	"crypto"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"hawser/agent"
	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/thieftest"
	"hawser/manager"
	"hawser/server"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// another is the options of another gateway.
func (x *theft) another(name string) agent.Options {
	o := x.gateway()
	o.Config.Data += "-" + name
	o.Log = x.logger(name)
	o.DialContext = x.net.Host(netip.MustParseAddr(fmt.Sprintf("198.51.100.%d", 80+len(name)))).DialContext
	return o
}

// stored is the row of a code in the stolen store, and the invitation that a true server would answer to it.
func (x *theft) stored(code identity.OwnerCode) (row store.Code, i wire.Invitation) {
	x.t.Helper()
	row.Lookup = code.LookupID()
	x.must("read code", x.store.View(x.t.Context(), func(tx *store.Tx) error { return tx.Get(&row) }))
	return row, x.invitation(row)
}

func (x *theft) invitation(c store.Code) wire.Invitation {
	return wire.Invitation{DomainKey: x.owner.Key, MAC: c.MAC[:], List: uint64(c.List), Statements: c.Statements}
}

// enroll lets a gateway try a code, to which the server answers with an invitation for this UID.
func (x *theft) enroll(o agent.Options, code identity.OwnerCode, uid string, i wire.Invitation) error {
	x.t.Helper()
	id, err := identity.ParseUID(uid)
	x.must("uid", err)
	x.Server.Server.Certify(identity.DeviceName(server.DefaultDomain, id), 30*day)
	x.Server.Set(func() { x.Code, x.Invitation = code, i })
	_, err = agent.Enroll(x.t.Context(), o, agent.EnrollOptions{Code: code})
	return err
}

// logsIn lets a PC try a code, to which the server answers with an invitation for this user.
func (x *theft) logsIn(pc string, code identity.OwnerCode, user string, i wire.Invitation) error {
	x.t.Helper()
	x.Answer("POST /login", func(r thieftest.Request) (any, error) {
		var m api.LoginRequest
		if err := json.Unmarshal(r.Body, &m); err != nil {
			return nil, err
		}
		pub, err := identity.ParseCSR(m.CSR)
		if err != nil {
			return nil, err
		}
		chain := x.PKI.Chain(pub, identity.UserName(server.DefaultDomain, user), -time.Minute, 12*time.Hour)
		return api.LoginAnswer{Chain: string(identity.MarshalChain(chain)), Domain: server.DefaultDomain, User: user,
			Hosts: []string{accessName}, Ports: transport.DefaultPorts(), Invitation: i}, nil
	})
	m := &manager.Manager{Home: filepath.Join(x.dir, pc), NoPassphrase: true, Log: x.logger(pc), Resolve: x.static,
		DialContext: x.net.Host(netip.MustParseAddr("203.0.113.90")).DialContext}
	_, err := m.Login(x.t.Context(), manager.Login{Server: accessName, Code: code.String(), RootFile: x.made.RootFile})
	return err
}

// holds fails unless a directory has these files and no others: what was refused is not stored.
func (x *theft) holds(what, dir string, want ...string) {
	x.t.Helper()
	entries, err := os.ReadDir(dir)
	x.must(what, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		x.t.Errorf("%s: left %q, want %q", what, got, want)
	}
}

// What the thief answers to whoever uses a code is not what its maker said: nothing of it is stored, at either end.
// What the maker said, from the same program, is taken.
func TestWhatAThiefGetsByTheAnswerToACode(t *testing.T) {
	t.Attr("id", "T-server")
	cases := 0
	synctest.Test(t, func(t *testing.T) {
		var device, device2, user, user2, batch identity.OwnerCode
		var uid, uid2 string
		x := newTheft(t, func(x *theft) {
			d, err := x.founder.AddDevice(t.Context(), "press 5")
			x.must("device add", err)
			d2, err := x.founder.AddDevice(t.Context(), "press 6")
			x.must("device add", err)
			device, device2, uid, uid2 = parsed(t, d.Code), parsed(t, d2.Code), d.UID.String(), d2.UID.String()
			u, err := x.founder.AddUser(t.Context(), "bob", operator)
			x.must("user add", err)
			u2, err := x.founder.AddUser(t.Context(), "cat", operator)
			x.must("user add", err)
			user, user2 = parsed(t, u.Code), parsed(t, u2.Code)
			b, err := x.founder.AddBatch(t.Context(), "line", "", 2, 7)
			x.must("batch", err)
			batch = parsed(t, b.Code)
			x.must("close batch", x.founder.CloseBatch(b))
		})
		slots := x.slots(batch)
		forged := identitytest.NewOwner(server.DefaultDomain).Key
		for name, forge := range map[string]func(own, other wire.Invitation) wire.Invitation{
			"none":   func(_, _ wire.Invitation) wire.Invitation { return wire.Invitation{} },
			"no MAC": func(own, _ wire.Invitation) wire.Invitation { own.MAC = nil; return own },
			"MAC of another code": func(own, other wire.Invitation) wire.Invitation {
				own.MAC = other.MAC
				return own
			},
			"all of another code": func(_, other wire.Invitation) wire.Invitation { return other },
			"statements of another code": func(own, other wire.Invitation) wire.Invitation {
				own.Statements = other.Statements
				return own
			},
			"the thief's domain key": func(own, _ wire.Invitation) wire.Invitation { own.DomainKey = forged; return own },
			"another list":           func(own, _ wire.Invitation) wire.Invitation { own.List++; return own },
		} {
			_, own := x.stored(device)
			_, other := x.stored(device2)
			o := x.another("enrols")
			x.refused(name+", to a gateway", x.enroll(o, device, uid, forge(own, other)), transport.NotStated)
			x.holds(name, o.Config.Data, "device.key")
			_, own = x.stored(user)
			_, other = x.stored(user2)
			x.refused(name+", to a technician", x.logsIn("bob", user, "bob", forge(own, other)), transport.NotStated)
			x.holds(name, filepath.Join(x.dir, "bob"), "lock", "login.key")
			cases += 2
		}
		_, own := x.stored(device)
		x.refused("another UID", x.enroll(x.another("enrols"), device, uid2, own), transport.NotStated)
		_, bob := x.stored(user)
		x.refused("another user", x.logsIn("bob", user, "cat", bob), transport.NotStated)
		// A second slot of a batch: the MAC of one slot says nothing of the other.
		mixed := slots[1].invitation
		mixed.MAC = slots[0].invitation.MAC
		x.refused("a second slot", x.enroll(x.another("enrols"), batch, slots[1].uid, mixed), transport.NotStated)
		mixed = slots[0].invitation
		x.refused("a second slot's UID", x.enroll(x.another("enrols"), batch, slots[1].uid, mixed), transport.NotStated)
		x.refused("an ordinary code, in a slot",
			x.enroll(x.another("enrols"), device, slots[0].uid, slots[0].invitation), transport.NotStated)
		cases += 5
		x.holds("after all", x.another("enrols").Config.Data, "device.key")

		x.must("what the maker has said, to a gateway", x.enroll(x.another("enrols"), device, uid, own))
		x.must("to a technician", x.logsIn("bob", user, "bob", bob))
		x.must("in a slot", x.enroll(x.another("slot"), batch, slots[0].uid, slots[0].invitation))
	})
	t.Attr("cases", strconv.Itoa(cases))
}

type slot struct {
	uid        string
	invitation wire.Invitation
}

// slots are those of a batch that nobody has.
func (x *theft) slots(code identity.OwnerCode) (list []slot) {
	x.t.Helper()
	row, _ := x.stored(code)
	x.must("read slots", x.store.View(x.t.Context(), func(tx *store.Tx) error {
		free, err := tx.FreeSlots(row.Lookup, 10)
		for _, f := range free {
			list = append(list, slot{f.Subject, x.invitation(row.With(f))})
		}
		return err
	}))
	if len(list) != 2 {
		x.t.Fatalf("%d slots are free", len(list))
	}
	return list
}

// Of a code that the thief has a copy of, and that was used, he can state another key. Whoever has met the right one
// says so, at both ends, and an admin does not confirm the other one.
func TestWhatAThiefGetsByACodeThatWasUsed(t *testing.T) {
	t.Attr("id", "T-server")
	synctest.Test(t, func(t *testing.T) {
		var device, user, batch identity.OwnerCode
		var press, line agent.Options
		var bob *manager.Account
		x := newTheft(t, func(x *theft) {
			d, err := x.founder.AddDevice(t.Context(), "press 5")
			x.must("device add", err)
			b, err := x.founder.AddBatch(t.Context(), "line", "", 2, 7)
			x.must("batch", err)
			u, err := x.founder.AddUser(t.Context(), "bob", operator)
			x.must("user add", err)
			var stops []func()
			device, batch, user = parsed(t, d.Code), parsed(t, b.Code), parsed(t, u.Code)
			bob = x.login("bob", u.Code)
			press, line = x.another("press"), x.another("line")
			for _, one := range []struct {
				options agent.Options
				code    identity.OwnerCode
			}{{x.options, identity.OwnerCode{}}, {press, device}, {line, batch}} {
				if one.code != (identity.OwnerCode{}) {
					_, err := agent.Enroll(t.Context(), one.options, agent.EnrollOptions{Code: one.code})
					x.must("enroll", err)
				}
				a, err := agent.New(one.options)
				x.must("start the gateway", err)
				stops = append(stops, x.task("agent", a.Run))
				x.within(time.Minute, "online", func() bool { return a.Status().State == agent.StateAttached })
			}
			// They meet each other, and nobody has confirmed a key.
			x.pingsTo("press 4", "bob", bob)
			x.pingsTo("press 5", "ann", x.ann)
			x.pingsTo("line-1", "ann", x.ann)
			for _, stop := range stops {
				stop()
			}
		})
		for _, o := range []agent.Options{press, line} {
			a, err := agent.New(o)
			x.must("start the gateway", err)
			t.Cleanup(x.task("agent", a.Run))
			at, _ := x.known(o)
			x.within(10*time.Minute, "a gateway is at the stolen server", func() bool { return x.Attached(at) })
		}
		// second is the chain of somebody whose key an invite has stated, with another key.
		second := func(chain []string, code identity.OwnerCode, slot uint32, key crypto.PublicKey) []string {
			said := said[identity.KeyStatement](chain[1:2])
			if len(said) != 1 || said[0].Serial != 0 {
				t.Fatalf("the key is confirmed already: %+v", said)
			}
			pub, err := identity.NewPublicKey(key)
			x.must("public key", err)
			said[0].Key = pub
			other := slices.Clone(chain)
			other[1] = x.sign(code.InviteKey(slot), said[0])
			return other
		}
		cert := x.as("bob")
		forUser := second(x.chainOf(bob, "bob"), user, 0, cert.Leaf.PublicKey)
		x.refused("another key of a user, to the gateway", x.enter(cert, forUser...), transport.InviteUsedTwice)
		for name, one := range map[string]struct {
			options agent.Options
			code    identity.OwnerCode
			slot    uint32
			typed   string
		}{"a device": {press, device, 0, "press 5"}, "a slot": {line, batch, 1, "line-1"}} {
			at, spki := x.known(one.options)
			uid, err := identity.ParseUID(at.ID)
			x.must("uid", err)
			own := x.Certify(at)
			chain := second(x.chain(at, spki), one.code, one.slot, own.Leaf.PublicKey)
			x.find(thieftest.Device{UID: uid, SPKI: identity.CertSPKI(own.Leaf), Statements: chain, Self: &own})
			x.refused("another key of "+name+", to the technician", x.ping(x.ann, one.typed), transport.InviteUsedTwice)
			x.find(thieftest.Device{UID: uid, SPKI: spki, Statements: x.chain(at, spki)})
			x.pingsTo(one.typed, "ann, at the right one,", x.ann)
		}
		// The founder is shown both keys of one invite, and confirms neither; that of the other one he does. A key of
		// a batch a person has to look at.
		x.Show(append(x.Statements(), forUser[1]))
		x.list(x.founder)
		at, spki := x.known(press)
		keys := x.published()
		if len(keys) != 1 || keys[0].UID.String() != at.ID || keys[0].Key.SPKI() != spki || keys[0].Serial == 0 {
			t.Errorf("the founder has confirmed %+v", keys)
		}
		x.find(x.honest())
		x.pings("bob", bob)
	})
	t.Attr("cases", "4")
}

// published are the keys that Managers have confirmed at the thief's server.
func (x *theft) published() (keys []identity.KeyStatement) {
	for _, r := range x.Asked("POST /statements") {
		var m api.Statements
		x.must("request", json.Unmarshal(r.Body, &m))
		keys = append(keys, said[identity.KeyStatement](m.Statements)...)
	}
	return keys
}
