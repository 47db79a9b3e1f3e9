package count

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"hawser/transport"
	"hawser/transport/api"
)

// What a peer calls its reason does not become a metric of its own, or two lines of one.
func TestReasonsOfPeersMakeNoMetrics(t *testing.T) {
	set := metrics.NewSet()
	f := NewFamily(set, "hawser_refusals_total", "reason", "busy")
	for i := range 1000 {
		f.Reason(transport.Reason(fmt.Sprintf("made-up-%d\"}\nhawser_x 1", i)))
	}
	f.Reason("")
	f.Reason(transport.Revoked)
	f.Reason(api.NotFound)
	var text strings.Builder
	set.WritePrometheus(&text)
	const want = "hawser_refusals_total{reason=\"busy\"} 0\nhawser_refusals_total{reason=\"not-found\"} 1\nhawser_refusals_total{reason=\"other\"} 1001\n" +
		"hawser_refusals_total{reason=\"revoked\"} 1\n"
	if text.String() != want {
		t.Errorf("got\n%s\nwant\n%s", text.String(), want)
	}
}

func TestSecondsOfNoTimeAreZero(t *testing.T) {
	if got := Seconds(time.Time{}); got != 0 {
		t.Errorf("zero time: %v", got)
	}
	if got := Seconds(time.Unix(1700000000, 250e6)); got != 1700000000.25 {
		t.Errorf("got %v", got)
	}
}
