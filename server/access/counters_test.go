package access

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"hawser/transport"
	"hawser/transport/wire"
)

// What happened once counts once, and what is there now is shown while it is there.
func TestCountersFollowWhatHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := metrics.NewSet()
		s := newStage(t, func(c *Config) { c.Metrics = set })
		defer s.end()
		_, first := s.session()
		_, second := s.session()
		done := s.open(s.admin, "press 1")
		var offer wire.Offer
		s.runtime.read(wire.TypeOffer, &offer)
		s.runtime.write(wire.TypeOfferAck, wire.OfferAck{Session: offer.Session, Reason: transport.Locked})
		<-done
		s.runtime.write(wire.TypeEndSession, wire.EndSession{Session: first.Session, Reason: "made-up"})
		synctest.Wait()
		for range 2 { // the second time changes nothing
			if status := s.call(s.admin, http.MethodDelete, "/api/v1/sessions/"+second.Session, nil, nil); status != http.StatusNoContent {
				t.Errorf("delete: %d", status)
			}
		}
		for range 3 { // ends that the Runtime is told: of the session that it refused, and twice of the second one
			s.runtime.read(wire.TypeEndSession, nil)
		}
		_, third := s.session()
		moved := s.move(s.admin, third.Session, 1)
		s.consent("")
		if got := <-moved; got.offer.Session != third.Session || got.offer.Epoch != 2 {
			t.Errorf("moved: %+v", got)
		}
		if got := <-s.move(s.admin, third.Session, 7); got.status < 400 { // what is refused is no move
			t.Errorf("an epoch that was never: %+v", got)
		}
		s.enroll("no code", newSomeone())
		s.call(s.admin, http.MethodGet, "/api/v1/nothing", nil, nil)
		synctest.Wait()
		got := exported(set)
		for name, want := range map[string]string{
			"hawser_sessions_opened_total":                          "3",
			"hawser_sessions_open":                                  "1",
			"hawser_sessions_moved_total":                           "1",
			`hawser_session_refusals_total{reason="locked"}`:        "1",
			`hawser_session_ends_total{reason="locked"}`:            "1",
			`hawser_session_ends_total{reason="other"}`:             "1",
			`hawser_session_ends_total{reason="closed"}`:            "1",
			`hawser_certificates_total{purpose="enroll"}`:           "2",
			`hawser_certificates_total{purpose="login"}`:            "1",
			`hawser_control_connections{kind="device"}`:             "1",
			`hawser_control_connections{kind="relay"}`:              "1",
			`hawser_control_connections_total{kind="device"}`:       "1",
			`hawser_access_refusals_total{reason="bad-code"}`:       "1",
			`hawser_api_refusals_total{reason="not-found"}`:         "1",
			`hawser_api_refusals_total{reason="locked"}`:            "1",
			"hawser_panics_total":                                   "0",
			"hawser_clock_behind_seconds":                           "0",
			`hawser_api_request_duration_seconds_bucket{le="+Inf"}`: got["hawser_api_request_duration_seconds_count"],
			`hawser_control_ends_total{reason="closed"}`:            "",
			`hawser_session_ends_total{reason="made-up"}`:           "",
		} {
			if got[name] != want {
				t.Errorf("%s is %q, want %q", name, got[name], want)
			}
		}
		s.runtime.Close()
		synctest.Wait()
		got = exported(set)
		if got[`hawser_control_ends_total{reason="closed"}`]+got[`hawser_control_ends_total{reason="link-lost"}`] != "1" ||
			got[`hawser_control_connections{kind="device"}`] != "0" {
			t.Errorf("after the end: %v", got)
		}
	})
}

// A clock that fell back is seen from outside before anybody asks for the time.
func TestCountersShowAClockThatIsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := metrics.NewSet()
		var back time.Duration
		w := newWorld(t, func(c *Config) {
			c.Metrics, c.Now = set, func() time.Time { return time.Now().Add(-back) }
		})
		defer w.stop()
		if got := exported(set)["hawser_clock_behind_seconds"]; got != "0" {
			t.Errorf("at first %s", got)
		}
		back = 2 * time.Hour
		if got := exported(set)["hawser_clock_behind_seconds"]; got != "7200" {
			t.Errorf("2 h behind: %s", got)
		}
	})
}

// exported reads what a set shows.
func exported(set *metrics.Set) map[string]string {
	var text strings.Builder
	set.WritePrometheus(&text)
	values := map[string]string{}
	for line := range strings.Lines(text.String()) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		values[name] = value
	}
	return values
}
