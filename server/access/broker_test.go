package access

import (
	"net/http"
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

// opening is an answer to POST /api/v1/sessions.
type opening struct {
	status int
	code   transport.Reason
	offer  wire.Offer
}

// open asks for a session in the background, as the Runtime has to answer meanwhile.
func (w *world) open(admin *someone, device string) <-chan opening {
	done := make(chan opening, 1)
	go func() {
		var answer api.SessionAnswer
		var p api.Problem
		response, raw := w.callRaw(admin, http.MethodPost, "/api/v1/sessions", api.SessionRequest{Device: device, SessionVersion: wire.SessionVersion})
		into := any(&answer)
		if response.StatusCode >= 300 {
			into = &p
		}
		if err := unmarshal(raw, into); err != nil {
			w.t.Error(err)
		}
		done <- opening{response.StatusCode, p.Code, answer.Offer}
	}()
	return done
}

// stage is a world in which a session can be opened.
type stage struct {
	*world
	admin, device *someone
	carrier       *someone // the relay
	runtime       *control
	relay         *control
}

func newStage(t testing.TB, configs ...func(*Config)) *stage {
	w := newWorld(t, configs...)
	s := &stage{world: w, admin: w.login()}
	s.device = w.addDevice(s.admin, "press 1")
	s.carrier = w.enrollRelay()
	s.relay = w.control(s.carrier, relayHello("ab12"))
	s.runtime = w.control(s.device, hello("01"))
	return s
}

func (s *stage) end() {
	s.runtime.Close()
	s.relay.Close()
	s.stop()
}

// session opens a session, the Runtime consenting.
func (s *stage) session() (forRuntime, forManager wire.Offer) {
	s.t.Helper()
	done := s.open(s.admin, "press 1")
	s.runtime.read(wire.TypeOffer, &forRuntime)
	s.runtime.write(wire.TypeOfferAck, wire.OfferAck{Session: forRuntime.Session})
	answer := <-done
	if answer.status != http.StatusCreated {
		s.t.Fatalf("open: %+v", answer)
	}
	return forRuntime, answer.offer
}

func TestSessionGivesBothEndsMatchingOffersAndGrants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		forRuntime, forManager := s.session()
		user, device := identity.UserName("plant", "admin"), identity.DeviceName("plant", s.device.id.UID)
		if forRuntime.Role != wire.RoleRuntime || forRuntime.Peer != user.String() || forRuntime.PeerSPKI != s.admin.spki() {
			t.Errorf("Runtime's offer: %+v", forRuntime)
		}
		if forManager.Role != wire.RoleManager || forManager.Peer != device.String() || forManager.PeerSPKI != s.device.spki() {
			t.Errorf("Manager's offer: %+v", forManager)
		}
		for _, o := range []wire.Offer{forRuntime, forManager} {
			if o.Relay.Name != "r1" || o.User != "admin" || !slices.Equal(o.Permissions, []string{"tcp", "ping"}) {
				t.Errorf("%+v", o)
			}
		}
		gr := must(grant.Parse(forRuntime.Grant, s.pki.Roots, time.Now()))
		gm := must(grant.Parse(forManager.Grant, s.pki.Roots, time.Now()))
		if gr.Holder != s.device.spki() || gr.Peer != s.admin.spki() || gm.Holder != gr.Peer || gm.Peer != gr.Holder {
			t.Errorf("holders and peers: %+v %+v", gr, gm)
		}
		if gr.ID == gm.ID || gr.Session != gm.Session || gr.Role != wire.RoleRuntime || gm.Role != wire.RoleManager {
			t.Errorf("ids and roles: %+v %+v", gr, gm)
		}
		for _, g := range []grant.Grant{gr, gm} {
			if g.Relay != "r1" || g.Instance != "ab12" || g.Epoch != 1 || g.Expires.Sub(g.Issued) != grant.Life {
				t.Errorf("%+v", g)
			}
		}
	})
}

// After a restart gateways and technicians may be back before the first relay is: a session waits for it, for as long as
// relays need to come back, and no longer.
func TestSessionWaitsForTheFirstRelayAfterAStart(t *testing.T) {
	for name, tt := range map[string]struct {
		comes time.Duration // the relay, after the start
		want  int
		took  time.Duration
	}{
		"it comes":             {3 * time.Second, http.StatusCreated, 3 * time.Second},
		"it comes too late":    {time.Minute, http.StatusServiceUnavailable, gathering},
		"it was there already": {0, http.StatusCreated, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began, s := time.Now(), &stage{world: newWorld(t)}
				s.admin = s.login()
				s.runtime = s.control(s.addDevice(s.admin, "press 1"), hello("01"))
				relay := s.enrollRelay()
				arrived := make(chan *control, 1)
				arrives := func() { arrived <- s.control(relay, relayHello("cd34")) }
				if tt.comes == 0 {
					arrives()
				}
				done := s.open(s.admin, "press 1")
				if tt.comes > 0 {
					time.AfterFunc(tt.comes, arrives)
				}
				if tt.want == http.StatusCreated {
					var offer wire.Offer
					s.runtime.read(wire.TypePool, nil)
					s.runtime.read(wire.TypeOffer, &offer)
					s.runtime.write(wire.TypeOfferAck, wire.OfferAck{Session: offer.Session})
				}
				if got, took := <-done, time.Since(began); got.status != tt.want || took != tt.took {
					t.Errorf("%d %s after %v, want %d after %v", got.status, got.code, took, tt.want, tt.took)
				}
				if tt.comes > tt.took { // nobody waits a second time
					asked := time.Now()
					if got := <-s.open(s.admin, "press 1"); got.code != transport.NoRelay || time.Since(asked) != 0 {
						t.Errorf("the next one: %s after %v", got.code, time.Since(asked))
					}
				}
				s.relay = <-arrived
				s.end()
			})
		})
	}
}

func TestSessionRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		admin := w.login()
		want := func(what, device string, status int, code transport.Reason) {
			t.Helper()
			if got := <-w.open(admin, device); got.status != status || got.code != code {
				t.Errorf("%s: %d %s, want %d %s", what, got.status, got.code, status, code)
			}
		}
		want("unknown name", "nothing", 404, transport.NoDevice)
		want("unknown UID", identity.NewUID().String(), 404, transport.NoDevice)
		device := w.addDevice(admin, "press 1")
		want("not connected", "press 1", 409, transport.Offline)
		runtime := w.control(device, hello("01"))
		defer runtime.Close()
		want("no relay", device.id.UID.String(), 503, transport.NoRelay)
		relay := w.control(w.enrollRelay(), relayHello("ab"))
		defer relay.Close()
		runtime.read(wire.TypePool, nil)

		var offer wire.Offer
		for _, c := range []struct{ said, want transport.Reason }{
			{transport.Policy, transport.Policy}, {transport.Busy, transport.Busy}, {"<script>", transport.Protocol},
		} {
			done := w.open(admin, "press 1")
			runtime.read(wire.TypeOffer, &offer)
			runtime.write(wire.TypeOfferAck, wire.OfferAck{Session: offer.Session, Reason: c.said})
			if got := <-done; got.code != c.want {
				t.Errorf("the Runtime says %q: %+v", c.said, got)
			}
			runtime.read(wire.TypeEndSession, nil)
		}
		if n := len(w.server.sessions.of(device.id.UID)); n != 0 {
			t.Errorf("%d refused sessions are open", n)
		}
		w.call(admin, "POST", "/api/v1/devices/press%201/revoke", nil, nil)
		want("revoked", "press 1", 404, transport.NoDevice)
	})
}

// An offer without an answer marks the device gone after exactly 5 s.
func TestUnansweredOfferMarksTheDeviceGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		start := time.Now()
		done := s.open(s.admin, "press 1")
		s.runtime.read(wire.TypeOffer, nil)
		s.runtime.write(wire.TypeOfferAck, wire.OfferAck{Session: "another"}) // not the answer
		if got := <-done; got.code != transport.Offline {
			t.Errorf("%+v", got)
		}
		if took := time.Since(start); took != offerTimeout {
			t.Errorf("after %v", took)
		}
		if got := refusal(s.runtime); got != transport.LinkLost {
			t.Errorf("Runtime is told %q", got)
		}
		synctest.Wait()
		if got := <-s.open(s.admin, "press 1"); got.code != transport.Offline {
			t.Errorf("again: %+v", got)
		}
	})
}

func TestSessionEnds(t *testing.T) {
	type step func(t *testing.T, s *stage, id string)
	ended := func(t *testing.T, s *stage, id string) store.Session {
		t.Helper()
		synctest.Wait()
		r := s.stored(id)
		if r.Ended.IsZero() || len(s.server.sessions.of(s.device.id.UID)) != 0 {
			t.Errorf("not ended: %+v", r)
		}
		return r
	}
	cases := map[string]step{
		"by the Manager": func(t *testing.T, s *stage, id string) {
			for range 2 { // the second time changes nothing
				if status := s.call(s.admin, "DELETE", "/api/v1/sessions/"+id, nil, nil); status != 204 {
					t.Errorf("%d", status)
				}
				var m wire.EndSession
				s.runtime.read(wire.TypeEndSession, &m)
				if m.Session != id || m.Reason != transport.Closed {
					t.Errorf("%+v", m)
				}
			}
		},
		"by the Runtime": func(t *testing.T, s *stage, id string) {
			s.runtime.write(wire.TypeEndSession, wire.EndSession{Session: "../x", Reason: transport.Closed})
			s.runtime.write(wire.TypeEndSession, wire.EndSession{Session: newID(), Reason: transport.Closed})
			s.runtime.write(wire.TypeEndSession, wire.EndSession{Session: id, Reason: transport.WrongPeer})
			if r := ended(t, s, id); r.Reason != transport.WrongPeer {
				t.Errorf("%+v", r)
			}
		},
		"with the Runtime's process": func(t *testing.T, s *stage, id string) {
			s.runtime.Close()
			s.runtime = s.control(s.device, hello("01")) // the same process comes back
			synctest.Wait()
			if len(s.server.sessions.of(s.device.id.UID)) != 1 {
				t.Error("ended by a reconnect")
			}
			s.runtime.Close()
			s.runtime = s.control(s.device, hello("02"))
		},
		"over a restart of the server": func(t *testing.T, s *stage, id string) {
			s.stop()
			s.start()
			synctest.Wait()
			if got := len(s.server.sessions.of(s.device.id.UID)); got != 1 {
				t.Errorf("%d sessions known after the restart", got)
			}
			s.call(s.admin, "DELETE", "/api/v1/sessions/"+id, nil, nil)
		},
	}
	for name, do := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				defer s.end()
				offer, _ := s.session()
				do(t, s, offer.Session)
				ended(t, s, offer.Session)
				count := 0
				for _, a := range s.actions(20) {
					if a == "session-end ok" {
						count++
					}
				}
				if count != 1 {
					t.Errorf("%d session-end records", count)
				}
			})
		})
	}
}

// A device cannot end another one's session.
func TestSessionOfAnotherDeviceIsNotEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		offer, _ := s.session()
		other := s.control(s.addDevice(s.admin, "press 2"), hello("03"))
		defer other.Close()
		other.write(wire.TypeEndSession, wire.EndSession{Session: offer.Session, Reason: transport.Closed})
		synctest.Wait()
		if len(s.server.sessions.of(s.device.id.UID)) != 1 {
			t.Error("ended by another device")
		}
	})
}

func TestOldestSessionsOfADeviceGiveWay(t *testing.T) {
	var s sessions
	device, now := identity.NewUID(), time.Now()
	for i := range maxDeviceSessions + 2 {
		tooOld := s.add(store.Session{ID: newID(), Device: device, Created: now.Add(time.Duration(i) * time.Second)})
		if want := max(i+1-maxDeviceSessions, 0); len(tooOld) != want {
			t.Fatalf("%d sessions: %d give way, want %d", i+1, len(tooOld), want)
		}
	}
}
