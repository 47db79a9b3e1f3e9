package clock

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"hawser/board"
	"hawser/identity"
	"hawser/probe"
	"hawser/transport"
)

const day = 24 * time.Hour

var build = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// ticker is an uptime that a test winds by hand.
type ticker struct{ now time.Duration }

func (t *ticker) uptime() time.Duration { return t.now }

func newTestClock(anchor, wall time.Time) (*Clock, *ticker) {
	t := &ticker{3 * time.Minute}
	b := &board.Board{Now: func() time.Time { return wall }, Uptime: t.uptime}
	return New(Options{Build: build, Board: b, Store: &memory{floor: anchor}, Log: slog.New(slog.DiscardHandler)}), t
}

// memory is a Store without a disk.
type memory struct {
	floor    time.Time
	spent    time.Duration
	sequence uint64
	err      error // of each write
}

func (m *memory) Anchor() (time.Time, time.Duration) { return m.floor, m.spent }

func (m *memory) Spend(total time.Duration) error {
	if m.err == nil {
		m.spent = max(m.spent, total)
	}
	return m.err
}

func (m *memory) Reset(floor time.Time, sequence uint64) error {
	if m.err == nil {
		m.floor, m.sequence = floor, sequence
	}
	return m.err
}

func plausible(c *Clock, at time.Time) probe.Verdict {
	return probe.Verdict{Plausible: true, Time: at, Received: c.ticks()}
}

func TestTheClockBeginsAtTheWallClockOrAtItsFloor(t *testing.T) {
	anchor := build.AddDate(1, 0, 0)
	ceiling := build.AddDate(15, 0, 0)
	for name, tt := range map[string]struct {
		anchor, wall time.Time
		want         time.Time
		state        State
	}{
		"1970":                      {time.Time{}, time.Unix(0, 0), build, Unknown},
		"2000":                      {time.Time{}, time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), build, Unknown},
		"2000 with an anchor":       {anchor, time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), anchor, Unknown},
		"year 1":                    {time.Time{}, time.Time{}, build, Unknown},
		"between build, anchor":     {anchor, build.AddDate(0, 6, 0), anchor, Unknown},
		"at the floor":              {time.Time{}, build, build, Plausible},
		"in range":                  {anchor, anchor.AddDate(2, 0, 0), anchor.AddDate(2, 0, 0), Plausible},
		"at the ceiling":            {time.Time{}, ceiling, ceiling, Plausible},
		"beyond the ceiling":        {anchor, ceiling.Add(time.Second), anchor, Unknown},
		"anchor before build":       {build.AddDate(-1, 0, 0), time.Unix(0, 0), build, Unknown},
		"beyond 32-bit unix (2106)": {time.Time{}, time.Unix(1<<32, 0), build, Unknown},
	} {
		c, up := newTestClock(tt.anchor, tt.wall)
		if got := c.Now(); !got.Equal(tt.want) {
			t.Errorf("%s: now %v, want %v", name, got, tt.want)
		}
		if got := c.Status().State; got != tt.state {
			t.Errorf("%s: %s, want %s", name, got, tt.state)
		}
		up.now += time.Hour
		if got := c.Now(); !got.Equal(tt.want.Add(time.Hour)) {
			t.Errorf("%s: an hour later %v, want %v", name, got, tt.want.Add(time.Hour))
		}
		if _, authentic := c.Floor(); authentic {
			t.Errorf("%s: authentic from the start", name)
		}
	}
}

// Each step is one event and the state after it (time §6).
func TestClockStates(t *testing.T) {
	now := build.AddDate(0, 3, 0)
	type step struct {
		what string
		do   func(c *Clock, at time.Time) error
		want State
		at   time.Duration // of the clock against the truth afterwards
	}
	sntp := func(off time.Duration) func(*Clock, time.Time) error {
		return func(c *Clock, at time.Time) error { c.Round(plausible(c, at.Add(off)), 4); return nil }
	}
	signed := func(c *Clock, at time.Time) error {
		return c.Signed(identity.SignedTime{Time: at.Add(-50 * time.Millisecond)}, 100*time.Millisecond)
	}
	noMajority := func(c *Clock, _ time.Time) error {
		c.Round(probe.Verdict{Time: now.AddDate(1, 0, 0)}, 4)
		return nil
	}
	for name, steps := range map[string][]step{
		"the usual way": {
			{"no majority", noMajority, Unknown, build.Sub(now)},
			{"sntp", sntp(time.Second), Plausible, time.Second},
			{"sntp changes its mind", sntp(-time.Second), Plausible, time.Second},
			{"sntp corrects itself", sntp(-time.Second), Plausible, -time.Second},
			{"signed", signed, Authentic, 0},
			{"sntp agrees", sntp(59 * time.Second), Authentic, 0},
			{"signed again", signed, Authentic, 0},
		},
		"signed before any sntp": {
			{"signed", signed, Authentic, 0},
			{"no majority", noMajority, Authentic, 0},
		},
		"sntp lies first": {
			{"sntp lies", sntp(2 * time.Hour), Plausible, 2 * time.Hour},
			{"signed", signed, Conflict, 0},
			{"signed again", signed, Conflict, 0},
			{"sntp agrees at last", sntp(0), Authentic, 0},
		},
		"sntp lies later": {
			{"signed", signed, Authentic, 0},
			{"sntp lies", sntp(61 * time.Second), Conflict, 0},
			{"sntp lies below the floor", sntp(-time.Hour), Conflict, 0},
			{"no majority", noMajority, Conflict, 0},
			{"sntp agrees", sntp(0), Authentic, 0},
		},
		"sntp out of range": {
			{"before the floor", sntp(build.Sub(now) - time.Hour), Unknown, build.Sub(now)},
			{"beyond the ceiling", sntp(16 * 365 * day), Unknown, build.Sub(now)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := newTestClock(time.Time{}, time.Unix(0, 0))
			for _, s := range steps {
				floor, ceiling := c.floor, c.ceiling
				if err := s.do(c, now); err != nil {
					t.Fatalf("%s: %v", s.what, err)
				}
				st := c.Status()
				if got := c.Now().Sub(now); st.State != s.want || got != s.at {
					t.Errorf("%s: %s and %v off, want %s and %v", s.what, st.State, got, s.want, s.at)
				}
				if _, authentic := c.Floor(); authentic != (s.want == Authentic || s.want == Conflict) {
					t.Errorf("%s: authentic %v in %s", s.what, authentic, s.want)
				}
				newFloor, newCeiling := c.floor, c.ceiling
				if isSigned := st.Source == "signed" && s.what[:2] == "si"; !isSigned && !newFloor.Equal(floor) || !newCeiling.Equal(ceiling) {
					t.Errorf("%s: floor %v became %v", s.what, floor, newFloor)
				}
			}
		})
	}
}

func TestAHardwareClockThatDiffersIsNoConflict(t *testing.T) {
	c, _ := newTestClock(time.Time{}, build.Add(800*day))
	if err := c.Signed(identity.SignedTime{Time: build.Add(400 * day)}, 0); err != nil {
		t.Fatal(err)
	}
	if st := c.Status(); st.State != Authentic || st.OffsetMS != -400*day.Milliseconds() || !c.Now().Equal(build.Add(400*day)) {
		t.Errorf("status %+v, now %v", st, c.Now())
	}
}

func TestSignedTimeBeforeTheFloorIsRefused(t *testing.T) {
	t.Attr("id", "A1-refuse")
	anchor := build.AddDate(0, 1, 0)
	for name, tt := range map[string]struct {
		at   time.Time
		good bool
	}{
		"far before":   {build, false},
		"6 s before":   {anchor.Add(-6 * time.Second), false},
		"4 s before":   {anchor.Add(-4 * time.Second), true},
		"at the floor": {anchor, true},
		"years after":  {anchor.AddDate(10, 0, 0), true},
		"year 1":       {time.Time{}, false},
	} {
		c, _ := newTestClock(anchor, time.Unix(0, 0))
		before := c.Status()
		err := c.Signed(identity.SignedTime{Time: tt.at}, 0)
		if (err == nil) != tt.good {
			t.Errorf("%s: %v", name, err)
		}
		if c.floor.Before(anchor) {
			t.Errorf("%s: the floor fell to %v", name, c.floor)
		}
		if tt.good {
			continue
		}
		if transport.ReasonOf(err) != transport.BadTime || c.Status() != before || !c.Now().Equal(anchor) {
			t.Errorf("%s: reason %q, status %+v, now %v", name, transport.ReasonOf(err), c.Status(), c.Now())
		}
	}
}

func TestTheClockNeverReadsBeforeItsFloor(t *testing.T) {
	c, _ := newTestClock(build.Add(10*time.Second), time.Unix(0, 0))
	if err := c.Signed(identity.SignedTime{Time: build.Add(6 * time.Second)}, 0); err != nil {
		t.Fatal(err)
	}
	if c.Now().Before(c.floor) {
		t.Errorf("now %v, floor %v", c.Now(), c.floor)
	}
}

// What was heard before was all after the wrong floor: none of it is evidence.
func TestAFloorResetForgetsWhatWasHeard(t *testing.T) {
	wrong, now := build.AddDate(10, 0, 0), build.AddDate(0, 1, 0)
	c, _ := newTestClock(time.Time{}, wrong)
	if err := c.Signed(identity.SignedTime{Time: wrong}, 0); err != nil {
		t.Fatal(err)
	}
	c.Round(plausible(c, wrong.Add(2*time.Minute)), 4) // a conflict
	if err := c.Reset(identity.FloorReset{To: now, Sequence: 1}); err != nil {
		t.Fatal(err)
	}
	if st := c.Status(); st.State != Unknown || st.Source != "" || !c.Now().Equal(now) {
		t.Errorf("status %+v, now %v", st, c.Now())
	}
	if err := c.Signed(identity.SignedTime{Time: now.Add(time.Hour)}, 0); err != nil {
		t.Fatal(err)
	}
	if st := c.Status(); st.State != Authentic || !c.Now().Equal(now.Add(time.Hour)) {
		t.Errorf("after signed time: status %+v, now %v", st, c.Now())
	}
}

// A flash that is full must not let SNTP have more of the step budget than it would have after a restart.
func TestWhatCannotBeStoredIsNotSpent(t *testing.T) {
	c, _ := newTestClock(time.Time{}, build.Add(day))
	store := c.o.Store.(*memory)
	store.err = errors.New("no space left on device")
	before := c.Now()
	for range 2 {
		c.Round(plausible(c, before.Add(50*time.Second)), 4)
	}
	if got := c.Now().Sub(before); got != 0 {
		t.Errorf("stepped by %v", got)
	}
	store.err = nil
	if c.Round(plausible(c, before.Add(50*time.Second)), 4); c.Now().Sub(before) != 50*time.Second || store.spent != 50*time.Second {
		t.Errorf("stepped by %v, stored %v", c.Now().Sub(before), store.spent)
	}
}

// Signed time counts for statements unless a majority of time servers is more than a day ahead of it.
func TestStatementsAreJudgedByTheLaterTime(t *testing.T) {
	now := build.AddDate(1, 0, 0)
	for name, tt := range map[string]struct {
		signed bool
		sntp   time.Duration // 0: none
		theirs bool
	}{
		"signed time alone":      {true, 0, false},
		"they agree":             {true, time.Second, false},
		"a day ahead":            {true, day, false},
		"more than a day":        {true, day + time.Second, true},
		"a year":                 {true, 365 * day, true},
		"behind":                 {true, -400 * day, false},
		"before any signed time": {false, 400 * day, false},
	} {
		c, up := newTestClock(now.Add(-500*day), now)
		if tt.signed {
			c.Signed(identity.SignedTime{Time: now}, 0)
		}
		if tt.sntp != 0 {
			c.Round(plausible(c, now.Add(tt.sntp)), 4)
		}
		up.now += time.Hour // both go on
		at, theirs := c.Statements()
		want := c.Now()
		if tt.theirs {
			want = now.Add(tt.sntp + time.Hour)
		}
		if theirs != tt.theirs || !at.Equal(want) {
			t.Errorf("%s: %v %v, want %v", name, at, theirs, want)
		}
		// True signed time ends it, and so does the next round that agrees.
		if c.Signed(identity.SignedTime{Time: want}, 0); tt.theirs {
			if at, theirs := c.Statements(); theirs || !at.Equal(want) {
				t.Errorf("%s: after signed time %v %v", name, at, theirs)
			}
		}
	}
}
