package agent

import (
	"slices"
	"testing"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

func TestRenewalComesAtHalfLifeWithinTenPercent(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	end := begin.Add(30 * day)
	for fraction, want := range map[float64]time.Duration{0: 12 * day, 0.5: 15 * day, 1: 18 * day} {
		if got := renewAt(begin, end, fraction).Sub(begin); (got - want).Abs() > time.Second {
			t.Errorf("renewAt(%v) = %v after the beginning, want %v", fraction, got, want)
		}
	}
}

func TestAnAttachedGatewayRenewsAtHalfLife(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrolNow()
		r.access.certify(testName, 30*day)
		before := must(ShowIdentity(r.dir))(t)
		p := r.start()
		p.await(StateAttached, 10*time.Second)
		took := r.until(20*day, "renewal", func() bool { return r.notes.count("identity renewed") > 0 })
		if took < 12*day-2*time.Hour || took > 18*day+2*time.Hour {
			t.Errorf("renewed after %v", took)
		}
		after := must(ShowIdentity(r.dir))(t)
		if after.SPKI != before.SPKI || after.UID != before.UID || !after.NotAfter.After(before.NotAfter) {
			t.Errorf("before %+v, after %+v", before, after)
		}
		if got := p.self.Load().Cert.Leaf.NotAfter.UTC(); !got.Equal(after.NotAfter) {
			t.Errorf("in force until %v, stored until %v", got, after.NotAfter)
		}
		if p.Status().State != StateAttached || r.notes.count("online") != 1 {
			t.Error("the control connection was lost by it")
		}
		time.Sleep(5 * day)
		if n := r.notes.count("identity renewed"); n != 1 {
			t.Errorf("renewed %d times in a life", n)
		}
		p.stop(time.Second)
	})
}

func TestARefusedRenewalIsTriedAgainEveryHourOrTwo(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrol(time.Now().Add(-20*day), time.Now().Add(10*day))
		r.access.identify = func(wire.Type, []byte) (wire.Identity, *wire.Refusal) {
			return wire.Identity{}, &wire.Refusal{Reason: transport.Busy}
		}
		p := r.start()
		p.await(StateAttached, 10*time.Second)
		time.Sleep(day)
		if n := r.notes.count("renew identity"); n < 12 || n > 25 {
			t.Errorf("tried %d times in a day", n)
		}
		if p.Status().State != StateAttached {
			t.Error("not attached any more")
		}
		r.access.certify(testName, 30*day)
		r.until(2*time.Hour+time.Minute, "renewal", func() bool { return r.notes.count("identity renewed") > 0 })
		p.stop(time.Second)
	})
}

// The issuing CA near its own end gives certificates that have no half to wait for.
func TestCertificatesWithoutALifeMakeNoLoop(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrol(time.Now().Add(-20*day), time.Now().Add(10*day))
		r.access.certify(testName, 2*time.Second)
		p := r.start()
		p.await(StateAttached, 10*time.Second)
		time.Sleep(day)
		if n := r.notes.count("identity renewed"); n < 12 || n > 25 {
			t.Errorf("renewed %d times in a day", n)
		}
		p.stop(time.Second)

		r.access.certify(testName, -time.Second) // over when it is issued
		dials := r.access.dials()
		r.access.refusal = &wire.Refusal{Reason: transport.Expired}
		p = r.start()
		time.Sleep(time.Hour)
		if n := r.access.dials() - dials; n > 2*200 {
			t.Errorf("dialled %d times in an hour", n)
		}
		p.stop(time.Second)
	})
}

func TestAnIdentityThatExpiredOnAShelfIsRenewedBeforeHello(t *testing.T) {
	bubble(t, func(r *rig) {
		now := time.Now()
		r.opts.Build = now.Add(-3*365*day - 60*day)
		r.enrol(now.Add(-3*365*day-30*day), now.Add(-3*365*day))
		r.access.certify(testName, 30*day)
		p := r.start()
		p.await(StateAttached, 10*time.Second)
		want := []wire.Type{wire.TypeTimeRequest, wire.TypeRenew, wire.TypeTimeRequest, wire.TypeHello}
		if got := r.access.types(); !slices.Equal(got, want) {
			t.Errorf("frames %#x, want %#x", got, want)
		}
		if info := must(ShowIdentity(r.dir))(t); !info.NotAfter.After(now.Add(29 * day)) {
			t.Errorf("stored until %v", info.NotAfter)
		}
		p.stop(time.Second)
	})
}

func TestARevokedShelfIdentityIsQuarantinedAndKept(t *testing.T) {
	bubble(t, func(r *rig) {
		now := time.Now()
		r.enrol(now.Add(-40*day), now.Add(-10*day))
		r.access.identify = func(wire.Type, []byte) (wire.Identity, *wire.Refusal) {
			return wire.Identity{}, &wire.Refusal{Reason: transport.Revoked}
		}
		p := r.start()
		p.await(StateQuarantined, 10*time.Second)
		if info := must(ShowIdentity(r.dir))(t); !info.Enrolled {
			t.Error("the identity is gone")
		}
		p.stop(time.Second)
	})
}

func TestARenewalForAnotherNameOrKeyIsNotTaken(t *testing.T) {
	for name, forge := range map[string]func(r *rig, csr []byte) wire.Identity{
		"name": func(r *rig, csr []byte) wire.Identity {
			return r.access.identity(identity.DeviceName("plant", identity.UID{9}), csr, 30*day)
		},
		"key": func(r *rig, _ []byte) wire.Identity {
			csr := must(identity.NewCSR(must(identity.NewKey())(r.t)))(r.t)
			return r.access.identity(testName, csr, 30*day)
		},
		"root": func(r *rig, csr []byte) wire.Identity {
			other := &fakeAccess{t: r.t, in: newInfra(r.t, time.Now()), now: time.Now}
			return other.identity(testName, csr, 30*day)
		},
		"nothing": func(*rig, []byte) wire.Identity { return wire.Identity{} },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.enrol(time.Now().Add(-20*day), time.Now().Add(10*day))
				before := must(ShowIdentity(r.dir))(t)
				r.access.identify = func(_ wire.Type, csr []byte) (wire.Identity, *wire.Refusal) { return forge(r, csr), nil }
				p := r.start()
				r.until(time.Minute, "renewal", func() bool { return r.notes.count("renew identity") > 0 })
				if after := must(ShowIdentity(r.dir))(t); after != before {
					t.Errorf("before %+v, after %+v", before, after)
				}
				if s := p.Status().State; s != StateAttached {
					t.Errorf("state %s", s)
				}
				p.stop(time.Second)
			})
		})
	}
}
