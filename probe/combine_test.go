package probe

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// said makes a good sample of a source whose clock is off by off, received
// a while after the round began.
func said(source string, off, after time.Duration) Sample {
	return Sample{
		Source: source, Received: time.Unix(0, 0).Add(after), At: truth.Add(off + after),
		RTT: 40 * time.Millisecond, RootDistance: 50 * time.Millisecond, Stratum: 2,
	}
}

// round makes one sample for each offset, sources a, b, c….
func round(offs ...time.Duration) (all []Sample) {
	for i, off := range offs {
		all = append(all, said(string(rune('a'+i)), off, time.Duration(i)*300*time.Millisecond))
	}
	return all
}

const (
	ms   = time.Millisecond
	year = 365 * 24 * time.Hour
)

func TestCombine(t *testing.T) {
	without := func(err Reason, s ...Sample) []Sample {
		s[len(s)-1] = Sample{Source: s[len(s)-1].Source, Err: &TimeError{Source: s[len(s)-1].Source, Reason: err}}
		return s
	}
	tests := []struct {
		name       string
		samples    []Sample
		configured int
		time       time.Duration // off the truth, when plausible
		agreed     string
		rejected   string
		want       bool
	}{
		{"none configured", nil, 0, 0, "", "", false},
		{"one of one", round(0), 1, 0, "a", "", true},
		{"one of one, silent", without(ReasonTimeout, round(0)...), 1, 0, "", "a:timeout", false},
		{"one of two", round(0), 2, 0, "a", "", false},
		{"two of two", round(0, 20*ms), 2, 10 * ms, "ab", "", true},
		{"two of two that disagree", round(0, time.Hour), 2, 0, "ab", "", false},
		{"two of three, one silent", without(ReasonTimeout, round(0, 0, 0)...), 3, 0, "ab", "c:timeout", true},
		{"two of three, one lies", round(0, time.Hour, 0), 3, 0, "ac", "b:outvoted", true},
		{"two of four", without(ReasonTimeout, round(0, 0, 0)...), 4, 0, "ab", "c:timeout", false},
		{"three of four", round(0, 0, year, 0), 4, 0, "abd", "c:outvoted", true},
		{"three of five, off by a second", round(0, time.Second, 0, time.Second, 0), 5, 0, "ace", "b:outvoted d:outvoted", true},
		{"three of five, off by an hour", round(0, 0, 0, time.Hour, -time.Hour), 5, 0, "abc", "d:outvoted e:outvoted", true},
		{"three of five, off by ten years", round(10*year, 10*year, 0, 0, 0), 5, 0, "cde", "a:outvoted b:outvoted", true},
		{"five that all disagree", round(0, time.Hour, 2*time.Hour, 3*time.Hour, 4*time.Hour), 5, 0, "abcde", "", false},
		{"three that collude are only plausible", round(0, 0, time.Hour, time.Hour, time.Hour), 5, time.Hour, "cde", "a:outvoted b:outvoted", true},
		{"three of six are no majority", round(0, 0, 0), 6, 0, "abc", "", false},
		{"four of six", round(0, 0, 0, 0), 6, 0, "abcd", "", true},
		{"beyond the ceiling counts as absent", round(0, 0, 20*year), 3, 0, "ab", "c:beyond-ceiling", true},
		{"before the floor counts as absent", round(0, -year), 2, 0, "a", "b:before-floor", false},
		{"twice the same source counts once", []Sample{said("a", 0, 0), said("a", 0, 0)}, 3, 0, "a", "a:duplicate", false},
		{"more sources than were configured", round(0, 0, time.Hour, 2*time.Hour, 3*time.Hour), 1, 0, "ab", "c:outvoted d:outvoted e:outvoted", false},
		{"a chain widens the answer", round(0, 90*ms, 180*ms), 3, 90 * ms, "abc", "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := Combine(tt.samples, tt.configured, testFloor, testCeiling)
			var agreed, rejected string
			for _, s := range v.Agreed {
				agreed += s
			}
			for i, r := range v.Rejected {
				if i > 0 {
					rejected += " "
				}
				rejected += fmt.Sprintf("%s:%s", r.Source, r.Reason)
			}
			if v.Plausible != tt.want || (v.Reason == ReasonNoMajority) == tt.want || agreed != tt.agreed || rejected != tt.rejected {
				t.Fatalf("%+v, rejected %s", v, rejected)
			}
			if now := v.Received.Add(time.Minute); tt.want && v.At(now) != truth.Add(tt.time+now.Sub(time.Unix(0, 0))) {
				t.Errorf("believes %v", v.At(now).Sub(truth.Add(now.Sub(time.Unix(0, 0)))))
			}
		})
	}
}

func TestPerfectServersMayDifferALittle(t *testing.T) {
	samples := round(0, minSpread)
	for i := range samples {
		samples[i].RootDistance = 0
	}
	if v := Combine(samples, 2, testFloor, testCeiling); !v.Plausible {
		t.Errorf("got %+v", v)
	}
}

func TestOrderOfAnswersDoesNotMatter(t *testing.T) {
	samples := round(0, 20*ms, time.Hour, 40*ms, -time.Hour)
	want := Combine(samples, 5, testFloor, testCeiling)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		rng.Shuffle(len(samples), func(i, j int) { samples[i], samples[j] = samples[j], samples[i] })
		v := Combine(samples, 5, testFloor, testCeiling)
		slices.Sort(v.Agreed)
		if now := time.Unix(60, 0); !v.Plausible || !v.At(now).Equal(want.At(now)) || !slices.Equal(v.Agreed, want.Agreed) {
			t.Fatalf("got %+v, want %+v", v, want)
		}
	}
}

// No local clock, however wrong, changes what is believed.
func TestLocalClockDoesNotJudge(t *testing.T) {
	want := Combine(round(0, 0, time.Hour), 3, testFloor, testCeiling)
	for _, local := range []time.Time{{}, time.Unix(0, 0), testCeiling.AddDate(10, 0, 0), time.Date(2106, 2, 7, 6, 28, 16, 0, time.UTC), time.Unix(1<<40, 0)} {
		samples := round(0, 0, time.Hour)
		for i := range samples {
			samples[i].Received = local.Add(samples[i].Received.Sub(time.Unix(0, 0)))
			_ = samples[i].Offset()
		}
		if v := Combine(samples, 3, testFloor, testCeiling); !v.Plausible || !v.Time.Equal(want.Time) {
			t.Errorf("with a clock of %v: %+v", local, v)
		}
	}
}

// Over the whole space of stamps and floors of many centuries: the unfolded
// time is the same stamp, and the nearest such to the floor.
func TestUnfoldIsTheNearestReading(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 100_000 {
		at := time.Unix(int64(rng.Uint32())-rng.Int64N(1<<33), rng.Int64N(1e9))
		near := time.Unix(rng.Int64N(1<<36)-1<<35, rng.Int64N(1e9))
		got := unfold(at, near)
		off := got.Unix() - near.Unix()
		if stampOf(got) != stampOf(at) || off < -1<<31 || off > 1<<31 {
			t.Fatalf("unfold(%v, %v) = %v", at, near, got)
		}
	}
}

func TestErrorTextNamesSourceAndReason(t *testing.T) {
	err := said("time.example", 20*year, 0).Check(testFloor, testCeiling)
	if want := "ask time of time.example: beyond-ceiling (2046-06-10T12:00:00Z)"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if got := (&TimeError{Reason: ReasonNoMajority}).Error(); got != "ask time: no-majority" {
		t.Errorf("got %s", got)
	}
}
