package relay

import (
	"crypto/tls"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"hawser/server/gate"
	"hawser/server/grant"
	"hawser/transport"
	"hawser/transport/wire"
)

func TestSilentClientIsCutAfterTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		conn := r.dial(t, r.device())
		began := time.Now()
		wantReason(t, answer(conn), transport.Timeout)
		if took := time.Since(began); took != joinTime {
			t.Errorf("cut after %v, want %v", took, joinTime)
		}
	})
}

func TestLoneEndWaitsFifteenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		device, user := r.device(), r.user()
		conn := r.join(t, device, r.grant(wire.RoleRuntime, device, user, "s1"))
		began := time.Now()
		wantReason(t, answer(conn), transport.NoPeer)
		if took := time.Since(began); took != pairTime {
			t.Errorf("gave up after %v, want %v", took, pairTime)
		}
		synctest.Wait()
		if n := len(r.server.pairing.ends); n != 0 {
			t.Errorf("%d ends still have a slot", n)
		}
	})
}

func TestEndThatComesInTimeIsPaired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		device, user := r.device(), r.user()
		runtime := r.join(t, device, r.grant(wire.RoleRuntime, device, user, "s1"))
		time.Sleep(pairTime - time.Second)
		manager := r.join(t, user, r.grant(wire.RoleManager, user, device, "s1"))
		must(t, answer(runtime))
		must(t, answer(manager))
	})
}

func TestSecondJoinOfTheSameRoleIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		device, user := r.device(), r.user()
		first := r.join(t, device, r.grant(wire.RoleRuntime, device, user, "s1"))
		synctest.Wait()
		second := r.join(t, device, r.grant(wire.RoleRuntime, device, user, "s1"))
		wantReason(t, answer(second), transport.GrantUsed)
		manager := r.join(t, user, r.grant(wire.RoleManager, user, device, "s1"))
		must(t, answer(manager))
		must(t, answer(first))
	})
}

func TestEpochsDoNotMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		device, user := r.device(), r.user()
		later := r.grant(wire.RoleRuntime, device, user, "s1")
		later.Epoch = 2
		a := r.join(t, device, later)
		b := r.join(t, user, r.grant(wire.RoleManager, user, device, "s1"))
		wantReason(t, answer(a), transport.NoPeer)
		wantReason(t, answer(b), transport.NoPeer)
	})
}

func TestOverTheLimitClientsAreToldToComeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.MaxJoining = 2 })
		first, second := r.dial(t, r.device()), r.dial(t, r.device())
		synctest.Wait()
		began := time.Now()
		f, err := wire.Read(r.dial(t, r.device()))
		if err != nil || f.Type != wire.TypeRefuse || f.Refusal().Reason != transport.Busy || f.Refusal().RetryAfter != busyTime || time.Since(began) != 0 {
			t.Errorf("the third connection reads %v, %v after %v, want busy at once", f, err, time.Since(began))
		}
		wantReason(t, answer(first), transport.Timeout)
		wantReason(t, answer(second), transport.Timeout)
		r.pair(t, "s1") // and those who wait for their other end do not count
		r.pair(t, "s2")
		r.pair(t, "s3")
	})
}

// Strangers have places of their own: however many come, who has a certificate gets in.
func TestStrangersTakeNoPlaceOfClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.server.strangers = gate.New("strangers", gate.Limits{All: 2, Source: 2, Net: 2, Patience: time.Second}, nil, nil)
		first, second := r.dial(t, tls.Certificate{}), r.dial(t, tls.Certificate{})
		synctest.Wait()
		began := time.Now()
		if _, err := r.dial(t, tls.Certificate{}).Read(make([]byte, 1)); err == nil || time.Since(began) != 0 {
			t.Errorf("a third stranger read %v after %v, want an end at once", err, time.Since(began))
		}
		r.pair(t, "s1")
		must(t, echo(r.dial(t, r.device()), 16))
		wantReason(t, answer(first), transport.Timeout)
		wantReason(t, answer(second), transport.Timeout)
	})
}

func TestWhatIsNoJoinIsRefused(t *testing.T) {
	tests := []struct {
		name  string
		bytes []byte
		want  transport.Reason
	}{
		{"another type", []byte{byte(wire.TypeHello), 0, 0, 2, '{', '}'}, transport.Protocol},
		{"unknown type", []byte{0x99, 0, 0, 0}, transport.Protocol},
		{"length over the limit", []byte{byte(wire.TypeJoin), 0xff, 0xff, 0xff}, transport.Protocol},
		{"not JSON", []byte{byte(wire.TypeJoin), 0, 0, 1, '{'}, transport.Protocol},
		{"wrong members", []byte{byte(wire.TypeJoin), 0, 0, 11, '{', '"', 'g', 'r', 'a', 'n', 't', '"', ':', '1', '}'}, transport.Protocol},
		{"empty join", []byte{byte(wire.TypeJoin), 0, 0, 2, '{', '}'}, transport.BadGrant},
		{"cut short", []byte{byte(wire.TypeJoin), 0, 0, 2, '{'}, transport.Timeout},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				conn := r.dial(t, r.device())
				_, err := conn.Write(c.bytes)
				must(t, err)
				wantReason(t, answer(conn), c.want)
				if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
					t.Errorf("after the refusal: %v, want EOF", err)
				}
			})
		})
	}
}

func TestUsedGrantsAreForgottenOnlyWhenTheyAreOver(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	u := newUsed()
	g := grant.Grant{ID: "a", Expires: now.Add(grant.Life)}
	must(t, u.take(g, now))
	wantReason(t, u.take(g, now.Add(grant.Life+grant.Leeway)), transport.GrantUsed)
	late := now.Add(grant.Life + grant.Leeway + time.Second)
	must(t, u.take(grant.Grant{ID: "b", Expires: late}, late))
	if _, ok := u.until["a"]; ok {
		t.Error("a grant that is over is still remembered")
	}
}

func TestFullMemoryOfGrantsRefusesInsteadOfForgetting(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	u := newUsed()
	for range maxUsed {
		must(t, u.take(grant.Grant{ID: newInstance(), Expires: now.Add(grant.Life)}, now))
	}
	wantReason(t, u.take(grant.Grant{ID: "one more", Expires: now}, now), transport.Busy)
	later := now.Add(2 * time.Minute)
	must(t, u.take(grant.Grant{ID: "one more", Expires: later}, later))
}

func TestRelayWithoutIdentityHasNoCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInfra()
		s, err := New(Config{Dir: t.TempDir(), Access: []string{"192.0.2.2"}, Hosts: []string{"192.0.2.1"}, Roots: i.Roots})
		must(t, err)
		_, err = s.Certificate()
		wantReason(t, err, transport.NotEnrolled)
		if _, err := New(Config{}); err == nil {
			t.Error("a relay was made of nothing")
		}
	})
}

// FuzzJudge: no join makes the relay panic, and none that the fuzzer can make
// is good.
func FuzzJudge(f *testing.F) {
	f.Add(`{"grant":"a.b.c"}`)
	f.Add(`{"grant":""}`)
	var i infra
	var chain tls.Certificate
	f.Fuzz(func(t *testing.T, payload string) {
		if i.PKI == nil {
			i = newInfra()
			chain = i.device()
		}
		var j wire.Join
		if (wire.Frame{Type: wire.TypeJoin, Payload: []byte(payload)}).Decode(&j) != nil {
			return
		}
		l := policy{roots: i.Roots, relay: relayName, instance: "x", now: time.Now()}
		if _, err := judge(request{certs(t, chain), j}, l); err == nil {
			t.Error("a join of random bytes was good")
		}
	})
}
