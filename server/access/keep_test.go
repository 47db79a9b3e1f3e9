package access

import (
	"testing"
	"testing/synctest"
	"time"

	"hawser/transport"
	"hawser/transport/wire"
)

// A lost session waits exactly 60 s for its Manager.
func TestLostSessionWaitsAMinuteToBeMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old, end := twoRelays(t)
		defer end()
		lose := func(session string) {
			s.runtime.write(wire.TypeEndSession, wire.EndSession{Session: session, Reason: transport.LinkLost})
			synctest.Wait()
		}
		time.Sleep(7 * time.Second)
		lose(old.Session)
		time.Sleep(moveTime - time.Second)
		done := s.move(s.admin, old.Session, 1)
		s.consent("")
		if got := <-done; got.status != 200 {
			t.Errorf("in the last second: %+v", got)
		}
		time.Sleep(3 * moveTime)
		if r := s.stored(old.Session); !r.Ended.IsZero() {
			t.Errorf("ended although it was moved: %+v", r)
		}
		lose(old.Session)
		lose(old.Session) // saying it twice does not put the end off
		start := time.Now()
		time.Sleep(moveTime - time.Millisecond)
		synctest.Wait()
		if r := s.stored(old.Session); !r.Ended.IsZero() {
			t.Errorf("ended early: %+v", r)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if r := s.stored(old.Session); r.Ended.IsZero() || r.Ended.Sub(start) != moveTime || r.Reason != transport.LinkLost {
			t.Errorf("%+v, lost at %v", r, start)
		}
		last := s.records(1)[0]
		if last.Action != actionSessionEnd || last.Actor != s.cfg.Name.String() {
			t.Errorf("audit: %+v", last)
		}
		var m wire.EndSession
		if s.runtime.read(wire.TypeEndSession, &m); m.Session != old.Session {
			t.Errorf("Runtime is told %+v", m)
		}
		if got := <-s.move(s.admin, old.Session, 2); got.code != transport.Closed {
			t.Errorf("too late: %+v", got)
		}
	})
}

// The Runtime's word about the old link may come while the session is moved.
func TestLateWordOfTheOldLinkDoesNotEndTheNewOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old, end := twoRelays(t)
		defer end()
		done := s.move(s.admin, old.Session, 1)
		synctest.Wait()
		s.runtime.write(wire.TypeEndSession, wire.EndSession{Session: old.Session, Reason: transport.LinkLost})
		s.consent("")
		<-done
		time.Sleep(2 * moveTime)
		synctest.Wait()
		if r := s.stored(old.Session); !r.Ended.IsZero() {
			t.Errorf("%+v", r)
		}
	})
}

// A Runtime that does not take the offer: not there and silent keep the session
// for its minute, a refusal ends it.
func TestMoveWithoutTheRuntimesConsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old, end := twoRelays(t)
		defer end()
		done := s.move(s.admin, old.Session, 1)
		s.runtime.read(wire.TypeOffer, nil)
		if got := <-done; got.code != transport.Offline { // 5 s later
			t.Errorf("silent: %+v", got)
		}
		s.runtime.Close()
		synctest.Wait()
		if got := <-s.move(s.admin, old.Session, 1); got.code != transport.Offline {
			t.Errorf("offline: %+v", got)
		}
		// It comes back within the minute: the epoch that it did not take is over.
		time.Sleep(50 * time.Second)
		s.runtime = s.control(s.device, hello("01"))
		s.runtime.beQuiet()
		done = s.move(s.admin, old.Session, 1)
		if o := s.consent(""); o.Epoch != 3 || o.Relay.Name != "r2" {
			t.Errorf("%+v", o)
		}
		if got := <-done; got.offer.Epoch != 3 {
			t.Errorf("%+v", got)
		}
		time.Sleep(2 * moveTime)
		done = s.move(s.admin, old.Session, 3)
		s.consent(transport.Policy)
		if got := <-done; got.code != transport.Policy {
			t.Errorf("refused: %+v", got)
		}
		if r := s.stored(old.Session); r.Ended.IsZero() || r.Reason != transport.Policy {
			t.Errorf("%+v", r)
		}
	})
}

// Whatever went wrong with the way, another relay may do; anything else is an end.
func TestFaultsOfTheWayLeaveASessionToBeMoved(t *testing.T) {
	for reason, movable := range map[transport.Reason]bool{
		transport.LinkLost: true, transport.Refused: true, transport.Timeout: true, transport.Unreachable: true, transport.Reset: true, transport.NoPeer: true,
		transport.Closed: false, transport.WrongPeer: false, transport.Policy: false, "": false,
	} {
		t.Run(string(reason), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				defer s.end()
				_, o := s.session()
				s.runtime.write(wire.TypeEndSession, wire.EndSession{Session: o.Session, Reason: reason})
				synctest.Wait()
				if r := s.stored(o.Session); (r.Ended.IsZero()) != movable {
					t.Errorf("%+v", r)
				}
			})
		})
	}
}
