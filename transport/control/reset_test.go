package control

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

// poison puts the client's floor so far ahead that every good leaf looks expired.
func (s *site) poison() { s.clock.floor, s.clock.authentic = time.Now().AddDate(10, 0, 0), false }

// takesResets lets the client take every reset that verifies, and lower the floor by it.
func (s *site) takesResets() (taken *[]identity.FloorReset) {
	taken = new([]identity.FloorReset)
	s.client.Reset = func(r identity.FloorReset) error {
		*taken = append(*taken, r)
		s.clock.mu.Lock()
		defer s.clock.mu.Unlock()
		s.clock.floor, s.clock.authentic = r.To, false
		return nil
	}
	return taken
}

func (s *site) reset() []byte {
	return must(identity.FloorReset{UID: s.client.UID, To: time.Now().Add(-time.Hour), Sequence: 7}.Sign(s.pki.Root))
}

// servePrelude answers each time-request with a reset, unless it is nil, and the time.
func (s *site) servePrelude(reset func() []byte, seen func(tls.ConnectionState)) {
	s.serve(func(conn *tls.Conn) {
		if seen != nil {
			seen(conn.ConnectionState())
		}
		f, err := wire.Expect(conn, wire.TypeTimeRequest)
		if err != nil {
			return
		}
		if reset != nil {
			wire.Write(conn, wire.TypeFloorReset, reset())
		}
		wire.Write(conn, wire.TypeTime, s.access.Time(f, nil))
	})
}

func TestAPoisonedFloorComesBackByAReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		taken, shown := s.takesResets(), []int{}
		own := s.issue(-time.Hour, time.Hour)
		s.client.Dialer.Certificate = func() *tls.Certificate { return &own }
		s.servePrelude(s.reset, func(cs tls.ConnectionState) { shown = append(shown, len(cs.PeerCertificates)) })
		s.poison()
		conn, err := s.client.Connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		// Once by the search for a reset, and as the server sends it on, in the prelude.
		if len(*taken) != 2 || (*taken)[0].Sequence != 7 || len(s.clock.signed) != 1 {
			t.Errorf("took %v, the clock heard %v", *taken, s.clock.signed)
		}
		if !slices.Equal(shown, []int{0, 3}) {
			t.Errorf("showed chains of %v certificates: none is due before the reset, its own after", shown)
		}
	})
}

func TestAResetIsLookedForOnceAndOnlyAfterADate(t *testing.T) {
	for name, c := range map[string]struct {
		setup func(*site)
		reset func(*site) []byte
		want  transport.Reason
		asked int // connections whose TLS came up
	}{
		"none is there":                {setup: (*site).poison, want: transport.ClockWrong, asked: 1},
		"authentic, and none is there": {setup: func(s *site) { s.poison(); s.clock.authentic = true }, want: transport.Expired, asked: 1},
		"refused by the owner": {setup: func(s *site) {
			s.poison()
			s.client.Reset = func(identity.FloorReset) error { return errors.New("seen before") }
		}, reset: (*site).reset, want: transport.ClockWrong, asked: 1},
		"taken, and no help": {setup: func(s *site) {
			s.poison()
			s.client.Reset = func(identity.FloorReset) error { return nil }
		}, reset: (*site).reset, want: transport.ClockWrong, asked: 1},
		"a client without a floor":  {setup: func(s *site) { s.poison(); s.client.Reset = nil }, reset: (*site).reset, want: transport.ClockWrong},
		"a client without a UID":    {setup: func(s *site) { s.poison(); s.client.UID = identity.UID{} }, reset: (*site).reset, want: transport.ClockWrong},
		"a server of another root":  {setup: func(s *site) { s.poison(); s.client.Roots = newSite(s.t).client.Roots }, reset: (*site).reset, want: transport.WrongRoot},
		"a server of another kind":  {setup: func(s *site) { s.poison(); s.access.Leaf = s.pki.Leaf(identity.RelayName("r"), -time.Hour, time.Hour) }, reset: (*site).reset, want: transport.ClockWrong},
		"a server with a bad chain": {setup: func(s *site) { s.poison(); s.access.Leaf.Certificate = s.access.Leaf.Certificate[:1] }, reset: (*site).reset, want: transport.WrongRoot},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, asked := newSite(t), 0
				s.takesResets()
				c.setup(s)
				var reset func() []byte
				if c.reset != nil {
					reset = func() []byte { return c.reset(s) }
				}
				s.servePrelude(reset, func(tls.ConnectionState) { asked++ })
				floor := s.clock.floor
				conn, err := s.client.Connect(t.Context())
				if conn != nil || transport.ReasonOf(err) != c.want {
					t.Errorf("got %v, %v, want %s", conn, err, c.want)
				}
				synctest.Wait()
				if asked != c.asked || len(s.clock.signed) != 0 || !s.clock.floor.Equal(floor) {
					t.Errorf("asked %d times, want %d; the clock heard %v", asked, c.asked, s.clock.signed)
				}
			})
		})
	}
}

// Whoever holds a stolen and expired server key may be asked for a reset: what it
// says instead moves nothing, and the time-request is all that it gets.
func TestWhoeverHasAStolenKeyCannotMoveTheFloor(t *testing.T) {
	forgeries := map[string]func(*site, wire.Frame) (wire.Type, []byte){
		"unsigned": func(s *site, _ wire.Frame) (wire.Type, []byte) {
			b := s.reset()
			clear(b[len(b)-64:])
			return wire.TypeFloorReset, b
		},
		"signed by the issuing CA": func(s *site, _ wire.Frame) (wire.Type, []byte) {
			return wire.TypeFloorReset, must(identity.FloorReset{UID: s.client.UID, To: time.Now()}.Sign(s.pki.Issuing))
		},
		"signed by another root": func(s *site, _ wire.Frame) (wire.Type, []byte) {
			other := newSite(s.t)
			other.client.UID = s.client.UID
			return wire.TypeFloorReset, other.reset()
		},
		"of another device": func(s *site, _ wire.Frame) (wire.Type, []byte) {
			return wire.TypeFloorReset, must(identity.FloorReset{UID: identity.NewUID(), To: time.Now()}.Sign(s.pki.Root))
		},
		"a bit flipped": func(s *site, _ wire.Frame) (wire.Type, []byte) {
			b := s.reset()
			b[40] ^= 1
			return wire.TypeFloorReset, b
		},
		"truncated":               func(s *site, _ wire.Frame) (wire.Type, []byte) { return wire.TypeFloorReset, s.reset()[:100] },
		"empty":                   func(s *site, _ wire.Frame) (wire.Type, []byte) { return wire.TypeFloorReset, nil },
		"the true time":           func(s *site, f wire.Frame) (wire.Type, []byte) { return wire.TypeTime, s.access.Time(f, nil) },
		"a refusal":               func(*site, wire.Frame) (wire.Type, []byte) { return wire.TypeRefuse, []byte(`{"reason":"busy"}`) },
		"a welcome":               func(*site, wire.Frame) (wire.Type, []byte) { return wire.TypeWelcome, []byte(`{}`) },
		"silence, and then a yes": nil,
	}
	t.Attr("id", "K11")
	t.Attr("cases", fmt.Sprint(len(forgeries)))
	for name, forge := range forgeries {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				taken := s.takesResets()
				s.poison()
				s.access.Leaf = s.issue(-2*time.Hour, -time.Hour) // it is over, and was so before the floor
				s.serve(func(conn *tls.Conn) {
					f, err := wire.Read(conn)
					if err != nil {
						return
					}
					if forge == nil {
						time.Sleep(maxTimeRTT)
						wire.Write(conn, wire.TypeFloorReset, s.reset())
						return
					}
					kind, payload := forge(s, f)
					wire.Write(conn, kind, payload)
				})
				floor, begin := s.clock.floor, time.Now()
				conn, err := s.client.Connect(t.Context())
				if conn != nil || transport.ReasonOf(err) != transport.ClockWrong || time.Since(begin) > maxTimeRTT {
					t.Errorf("got %v, %v after %v", conn, err, time.Since(begin))
				}
				if strings.Contains(err.Error(), "\n") {
					t.Errorf("more than a line: %q", err)
				}
				time.Sleep(time.Minute)
				if len(*taken) != 0 || len(s.clock.signed) != 0 || !s.clock.floor.Equal(floor) {
					t.Errorf("took %v, the clock heard %v", *taken, s.clock.signed)
				}
				if len(s.access.Rest()) != 0 {
					t.Errorf("the server learned %q", s.access.Rest())
				}
			})
		})
	}
}

// In an ordinary prelude a reset that is of no use is as if it had not come.
func TestAPreludeGoesOnAfterAReset(t *testing.T) {
	for name, c := range map[string]struct {
		setup func(*site)
		reset func(*site) []byte
		taken int
	}{
		"taken":           {nil, (*site).reset, 1},
		"forged":          {nil, func(s *site) []byte { b := s.reset(); b[117] ^= 1; return b }, 0},
		"no use for any":  {func(s *site) { s.client.Reset = nil }, (*site).reset, 0},
		"refused by us":   {func(s *site) { s.client.Reset = func(identity.FloorReset) error { return errors.New("no") } }, (*site).reset, 0},
		"a clock of 1970": {func(s *site) { s.clock.floor, s.clock.authentic = time.Unix(0, 0), false }, (*site).reset, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				taken := s.takesResets()
				if c.setup != nil {
					c.setup(s)
				}
				s.servePrelude(func() []byte { return c.reset(s) }, nil)
				conn, err := s.client.Connect(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				conn.Close()
				if len(*taken) != c.taken || len(s.clock.signed) != 1 {
					t.Errorf("took %v, the clock heard %v", *taken, s.clock.signed)
				}
			})
		})
	}
}

func TestASecondResetIsAProtocolError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.takesResets()
		s.serve(func(conn *tls.Conn) {
			wire.Read(conn)
			wire.Write(conn, wire.TypeFloorReset, s.reset())
			wire.Write(conn, wire.TypeFloorReset, s.reset())
		})
		if _, err := s.client.Connect(t.Context()); !errors.Is(err, wire.ErrFrame) || len(s.clock.signed) != 0 {
			t.Errorf("got %v", err)
		}
	})
}

func TestTheSearchForAResetEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.takesResets()
		s.poison()
		s.serve(func(*tls.Conn) {})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		begin := time.Now()
		if _, err := s.client.Connect(ctx); err == nil || time.Since(begin) != 3*time.Second {
			t.Errorf("got %v after %v", err, time.Since(begin))
		}
	})
}
