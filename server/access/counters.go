package access

import (
	"time"

	"github.com/VictoriaMetrics/metrics"

	"hawser/identity"
	"hawser/server/count"
	"hawser/transport"
)

// counters is what this process has done since its start. Its methods are safe for concurrent use. None of them has a
// label that names a device, a user or an address: their number would be the number of labels (cli §5).
type counters struct {
	refused        count.Family // connections after their handshake
	given          count.Family // certificates, by what they were asked for with
	attached       count.Family // control connections, by the kind of their client
	detached       count.Family // the same, by the reason of their end
	api            *metrics.PrometheusHistogram
	apiRefused     count.Family
	opened, moved  *metrics.Counter // sessions
	sessionRefused count.Family
	sessionEnded   count.Family
	panics         *metrics.Counter
}

func newCounters(set *metrics.Set) *counters {
	return &counters{
		// What an alert of docs/metrics.md asks for is there before it has happened once. The other values come when they do.
		refused:        count.NewFamily(set, "hawser_access_refusals_total", "reason", string(transport.BadCode), string(transport.Revoked)),
		given:          count.NewFamily(set, "hawser_certificates_total", "purpose"),
		attached:       count.NewFamily(set, "hawser_control_connections_total", "kind"),
		detached:       count.NewFamily(set, "hawser_control_ends_total", "reason", string(transport.Replaced), string(transport.Cloned)),
		api:            count.Times(set, "hawser_api_request_duration_seconds"),
		apiRefused:     count.NewFamily(set, "hawser_api_refusals_total", "reason"),
		opened:         set.NewCounter("hawser_sessions_opened_total"),
		moved:          set.NewCounter("hawser_sessions_moved_total"),
		sessionRefused: count.NewFamily(set, "hawser_session_refusals_total", "reason"),
		sessionEnded:   count.NewFamily(set, "hawser_session_ends_total", "reason"),
		panics:         set.NewCounter("hawser_panics_total"),
	}
}

// exportState adds what the server knows now.
func (s *Server) exportState(set *metrics.Set) {
	for name, read := range map[string]func() float64{
		`hawser_control_connections{kind="device"}`: func() float64 { return s.attachedOf(identity.KindDevice) },
		`hawser_control_connections{kind="relay"}`:  func() float64 { return s.attachedOf(identity.KindRelay) },
		"hawser_sessions_open":                      func() float64 { return float64(len(s.sessions.ids())) },
		"hawser_clock_timestamp_seconds":            func() float64 { return count.Seconds(s.now()) },
		// The newest time that is in the store, less that of the clock: above zero the clock was set back.
		"hawser_clock_behind_seconds": func() float64 {
			now, _ := s.clock.trusted()
			return time.Unix(0, s.clock.newest.Load()).Sub(now).Seconds()
		},
	} {
		set.NewGauge(name, read)
	}
}

func (s *Server) attachedOf(kind identity.Kind) (n float64) {
	// Counted when somebody asks, and not kept: a number that goes up and down beside the truth would drift from it.
	for _, name := range s.presence.names() {
		if name.Kind == kind {
			n++
		}
	}
	return n
}

// gave counts a certificate, unless there was an error.
func (c *counters) gave(purpose string, err error) {
	if err == nil {
		c.given.Inc(purpose)
	}
}
