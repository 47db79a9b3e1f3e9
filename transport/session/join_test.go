package session

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/transport"
	"hawser/transport/mux"
	"hawser/transport/wire"
)

func TestBothEndsMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		runtime, manager := s.up(echo)
		stream, err := manager.Open(t.Context(), mux.Open{Service: wire.ServicePing})
		if err != nil {
			t.Fatal(err)
		}
		if runtime.Streams() != 1 || manager.Streams() != 1 {
			t.Errorf("%d and %d streams", runtime.Streams(), manager.Streams())
		}
		stream.Close()
		state := manager.conn.ConnectionState()
		if state.Version != tls.VersionTLS13 || state.CurveID != tls.X25519MLKEM768 || state.NegotiatedProtocol != transport.ALPNSession {
			t.Errorf("got %+v", state)
		}
	})
}

func TestWrongPeerIsRefusedByBothEnds(t *testing.T) {
	other := identity.DeviceName("plant", identity.UID{2})
	cases := []struct {
		name  string
		spoil func(*site)
	}{
		{"runtime expects another key", func(s *site) { s.runtime.Offer.PeerSPKI[0] ^= 1 }},
		{"manager expects another key", func(s *site) { s.manager.Offer.PeerSPKI[0] ^= 1 }},
		{"runtime expects another user", func(s *site) { s.runtime.Offer.Peer = identity.UserName("plant", "eve").String() }},
		{"manager expects another device", func(s *site) { s.manager.Offer.Peer = other.String() }},
		{"runtime is swapped", func(s *site) { s.runtime.Certificate = cert(s.pki, other, time.Hour) }},
		{"runtime's new key for its name", func(s *site) { s.runtime.Certificate = cert(s.pki, deviceName, time.Hour) }},
		{"manager is swapped", func(s *site) { s.manager.Certificate = cert(s.pki, identity.UserName("plant", "eve"), time.Hour) }},
		{"manager of other roots", func(s *site) { s.swapManager(cert(identitytest.New(time.Now()), userName, time.Hour)) }},
		{"runtime of other roots", func(s *site) { s.swapRuntime(cert(identitytest.New(time.Now()), deviceName, time.Hour)) }},
		{"manager is a relay", func(s *site) { s.swapManager(cert(s.pki, relayName, time.Hour)) }},
		{"runtime is a user", func(s *site) { s.swapRuntime(cert(s.pki, userName, time.Hour)) }},
		{"manager has expired", func(s *site) { s.swapManager(cert(s.pki, userName, -time.Hour)) }},
		{"runtime has expired", func(s *site) { s.swapRuntime(cert(s.pki, deviceName, -time.Hour)) }},
		{"manager without a certificate", func(s *site) { s.manager.Certificate = tls.Certificate{} }},
		{"both are told to be manager", func(s *site) { s.runtime.Offer.Role = wire.RoleManager }},
	}
	t.Attr("id", "A1-refuse")
	t.Attr("cases", fmt.Sprint(len(cases)))
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				c.spoil(s)
				s.meetNot(transport.WrongPeer, transport.WrongPeer)
			})
		})
	}
}

// swapManager gives the Manager another certificate, whose key is in the Runtime's offer: all else must refuse it.
func (s *site) swapManager(c tls.Certificate) {
	s.manager.Certificate, s.runtime.Offer.PeerSPKI = c, identity.CertSPKI(c.Leaf)
}

func (s *site) swapRuntime(c tls.Certificate) {
	s.runtime.Certificate, s.manager.Offer.PeerSPKI = c, identity.CertSPKI(c.Leaf)
}

// meetNot joins both ends and wants neither to get a session, but one of the reasons.
func (s *site) meetNot(runtime, manager transport.Reason, or ...transport.Reason) {
	s.tb.Helper()
	j := s.join(s.tb.Context())
	for _, end := range []struct {
		name    string
		session *Session
		err     error
		want    transport.Reason
	}{{"runtime", j.runtime, j.runtimeErr, runtime}, {"manager", j.manager, j.managerErr, manager}} {
		got := transport.ReasonOf(end.err)
		if end.session != nil || got != end.want && !slices.Contains(or, got) {
			s.tb.Errorf("%s: got %v, want %s", end.name, end.err, end.want)
		}
		if end.session != nil {
			end.session.Close()
		}
	}
}

func TestRelayThatSpoilsTheHandshakeGetsNoSession(t *testing.T) {
	flip := func(toRuntime bool) func(*site) {
		return func(s *site) {
			first := true
			s.relay.Tamper = func(way bool, b []byte) []byte {
				if way == toRuntime && first && len(b) > 0 {
					first = false
					b[len(b)/2] ^= 1
				}
				return b
			}
		}
	}
	cases := []struct {
		name             string
		spoil            func(*site)
		runtime, manager transport.Reason
	}{
		{"flips a byte of the hello", flip(true), transport.WrongPeer, transport.WrongPeer},
		{"flips a byte of the answer", flip(false), transport.WrongPeer, transport.WrongPeer},
		{"injects before the hello", func(s *site) {
			s.relay.Tamper = func(toRuntime bool, b []byte) []byte {
				if toRuntime {
					return append([]byte("evil"), b...)
				}
				return b
			}
		}, transport.WrongPeer, transport.WrongPeer},
		{"keeps all for itself", func(s *site) {
			s.relay.Tamper = func(bool, []byte) []byte { return nil }
		}, transport.Timeout, transport.Timeout},
	}
	t.Attr("id", "A1-refuse")
	t.Attr("cases", fmt.Sprint(len(cases)))
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				c.spoil(s)
				s.meetNot(c.runtime, c.manager, transport.Reset) // the other end may have noticed first
			})
		})
	}
}

func TestRelaysRefusalIsTheReason(t *testing.T) {
	for _, r := range []transport.Reason{transport.GrantExpired, transport.GrantUsed, transport.NoPeer, transport.Busy} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			s.relay.Refuse = &wire.Refusal{Reason: r, RetryAfter: time.Second}
			j := s.join(t.Context())
			if refusal, ok := errors.AsType[*wire.Refusal](j.managerErr); !ok || refusal.RetryAfter != time.Second {
				t.Errorf("got %v", j.managerErr)
			}
			if transport.ReasonOf(j.runtimeErr) != r || transport.ReasonOf(j.managerErr) != r {
				t.Errorf("got %v and %v, want %s", j.runtimeErr, j.managerErr, r)
			}
		})
	}
}

func TestPeerThatNeverComesIsATimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		begin := time.Now()
		_, err := Join(t.Context(), s.manager)
		if transport.ReasonOf(err) != transport.Timeout || time.Since(begin) != joinTimeout {
			t.Errorf("got %v after %v", err, time.Since(begin))
		}
	})
}

func TestJoinHonoursItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		begin := time.Now()
		if _, err := Join(ctx, s.manager); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 2*time.Second {
			t.Errorf("got %v after %v", err, time.Since(begin))
		}
	})
}

func TestManagerThatWaitsForTheRuntimesYesHonoursItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		hello := true // of the direction to the Runtime alone: the other one has a goroutine of its own
		s.relay.Tamper = func(toRuntime bool, b []byte) []byte {
			if !toRuntime {
				return b
			}
			if !hello {
				return nil // so that the Manager's handshake ends and the Runtime's does not
			}
			hello = false
			return b
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		j := s.join(ctx)
		// The Runtime's time is over in the same instant, in which it may also see the Manager go.
		if !errors.Is(j.managerErr, context.DeadlineExceeded) || j.runtimeErr == nil {
			t.Errorf("got %v and %v", j.managerErr, j.runtimeErr)
		}
	})
}

func TestOfferThatNamesNobodyIsRefused(t *testing.T) {
	for name, spoil := range map[string]func(*wire.Offer){
		"no peer": func(o *wire.Offer) { o.Peer = "" },
		"no name": func(o *wire.Offer) { o.Peer = "ann" },
		"no key":  func(o *wire.Offer) { o.PeerSPKI = identity.SPKI{} },
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			spoil(&s.runtime.Offer)
			begin := time.Now()
			if _, err := Join(t.Context(), s.runtime); transport.ReasonOf(err) != transport.Protocol || time.Since(begin) != 0 {
				t.Errorf("%s: got %v after %v", name, err, time.Since(begin))
			}
		})
	}
}

func TestRelayOfAnotherNameIsNotJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.runtime.Offer.Relay.Name = "r2"
		if _, err := Join(t.Context(), s.runtime); transport.ReasonOf(err) != transport.WrongName {
			t.Errorf("got %v", err)
		}
		if s.relay.Carried() != 0 {
			t.Errorf("the relay got %d bytes", s.relay.Carried())
		}
	})
}
