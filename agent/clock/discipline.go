package clock

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
	// Of so few, one operator or one wrong antenna can be the majority.
	fewSources = 3 // configured; so few make no large step
	stepBudget = 1000 * time.Second
)

// move is a kind of change to the clock.
type move string

const (
	moveKeep   move = "keep"
	moveSlew   move = "slew"
	moveStep   move = "step"
	moveRefuse move = "refuse" // a signed time before the floor
)

// action is what to do after news of the time.
type action struct {
	do    move
	by    time.Duration // from the clock to what was heard
	state State         // from now on
	again bool          // a step needs a second verdict that agrees
	cost  time.Duration // of the step budget
}

// knowledge is what was known before the news. Its times are carried forward to the
// present moment.
type knowledge struct {
	state          State
	floor, ceiling time.Time     // F and C
	sources        int           // SNTP sources that are configured
	signed         time.Time     // the newest signed time since the start; zero: none
	sntp           time.Time     // the last SNTP verdict; zero: none
	impossible     bool          // instead of a verdict, the sources gave times outside of [F, C]
	budget         time.Duration // by which SNTP may still step
}

// news is one of: a signed time, an SNTP verdict, or the fact that more than half of
// the configured sources give a time outside of [F, C].
type news struct {
	signed, sntp time.Time
	impossible   bool
}

// discipline decides what news changes in a clock that reads now (time §6). It is pure. What is heard is judged against
// what is known and never the other way round: a time server can make the clock plausible at best.
func discipline(now time.Time, k knowledge, n news) action {
	switch {
	case !n.signed.IsZero():
		return k.bySigned(now, n.signed)
	case !n.sntp.IsZero():
		return k.bySNTP(now, n.sntp)
	case n.impossible && !k.signed.IsZero():
		return action{do: moveKeep, state: Conflict}
	}
	return action{do: moveKeep, state: k.state}
}

// bySigned steps by whatever it is: who signs time is trusted with more than that. Only a time before the floor is
// refused, which the same servers have set.
func (k knowledge) bySigned(now, signed time.Time) action {
	if signed.Before(k.floor.Add(-signedSlack)) {
		return action{do: moveRefuse, state: k.state}
	}
	a := action{do: moveStep, by: signed.Sub(now), state: proven(signed, k.sntp)}
	if k.impossible {
		a.state = Conflict
	}
	return a
}

// proven is the state of a clock that has signed time, compared with what SNTP says.
func proven(signed, sntp time.Time) State {
	if !sntp.IsZero() && sntp.Sub(signed).Abs() > conflictOver {
		return Conflict
	}
	return Authentic
}

// bySNTP takes a first time that is later than the best guess at once, since a gateway that boots in 1970 has
// nothing to lose; after that it steps only when two verdicts agree, and within the budget.
func (k knowledge) bySNTP(now, said time.Time) action {
	a := action{do: moveKeep, by: said.Sub(now), state: k.state}
	if !k.signed.IsZero() {
		a.state = proven(k.signed, said)
	}
	// SNTP is anybody's word: outside the window, or against signed time, it moves nothing.
	if said.Before(k.floor) || said.After(k.ceiling) || a.state == Conflict {
		return a
	}
	if k.state == Unknown && a.by >= 0 {
		a.do, a.state = moveStep, Plausible
		return a
	}
	size := a.by.Abs()
	switch {
	case size < slewUnder:
		a.do = moveSlew
	case !k.mayStep(size):
		return a
	// One forged round must not be enough for a step.
	case k.sntp.IsZero() || k.sntp.Sub(said).Abs() > agreeWithin:
		a.again = true
		return a
	default:
		a.do, a.cost = moveStep, size
	}
	if k.state == Unknown {
		a.state = Plausible
	}
	return a
}

// mayStep reports whether SNTP may make a step of this size once two verdicts agree.
// A large step needs signed time; bySNTP has already compared the two.
func (k knowledge) mayStep(size time.Duration) bool {
	most := smallStep
	if k.sources > fewSources && !k.signed.IsZero() {
		most = largeStep
	}
	return size <= most && size <= k.budget
}
