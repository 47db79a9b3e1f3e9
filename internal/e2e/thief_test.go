//go:build linux

package e2e

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/thieftest"
	"hawser/server"
	"hawser/transport"
	"hawser/transport/wire"
)

// Whoever has an Access Server with every key but the root's says what he likes, to both ends, and each lie ends in
// its word (identity §8), before a byte is for a machine. With the domain key the same program gets in.
func TestWhatAThiefOfTheServerGets(t *testing.T) {
	t.Attr("id", "T-server")
	domain := server.DefaultDomain
	lines := []struct {
		name string
		want transport.Reason
		act  func(*theft) error
	}{
		{"own user, by a domain key of his own", transport.NotStated, func(x *theft) error {
			cert := x.as("mallory")
			forged := identitytest.NewOwner(domain)
			return x.enter(cert, forged.UserChain("mallory", identity.RoleAdmin, nil, cert.Leaf.PublicKey)...)
		}},
		{"own user, without a word", transport.NotStated, func(x *theft) error { return x.enter(x.as("mallory")) }},
		{"own device, by a domain key of his own", transport.NotStated, func(x *theft) error {
			d := x.honest()
			cert := x.Certify(x.device)
			d.Self, d.SPKI = &cert, identity.CertSPKI(cert.Leaf)
			d.Statements = identitytest.NewOwner(domain).DeviceChain(d.UID, "press 4", cert.Leaf.PublicKey)
			x.find(d)
			return x.ping(x.ann, "press 4")
		}},
		{"own device, of a UID of his own", transport.NotStated, func(x *theft) error {
			d := thieftest.Device{UID: identity.NewUID()}
			cert := x.Certify(identity.DeviceName(domain, d.UID))
			d.Self, d.SPKI = &cert, identity.CertSPKI(cert.Leaf)
			d.Statements = identitytest.NewOwner(domain).DeviceChain(d.UID, "press 4", cert.Leaf.PublicKey)
			x.find(d)
			return x.ping(x.ann, "press 4")
		}},
		{"man in the middle, to the gateway", transport.NotStated, func(x *theft) error {
			return x.enter(x.as("ann"), x.chainOf(x.ann, "ann")...)
		}},
		{"man in the middle, to the technician", transport.NotStated, func(x *theft) error {
			d := x.honest()
			cert := x.Certify(x.device)
			d.Self, d.SPKI = &cert, identity.CertSPKI(cert.Leaf)
			x.find(d)
			return x.ping(x.ann, "press 4")
		}},
		{"man in the middle, at the relay", transport.WrongPeer, func(x *theft) error {
			d := x.honest()
			cert := x.Certify(x.device)
			d.Self = &cert
			x.find(d)
			return x.ping(x.ann, "press 4")
		}},
		{"statements of another domain, to the gateway", transport.NotStated, func(x *theft) error {
			other := *x.owner // as if the owner had another one with the same key
			other.Domain = "other"
			cert := x.as("ann")
			return x.enter(cert, other.UserChain("ann", identity.RoleAdmin, nil, cert.Leaf.PublicKey)...)
		}},
		{"a user of another domain", transport.NotStated, func(x *theft) error {
			other := *x.owner
			other.Domain = "other"
			cert := x.Certify(identity.UserName("other", "ann"))
			return x.enter(cert, other.UserChain("ann", identity.RoleAdmin, nil, cert.Leaf.PublicKey)...)
		}},
		{"statements of another domain, to the technician", transport.NotStated, func(x *theft) error {
			other, d := *x.owner, x.honest()
			other.Domain = "other"
			cert := x.Certify(x.device)
			d.Self, d.SPKI = &cert, identity.CertSPKI(cert.Leaf)
			d.Statements = other.DeviceChain(d.UID, "press 4", cert.Leaf.PublicKey)
			x.find(d)
			return x.ping(x.ann, "press 4")
		}},
		{"an admin stated by an admin, to the gateway", transport.NotStated, func(x *theft) error {
			cert := x.as("mallory")
			chain := x.with(x.key("ada", "key.pem")).UserChain("mallory", identity.RoleAdmin, nil, cert.Leaf.PublicKey)
			return x.enter(cert, append(chain, x.chainOf(x.ada, "ada")...)...)
		}},
		{"an operator stated by an admin whom an admin has stated", transport.NotStated, func(x *theft) error {
			cert, eve := x.as("mallory"), identitytest.NewKey()
			admin := x.with(x.key("ada", "key.pem")).UserChain("eve", identity.RoleAdmin, nil, eve.Public())
			chain := append(x.with(eve).UserChain("mallory", identity.RoleOperator, nil, cert.Leaf.PublicKey), admin...)
			x.refused("with the admin behind", x.enter(cert, append(chain, x.chainOf(x.ada, "ada")...)...), transport.NotStated)
			return x.enter(cert, chain...)
		}},
		{"an admin stated by an admin, to the technician", transport.NotStated, func(x *theft) error {
			d, eve := x.honest(), identitytest.NewKey()
			cert := x.Certify(x.device)
			admin := x.with(x.key("ada", "key.pem")).UserChain("eve", identity.RoleAdmin, nil, eve.Public())
			d.Self, d.SPKI = &cert, identity.CertSPKI(cert.Leaf)
			d.Statements = append(x.with(eve).DeviceChain(d.UID, "press 4", cert.Leaf.PublicKey), admin...)
			x.find(d)
			return x.ping(x.ann, "press 4")
		}},
		{"an admin who states himself longer", transport.NotStated, func(x *theft) error {
			key := x.key("ada", "key.pem")
			cert := x.PKI.Certify(key, identity.UserName(domain, "ada"), -time.Hour, time.Hour)
			longer := x.with(key).UserChain("ada", identity.RoleAdmin, nil, key.Public())
			x.refused("and her key", x.enter(cert, longer...), transport.NotStated)
			return x.enter(cert, longer[0], x.chainOf(x.ada, "ada")[1])
		}},
		{"an operator stated by an admin who states himself longer", transport.NotStated, func(x *theft) error {
			cert, key := x.as("mallory"), x.key("ada", "key.pem")
			chain := x.with(key).UserChain("mallory", identity.RoleOperator, nil, cert.Leaf.PublicKey)
			longer := x.with(key).User("ada", identity.RoleAdmin, nil).JWS
			return x.enter(cert, append(chain, longer, x.chainOf(x.ada, "ada")[1])...)
		}},
		{"an admin who states another key of himself", transport.NotStated, func(x *theft) error {
			cert, hers := x.as("ada"), x.with(x.key("ada", "key.pem"))
			admin, key := x.chainOf(x.ada, "ada"), cert.Leaf.PublicKey
			x.refused("by his own statement", x.enter(cert, admin[0], hers.UserKey("ada", key).JWS, admin[1]), transport.NotStated)
			return x.enter(cert, append(hers.UserChain("ada", identity.RoleOperator, nil, key), admin...)...)
		}},
		{"a change of the domain key that he has signed", transport.NotStated, func(x *theft) error {
			cert, forged := x.as("mallory"), identitytest.NewOwner(domain)
			x.told(x.sign(forged.DomainKey, identity.DomainStatement{Domain: domain, Old: x.owner.Key, New: forged.Key,
				Serial: x.owner.Serial()}))
			return x.enter(cert, forged.UserChain("mallory", identity.RoleAdmin, nil, cert.Leaf.PublicKey)...)
		}},
		{"a name that is another device now", transport.WrongDevice, func(x *theft) error {
			x.find(x.honest())
			return x.ping(x.ann, "press 5")
		}},
		{"a name that a stolen laptop has given to another device", transport.WrongDevice, func(x *theft) error {
			d := thieftest.Device{UID: identity.NewUID()}
			cert := x.Certify(identity.DeviceName(domain, d.UID))
			d.Self, d.SPKI = &cert, identity.CertSPKI(cert.Leaf)
			chain := x.with(x.key("ada", "key.pem")).DeviceChain(d.UID, "press 4", cert.Leaf.PublicKey)
			d.Statements = append(chain, x.chainOf(x.ada, "ada")...)
			x.find(d)
			return x.ping(x.ann, "press 4")
		}},
		{"a relay inside the LAN, to the gateway", transport.BadAddress, func(x *theft) error {
			x.lead(wire.RoleRuntime, machineAddr.String(), 443)
			err := x.enter(x.as("ann"), x.chainOf(x.ann, "ann")...)
			if transport.ReasonOf(err) != transport.NoPeer { // what the thief meets at the relay: nobody
				x.t.Errorf("the thief hears %v", err)
			}
			return x.sessionEnd()
		}},
		{"a relay inside the LAN, to the technician", transport.BadAddress, func(x *theft) error {
			x.lead(wire.RoleManager, machineAddr.String(), 443)
			return x.ping(x.ann, "press 4")
		}},
		{"a relay on a port of a machine", transport.BadAddress, func(x *theft) error {
			x.lead(wire.RoleManager, "192.0.2.99", 502)
			return x.ping(x.ann, "press 4")
		}},
	}
	synctest.Test(t, func(t *testing.T) {
		x := newTheft(t, nil)
		// She asks what is stated when she meets a stranger, and hears that her key is confirmed. Nothing else is news.
		stranger, other := x.honest(), x.Certify(x.device)
		stranger.Self, stranger.SPKI = &other, identity.CertSPKI(other.Leaf)
		x.find(stranger)
		x.refused("a stranger", x.ping(x.ann, "press 4"), transport.NotStated)
		before := x.stores("ann")
		for _, line := range lines {
			x.find(x.honest())
			x.Server.Set(func() { x.Relay = nil })
			x.refused(line.name, line.act(x), line.want)
			if x.stores("ann") != before {
				t.Fatalf("%s: something of it was stored", line.name)
			}
		}
		if asked := x.Asked("POST /statements"); len(asked) > 0 {
			t.Errorf("something was signed: %s", asked[0].Body)
		}
		// The same program with the domain key, and the true gateway.
		cert := x.as("mallory")
		x.find(x.honest())
		x.Server.Set(func() { x.Relay = nil })
		x.gets("whoever has the domain key", cert,
			x.owner.UserChain("mallory", identity.RoleAdmin, nil, cert.Leaf.PublicKey)...)
		x.pings("ann", x.ann)
		d := x.honest()
		own := x.Certify(x.device)
		d.Self, d.SPKI = &own, identity.CertSPKI(own.Leaf)
		d.Statements = x.owner.DeviceChain(d.UID, "press 4", own.Leaf.PublicKey)
		x.find(d)
		if err := x.ping(x.ann, "press 4"); err != nil || len(x.Got()) == 0 {
			t.Errorf("with the domain key he is no gateway: %v", err)
		}
	})
	t.Attr("cases", strconv.Itoa(len(lines)))
}

// lead names a relay that is somewhere else, for one end.
func (x *theft) lead(role wire.Role, host string, port transport.Port) {
	x.Server.Set(func() {
		x.Relay = func(of wire.Role, r *wire.Relay) {
			if of == role {
				r.Hosts, r.Ports = []string{host}, []transport.Port{port}
			}
		}
	})
}

// sessionEnd is what the gateway says to the server of a session that it could not serve.
func (x *theft) sessionEnd() error {
	x.t.Helper()
	for {
		select {
		case f := <-x.Link(x.device).Frames:
			var end wire.EndSession
			if f.Type == wire.TypeEndSession && f.Decode(&end) == nil {
				return &wire.Refusal{Reason: end.Reason, Text: end.Text}
			}
		case <-time.After(time.Minute):
			x.t.Error("the gateway says nothing")
			return nil
		}
	}
}
