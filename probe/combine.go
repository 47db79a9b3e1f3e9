package probe

import (
	"fmt"
	"time"
)

// minSpread is the least half width of a sample's interval. Two good servers that
// both give an error of zero still differ by some milliseconds.
const minSpread = 10 * time.Millisecond

// Verdict is the time that may be believed, with the sources that were not.
type Verdict struct {
	// Plausible is true if enough configured sources agree. If it is not,
	// only Needed, Agreed, Rejected and Reason mean anything.
	Plausible bool
	Reason    Reason // no-majority when not plausible

	// Time is the believed time at the local reading Received, ± Uncertainty if the
	// sources that agree are right.
	Time, Received time.Time
	Uncertainty    time.Duration

	Needed   int          // sources that have to agree (time §4)
	Agreed   []string     // sources, in the order of the samples
	Rejected []*TimeError // one for every other sample, each with its source and reason
}

// At is the believed time at the local reading now, taken from the clock
// that gave Sample.Received.
func (v Verdict) At(now time.Time) time.Time { return v.Time.Add(now.Sub(v.Received)) }

// Combine decides which time may be believed (time §4): a majority of the configured
// sources must agree, and silent ones count as well. It is pure. Configured is raised
// to the number of sources in samples.
func Combine(samples []Sample, configured int, floor, ceiling time.Time) Verdict {
	v := Verdict{Needed: needed(max(configured, countSources(samples)))}
	good := v.screen(samples, floor, ceiling)
	if len(good) == 0 {
		v.Reason = ReasonNoMajority
		return v
	}
	v.Received = good[0].Received
	spans := make([]span, len(good))
	for i, s := range good {
		spans[i] = spanOf(s, v.Received, floor)
	}
	best, meet := meeting(spans)
	for i, s := range good {
		if spans[i].overlaps(best) {
			v.Agreed = append(v.Agreed, s.Source)
		} else {
			detail := fmt.Sprintf("%v from the others", spans[i].middle().Sub(best.middle()).Round(time.Millisecond))
			v.Rejected = append(v.Rejected, &TimeError{Source: s.Source, Reason: ReasonOutvoted, Detail: detail})
		}
	}
	if meet < v.Needed {
		v.Reason = ReasonNoMajority
		return v
	}
	v.Plausible = true
	v.Time, v.Uncertainty = best.middle(), best.hi.Sub(best.lo)/2
	return v
}

// screen returns the samples that count, one for each source, and puts the others
// into Rejected.
func (v *Verdict) screen(samples []Sample, floor, ceiling time.Time) (good []Sample) {
	seen := make(map[string]bool)
	for _, s := range samples {
		switch err := s.Check(floor, ceiling); {
		case err != nil:
			v.Rejected = append(v.Rejected, asTimeError(s.Source, err))
		case seen[s.Source]:
			v.Rejected = append(v.Rejected, s.fail(ReasonDuplicate, ""))
		default:
			seen[s.Source] = true
			good = append(good, s)
		}
	}
	return good
}

func countSources(samples []Sample) int {
	names := make(map[string]bool)
	for _, s := range samples {
		names[s.Source] = true
	}
	return len(names)
}

// needed is how many of the configured sources must agree (time §4). With four and more a majority of three is wanted,
// so that two servers that lie together move nothing (docs/tests.md, K2).
func needed(configured int) int {
	switch {
	case configured <= 1:
		return 1
	case configured <= 3:
		return 2
	}
	return max(3, configured/2+1)
}

// span is an interval of time, both ends included.
type span struct{ lo, hi time.Time }

// spanOf moves a sample to the local reading ref. It uses only the difference of two
// local readings, so our clock may be wrong by years.
func spanOf(s Sample, ref, floor time.Time) span {
	at := unfold(s.At, floor).Add(ref.Sub(s.Received))
	spread := max(s.RootDistance, minSpread)
	return span{at.Add(-spread), at.Add(spread)}
}

func (s span) holds(t time.Time) bool { return !t.Before(s.lo) && !t.After(s.hi) }

func (s span) overlaps(o span) bool { return !s.lo.After(o.hi) && !o.lo.After(s.hi) }

func (s span) middle() time.Time { return s.lo.Add(s.hi.Sub(s.lo) / 2) }

// meeting returns the interval in which most spans overlap, and how many do. It begins where one of the spans begins,
// so only those points are tried. Intervals with the same number are joined, together with the time between them. This
// is Marzullo's algorithm, over few enough intervals that trying each beginning is the simplest form.
func meeting(spans []span) (best span, count int) {
	for _, s := range spans {
		at, n := span{s.lo, s.hi}, 0
		for _, o := range spans {
			if o.holds(s.lo) {
				n++
				at.hi = earlier(at.hi, o.hi)
			}
		}
		switch {
		case n > count:
			best, count = at, n
		case n == count:
			best = span{earlier(best.lo, at.lo), later(best.hi, at.hi)}
		}
	}
	return best, count
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
