package relay

import (
	"crypto/tls"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/server/grant"
	"hawser/transport"
	"hawser/transport/wire"
)

// A scene is the Manager's join of a session whose Runtime is there already.
type scene struct {
	*rig
	device tls.Certificate

	cert   tls.Certificate // what the Manager shows in TLS
	grant  grant.Grant     // what he was given
	signer grant.Signer    // by whom
	bend   func(token string) string
	age    time.Duration // of the grant when it is used
	before func()        // happens before
}

func newScene(t *testing.T) *scene {
	s := &scene{rig: newRig(t), bend: func(s string) string { return s }, before: func() {}}
	s.device, s.cert, s.signer = s.rig.device(), s.user(), grant.Signer(s.Grant)
	s.grant = s.rig.grant(wire.RoleManager, s.cert, s.device, "s1")
	return s
}

// play lets both ends join and returns what the Manager hears.
func (s *scene) play(t *testing.T) error {
	token := s.bend(sign(t, s.signer, s.grant))
	time.Sleep(s.age)
	runtime := s.rig.grant(wire.RoleRuntime, s.device, s.device, "s1")
	runtime.Peer = s.grant.Holder
	s.join(t, s.device, runtime)
	s.before()
	synctest.Wait()
	return answer(s.joinWith(t, s.cert, wire.Join{Grant: token}))
}

// refusals are the faults of a join that a relay must find (wire §5.1).
var refusals = []struct {
	name string
	want transport.Reason
	bend func(t *testing.T, s *scene)
}{
	{"another holder's key", transport.GrantHolder, func(t *testing.T, s *scene) {
		s.cert = s.user()
	}},
	{"certificate of a wrong kind", transport.WrongKind, func(t *testing.T, s *scene) {
		s.cert = s.issue(identity.RelayName("r2"), time.Hour)
		s.grant.Holder = identity.CertSPKI(s.cert.Leaf)
	}},
	{"device in the Manager's role", transport.WrongKind, func(t *testing.T, s *scene) {
		s.cert = s.rig.device()
		s.grant.Holder = identity.CertSPKI(s.cert.Leaf)
	}},
	{"swapped peers", transport.GrantPeer, func(t *testing.T, s *scene) {
		s.grant.Peer = identity.CertSPKI(s.rig.device().Leaf)
	}},
	{"reused grant", transport.GrantUsed, func(t *testing.T, s *scene) {
		s.before = func() {
			s.joinWith(t, s.cert, wire.Join{Grant: sign(t, s.signer, s.grant)})
		}
	}},
	{"grant after 60 s and leeway", transport.GrantExpired, func(t *testing.T, s *scene) {
		s.age = grant.Life + grant.Leeway + time.Second
	}},
	{"grant of another relay", transport.GrantAudience, func(t *testing.T, s *scene) {
		s.grant.Relay = "r2"
	}},
	{"grant of another instance", transport.GrantAudience, func(t *testing.T, s *scene) {
		s.grant.Instance = newInstance()
	}},
	{"expired client certificate", transport.Expired, func(t *testing.T, s *scene) {
		s.cert = s.issue(identity.UserName("plant", "anna"), time.Second)
		s.grant.Holder = identity.CertSPKI(s.cert.Leaf)
		s.age = 5 * time.Second
	}},
	{"client certificate of a wrong root", transport.WrongRoot, func(t *testing.T, s *scene) {
		s.cert = newInfra().user()
		s.grant.Holder = identity.CertSPKI(s.cert.Leaf)
	}},
	{"grant of a wrong root", transport.BadGrant, func(t *testing.T, s *scene) {
		s.signer = grant.Signer(newInfra().Grant)
	}},
	{"changed grant", transport.BadGrant, func(t *testing.T, s *scene) {
		s.bend = func(token string) string { return token[:len(token)-4] + "AAAA" }
	}},
	{"no client certificate", transport.NotEnrolled, func(t *testing.T, s *scene) {
		s.cert = tls.Certificate{}
	}},
	{"revoked key", transport.Revoked, func(t *testing.T, s *scene) {
		s.server.pairing.revoke([]identity.SPKI{s.grant.Holder})
	}},
}

// TestJoinIsRefused plays each fault, and the same scene without it.
func TestJoinIsRefused(t *testing.T) {
	t.Attr("id", "A1-refuse")
	t.Attr("cases", strconv.Itoa(2*len(refusals)))
	for _, c := range refusals {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t)
				c.bend(t, s)
				wantReason(t, s.play(t), c.want)
			})
		})
		t.Run("no "+c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				must(t, newScene(t).play(t))
			})
		})
	}
}

// TestGrantLivesItsWholeLife is the other side of the refused old grant.
func TestGrantLivesItsWholeLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.age = grant.Life + grant.Leeway - 2*time.Second
		must(t, s.play(t))
	})
}
