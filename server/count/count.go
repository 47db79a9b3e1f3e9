// Package count is what the packages of a server count with: families of counters that differ in one label, whose
// values come from a closed list. A peer cannot make the list of metrics grow, whatever it sends (cli §5).
package count

import (
	"time"

	"github.com/VictoriaMetrics/metrics"

	"hawser/transport"
	"hawser/transport/api"
)

// A Family is counters of one name that differ in one label. It is safe for concurrent use.
type Family struct {
	set         *metrics.Set
	name, label string
}

// NewFamily returns the counters called name with a label. Those of values are there from the start, and the others from
// the first time on that something is counted by them: an alert sees no increase when a counter begins at one.
func NewFamily(set *metrics.Set, name, label string, values ...string) Family {
	f := Family{set, name, label}
	for _, v := range values {
		f.counter(v)
	}
	return f
}

func (f Family) counter(value string) *metrics.Counter {
	return f.set.GetOrCreateCounter(f.name + "{" + f.label + `="` + value + `"}`)
}

// Inc counts one for a value of the label, a word that is written in our source: what a peer sent goes through Reason.
func (f Family) Inc(value string) { f.counter(value).Inc() }

// other is the label of all reasons that are not in a list of ours.
const other = "other"

// Reason counts one for a reason. One that no list has, as that of a newer or a hostile peer, counts as "other".
func (f Family) Reason(r transport.Reason) { f.Inc(reason(r)) }

func reason(r transport.Reason) string {
	if r.Class() != transport.ClassNone {
		return string(r)
	}
	switch r {
	case api.BadRequest, api.NotFound, api.MethodNotAllowed, api.NameTaken, api.NotLoggedIn, api.TooLarge:
		return string(r)
	}
	return other
}

// Times returns a histogram of durations, in seconds from 1 ms to 10 s, for counting with UpdateDuration.
func Times(set *metrics.Set, name string) *metrics.PrometheusHistogram {
	return set.NewPrometheusHistogramExt(name, []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10})
}

// Seconds is a time as the field writes it, in seconds since 1970. The zero time is 0.
func Seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

// SetOr returns set, or one that nobody reads.
func SetOr(set *metrics.Set) *metrics.Set {
	if set == nil {
		return metrics.NewSet()
	}
	return set
}
