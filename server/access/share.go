package access

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"hawser/identity"
	"hawser/server/store"
)

// What one device, relay or user may write into the audit by whatever it does or has done to it, however often (access
// §1.6). Without that one of them pushes out the records of all others: 361 a second were measured, a full audit in 1.8 h.
const (
	shareBurst = 120
	shareEvery = 15 * time.Second // one more: 240 an hour

	// Of reports of sessions, which are the largest records. They are not folded: a device keeps them and comes again.
	reportBurst = 60
	reportEvery = time.Minute

	flapTime = time.Minute      // what does not find its place in it is one record, which counts
	foldLong = 10 * time.Minute // the same for who has used up his share
)

// How many records of one kind are written of one identity in flapTime.
const (
	flapRecords = 2 // that it came, and that it went; that it enrolled once more; that a used code was tried
	// They change nothing, and cost a request each: a loop of them made 3,000 records a second.
	refusedRecords = 20
	anyRecords     = shareBurst // as many as the share has
)

// share is how much of a share is used.
type share struct{ paid time.Time }

// take uses one place of it; there are burst of them, and each is free again after so long.
func (s *share) take(now time.Time, every time.Duration, burst int) bool {
	if s.paid.Before(now) {
		s.paid = now
	}
	if s.paid.Add(every).Sub(now) > time.Duration(burst)*every {
		return false
	}
	s.paid = s.paid.Add(every)
	return true
}

// flaps bounds the audit records of what one identity can cause by itself: a link that comes and goes, sessions in a loop.
// Nothing that it holds is needed after a restart. It is safe for concurrent use; the zero value works.
type flaps struct {
	mu      sync.Mutex // guards the rest
	runs    map[foldKey]*flapRun
	shares  map[identity.Name]*share
	reports map[identity.Name]*share
}

// foldKey is what is folded into one record.
type foldKey struct {
	who  identity.Name
	what string // the action
	by   string // of sessions, who: one user does not hide among another's
}

// flapRun counts the records of one key since begun. It begins with the first record and not with the clock's minute, so
// that there is no moment at which all are written.
type flapRun struct {
	begun   time.Time
	length  time.Duration
	written int
	skipped int
	last    store.Record // of the skipped
}

func keyOf(who identity.Name, r store.Record) foldKey {
	k := foldKey{who: who, what: r.Action}
	if r.Action == actionOffline {
		k.what = actionOnline
	}
	if strings.HasPrefix(r.Action, "session-") {
		k.by = r.Actor
	}
	return k
}

// admit reports whether a record that who has caused may be written now: most of its kind may in flapTime, and no more than
// its share of all kinds. Otherwise it counts the record as skipped. The maps are as large as the identities of half an
// hour: due removes what is over.
func (f *flaps) admit(who identity.Name, r store.Record, most int, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.runs == nil {
		f.runs, f.shares = make(map[foldKey]*flapRun), make(map[identity.Name]*share)
	}
	key := keyOf(who, r)
	run, has := f.runs[key], f.shares[who]
	if run == nil {
		run = &flapRun{begun: now, length: flapTime}
		f.runs[key] = run
	}
	if has == nil {
		has = new(share)
		f.shares[who] = has
	}
	if run.written < most {
		if has.take(now, shareEvery, shareBurst) {
			run.written++
			return true
		}
		run.length = foldLong
	}
	run.skipped++
	run.last = r
	return false
}

// admitReport reports whether one more report of a device may be written now.
func (f *flaps) admitReport(who identity.Name, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reports == nil {
		f.reports = make(map[identity.Name]*share)
	}
	for name, s := range f.reports { // few devices report at a time
		if s.paid.Before(now) {
			delete(f.reports, name)
		}
	}
	s := f.reports[who]
	if s == nil {
		s = new(share)
		f.reports[who] = s
	}
	return s.take(now, reportEvery, reportBurst)
}

// due returns one record for each key whose time is over and that had records skipped.
func (f *flaps) due(now time.Time) (records []store.Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, run := range f.runs {
		if now.Sub(run.begun) < run.length {
			continue
		}
		delete(f.runs, key)
		if run.skipped > 0 {
			r, in := run.last, "a minute"
			if run.length > flapTime {
				in = "10 minutes"
			}
			r.Detail = fmt.Sprintf("%s %d times more in %s; %s", doneIn(r.Action), run.skipped, in, r.Detail)
			records = append(records, r)
		}
	}
	for who, s := range f.shares {
		if s.paid.Before(now) {
			delete(f.shares, who)
		}
	}
	return records
}

// doneIn is what happened, in words.
func doneIn(action string) string {
	switch action {
	case actionOnline, actionOffline:
		return "came or went"
	case actionSessionRefused:
		return "refused"
	case actionEnroll:
		return "enrolled"
	}
	return action
}

// next returns when something is due; the zero time for never.
func (f *flaps) next() (next time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, run := range f.runs {
		next = sooner(next, run.begun.Add(run.length))
	}
	return next
}

// admits is [flaps.admit], and sees to it that what was skipped is counted in time.
func (s *Server) admits(who identity.Name, r store.Record, most int) bool {
	defer s.dueChanged.Ring()
	return s.flaps.admit(who, r, most, time.Now())
}

// appendOf is tx.Append for what somebody can cause as often as he likes.
func (s *Server) appendOf(tx *store.Tx, who identity.Name, r store.Record, most int) error {
	if !s.admits(who, r, most) {
		return nil
	}
	return tx.Append(r)
}
