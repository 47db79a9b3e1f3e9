package relay

import (
	"sync/atomic"

	"github.com/VictoriaMetrics/metrics"

	"hawser/server/count"
)

// counters is what a relay has done since its start. Its methods are safe for concurrent use.
type counters struct {
	paired *metrics.Counter // sessions
	// Bytes from each end, without the outer TLS.
	fromRuntime, fromManager *metrics.Counter
	refused                  count.Family
	dropped                  *metrics.Counter // connections that found no place
	registered               atomic.Bool      // at an Access Server
}

func newCounters(set *metrics.Set) *counters {
	return &counters{
		paired:      set.NewCounter("hawser_relay_pairs_total"),
		fromRuntime: set.NewCounter(`hawser_relay_bytes_total{from="runtime"}`),
		fromManager: set.NewCounter(`hawser_relay_bytes_total{from="manager"}`),
		refused:     count.NewFamily(set, "hawser_relay_refusals_total", "reason"),
		dropped:     set.NewCounter("hawser_relay_dropped_total"),
	}
}

// exportState adds what the relay holds now, and how much it can hold.
func (s *Server) exportState(set *metrics.Set) {
	for name, read := range map[string]func() float64{
		"hawser_relay_sessions":       func() float64 { return float64(s.pairing.load()) },
		"hawser_relay_sessions_limit": func() float64 { return float64(s.config.MaxPipes) },
		"hawser_relay_registered": func() float64 {
			if s.counters.registered.Load() {
				return 1
			}
			return 0
		},
	} {
		set.NewGauge(name, read)
	}
}
