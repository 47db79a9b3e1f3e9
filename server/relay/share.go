package relay

import (
	"container/heap"
	"time"
)

// What sessions may carry, each for itself and all together, is decided here, from the time and the bytes alone. A
// session says what it has moved, and is told to go on or to wait: so nothing has to be known before it is moved, and a
// session that idles costs nothing.

// burstTime is how much of its rate a bucket saves up. It covers timers that are late.
const burstTime = 10 * time.Millisecond

// A bucket measures a rate. Who has paid for more than the rate is in debt, until the time has paid it back.
type bucket struct {
	rate float64 // bytes a second; 0: no limit
	debt float64 // bytes at the time at; negative: saved
	at   time.Time
}

func (b *bucket) pay(now time.Time, bytes int) {
	if b.rate == 0 {
		return
	}
	b.settle(now)
	b.debt += float64(bytes)
}

// wait is the time until the debt is paid.
func (b *bucket) wait(now time.Time) time.Duration {
	if b.rate == 0 {
		return 0
	}
	b.settle(now)
	return time.Duration(max(b.debt, 0) / b.rate * float64(time.Second))
}

func (b *bucket) settle(now time.Time) {
	if !b.at.IsZero() {
		b.debt = max(b.debt-b.rate*now.Sub(b.at).Seconds(), -b.rate*burstTime.Seconds())
	}
	b.at = now
}

// A share is what one session has of the limits.
type share struct {
	own    bucket
	tag    int64 // its place in the turns: bytes, on their clock
	period int64 // of the turns in which tag was set
}

// A claim is a session that waits for its turn.
type claim struct {
	share   *share
	bytes   int
	own     time.Duration // to be waited first, for the session's own limit
	tag     int64
	number  int64 // of equal tags, the earlier claim is the next one
	place   int   // in the queue
	granted chan struct{}
}

// turns is a rate for all sessions, and who comes next while it binds: whoever has had the fewest bytes since then
// (start-time fair queueing). The clock counts the bytes that each of those who always want more has had by now. Who has
// had less than that, because it wanted little, does not wait at all: so a keystroke passes downloads. What everybody may
// be ahead of the clock, for that, is what one of them moves at a time.
type turns struct {
	bucket
	clock  int64
	period int64 // number of times in which the rate did not bind
	number int64
	queue  queue
}

// enter is told that a session has moved so many bytes, and returns its claim if it has to wait.
func (t *turns) enter(now time.Time, s *share, bytes int) *claim {
	if len(t.queue) == 0 && t.wait(now) == 0 {
		t.period++ // what was before is forgotten
		t.pay(now, bytes)
		return nil
	}
	if s.period != t.period {
		s.period, s.tag = t.period, t.clock
	}
	tag := max(s.tag, t.clock)
	s.tag = tag + int64(bytes)
	if s.tag <= t.clock+moveBytes { // by which the clock advances at a time
		t.pay(now, bytes)
		return nil
	}
	t.number++
	c := &claim{share: s, bytes: bytes, tag: tag, number: t.number, granted: make(chan struct{})}
	heap.Push(&t.queue, c)
	return c
}

// next returns the claim that may go on now. If there is none, wait is the time until there may be one; 0: nobody waits.
func (t *turns) next(now time.Time) (c *claim, wait time.Duration) {
	if len(t.queue) == 0 {
		return nil, 0
	}
	if wait := t.wait(now); wait > 0 {
		return nil, wait
	}
	c = heap.Pop(&t.queue).(*claim)
	t.clock = max(t.clock, c.tag)
	t.pay(now, c.bytes)
	return c, 0
}

// leave takes a claim out that nobody waits for any more. It reports false when its turn has come already.
func (t *turns) leave(c *claim) bool {
	if c.place < 0 {
		return false
	}
	heap.Remove(&t.queue, c.place)
	return true
}

// queue is a heap: the next claim is the first one.
type queue []*claim

func (q queue) Len() int { return len(q) }

func (q queue) Less(i, j int) bool {
	if q[i].tag != q[j].tag {
		return q[i].tag < q[j].tag
	}
	return q[i].number < q[j].number
}

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

func (q *queue) Push(x any) {
	c := x.(*claim)
	c.place = len(*q)
	*q = append(*q, c)
}

func (q *queue) Pop() any {
	last := len(*q) - 1
	c := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	c.place = -1
	return c
}
