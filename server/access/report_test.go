package access

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// A peer that says what its kind cannot know, or what cannot be, is cut off.
func TestFalseReportsEndTheConnection(t *testing.T) {
	bad := wire.Measurements{Relays: []wire.Measurement{{Name: "r1", RTTUS: -5}}}
	cases := []struct {
		name  string
		relay bool
		frame wire.Type
		body  any
	}{
		{"a Runtime's load", false, wire.TypeLoad, wire.Load{Pipes: 1, Max: 2}},
		{"a relay's measurements", true, wire.TypeMeasurements, wire.Measurements{}},
		{"bad measurements", false, wire.TypeMeasurements, bad},
		{"measurements that are no object", false, wire.TypeMeasurements, []int{1}},
		{"negative load", true, wire.TypeLoad, wire.Load{Pipes: -1, Max: 2}},
		{"load without a maximum", true, wire.TypeLoad, wire.Load{}},
		{"load of a moon", true, wire.TypeLoad, wire.Load{Max: maxPipes + 1}},
		{"load that is no object", true, wire.TypeLoad, "x"},
	}
	for _, c := range cases {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t)
			defer s.end()
			conn := s.runtime
			if c.relay {
				conn = s.relay
			}
			conn.write(c.frame, c.body)
			if got := refusal(conn); got != transport.Protocol {
				t.Errorf("%s: %q", c.name, got)
			}
		})
	}
	t.Attr("id", "A1-input")
	t.Attr("cases", fmt.Sprint(len(cases)))
}

func TestMeasureAsksTheRuntimeAndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		path := "/api/v1/devices/press%201/relays"
		ask := func(query string) <-chan api.Decision {
			done := make(chan api.Decision, 1)
			go func() {
				var d api.Decision
				s.call(s.admin, "GET", path+query, nil, &d)
				done <- d
			}()
			return done
		}
		if d := <-ask(""); d.Chosen != "r1" || d.Device != s.device.id.UID || d.Relays[0].Runtime != nil {
			t.Errorf("without measuring: %+v", d)
		}
		// Two ask, the Runtime is asked once, both get what it found.
		first, second := ask("?measure=1"), ask("?measure=1")
		s.runtime.read(wire.TypeMeasure, nil)
		time.Sleep(3 * time.Second)
		s.runtime.write(wire.TypeMeasurements, wire.Measurements{Relays: []wire.Measurement{{Name: "r1", RTTUS: 12_300, Port: 80, Way: "direct"}}})
		for _, done := range []<-chan api.Decision{first, second} {
			d := <-done
			if m := d.Relays[0].Runtime; m == nil || m.RTTMS != 12.3 || m.Port != 80 || d.Relays[0].Manager != nil || d.Relays[0].ScoreMS != 1012.3 {
				t.Errorf("%+v", d)
			}
		}
		// A Runtime that does not answer: 15 s, then what there is.
		start := time.Now()
		if d := <-ask("?measure=1"); d.Relays[0].Runtime == nil || time.Since(start) != measureTimeout {
			t.Errorf("%+v after %v", d, time.Since(start))
		}
		s.runtime.read(wire.TypeMeasure, nil)
		done := ask("?measure=1")
		s.runtime.read(wire.TypeMeasure, nil) // the question is asked again
		s.runtime.Close()
		<-done
		synctest.Wait()
		start = time.Now()
		if d := <-ask("?measure=1"); d.Chosen != "r1" || time.Since(start) != 0 {
			t.Errorf("offline: %+v after %v", d, time.Since(start))
		}
		if status := s.call(s.admin, "GET", path+"?measure=yes", nil, nil); status != 400 {
			t.Errorf("another value: %d", status)
		}
	})
}

func TestManagersMeasurementsAreItsKeysOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		other := s.newUser("plant", "anna")
		body := wire.Measurements{Relays: []wire.Measurement{{Name: "r1", RTTUS: 7000}, {Name: "ghost", RTTUS: 1}}}
		if status := s.call(s.admin, "POST", "/api/v1/measurements", body, nil); status != 204 {
			t.Errorf("%d", status)
		}
		var mine, theirs api.Decision
		s.call(s.admin, "GET", "/api/v1/devices/press%201/relays", nil, &mine)
		s.call(other, "GET", "/api/v1/devices/press%201/relays", nil, &theirs)
		if m := mine.Relays[0].Manager; len(mine.Relays) != 1 || m == nil || m.RTTMS != 7 || theirs.Relays[0].Manager != nil {
			t.Errorf("%+v, %+v", mine, theirs)
		}
		body.Relays[0].LossPct = 101
		if status := s.call(s.admin, "POST", "/api/v1/measurements", body, nil); status != 400 {
			t.Errorf("bad ones: %d", status)
		}
	})
}
