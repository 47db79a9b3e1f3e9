package clock

import (
	"math/rand/v2"
	"testing"
	"time"
)

// The clock says now, which is an hour after the floor.
func TestDisciplineDoesWhatTheTableOfTheSpecSays(t *testing.T) {
	const s, m = time.Second, time.Minute
	now := build.Add(time.Hour)
	at := func(by time.Duration) time.Time { return now.Add(by) }
	base := func(state State) knowledge {
		k := knowledge{state: state, floor: build, ceiling: build.AddDate(15, 0, 0), sources: 4, budget: stepBudget}
		if state == Authentic || state == Conflict {
			k.signed = now
		}
		return k
	}
	for name, tt := range map[string]struct {
		state  State
		change func(*knowledge)
		news   news
		do     move
		want   State
		again  bool
	}{
		"unknown, years forward":             {Unknown, nil, news{sntp: at(10 * 365 * day)}, moveStep, Plausible, false},
		"unknown, one source, forward":       {Unknown, func(k *knowledge) { k.sources = 1 }, news{sntp: at(day)}, moveStep, Plausible, false},
		"unknown, no budget, forward":        {Unknown, func(k *knowledge) { k.budget = 0 }, news{sntp: at(day)}, moveStep, Plausible, false},
		"unknown, at the ceiling":            {Unknown, nil, news{sntp: build.AddDate(15, 0, 0)}, moveStep, Plausible, false},
		"unknown, beyond the ceiling":        {Unknown, nil, news{sntp: build.AddDate(15, 0, 1)}, moveKeep, Unknown, false},
		"unknown, before the floor":          {Unknown, nil, news{sntp: build.Add(-1)}, moveKeep, Unknown, false},
		"unknown, half an hour back":         {Unknown, nil, news{sntp: at(-30 * m)}, moveKeep, Unknown, false},
		"unknown, a little back":             {Unknown, nil, news{sntp: at(-s / 4)}, moveSlew, Plausible, false},
		"unknown, back twice":                {Unknown, func(k *knowledge) { k.sntp = at(-9 * s) }, news{sntp: at(-10 * s)}, moveStep, Plausible, false},
		"plausible, the same":                {Plausible, nil, news{sntp: now}, moveSlew, Plausible, false},
		"plausible, 0.49 s":                  {Plausible, nil, news{sntp: at(490 * time.Millisecond)}, moveSlew, Plausible, false},
		"plausible, 0.5 s, first":            {Plausible, nil, news{sntp: at(s / 2)}, moveKeep, Plausible, true},
		"plausible, 60 s, first":             {Plausible, nil, news{sntp: at(m)}, moveKeep, Plausible, true},
		"plausible, 60 s, disagreeing":       {Plausible, func(k *knowledge) { k.sntp = at(58 * s) }, news{sntp: at(m)}, moveKeep, Plausible, true},
		"plausible, 60 s, agreeing":          {Plausible, func(k *knowledge) { k.sntp = at(59 * s) }, news{sntp: at(m)}, moveStep, Plausible, false},
		"plausible, -60 s, one source":       {Plausible, func(k *knowledge) { k.sntp, k.sources = at(-m), 1 }, news{sntp: at(-m)}, moveStep, Plausible, false},
		"plausible, 61 s, agreeing":          {Plausible, func(k *knowledge) { k.sntp = at(61 * s) }, news{sntp: at(61 * s)}, moveKeep, Plausible, false},
		"plausible, 1 h, agreeing":           {Plausible, func(k *knowledge) { k.sntp = at(time.Hour) }, news{sntp: at(time.Hour)}, moveKeep, Plausible, false},
		"plausible, 60 s, budget of 59":      {Plausible, func(k *knowledge) { k.sntp, k.budget = at(m), 59*s }, news{sntp: at(m)}, moveKeep, Plausible, false},
		"authentic, 0.1 s":                   {Authentic, nil, news{sntp: at(s / 10)}, moveSlew, Authentic, false},
		"authentic, 3 s, first":              {Authentic, nil, news{sntp: at(3 * s)}, moveKeep, Authentic, true},
		"authentic, 3 s, agreeing":           {Authentic, func(k *knowledge) { k.sntp = at(3 * s) }, news{sntp: at(3 * s)}, moveStep, Authentic, false},
		"authentic, 61 s, agreeing":          {Authentic, func(k *knowledge) { k.sntp = at(61 * s) }, news{sntp: at(61 * s)}, moveKeep, Conflict, false},
		"authentic, 999 s, signed too":       {Authentic, func(k *knowledge) { k.sntp, k.signed = at(999*s), at(990*s) }, news{sntp: at(999 * s)}, moveStep, Authentic, false},
		"authentic, 999 s, first":            {Authentic, func(k *knowledge) { k.signed = at(990 * s) }, news{sntp: at(999 * s)}, moveKeep, Authentic, true},
		"authentic, 999 s, three sources":    {Authentic, func(k *knowledge) { k.sntp, k.signed, k.sources = at(999*s), at(990*s), 3 }, news{sntp: at(999 * s)}, moveKeep, Authentic, false},
		"authentic, 1001 s, signed too":      {Authentic, func(k *knowledge) { k.sntp, k.signed = at(1001*s), at(1001*s) }, news{sntp: at(1001 * s)}, moveKeep, Authentic, false},
		"authentic, before the floor":        {Authentic, func(k *knowledge) { k.floor = now }, news{sntp: at(-s / 10)}, moveKeep, Authentic, false},
		"authentic, beyond C with signed":    {Authentic, func(k *knowledge) { k.ceiling = build }, news{sntp: at(s / 10)}, moveKeep, Authentic, false},
		"authentic, impossible":              {Authentic, nil, news{impossible: true}, moveKeep, Conflict, false},
		"plausible, impossible":              {Plausible, nil, news{impossible: true}, moveKeep, Plausible, false},
		"nothing":                            {Plausible, nil, news{}, moveKeep, Plausible, false},
		"conflict, sntp comes round":         {Conflict, nil, news{sntp: at(s / 10)}, moveSlew, Authentic, false},
		"conflict, no majority":              {Conflict, nil, news{}, moveKeep, Conflict, false},
		"signed, years back":                 {Plausible, func(k *knowledge) { k.floor = at(-20 * 365 * day) }, news{signed: at(-10 * 365 * day)}, moveStep, Authentic, false},
		"signed, years forward":              {Unknown, nil, news{signed: at(100 * 365 * day)}, moveStep, Authentic, false},
		"signed, 5 s before the floor":       {Unknown, nil, news{signed: build.Add(-5 * s)}, moveStep, Authentic, false},
		"signed, 6 s before the floor":       {Unknown, nil, news{signed: build.Add(-6 * s)}, moveRefuse, Unknown, false},
		"signed, against sntp":               {Plausible, func(k *knowledge) { k.sntp = at(2 * m) }, news{signed: at(s)}, moveStep, Conflict, false},
		"signed, against the impossible":     {Plausible, func(k *knowledge) { k.impossible = true }, news{signed: at(s)}, moveStep, Conflict, false},
		"signed, refused while authentic":    {Authentic, nil, news{signed: build.Add(-m)}, moveRefuse, Authentic, false},
		"signed, with sntp 60 s beside it":   {Conflict, func(k *knowledge) { k.sntp = at(m) }, news{signed: now}, moveStep, Authentic, false},
		"signed, again after a long silence": {Authentic, func(k *knowledge) { k.sntp = at(s) }, news{signed: at(2 * s)}, moveStep, Authentic, false},
	} {
		k := base(tt.state)
		if tt.change != nil {
			tt.change(&k)
		}
		a := discipline(now, k, tt.news)
		if a.do != tt.do || a.state != tt.want || a.again != tt.again {
			t.Errorf("%s: %s, %s, again %v; want %s, %s, %v", name, a.do, a.state, a.again, tt.do, tt.want, tt.again)
		}
		if isSNTPStep := a.do == moveStep && tt.news.signed.IsZero() && !(tt.state == Unknown && a.by > 0); isSNTPStep != (a.cost > 0) {
			t.Errorf("%s: costs %v", name, a.cost)
		}
	}
}

// Whatever SNTP says in whatever state, some things never happen.
func TestDisciplineKeepsItsPromisesForAnyNews(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	states := []State{Unknown, Plausible, Authentic, Conflict}
	near := func(at time.Time) time.Time { // at all scales, from nanoseconds to centuries
		return at.Add(time.Duration(r.Int64()>>r.IntN(63)) * time.Duration(1-2*r.IntN(2)))
	}
	for range 200_000 {
		floor := near(build)
		now := later(near(floor), floor)
		k := knowledge{state: states[r.IntN(len(states))], floor: floor, ceiling: build.AddDate(15, 0, 0), sources: r.IntN(7),
			sntp: near(now), budget: time.Duration(r.Int64N(int64(stepBudget)))}
		if k.state == Authentic || k.state == Conflict {
			k.signed = near(now)
		}
		said := near(now)
		if r.IntN(2) == 0 {
			k.sntp = said.Add(time.Duration(r.IntN(1000)) * time.Millisecond)
		}
		a := discipline(now, k, news{sntp: said})
		size, moved := a.by.Abs(), a.do != moveKeep
		out := k.state == Unknown && a.by >= 0
		switch {
		case a.do == moveRefuse, k.signed.IsZero() && (a.state == Authentic || a.state == Conflict):
			t.Fatalf("%+v: sntp %v gave %+v", k, said, a)
		case moved && (said.Before(k.floor) || said.After(k.ceiling)):
			t.Fatalf("%+v: out of range, %+v", k, a)
		case moved && !k.signed.IsZero() && (size > largeStep || said.Sub(k.signed).Abs() > conflictOver):
			t.Fatalf("%+v: against signed time, %+v", k, a)
		case moved && !out && k.sources <= fewSources && size > smallStep, moved && !out && k.signed.IsZero() && size > smallStep:
			t.Fatalf("%+v: too far, %+v", k, a)
		case a.do == moveStep && !out && a.cost != size, a.cost > k.budget:
			t.Fatalf("%+v: not paid, %+v", k, a)
		case a.state == Unknown && moved:
			t.Fatalf("%+v: moved and unknown, %+v", k, a)
		}
	}
}

func TestASlewIsMadeLittleByLittleAndThenIsDone(t *testing.T) {
	for _, by := range []time.Duration{400 * time.Millisecond, -400 * time.Millisecond} {
		c, up := newTestClock(time.Time{}, build.Add(day))
		want := c.Now()
		c.Round(plausible(c, want.Add(by)), 4)
		if !c.Now().Equal(want) {
			t.Errorf("it jumped to %v", c.Now())
		}
		for elapsed, part := range map[time.Duration]time.Duration{100 * time.Second: by / 8, 400 * time.Second: by / 2, 800 * time.Second: by, day: by} {
			start := up.now
			up.now += elapsed
			if got := c.Now().Sub(want); got != elapsed+part {
				t.Errorf("%v after %v: off by %v, want %v", by, elapsed, got-elapsed, part)
			}
			up.now = start
		}
		up.now += 400 * time.Second // half of it; the rest gives way to what is said now
		c.Round(plausible(c, c.Now()), 4)
		up.now += day
		if got := c.Now().Sub(want); got != 400*time.Second+day+by/2 {
			t.Errorf("%v: the rest was made all the same: %v", by, got)
		}
	}
}
