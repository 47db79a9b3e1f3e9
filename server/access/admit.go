package access

import (
	"sync"
	"time"

	"hawser/internal/wait"
	"hawser/transport"
	"hawser/transport/wire"
)

// How devices are let in when all of them come back at once, as after a restart of the server (access §4).
const (
	longestWait = 5 * time.Second  // a device that would wait longer is sent away: that costs one more handshake
	longestAway = 60 * time.Second // at most for so long
	freeEntries = 16               // that may always wait: so few tell nothing of how fast it goes
	paceWeight  = 16               // of how many entries the pace is the mean, about
)

// pace is how fast something goes, measured while it does: the mean time that one of many takes from the one before it.
// Measured and not configured: how fast a server takes devices in depends on its disk, its database and its processor.
type pace struct{ each time.Duration }

// took takes in that n were done in d, side by side or one after the other.
func (p *pace) took(n int, d time.Duration) {
	if n < 1 {
		return
	}
	each := d / time.Duration(n)
	if p.each == 0 {
		p.each = each
		return
	}
	p.follow(each)
}

// follow takes in that one was done so long after the one before it. A moving mean: a single slow commit must not send
// many away.
func (p *pace) follow(each time.Duration) { p.each += (each - p.each) / paceWeight }

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
	last    time.Time  // when one of the crowd was attached; zero: there is none
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

// leave measures how fast a crowd goes, by the time between two of it. How long each one takes would not tell: that is
// longer the more there are beside it, and while the processor is busy with the handshakes of others.
func (a *admission) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	now, before := time.Now(), a.last
	a.last = time.Time{}
	if a.inside >= freeEntries {
		a.last = now
		if !before.IsZero() {
			a.looking.follow(now.Sub(before))
		}
	}
	a.inside--
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

// wrote takes in how long a transaction with n rows took.
func (a *admission) wrote(n int, d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.writing.took(n, d)
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
