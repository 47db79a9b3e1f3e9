package access

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// Without the store nothing is granted and nothing falls down; when it is back
// all is made up for.
func TestStoreThatIsAwayFailsClosedAndHeals(t *testing.T) {
	for name, away := range map[string]time.Duration{"shortly": time.Second, "longer than the lease": 2 * store.LeaseTime} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t)
				defer p.end()
				p.runtime.beQuiet()
				p.relay.beQuiet()
				p.cord.set(true)
				time.Sleep(away)
				if got := <-p.open(p.admin, "press 1"); got.code != transport.Busy || got.status != 429 {
					t.Errorf("%+v", got)
				}
				p.runtime.write(wire.TypeEndSession, wire.EndSession{Session: newID(), Reason: transport.Closed})
				device := p.second.addDevice(p.admin, "press 2")
				other := p.second.control(device, hello("07"))
				defer other.Close()
				p.second.call(p.admin, "POST", "/api/v1/devices/press%202/revoke", nil, nil)
				synctest.Wait()
				if p.server.presence.isRevoked(device.spki()) {
					t.Error("the cut does not cut")
				}
				p.cord.set(false)
				time.Sleep(followEvery)
				synctest.Wait()
				if !p.server.presence.isRevoked(device.spki()) {
					t.Error("a revocation was missed for good")
				}
				p.relay.read(wire.TypeRevoked, nil)
				p.runtime.read(wire.TypeRevoked, nil)
				time.Sleep(2 * leaseAgain)
				if names := p.second.poolNames(); !slices.Equal(names, []string{"r1"}) || !p.second.isOnline(p.admin) {
					t.Errorf("the second knows %v", names)
				}
				p.session()
				p.here().session()
			})
		})
	}
}

// A Runtime that moved to another node while its own was cut off is not called
// back: the newer connection stays.
func TestOlderConnectionGivesWayWhenItsNodeComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		defer p.end()
		p.runtime.beQuiet()
		p.relay.beQuiet()
		p.cord.set(true)
		time.Sleep(2 * store.LeaseTime)
		second := p.second.control(p.device, hello("01"))
		synctest.Wait()
		p.cord.set(false)
		if got := refusal(p.runtime); got != transport.Replaced {
			t.Errorf("%q", got)
		}
		p.runtime.Close()
		p.runtime = second
		p.runtime.read(wire.TypePool, nil) // the relay is back, too
		time.Sleep(2 * leaseAgain)
		p.session()
	})
}

// What a Runtime lost at one node is moved at the other, or ends once.
func TestLostSessionIsKnownToEveryNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		defer p.end()
		p.runtime.beQuiet()
		p.relay.beQuiet()
		at := p.here()
		_, offer := at.session()
		for epoch := range 2 {
			p.runtime.write(wire.TypeEndSession, wire.EndSession{Session: offer.Session, Reason: transport.NoPeer})
			time.Sleep(time.Second) // a hint may be lost: then every node looks (access §9)
			synctest.Wait()
			if p.second.server.sessions.next().IsZero() {
				t.Fatal("the second does not know that it was lost")
			}
			if epoch == 0 {
				done := at.move(p.admin, offer.Session, 1)
				at.consent("")
				if got := <-done; got.status != 200 {
					t.Fatalf("%+v", got)
				}
				time.Sleep(2 * moveTime)
			}
		}
		p.crash()
		time.Sleep(moveTime)
		synctest.Wait()
		if r := p.here().stored(offer.Session); r.Ended.IsZero() {
			t.Errorf("%+v", r)
		}
	})
}

// A Manager at one node gets what the Runtime at the other has measured.
func TestMeasurementsReachEveryNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		defer p.end()
		p.measured([]float64{10}, []float64{20})
		done := make(chan api.Decision, 1)
		go func() {
			var d api.Decision
			p.second.call(p.admin, "GET", "/api/v1/devices/press%201/relays?measure=1", nil, &d)
			done <- d
		}()
		p.runtime.read(wire.TypeMeasure, nil)
		p.runtime.write(wire.TypeMeasurements, wire.Measurements{Relays: []wire.Measurement{{Name: "r1", RTTUS: 7000, Port: 443, Way: "direct"}}})
		if d := <-done; len(d.Relays) != 1 || d.Relays[0].ScoreMS != 17 {
			t.Errorf("%+v", d)
		}
	})
}
