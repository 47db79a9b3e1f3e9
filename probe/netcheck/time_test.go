package netcheck

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"hawser/probe"
)

var (
	testFloor   = time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	testCeiling = testFloor.AddDate(15, 0, 0)
	truth       = time.Date(2026, 6, 15, 12, 0, 0, 0, time.UTC)
)

// toldBy is a sample of a good server that is ahead by some time.
func toldBy(source string, ahead time.Duration) probe.Sample {
	return probe.Sample{Source: source, Addr: netip.MustParseAddrPort("192.0.2.123:123"), Received: truth, At: truth.Add(ahead), RTT: way, Stratum: 2}
}

func TestSourcesAreJudgedTogether(t *testing.T) {
	mute := mute("mute", probe.ReasonTimeout)
	kiss := probe.Sample{Source: "kiss", Received: truth, Kiss: "RATE"}
	tests := []struct {
		name       string
		samples    []probe.Sample
		configured int
		want       string // of each row: verdict, or the reason of a rejected one
		clock      ClockFinding
	}{
		{"none", nil, 0, "", ClockFinding{}},
		{"one", []probe.Sample{toldBy("a", time.Minute)}, 1, "agreed", ClockFinding{OK: true, Offset: 60_000, Uncertainty: 10, Agreed: 1, Needed: 1}},
		{"a liar among three", []probe.Sample{toldBy("a", 0), toldBy("liar", time.Hour), toldBy("b", time.Millisecond)}, 3, "agreed outvoted agreed",
			ClockFinding{OK: true, Offset: 0, Uncertainty: 9, Agreed: 2, Needed: 2}},
		{"silence counts against", []probe.Sample{toldBy("a", 0), mute, kiss}, 3, "unproven timeout kiss", ClockFinding{Reason: probe.ReasonNoMajority, Agreed: 1, Needed: 2}},
		{"two that differ", []probe.Sample{toldBy("a", 0), toldBy("b", time.Hour)}, 2, "unproven unproven", ClockFinding{Reason: probe.ReasonNoMajority, Agreed: 2, Needed: 2}},
		{"one row is missing", []probe.Sample{toldBy("a", 0)}, 2, "unproven", ClockFinding{Reason: probe.ReasonNoMajority, Agreed: 1, Needed: 2}},
		{"named twice", []probe.Sample{toldBy("a", 0), toldBy("a", 0), toldBy("b", 0)}, 3, "agreed duplicate agreed",
			ClockFinding{OK: true, Uncertainty: 10, Agreed: 2, Needed: 2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rows, words := []TimeRow{}, []string{}
			for _, s := range tt.samples {
				rows = append(rows, timeRow(s, testFloor, testCeiling))
			}
			clock := judgeTime(rows, tt.configured, testFloor, testCeiling)
			for _, r := range rows {
				word := string(r.Verdict)
				if r.Verdict == Rejected {
					word = string(r.Reason)
				}
				if r.OK != (r.Verdict != Rejected) {
					t.Errorf("%+v: ok and verdict differ", r)
				}
				words = append(words, word)
			}
			if got := strings.Join(words, " "); got != tt.want || clock != tt.clock {
				t.Errorf("rows %q, clock %+v\nwant %q, %+v", got, clock, tt.want, tt.clock)
			}
		})
	}
}

func TestTimeLiarIsNamed(t *testing.T) {
	onSite(t, func(s *site) {
		s.clock("192.0.2.121", time.Millisecond)
		s.clock("192.0.2.122", -time.Hour)
		s.clock("192.0.2.123", 0)
		s.check.Hosts = nil
		s.check.Floor = s.check.Floor.Add(-24 * time.Hour)
		s.check.TimeSources = []string{"192.0.2.121", "192.0.2.122", "192.0.2.123"}
		r := s.run(s.t.Context(), 2*way)
		want := []Standing{Agreed, Rejected, Agreed}
		got := []Standing{r.Time[0].Verdict, r.Time[1].Verdict, r.Time[2].Verdict}
		if !slices.Equal(got, want) || r.Time[1].Reason != probe.ReasonOutvoted || !r.Clock.OK || r.Clock.Agreed != 2 {
			t.Errorf("%s", r.Text())
		}
	})
}

func TestClockInWords(t *testing.T) {
	for want, c := range map[string]ClockFinding{
		"no-majority; sources that agree: 1, needed: 2":                      {Reason: probe.ReasonNoMajority, Agreed: 1, Needed: 2},
		"it must change by +2.0 h, +-7 ms; sources that agree: 3, needed: 3": {OK: true, Offset: 7_200_000, Uncertainty: 7, Agreed: 3, Needed: 3},
	} {
		if c.String() != want {
			t.Errorf("%q, want %q", c, want)
		}
	}
}
