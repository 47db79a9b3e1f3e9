package main

import (
	"strings"
	"testing"

	"hawser/agent"
)

// A budget that cannot be met says by how much (cli §2).
func TestStatusSaysWhatItCostsToBeReachable(t *testing.T) {
	for want, d := range map[string]agent.DataStatus{
		"data      0.17 MB in the last day, about 5.2 MB a month, idle pings every 120 s\n": {DayBytes: 171_654, MonthBytes: 5_153_220, IntervalS: 120},
		"data      0.00 MB in the last day, about 4.0 MB a month, idle pings every 151 s, budget 4 MB\n": {
			MonthBytes: 3_990_000, BudgetBytes: 4_000_000, IntervalS: 151},
		"data      0.75 MB in the last day, about 22.4 MB a month, idle pings every 25 s, budget 4 MB: it needs 18.4 MB more\n": {
			DayBytes: 750_000, MonthBytes: 22_350_000, BudgetBytes: 4_000_000, OverBytes: 18_350_000, IntervalS: 25},
	} {
		var text strings.Builder
		if err := printStatus(&text, agent.Status{Data: d}); err != nil || !strings.Contains(text.String(), want) {
			t.Errorf("%+v: %s, %v; want %s", d, &text, err, want)
		}
	}
}

func TestStatusSaysInALineWhatWasDone(t *testing.T) {
	c := agent.Counts{Connections: 9, Handshakes: 7, Failures: agent.Reasons{"timeout": 1, "refused": 1}, Online: 2, Reconnects: 1,
		Sessions: 3, Streams: 5, StreamsRefused: agent.Reasons{"policy": 1}, InBytes: 400_000, OutBytes: 5_000_000}
	const want = "counts    online 2 times, 9 connections (2 failed), 3 sessions, 5 streams (1 refused), 0.4 MB in, 5.0 MB out\n"
	var text strings.Builder
	if err := printStatus(&text, agent.Status{Counts: c}); err != nil || !strings.Contains(text.String(), want) {
		t.Errorf("%s, %v; want %s", &text, err, want)
	}
}
