package access

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// listed asks for all pages of the open sessions, so many a page, and returns "device user" of each.
func (w *world) listed(who *someone, limit int) (list []string) {
	w.t.Helper()
	after := ""
	for range 100 {
		var page api.Sessions
		if status := w.call(who, "GET", fmt.Sprintf("/api/v1/sessions?limit=%d&after=%s", limit, after), nil, &page); status != 200 {
			w.t.Fatalf("list sessions: %d", status)
		}
		if len(page.Sessions) > limit || page.Sessions == nil {
			w.t.Fatalf("a page of %d: %v", limit, page.Sessions)
		}
		for _, s := range page.Sessions {
			if s.ID == "" || s.Relay != "r1" || s.Since.IsZero() {
				w.t.Errorf("session %+v", s)
			}
			list = append(list, s.Name+" "+s.User)
		}
		if after = page.Next; after == "" {
			return list
		}
	}
	w.t.Fatal("the list has no end")
	return nil
}

func TestOpenSessionsAreListedInScope(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		other := s.addDevice(s.admin, "press 2")
		own := &identity.Scope{Devices: []string{s.device.id.UID.String()}, Targets: []string{"*"}}
		oscar := s.newUserAs("oscar", identity.RoleOperator, own)
		nothing := s.newUserAs("olga", identity.RoleOperator, &identity.Scope{Devices: []string{}, Targets: []string{}})
		stranger := s.newUser("other", "eve")
		var want []string
		for i := range 5 {
			time.Sleep(time.Second)
			device, name := s.device.id.UID, "press 1"
			if i%2 == 1 {
				device, name = other.id.UID, "press 2"
			}
			user := []string{"admin", "oscar"}[i%3%2]
			s.put(&store.Session{ID: newID(), Epoch: 1, Domain: "plant", Device: device, User: user, Relay: "r1", Created: time.Now()})
			want = append(want, name+" "+user)
		}
		s.put(&store.Session{ID: newID(), Epoch: 1, Domain: "plant", Device: s.device.id.UID, User: "admin", Relay: "r1", Created: time.Now(), Ended: time.Now()},
			&store.Session{ID: newID(), Epoch: 1, Domain: "other", Device: identity.NewUID(), User: "eve", Relay: "r1", Created: time.Now()})
		for _, limit := range []int{1, 2, 3, 5, 100} {
			if got := s.listed(s.admin, limit); !slices.Equal(got, want) {
				t.Errorf("pages of %d: %q, want %q", limit, got, want)
			}
			seen := slices.DeleteFunc(slices.Clone(want), func(one string) bool { return strings.HasPrefix(one, "press 2") })
			if got := s.listed(oscar, limit); !slices.Equal(got, seen) {
				t.Errorf("pages of %d, in scope: %q, want %q", limit, got, seen)
			}
		}
		if got := s.listed(nothing, 10); len(got) != 0 {
			t.Errorf("who sees nothing: %q", got)
		}
		if got := s.listed(stranger, 10); !slices.Equal(got, []string{" eve"}) {
			t.Errorf("another domain: %q", got)
		}
	})
}

// A session is ended by its own user, and by an admin of the domain. The audit says who, and its program is told.
func TestWhoEndsASession(t *testing.T) {
	for name, tt := range map[string]struct {
		by    string
		query string
		want  transport.Reason // of the answer
		told  wire.EndSession
	}{
		"its own program":          {"oscar", "", "", wire.EndSession{Reason: transport.Closed}},
		"its own program, by word": {"oscar", "?reason=closed", "", wire.EndSession{Reason: transport.Closed}},
		"its own user":             {"oscar", "?reason=ended", "", wire.EndSession{Reason: transport.Ended, Text: "oscar has ended the session"}},
		"an admin":                 {"admin", "", "", wire.EndSession{Reason: transport.Ended, Text: "admin has ended the session"}},
		"an admin, by word":        {"admin", "?reason=closed", "", wire.EndSession{Reason: transport.Ended, Text: "admin has ended the session"}},
		"another operator":         {"olga", "", api.NotFound, wire.EndSession{}},
		"a viewer":                 {"vera", "", transport.Policy, wire.EndSession{}},
		"an admin elsewhere":       {"eve", "", api.NotFound, wire.EndSession{}},
		"for a reason of his own":  {"oscar", "?reason=revoked", api.BadRequest, wire.EndSession{}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				defer s.end()
				people := map[string]*someone{"admin": s.admin, "oscar": s.newUserAs("oscar", identity.RoleOperator, nil),
					"olga": s.newUserAs("olga", identity.RoleOperator, nil), "vera": s.newUserAs("vera", identity.RoleViewer, nil),
					"eve": s.newUser("other", "eve")}
				done := s.open(people["oscar"], "press 1")
				var offer wire.Offer
				s.runtime.read(wire.TypeOffer, &offer)
				s.runtime.write(wire.TypeOfferAck, wire.OfferAck{Session: offer.Session})
				<-done
				_, raw := s.callRaw(people[tt.by], "DELETE", "/api/v1/sessions/"+offer.Session+tt.query, nil)
				var p api.Problem
				if len(raw) > 0 {
					unmarshal(raw, &p)
				}
				if p.Code != tt.want {
					t.Fatalf("%s, want %q", raw, tt.want)
				}
				if tt.want != "" {
					if len(s.server.sessions.of(s.device.id.UID)) != 1 {
						t.Error("it ended")
					}
					return
				}
				var told wire.EndSession
				s.runtime.read(wire.TypeEndSession, &told)
				if tt.told.Session = offer.Session; told != tt.told {
					t.Errorf("the Runtime is told %+v, want %+v", told, tt.told)
				}
				r := s.records(1)[0]
				actor := identity.UserName("plant", tt.by).String()
				if r.Action != actionSessionEnd || r.Actor != actor || r.Detail != "session "+offer.Session+": "+string(told.Reason) {
					t.Errorf("audit %+v", r)
				}
				// A program whose line was cut before it heard of that asks for a move.
				_, raw = s.callRaw(people["oscar"], "POST", "/api/v1/sessions/"+offer.Session+"/move", api.MoveRequest{Epoch: 1, Reason: transport.LinkLost})
				if unmarshal(raw, &p); p.Code != told.Reason {
					t.Errorf("moved: %s, want %s", raw, told.Reason)
				}
			})
		})
	}
}

// The words of a Runtime that refuses reach the technician, without what could act on his terminal.
func TestTheWordsOfARefusalArrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		for text, want := range map[string]string{
			"": "the device refused the session",
			"all 16 places of the gateway are taken: ann 4 since 2026-11-30 07:12Z": "all 16 places of the gateway are taken: ann 4 since 2026-11-30 07:12Z",
			"a\x1b[2J\n" + strings.Repeat("x", 1000):                                "a?[2J?" + strings.Repeat("x", 194),
		} {
			done := make(chan []byte, 1)
			go func() {
				_, raw := s.callRaw(s.admin, "POST", "/api/v1/sessions", api.SessionRequest{Device: "press 1", SessionVersion: wire.SessionVersion})
				done <- raw
			}()
			var offer wire.Offer
			s.runtime.read(wire.TypeOffer, &offer)
			s.runtime.write(wire.TypeOfferAck, wire.OfferAck{Session: offer.Session, Reason: transport.Busy, Text: text})
			var p api.Problem
			raw := <-done
			if unmarshal(raw, &p); p.Code != transport.Busy || p.Detail != want {
				t.Errorf("%s, want %q", raw, want)
			}
			var end wire.EndSession
			s.runtime.read(wire.TypeEndSession, &end)
		}
	})
}
