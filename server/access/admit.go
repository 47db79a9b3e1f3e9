package access

import (
	"context"
	"sync"
	"time"

	"hawser/internal/wait"
	"hawser/transport"
	"hawser/transport/wire"
)

// How devices are let in when all of them come back at once, as after a restart of the server (access §4).
const (
	longestWait = 2 * time.Second  // a device that would wait longer is sent away: that costs one more handshake
	longestAway = 60 * time.Second // at most for so long
	atOnce      = 2                // look into the store, which has 4 readers at least
	freeEntries = 16               // that may always wait: so few tell nothing of how fast it goes
	lookTime    = time.Second      // of which the pace of a crowd is the mean at least
)

// Of how many measurements a pace is the mean, about. A single slow commit must not send many away; what a crowd did in a
// second is a mean already.
const (
	writingWeight = 16
	lookingWeight = 2
)

// pace is how fast something goes, measured while it does: the mean time that one of many takes from the one before it.
// Measured and not configured: how fast a server takes devices in depends on its disk, its database and its processor.
type pace struct{ each time.Duration }

// took takes in that n were done in d, side by side or one after the other.
func (p *pace) took(n int, d time.Duration, weight int) {
	if n < 1 {
		return
	}
	each := d / time.Duration(n)
	if p.each == 0 {
		p.each = each
		return
	}
	p.each += (each - p.each) / time.Duration(weight)
}

// wait is how long n more will take.
func (p *pace) wait(n int) time.Duration { return time.Duration(n) * p.each }

// admission lets in as many devices at once as the server and its database get done within longestWait, and tells the
// others when to come again, spread over the time that those before them take. A device that is kept waiting for longer
// gives up, and all that was done for it was in vain; then none would ever get in. Relays are few, and needed by all: they
// are not held up. The zero value works; it is safe for concurrent use.
type admission struct {
	mu      sync.Mutex // guards the rest
	inside  int        // who have said hello, and are not attached yet
	looking pace       // in which time one is attached after another, in a crowd
	since   time.Time  // when those were counted from who are attached out of a crowd; zero: there is none
	done    int        // who were attached since then
	writing pace       // what it takes to write the row of one for the other nodes
	taken   time.Time  // until when those who were sent away are expected
}

// enter lets a device in, or refuses it with busy. unwritten is how many rows wait for the database. The caller calls
// attached when the device is, or is not to be.
func (a *admission) enter(unwritten int, now time.Time) (attached func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	// Refused at once and not queued: a queue would hold a connection and its TLS state for each who waits.
	if ahead := expectedWait(a.inside, a.looking, unwritten, a.writing); ahead > longestWait {
		return nil, &wire.Refusal{Reason: transport.Busy, Text: "many come back at once", RetryAfter: a.laterLocked(ahead, now)}
	}
	a.inside++
	return a.leave, nil
}

// leave measures how fast a crowd goes, by how many of it are attached in a second. How long each one takes would not tell:
// that is longer the more there are beside it, and while the processor is busy with the handshakes of others. Nor would the
// time between two: a processor that is away for a moment, as it often is then, makes one of them very long.
func (a *admission) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	now, crowd := time.Now(), a.inside >= freeEntries
	a.inside--
	if a.since.IsZero() {
		if crowd {
			a.since = now
		}
		return
	}
	a.done++
	took := now.Sub(a.since)
	// The first look is short, since nobody is held up before it, and not too short: who is sent away by it comes back late.
	first := a.looking.each == 0 && took >= lookTime/4
	if a.done >= freeEntries && (first || !crowd) || took >= lookTime {
		a.looking.took(a.done, took, lookingWeight)
		a.since, a.done = now, 0
	}
	if !crowd {
		a.since, a.done = time.Time{}, 0
	}
}

// laterLocked is when somebody may come again who would have to wait for ahead now: after those who were sent away before.
// If each were sent away for about the same time, all would come back together, and most be sent away again.
func (a *admission) laterLocked(ahead time.Duration, now time.Time) time.Duration {
	from := now.Add(ahead)
	if a.taken.After(from) {
		from = a.taken
	}
	a.taken = from.Add(max(a.looking.each, a.writing.each))
	if again := a.taken.Sub(now); again < longestAway {
		return again
	}
	a.taken = now.Add(longestAway)
	return longestAway/2 + wait.Random(longestAway/2)
}

// inTurn runs f with few others. The store answers everybody in the order in which they ask, and a person who looks must not
// wait behind all devices that come back.
func (s *Server) inTurn(ctx context.Context, f func() error) error {
	select {
	case s.turns <- struct{}{}:
		defer func() { <-s.turns }()
		return f()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wrote takes in how long a transaction with n rows took.
func (a *admission) wrote(n int, d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.writing.took(n, d, writingWeight)
}

// expectedWait is how long one more would wait behind those who are inside and the rows that are not written. It is pure.
func expectedWait(inside int, looking pace, unwritten int, writing pace) (d time.Duration) {
	if inside >= freeEntries {
		d = looking.wait(inside)
	}
	if unwritten >= freeEntries {
		d += writing.wait(unwritten)
	}
	return d
}
