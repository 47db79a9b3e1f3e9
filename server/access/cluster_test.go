package access

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/server/grant"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// A session is opened and moved at a node that neither the Runtime nor the
// relays are attached to.
func TestTwoAccessServersAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		defer p.end()
		if names := p.second.poolNames(); !slices.Equal(names, []string{"r1"}) {
			t.Errorf("pool of the second: %v", names)
		}
		if !p.second.isOnline(p.admin) {
			t.Error("the second does not see the device")
		}
		at := p.here()
		forRuntime, offer := at.session()
		g := must(grant.Parse(offer.Grant, p.pki.Roots, time.Now()))
		if offer.Relay.Name != "r1" || g.Instance != "ab12" || forRuntime.PeerSPKI != p.admin.spki() || offer.PeerSPKI != p.device.spki() {
			t.Errorf("%+v", offer)
		}
		r2 := p.second.control(p.newRelay("r2"), relayHello("cd"))
		defer r2.Close()
		p.runtime.read(wire.TypePool, nil) // of the other node's relay, at once
		r2.write(wire.TypeLoad, wire.Load{Pipes: 3, Max: 9})
		synctest.Wait()
		if l := p.server.presence.relay("r2").load; l.Pipes != 3 {
			t.Errorf("load at the other node: %+v", l)
		}
		done := at.move(p.admin, offer.Session, 1)
		at.consent("")
		if got := <-done; got.offer.Epoch != 2 || got.offer.Relay.Name != "r2" {
			t.Errorf("%+v", got)
		}
		p.runtime.write(wire.TypeEndSession, wire.EndSession{Session: offer.Session, Reason: transport.Closed})
		synctest.Wait()
		if n := len(p.second.server.sessions.of(p.device.id.UID)); n != 0 {
			t.Errorf("%d sessions at the second", n)
		}
		if status := p.second.call(p.admin, "DELETE", "/api/v1/sessions/"+offer.Session, nil, nil); status != 204 {
			t.Errorf("%d", status)
		}
		var m wire.EndSession
		if p.runtime.read(wire.TypeEndSession, &m); m.Session != offer.Session {
			t.Errorf("%+v", m)
		}
		if err := store.VerifyAudit(p.records(1000)); err != nil {
			t.Error(err)
		}
	})
}

// newRelay adds a relay at the first node and enrolls it there.
func (p *pair) newRelay(name string) *someone {
	p.t.Helper()
	var added api.NewRelay
	if status := p.call(p.admin, "POST", "/api/v1/relays", relayRequest(name), &added); status != 201 {
		p.t.Fatalf("add relay: %d", status)
	}
	who := newSomeone()
	if err := p.enroll(added.Code, who); err != nil {
		p.t.Fatal(err)
	}
	return who
}

// A node dies. What it had reconnects to the other; the session lives on.
func TestSessionOutlivesItsAccessServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		defer p.end()
		_, offer := p.session() // at the first
		r2 := p.second.control(p.newRelay("r2"), relayHello("cd"))
		defer r2.Close()
		r2.beQuiet()
		p.crash()
		at := p.here()
		// For as long as the lease lasts nobody knows that it is dead, but asking it fails at once.
		if got := <-at.open(p.admin, "press 1"); got.code != transport.Offline {
			t.Errorf("%+v", got)
		}
		at.runtime = p.second.control(p.device, hello("01"))
		defer at.runtime.Close()
		if names := relayNames(at.runtime.welcome.Pool); !slices.Equal(names, []string{"r1", "r2"}) {
			t.Errorf("pool within the lease: %v", names)
		}
		at.runtime.beQuiet()
		if r := at.stored(offer.Session); !r.Ended.IsZero() {
			t.Errorf("%+v", r)
		}
		done := at.move(p.admin, offer.Session, 1)
		at.consent("")
		if got := <-done; got.status != 200 || got.offer.Epoch != 2 || got.offer.Relay.Name != "r2" {
			t.Errorf("%+v", got)
		}
		time.Sleep(store.LeaseTime + leaseEvery)
		synctest.Wait()
		if names := p.second.poolNames(); !slices.Equal(names, []string{"r2"}) {
			t.Errorf("pool after the lease: %v", names)
		}
		var pool wire.Pool
		if at.runtime.read(wire.TypePool, &pool); !slices.Equal(relayNames(pool), []string{"r2"}) {
			t.Errorf("pushed %+v", pool)
		}
		if got := at.server.sessions.of(p.device.id.UID); len(got) != 1 || got[0].Epoch != 2 {
			t.Errorf("%+v", got)
		}
	})
}

func relayNames(pool wire.Pool) (names []string) {
	for _, r := range pool.Relays {
		names = append(names, r.Name)
	}
	return names
}

// Whoever was attached to a dead node is offline when its lease is over, and
// its name can be used again.
func TestLeaseOfADeadNodeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		defer p.end()
		p.crash()
		if !p.second.isOnline(p.admin) {
			t.Error("offline before anybody could know")
		}
		time.Sleep(store.LeaseTime + leaseEvery)
		synctest.Wait()
		if p.second.isOnline(p.admin) {
			t.Error("online at a dead node")
		}
		if got := <-p.here().open(p.admin, "press 1"); got.code != transport.Offline {
			t.Errorf("%+v", got)
		}
		start := time.Now()
		p.cord.set(false)
		p.start()
		c := p.control(p.device, hello("02"))
		defer c.Close()
		synctest.Wait()
		if took := time.Since(start); took != 0 || !p.second.isOnline(p.admin) {
			t.Errorf("after %v", took)
		}
	})
}

// A process that was killed is waited for; one that lives keeps its name.
func TestTwoNodesOfOneNameAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		defer p.end()
		cfg := p.cfg
		cfg.Store, cfg.Bus = p.db.open("a1", true, nil), &cord{bus: p.cord.bus}
		if err := must(New(cfg)).Run(t.Context()); !errors.Is(err, store.ErrInUse) {
			t.Errorf("%v", err)
		}
		p.crash()
		p.cord.set(false)
		start := time.Now()
		p.start()
		p.control(p.device, hello("02")).Close()
		if took := time.Since(start); took > store.LeaseTime {
			t.Errorf("restarted after %v", took)
		}
	})
}

func TestNewestConnectionWinsOverNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		defer p.end()
		_, offer := p.session()
		second := p.second.control(p.device, hello("01"))
		if got := refusal(p.runtime); got != transport.Replaced {
			t.Errorf("the first is told %q", got)
		}
		synctest.Wait()
		if p.server.presence.find(identity.DeviceName("plant", p.device.id.UID)) != nil || !p.isOnline(p.admin) {
			t.Error("the first still has it, or does not know who has")
		}
		p.runtime.Close()
		p.runtime = second
		p.session() // by the first's API
		// Back again, as another process: its sessions are over, at every node.
		p.runtime = p.control(p.device, hello("02"))
		if got := refusal(second); got != transport.Replaced {
			t.Errorf("the second is told %q", got)
		}
		second.Close()
		synctest.Wait()
		if r := p.stored(offer.Session); r.Ended.IsZero() || len(p.second.server.sessions.of(p.device.id.UID)) != 0 {
			t.Errorf("%+v", r)
		}
		p.session()
	})
}

// A node that was cut off knows nothing of a session that was opened meanwhile, and ends it all the same when the Runtime
// comes back to it as another process.
func TestARestartedRuntimeEndsSessionsThatTheNodeHasNotHeardOf(t *testing.T) {
	for what, later := range map[string]time.Duration{"at once": 0, "later, when the end could not be written": moveTime} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t)
				defer p.end()
				p.secondCord.set(true)
				_, offer := p.session()
				p.secondCord.set(false)
				if n := len(p.second.server.sessions.of(p.device.id.UID)); n != 0 {
					t.Fatal("it has heard of it")
				}
				if later > 0 {
					p.secondCord.cutAfter(2) // who comes is looked up, and its sessions
				}
				p.second.control(p.device, hello("02")).Close()
				synctest.Wait()
				p.secondCord.set(false)
				time.Sleep(later + healEvery)
				if r := p.stored(offer.Session); r.Ended.IsZero() || r.Reason != transport.LinkLost {
					t.Errorf("%+v", r)
				}
			})
		})
	}
}

// Revocation at one node cuts at all of them.
func TestRevocationReachesEveryNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		defer p.end()
		_, offer := p.session()
		start := time.Now()
		if status := p.second.call(p.admin, "POST", "/api/v1/devices/press%201/revoke", nil, nil); status != 200 {
			t.Errorf("%d", status)
		}
		if got := refusal(p.runtime); got != transport.Revoked {
			t.Errorf("the Runtime is told %q", got)
		}
		var list wire.Revoked
		if p.relay.read(wire.TypeRevoked, &list); !slices.Equal(list.SPKI, []identity.SPKI{p.device.spki()}) {
			t.Errorf("%v", list)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("took %v", took)
		}
		if r := p.stored(offer.Session); r.Ended.IsZero() || r.Reason != transport.Revoked {
			t.Errorf("%+v", r)
		}
	})
}
