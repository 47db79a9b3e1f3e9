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
