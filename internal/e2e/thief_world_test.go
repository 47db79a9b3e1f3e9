//go:build linux

package e2e

import (
	"crypto"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hawser/agent"
	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/credential"
	"hawser/internal/thieftest"
	"hawser/manager"
	"hawser/server"
	"hawser/transport"
	"hawser/transport/mux"
)

// operator is the rights of somebody to whom everything is open.
var operator = manager.UserRights{Role: identity.RoleOperator, Devices: []string{"*"}, Targets: []string{"*"}}

// theft is a site whose Access Server is in the hands of a thief, with all of its keys and its store. All other ends
// are the true ones.
type theft struct {
	*site
	*thieftest.Server
	owner  *identitytest.Owner // whoever has the domain key
	agent  *agent.Agent
	device identity.Name
	spki   identity.SPKI // of the gateway
	stop   func()        // the gateway

	mu    sync.Mutex // guards all below
	plc   int        // bytes that the machine got
	dials int        // and connections, on whatever port
}

// newTheft steals the server of a site; before is done while the true one is there, and may be nil.
func newTheft(t *testing.T, before func(*theft)) *theft {
	t.Helper()
	x := &theft{site: newSite(t, false), owner: identitytest.NewOwner(server.DefaultDomain)}
	x.owner.DomainKey = x.key("tech", "domain.key")
	var err error
	if x.owner.Key, err = identity.NewPublicKey(x.owner.DomainKey.Public()); err != nil {
		t.Fatal(err)
	}
	x.device, x.spki = x.known(x.options)
	for _, port := range []uint16{502, 443} {
		l, err := x.net.Host(machineAddr).Serve(port, x.serveMachine)
		x.must("the machine", err)
		t.Cleanup(l.Kill)
	}
	if before != nil {
		before(x)
	}
	x.stops[0]()
	x.Server = thieftest.Run(t, filepath.Join(x.dir, "server", "access"), x.store, server.DefaultDomain,
		x.net.Host(accessAddr), x.net.Host(thiefAddr), x.static)
	x.Server.Set(func() { x.Find = func(string) thieftest.Device { return x.honest() } })
	x.up()
	x.within(10*time.Minute, "relay and gateway are at the stolen server", func() bool { return x.Attached(x.device) })
	t.Cleanup(func() { x.stop(); x.stops[1]() })
	return x
}

// up starts the gateway.
func (x *theft) up() {
	x.t.Helper()
	var err error
	x.agent, err = agent.New(x.options)
	x.must("start the gateway", err)
	x.stop = x.task("agent", x.agent.Run)
}

// known is who a gateway is.
func (x *theft) known(o agent.Options) (identity.Name, identity.SPKI) {
	x.t.Helper()
	info, err := agent.ShowIdentity(o.Config.Data)
	x.must("identity show", err)
	uid, err := identity.ParseUID(info.UID)
	x.must("uid", err)
	spki, err := identity.ParseSPKI(info.SPKI)
	x.must("spki", err)
	return identity.DeviceName(info.Domain, uid), spki
}

// key is one that lies in a home.
func (x *theft) key(pc, file string) crypto.Signer {
	x.t.Helper()
	key, err := credential.Load(filepath.Join(x.dir, pc, file), identity.ParseKey)
	x.must("read key", err)
	return key
}

// chain is the best one that the stolen store has for somebody.
func (x *theft) chain(name identity.Name, spki identity.SPKI) []string {
	x.t.Helper()
	var pool []identity.Signed
	for _, jws := range x.Statements() {
		s, err := identity.ParseStatement(jws)
		x.must("stored statement", err)
		pool = append(pool, s)
	}
	v := identity.Verifier{Pinned: x.owner.Pinned}
	who := identity.Peer{Name: name, SPKI: spki}
	chain, err := v.Assemble(pool, who, time.Now())
	if identity.FaultOf(err) == identity.FaultStale { // whoever signed knew lists, which are for the others to judge by
		chain, err = v.Gather(pool, who), nil
	}
	x.must("chain of "+name.ID, err)
	return chain
}

func (x *theft) chainOf(a *manager.Account, user string) []string {
	x.t.Helper()
	return x.chain(identity.UserName(server.DefaultDomain, user), a.Info().SPKI)
}

// honest is what a true server says of the gateway.
func (x *theft) honest() thieftest.Device {
	uid, _ := identity.ParseUID(x.device.ID)
	return thieftest.Device{UID: uid, SPKI: x.spki, Statements: x.chain(x.device, x.spki)}
}

// find makes the server say this of whatever device a technician wants.
func (x *theft) find(d thieftest.Device) {
	x.Server.Set(func() { x.Find = func(string) thieftest.Device { return d } })
}

// serveMachine is the machine: it sends back what it gets, and counts.
func (x *theft) serveMachine(c net.Conn) {
	x.mu.Lock()
	x.dials++
	x.mu.Unlock()
	buf := make([]byte, 1024)
	for {
		n, err := c.Read(buf)
		x.mu.Lock()
		x.plc += n
		x.mu.Unlock()
		if err != nil {
			return
		}
		c.Write(buf[:n])
	}
}

// untouched fails unless nothing has come to the machine since the last time, nor to the thief.
func (x *theft) untouched(what string) {
	x.t.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	if got := x.Got(); x.plc > 0 || x.dials > 0 || len(got) > 0 {
		x.t.Errorf("%s: %d connections and %d bytes came to the machine, and %q to the thief", what, x.dials, x.plc, got)
	}
	x.plc, x.dials = 0, 0
}

// stores is what the gateway and a technician keep of the owner and of devices.
func (x *theft) stores(pc string) (all string) {
	x.t.Helper()
	for _, pattern := range []string{filepath.Join(x.options.Config.Data, "owner.?"), filepath.Join(x.dir, pc, "owner.?"),
		filepath.Join(x.dir, pc, "devices.json")} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			x.t.Fatalf("%s: no files, %v", pattern, err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			x.must("read", err)
			all += string(b)
		}
	}
	return all
}

// as is a certificate of a new key of the thief for a user.
func (x *theft) as(user string) tls.Certificate {
	return x.Certify(identity.UserName(server.DefaultDomain, user))
}

// enter is a try to get in at the gateway, with a certificate and any chain. What comes back is the gateway's word.
func (x *theft) enter(cert tls.Certificate, chain ...string) error {
	x.t.Helper()
	hello := mux.Hello{DomainKey: x.owner.Key.SPKI(), Statements: chain}
	answer, err := x.Enter(x.t.Context(), cert, x.device, hello, machineAddr.String()+":502")
	if err == nil && string(answer) != "open" {
		err = errors.New("the machine does not answer")
	}
	// At the relay he meets nobody when the gateway has not come.
	alone := transport.ReasonOf(err) == transport.NoPeer
	if err != nil && !alone && !strings.Contains(err.Error(), "by the owner's statements") {
		x.t.Errorf("he is not told by whom: %v", err)
	}
	return err
}

// gets wants somebody to get in, and to reach the machine: the same act with what the owner has. So the test can fail.
func (x *theft) gets(what string, cert tls.Certificate, chain ...string) {
	x.t.Helper()
	if err := x.enter(cert, chain...); err != nil {
		x.t.Errorf("%s does not get in: %v", what, err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.plc != len("open") {
		x.t.Errorf("%s: the machine got %d bytes", what, x.plc)
	}
	x.plc, x.dials = 0, 0
}

// refused wants an act to end in a word, said for a reason that the owner has given.
func (x *theft) refused(what string, err error, want transport.Reason) {
	x.t.Helper()
	if got := transport.ReasonOf(err); got != want {
		x.t.Errorf("%s: %q, want %s (%v)", what, got, want, err)
	}
	x.untouched(what)
}

// ping is that of a technician, who may be told that he lacks something.
func (x *theft) ping(a *manager.Account, device string) error {
	_, err := a.Ping(x.t.Context(), device, 1, nil)
	return err
}

// sign signs a statement with somebody's key.
func (x *theft) sign(key crypto.Signer, s identity.Statement) string {
	x.t.Helper()
	signed, err := identity.Sign(s, key)
	x.must("sign", err)
	return signed.JWS
}

func (x *theft) public(key crypto.Signer) identity.PublicKey {
	x.t.Helper()
	pub, err := identity.NewPublicKey(key.Public())
	x.must("public key", err)
	return pub
}

// with is an owner who signs with another key than the domain's.
func (x *theft) with(key crypto.Signer) *identitytest.Owner {
	o := *x.owner
	o.DomainKey = key
	return &o
}

// said are the statements of some type among texts.
func said[S identity.Statement](texts []string) (found []S) {
	for _, jws := range texts {
		if s, err := identity.ParseStatement(jws); err == nil {
			if is, ok := s.Statement.(S); ok {
				found = append(found, is)
			}
		}
	}
	return found
}
