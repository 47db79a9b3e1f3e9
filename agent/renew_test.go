package agent

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/transport"
	"hawser/transport/wire"
)

func TestAnAttachedGatewayRenewsAtHalfLife(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrollNow()
		r.access.Certify(testName, 30*day)
		before := must(ShowIdentity(r.dir))(t)
		p := r.start()
		p.await(StateAttached, 10*time.Second)
		took := r.until(20*day, "renewal", func() bool { return r.notes.count("identity renewed") > 0 })
		if took < 13*day+10*time.Hour || took > 16*day+14*time.Hour {
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
		r.enroll(time.Now().Add(-20*day), time.Now().Add(10*day))
		r.access.Identify = func(wire.Type, []byte) (wire.Identity, *wire.Refusal) {
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
		r.access.Certify(testName, 30*day)
		r.until(2*time.Hour+time.Minute, "renewal", func() bool { return r.notes.count("identity renewed") > 0 })
		p.stop(time.Second)
	})
}

// The issuing CA near its own end gives certificates that have no half to wait for.
func TestCertificatesWithoutALifeMakeNoLoop(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enroll(time.Now().Add(-20*day), time.Now().Add(10*day))
		r.access.Certify(testName, 2*time.Second)
		p := r.start()
		p.await(StateAttached, 10*time.Second)
		time.Sleep(6 * time.Hour)
		if n := r.notes.count("identity renewed"); n < 3 || n > 7 {
			t.Errorf("renewed %d times in six hours", n)
		}
		p.stop(time.Second)

		r.access.Certify(testName, -time.Second) // over when it is issued
		dials := r.access.Dials()
		r.access.RefuseHello = &wire.Refusal{Reason: transport.Expired}
		p = r.start()
		time.Sleep(10 * time.Minute)
		if n := r.access.Dials() - dials; n == 0 || n > 2*50 {
			t.Errorf("dialled %d times in ten minutes", n)
		}
		p.stop(time.Second)
	})
}

func TestAnIdentityThatExpiredOnAShelfIsRenewedBeforeHello(t *testing.T) {
	bubble(t, func(r *rig) {
		now := time.Now()
		r.opts.Build = now.Add(-3*365*day - 60*day)
		r.enroll(now.Add(-3*365*day-30*day), now.Add(-3*365*day))
		r.access.Certify(testName, 30*day)
		p := r.start()
		p.await(StateAttached, 10*time.Second)
		want := []wire.Type{wire.TypeTimeRequest, wire.TypeRenew, wire.TypeTimeRequest, wire.TypeHello}
		if got := r.access.Types(); !slices.Equal(got, want) {
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
		r.enroll(now.Add(-40*day), now.Add(-10*day))
		r.access.Identify = func(wire.Type, []byte) (wire.Identity, *wire.Refusal) {
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
			return r.access.Identity(identity.DeviceName("plant", identity.UID{9}), csr, 30*day)
		},
		"key": func(r *rig, _ []byte) wire.Identity {
			csr := must(identity.NewCSR(identitytest.NewKey()))(r.t)
			return r.access.Identity(testName, csr, 30*day)
		},
		"root": func(r *rig, csr []byte) wire.Identity {
			return r.access.IdentityBy(identitytest.New(time.Now()), testName, csr, 30*day)
		},
		"nothing": func(*rig, []byte) wire.Identity { return wire.Identity{} },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.enroll(time.Now().Add(-20*day), time.Now().Add(10*day))
				before := must(ShowIdentity(r.dir))(t)
				r.access.Identify = func(_ wire.Type, csr []byte) (wire.Identity, *wire.Refusal) { return forge(r, csr), nil }
				p := r.start()
				r.until(time.Minute, "renewal", func() bool { return r.notes.count("renew identity") > 0 })
				if after := must(ShowIdentity(r.dir))(t); !reflect.DeepEqual(after, before) {
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
