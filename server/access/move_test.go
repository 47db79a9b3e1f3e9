package access

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/server/grant"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// move asks for a move in the background, as the Runtime has to answer meanwhile.
func (s *stage) move(who *someone, session string, epoch int) <-chan opening {
	done := make(chan opening, 1)
	go func() {
		response, raw := s.callRaw(who, "POST", "/api/v1/sessions/"+session+"/move", api.MoveRequest{Epoch: epoch, Reason: transport.LinkLost})
		var answer api.SessionAnswer
		var p api.Problem
		if response.StatusCode < 300 {
			json.Unmarshal(raw, &answer)
		} else {
			json.Unmarshal(raw, &p)
		}
		done <- opening{response.StatusCode, p.Code, answer.Offer}
	}()
	return done
}

// consent answers the next offer and returns it.
func (s *stage) consent(reason transport.Reason) (o wire.Offer) {
	s.t.Helper()
	s.runtime.read(wire.TypeOffer, &o)
	s.runtime.write(wire.TypeOfferAck, wire.OfferAck{Session: o.Session, Reason: reason})
	return o
}

// consentToAll consents to each offer until the connection ends.
func (c *control) consentToAll() {
	for {
		f, err := wire.Read(c)
		if err != nil {
			return
		}
		var o wire.Offer
		if f.Type == wire.TypeOffer && f.Decode(&o) == nil && wire.WriteJSON(c, wire.TypeOfferAck, wire.OfferAck{Session: o.Session}) != nil {
			return
		}
	}
}

// beQuiet lets the server wait for 20 min for the next frame.
func (c *control) beQuiet() {
	c.t.Helper()
	if err := wire.Write(c, wire.TypePing, wire.Ping(20*time.Minute)); err != nil {
		c.t.Fatal(err)
	}
	for {
		f, err := wire.Read(c)
		if err != nil {
			c.t.Fatal(err)
		}
		if f.Type == wire.TypePong {
			return
		}
	}
}

// stored returns what the store has of a session.
func (s *stage) stored(id string) store.Session {
	s.t.Helper()
	r := store.Session{ID: id}
	s.get(&r)
	return r
}

// twoRelays is a stage whose session runs on r1, the better one, beside r2.
func twoRelays(t *testing.T) (s *stage, session wire.Offer, end func()) {
	s = newStage(t)
	r2 := s.addRelay("r2")
	s.measured([]float64{10, 20}, []float64{10, 20})
	session, _ = s.session()
	if session.Relay.Name != "r1" {
		t.Fatalf("the session is on %s", session.Relay.Name)
	}
	for _, c := range []*control{s.runtime, s.relay, r2} {
		c.beQuiet()
	}
	return s, session, func() { r2.Close(); s.end() }
}

func TestMoveGivesBothEndsTheNextEpochOnAnotherRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old, end := twoRelays(t)
		defer end()
		done := s.move(s.admin, old.Session, 1)
		forRuntime := s.consent("")
		got := <-done
		forManager := got.offer
		if got.status != 200 || forManager.Session != old.Session || forManager.Role != wire.RoleManager || forRuntime.Role != wire.RoleRuntime {
			t.Errorf("%+v", got)
		}
		for _, o := range []wire.Offer{forRuntime, forManager} {
			g := must(grant.Parse(o.Grant, s.pki.Roots, time.Now()))
			if o.Epoch != 2 || o.Relay.Name != "r2" || g.Epoch != 2 || g.Relay != "r2" || g.Instance != "cd" || g.Role != o.Role {
				t.Errorf("%+v, grant %+v", o, g)
			}
		}
		if r := s.stored(old.Session); r.Epoch != 2 || r.Relay != "r2" || r.Lost != "r1" || !r.Ended.IsZero() {
			t.Errorf("%+v", r)
		}
		last := s.records(1)[0]
		if last.Action != actionSessionMove || !strings.Contains(last.Detail, "epoch 2 relay r2 score 40.0 ms, left r1: link-lost") {
			t.Errorf("audit: %+v", last)
		}
		// Lost again: back to the first, which is not the one just lost.
		done = s.move(s.admin, old.Session, 2)
		if o := s.consent(""); o.Epoch != 3 || o.Relay.Name != "r1" || (<-done).offer.Epoch != 3 {
			t.Errorf("%+v", o)
		}
	})
}

func TestMoveStaysOnTheOnlyRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		old, _ := s.session()
		done := s.move(s.admin, old.Session, 1)
		s.consent("")
		if got := <-done; got.offer.Relay.Name != "r1" || got.offer.Epoch != 2 {
			t.Errorf("%+v", got)
		}
		s.relay.Close()
		s.runtime.read(wire.TypePool, nil)
		if got := <-s.move(s.admin, old.Session, 2); got.code != transport.NoRelay {
			t.Errorf("no relay at all: %+v", got)
		}
	})
}

// Another user's session, of any domain, answers as one that does not exist.
func TestMoveRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old, end := twoRelays(t)
		defer end()
		ask := func(who *someone, session string, body any) (int, []byte) {
			response, raw := s.callRaw(who, "POST", "/api/v1/sessions/"+session+"/move", body)
			return response.StatusCode, raw
		}
		body := api.MoveRequest{Epoch: 1, Reason: transport.LinkLost}
		_, nothing := ask(s.admin, newID(), body)
		colleague, stranger := s.newUser("plant", "anna"), s.newUser("other", "admin")
		for name, who := range map[string]*someone{"a colleague": colleague, "a namesake": stranger} {
			if status, raw := ask(who, old.Session, body); status != http.StatusNotFound || !bytes.Equal(raw, nothing) {
				t.Errorf("%s: %d %s, want %s", name, status, raw, nothing)
			}
		}
		if status, raw := ask(s.admin, "a.b", body); status != http.StatusNotFound || !bytes.Equal(raw, nothing) {
			t.Errorf("no id: %d %s", status, raw)
		}
		for _, epoch := range []int{-1, 0, 2} {
			if status, _ := ask(s.admin, old.Session, api.MoveRequest{Epoch: epoch, Reason: ""}); status != 400 {
				t.Errorf("epoch %d: %d", epoch, status)
			}
		}
		if r := s.stored(old.Session); r.Epoch != 1 || !r.Ended.IsZero() {
			t.Errorf("%+v", r)
		}
		s.call(s.admin, "DELETE", "/api/v1/sessions/"+old.Session, nil, nil)
		if got := <-s.move(s.admin, old.Session, 1); got.status != 409 || got.code != transport.Closed {
			t.Errorf("ended: %+v", got)
		}
	})
}

// Two moves of one epoch make one new epoch, on one relay, with two grants.
func TestConcurrentMovesMakeOneEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old, end := twoRelays(t)
		defer end()
		first, second := s.move(s.admin, old.Session, 1), s.move(s.admin, old.Session, 1)
		s.consent("")
		a, b := <-first, <-second
		if a.status != 200 || b.status != 200 || a.offer.Epoch != 2 || b.offer.Epoch != 2 || a.offer.Relay.Name != "r2" || b.offer.Relay.Name != "r2" {
			t.Fatalf("%+v, %+v", a, b)
		}
		ga, gb := must(grant.Parse(a.offer.Grant, s.pki.Roots, time.Now())), must(grant.Parse(b.offer.Grant, s.pki.Roots, time.Now()))
		if ga.ID == gb.ID {
			t.Error("one grant was given twice")
		}
		if r := s.stored(old.Session); r.Epoch != 2 {
			t.Errorf("%+v", r)
		}
		// And later, with the older epoch: the present one, without the Runtime.
		time.Sleep(30 * time.Second)
		if c := <-s.move(s.admin, old.Session, 1); c.offer.Epoch != 2 || c.offer.Grant == b.offer.Grant {
			t.Errorf("%+v", c)
		}
	})
}

// A Manager whose connection breaks while it asks finds the new epoch when it
// asks again.
func TestMoveGoesOnWithoutItsManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old, end := twoRelays(t)
		defer end()
		conn := s.dial(transport.ALPNAPI, s.admin)
		body := `{"epoch":1,"reason":"link-lost"}`
		request := must(http.NewRequestWithContext(context.Background(), "POST", "https://a1/api/v1/sessions/"+old.Session+"/move", strings.NewReader(body)))
		if err := request.Write(conn); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		conn.Close()
		synctest.Wait()
		s.consent("")
		if got := <-s.move(s.admin, old.Session, 1); got.offer.Epoch != 2 {
			t.Errorf("%+v", got)
		}
	})
}

// A move waits for the one before it, and no longer than its own Manager.
func TestHoldEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sessions
		release := must(s.lockMove(t.Context(), "a"))
		other := must(s.lockMove(t.Context(), "b"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.lockMove(ctx, "a"); err != context.DeadlineExceeded {
			t.Errorf("%v", err)
		}
		release()
		other()
		must(s.lockMove(t.Context(), "a"))()
		if len(s.moving) != 0 {
			t.Errorf("%d moves are left", len(s.moving))
		}
	})
}
