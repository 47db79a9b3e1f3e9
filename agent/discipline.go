package agent

import "time"

const (
	conflictOver = 60 * time.Second
	signedSlack  = 5 * time.Second // by which Access Servers may differ among themselves
)

// What SNTP may do (time §6.1).
const (
	slewUnder   = 500 * time.Millisecond
	slewPart    = 2000 // of the time that passes
	smallStep   = 60 * time.Second
	largeStep   = 1000 * time.Second
	agreeWithin = time.Second // two verdicts, carried to one moment
	fewSources  = 3           // configured; so few make no large step
	stepBudget  = 1000 * time.Second
)

// move is what is done to a clock.
type move string

const (
	moveKeep   move = "keep"
	moveSlew   move = "slew"
	moveStep   move = "step"
	moveRefuse move = "refuse" // a signed time before the floor
)

// action is what to do now that something was heard of the time.
type action struct {
	do    move
	by    time.Duration // from the clock to what was heard
	state ClockState    // from now on
	again bool          // a step waits for a second verdict
	cost  time.Duration // of the step budget
}

// knowledge is what is known of the time before. Its times are carried to the
// present moment.
type knowledge struct {
	state          ClockState
	floor, ceiling time.Time     // F and C
	sources        int           // SNTP sources that are configured
	signed         time.Time     // the newest signed time since the start; zero: none
	sntp           time.Time     // the last SNTP verdict; zero: none
	impossible     bool          // instead of a verdict, the sources said what cannot be
	budget         time.Duration // by which SNTP may still step
}

// news is one of: a signed time, an SNTP verdict, or that more than half of the
// configured sources say what cannot be.
type news struct {
	signed, sntp time.Time
	impossible   bool
}

// discipline decides what news does to a clock that says now (time §6). It is
// pure.
func discipline(now time.Time, k knowledge, n news) action {
	switch {
	case !n.signed.IsZero():
		return k.bySigned(now, n.signed)
	case !n.sntp.IsZero():
		return k.bySNTP(now, n.sntp)
	case n.impossible && !k.signed.IsZero():
		return action{do: moveKeep, state: ClockConflict}
	}
	return action{do: moveKeep, state: k.state}
}

func (k knowledge) bySigned(now, signed time.Time) action {
	if signed.Before(k.floor.Add(-signedSlack)) {
		return action{do: moveRefuse, state: k.state}
	}
	a := action{do: moveStep, by: signed.Sub(now), state: proven(signed, k.sntp)}
	if k.impossible {
		a.state = ClockConflict
	}
	return a
}

// proven is the state of a clock that has signed time, given what SNTP says.
func proven(signed, sntp time.Time) ClockState {
	if !sntp.IsZero() && sntp.Sub(signed).Abs() > conflictOver {
		return ClockConflict
	}
	return ClockAuthentic
}

func (k knowledge) bySNTP(now, said time.Time) action {
	a := action{do: moveKeep, by: said.Sub(now), state: k.state}
	if !k.signed.IsZero() {
		a.state = proven(k.signed, said)
	}
	if said.Before(k.floor) || said.After(k.ceiling) || a.state == ClockConflict {
		return a
	}
	if k.state == ClockUnknown && a.by >= 0 {
		a.do, a.state = moveStep, ClockPlausible
		return a
	}
	size := a.by.Abs()
	switch {
	case size < slewUnder:
		a.do = moveSlew
	case !k.mayStep(size):
		return a
	case k.sntp.IsZero() || k.sntp.Sub(said).Abs() > agreeWithin:
		a.again = true
		return a
	default:
		a.do, a.cost = moveStep, size
	}
	if k.state == ClockUnknown {
		a.state = ClockPlausible
	}
	return a
}

// mayStep says whether SNTP may make a step of this size once two verdicts agree.
// A large one needs signed time; that it agrees has been seen before.
func (k knowledge) mayStep(size time.Duration) bool {
	most := smallStep
	if k.sources > fewSources && !k.signed.IsZero() {
		most = largeStep
	}
	return size <= most && size <= k.budget
}
