package probe

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// TimeRow is what one time source said.
type TimeRow struct {
	Source  string     `json:"source"` // as configured
	Addr    netip.Addr `json:"addr"`   // that answered, or was asked last
	OK      bool       `json:"ok"`     // the sample counts (time §3), and was not outvoted
	Offset  int64      `json:"offset_ms"`
	RTT     float64    `json:"rtt_ms"`
	Stratum uint8      `json:"stratum"`
	Verdict Standing   `json:"verdict"`
	Reason  Reason     `json:"reason"` // time §5; empty when OK
	Kiss    string     `json:"kiss"`   // code of a kiss-o'-death, else empty
	sample  Sample
}

// Standing is what a source is worth beside the others (time §4). It is empty
// until all of them are known.
type Standing string

// The standings of a source.
const (
	Agreed   Standing = "agreed"   // one of those that are believed
	Unproven Standing = "unproven" // it counts, and too few agree with it
	Rejected Standing = "rejected" // for the row's reason
)

// ClockFinding says what all sources together make of the own clock.
type ClockFinding struct {
	OK          bool   `json:"ok"`        // the sources can be believed
	Reason      Reason `json:"reason"`    // no-majority, or empty when OK
	Offset      int64  `json:"offset_ms"` // by which the own clock is behind; zero when not OK
	Uncertainty int64  `json:"uncertainty_ms"`
	Agreed      int    `json:"agreed"` // sources that meet
	Needed      int    `json:"needed"` // of them, to be believed
}

// timeRow is the row of one sample, not yet compared with the others.
func timeRow(s Sample, floor, ceiling time.Time) TimeRow {
	row := TimeRow{Source: clean(s.Source), Addr: s.Addr.Addr(), OK: true, Kiss: s.Kiss, sample: s}
	if err := s.Check(floor, ceiling); err != nil {
		row.OK, row.Reason = false, asTimeError(s.Source, err).Reason
	}
	if s.Err == nil && s.Kiss == "" { // else nothing was measured
		row.Offset, row.RTT, row.Stratum = s.Offset().Milliseconds(), millis(s.RTT), s.Stratum
	}
	return row
}

// judgeTime compares the sources and writes into each row what it is worth. It
// judges as the agent's clock does, whose word is Combine's.
func judgeTime(rows []TimeRow, configured int, floor, ceiling time.Time) ClockFinding {
	samples := make([]Sample, len(rows))
	for i, r := range rows {
		samples[i] = r.sample
	}
	v := Combine(samples, configured, floor, ceiling)
	for i := range rows {
		rows[i].judge(v, rows[:i])
	}
	f := ClockFinding{OK: v.Plausible, Reason: v.Reason, Agreed: len(v.Agreed), Needed: needed(max(configured, countSources(samples)))}
	if v.Plausible {
		f.Offset, f.Uncertainty = v.Time.Sub(v.Received).Milliseconds(), v.Uncertainty.Milliseconds()
	}
	return f
}

// judge is the verdict on one row, of which those before it are known.
func (t *TimeRow) judge(v Verdict, before []TimeRow) {
	source := t.sample.Source
	twice := slices.ContainsFunc(before, func(o TimeRow) bool { return o.sample.Source == source && o.Verdict != Rejected })
	outvoted := slices.ContainsFunc(v.Rejected, func(e *TimeError) bool { return e.Source == source && e.Reason == ReasonOutvoted })
	switch {
	case !t.OK:
	case twice:
		t.OK, t.Reason = false, ReasonDuplicate
	case outvoted:
		t.OK, t.Reason = false, ReasonOutvoted
	}
	switch {
	case !t.OK:
		t.Verdict = Rejected
	case v.Plausible:
		t.Verdict = Agreed
	default:
		t.Verdict = Unproven
	}
}

// String is the row in one line, for progress.
func (t TimeRow) String() string { return line("time", t) }

func (t TimeRow) cells() []string {
	all := []string{mark(t.OK), t.Source, addrText(t.Addr)}
	if t.Stratum > 0 { // it answered, whatever that is worth
		all = append(all, "offset "+offsetText(t.Offset), rttText(t.RTT), fmt.Sprintf("stratum %d", t.Stratum))
	}
	switch {
	case t.Kiss != "":
		return append(all, fmt.Sprintf("%s %s", t.Reason, t.Kiss))
	case !t.OK:
		return append(all, string(t.Reason))
	case t.Verdict != "":
		return append(all, string(t.Verdict))
	}
	return all
}

// String says it in a few words.
func (c ClockFinding) String() string {
	if !c.OK {
		return fmt.Sprintf("%s; sources that agree: %d, needed: %d", c.Reason, c.Agreed, c.Needed)
	}
	return fmt.Sprintf("it must change by %s, +-%d ms; sources that agree: %d, needed: %d", offsetText(c.Offset), c.Uncertainty, c.Agreed, c.Needed)
}
