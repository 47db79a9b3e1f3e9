package store

import (
	"context"
	"errors"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"hawser/server/count"
)

// counters is what a store counts. Its methods are safe for concurrent use.
type counters struct {
	commit, read *metrics.PrometheusHistogram
	failures     count.Family
	dropped      *metrics.Counter // of Later
	scrubbed     *metrics.Counter // pieces that Scrub has read
}

func newCounters(set *metrics.Set) counters {
	return counters{
		commit:   count.Times(set, "hawser_store_commit_duration_seconds"),
		read:     count.Times(set, "hawser_store_read_duration_seconds"),
		failures: count.NewFamily(set, "hawser_store_failures_total", "kind", "damaged", "moved", "in-use", "full", "away"),
		dropped:  set.NewCounter("hawser_store_dropped_total"),
		scrubbed: set.NewCounter("hawser_store_scrub_steps_total"),
	}
}

// exportHealth adds what is known of the store's condition.
func (s *Store) exportHealth(set *metrics.Set) {
	set.NewGauge("hawser_store_damages", func() float64 { return float64(len(s.Health().Findings)) })
	set.NewGauge("hawser_store_granting", func() float64 {
		if s.Health().Granting() != nil {
			return 0
		}
		return 1
	})
	set.NewGauge("hawser_store_scrub_finished_timestamp_seconds", func() float64 { return count.Seconds(s.Health().Scrubbed) })
}

// committed counts a commit with all its tries.
func (c *counters) committed(began time.Time, err error) {
	c.commit.UpdateDuration(began)
	c.failed(err)
}

// viewed counts a transaction that has read. A client that hangs up says nothing about the store.
func (c *counters) viewed(ctx context.Context, began time.Time, err error) {
	c.read.UpdateDuration(began)
	if !errors.Is(ctx.Err(), context.Canceled) {
		c.failed(err)
	}
}

// failed counts an error if it is the store's. That there is no such row, or what a function of the caller said, is none.
func (c *counters) failed(err error) {
	if kind := kindOf(err); kind != "" {
		c.failures.Inc(kind)
	}
}

// kindOf is what an operator has to do something about; empty: nothing. What was moved or is in use comes before away,
// which is the word for all that may heal.
func kindOf(err error) string {
	for _, k := range []struct {
		kind  string
		error error
	}{{"damaged", ErrDamaged}, {"moved", ErrMoved}, {"in-use", ErrInUse}, {"full", ErrFull}, {"away", ErrAway}} {
		if errors.Is(err, k.error) {
			return k.kind
		}
	}
	return ""
}
