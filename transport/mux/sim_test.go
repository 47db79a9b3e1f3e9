package mux

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"time"
)

var simBegin = time.Unix(1e9, 0)

// A sim is a line between two ends as a model of discrete events: no sleeping, no goroutines. Each direction is a
// bottleneck with a queue of any depth, as TCP and a relay give it, and a way of a fixed length.
type sim struct {
	now    time.Time
	events events
	order  int
	ends   [2]*simEnd
	rnd    *rand.Rand
	jitter time.Duration // an ack leaves up to so much later
}

type event struct {
	at    time.Time
	order int // events of one time stay in order
	do    func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].order < e[j].order
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

func (s *sim) after(d time.Duration, do func()) {
	s.order++
	heap.Push(&s.events, event{s.now.Add(d), s.order, do})
}

// run runs the model for d.
func (s *sim) run(d time.Duration) {
	end := s.now.Add(d)
	for len(s.events) > 0 && !s.events[0].at.After(end) {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		e.do()
	}
	s.now = end
}

// A simLink is one direction: bytes a second, the time of its way, and when its queue will be empty.
type simLink struct {
	rate  float64
	delay time.Duration
	free  time.Time

	jitter time.Duration // up to so much more of the way, in order: what comes late holds up what follows
	last   time.Time     // when the newest arrives

	loses time.Duration // so often a packet is lost: what follows it arrives a round trip later, with its repetition
}

// send queues n bytes and returns how long they wait before their first byte goes.
func (s *sim) send(l *simLink, n int, arrived func()) (queued time.Duration) {
	start := l.free
	if start.Before(s.now) {
		start = s.now
	}
	l.free = start.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
	at := l.free.Add(l.delay)
	if l.jitter > 0 {
		at = at.Add(time.Duration(s.rnd.Int64N(int64(l.jitter))))
	}
	if l.loses > 0 {
		if since := at.Sub(simBegin) % l.loses; since < 2*l.delay {
			at = at.Add(2*l.delay - since)
		}
	}
	if at.Before(l.last) {
		at = l.last
	}
	l.last = at
	s.after(at.Sub(s.now), arrived)
	return start.Sub(s.now)
}

type simKept struct {
	n    int
	sent time.Time
}

// A simEnd sends one stream of bulk data, if bulk, and takes that of its peer.
type simEnd struct {
	s    *sim
	peer *simEnd
	out  *simLink
	bulk bool

	// Sending.
	w           window
	kept        []simKept
	count       int // frames sent
	acked       int
	outstanding int
	round       round
	roundEnd    int // the count that ends the round; 0: the next frame begins one
	left        allowance
	credits     []uint64    // control frames to send
	keys        []time.Time // keystrokes to send

	// Receiving.
	got, gotAcked int
	arrived       time.Time // the newest frame
	drift         float64   // of the clock
	timer         int
	c             credit
	read          float64 // bytes a second of the reader; 0: any
	readFree      time.Time

	// Measured.
	share     *share
	delivered int
	queues    []time.Duration
	keyTimes  []time.Duration
	biggest   int
}

// newSim returns a line whose directions have these rates in bytes a second. Nobody sends anything but pings until
// told.
func newSim(rate0, rate1 float64, rtt time.Duration) *sim {
	s := &sim{now: simBegin, rnd: rand.New(rand.NewPCG(1, 2))}
	for i, rate := range []float64{rate0, rate1} {
		s.ends[i] = &simEnd{
			s: s, w: newWindow(), out: &simLink{rate: rate, delay: rtt / 2}, share: NewBudget(64 << 20).join(),
			c: newCredit(firstCredit, maxCredit), left: allowance{until: firstCredit},
		}
	}
	s.ends[0].peer, s.ends[1].peer = s.ends[1], s.ends[0]
	for _, e := range s.ends {
		s.after(0, e.ping)
		s.after(0, e.tick)
	}
	return s
}

// send lets e send as much as it can from now on.
func (e *simEnd) send() {
	e.bulk = true
	e.s.after(0, e.pump)
}

// ping goes out now and every 4 s.
func (e *simEnd) ping() {
	sent := e.s.now
	e.s.send(e.out, 16, func() {
		e.peer.ack()
		e.s.send(e.peer.out, 16, func() { e.w.measured(e.s.now.Sub(sent), e.s.now) })
	})
	e.s.after(4*time.Second, e.ping)
}

func (e *simEnd) tick() {
	e.share.release(e.c.idle(e.s.now))
	e.s.after(time.Second, e.tick)
}

// pump sends what may go: control frames, keystrokes, bulk data.
func (e *simEnd) pump() {
	for {
		var n int
		arrived := func() {}
		switch {
		case len(e.credits) > 0:
			offset := e.credits[0]
			n, arrived = 16, func() {
				if err := e.peer.left.add(offset); err != nil {
					panic(err)
				}
				e.peer.pump()
			}
		case len(e.keys) > 0:
			pressed := e.keys[0]
			n, arrived = headerBytes+1, func() { e.keyTimes = append(e.keyTimes, e.s.now.Sub(pressed)) }
		case e.bulk:
			n = min(e.w.frame(), e.left.left())
			if n == 0 {
				return
			}
			data := n
			arrived = func() { e.peer.data(data) }
			n += headerBytes
		default:
			return
		}
		if !e.w.may(e.outstanding, n) {
			e.round.limited = true
			return
		}
		isData := false
		switch {
		case len(e.credits) > 0:
			e.credits = e.credits[1:]
		case len(e.keys) > 0:
			e.keys = e.keys[1:]
		default:
			e.left.take(n - headerBytes)
			isData = true
		}
		e.count++
		e.outstanding += n
		e.biggest = max(e.biggest, e.outstanding)
		e.kept = append(e.kept, simKept{n, e.s.now})
		if e.roundEnd == 0 {
			e.roundEnd = e.count
		}
		q := e.s.send(e.out, n, func() { arrived(); e.peer.frame(n, isData) })
		if isData {
			e.queues = append(e.queues, q)
		}
	}
}

// data takes n bytes of the bulk stream; the reader consumes them at its speed.
func (e *simEnd) data(n int) {
	if err := e.c.received(n); err != nil {
		panic(err)
	}
	if e.readFree.Before(e.s.now) {
		e.readFree = e.s.now
	}
	if e.read != 0 {
		e.readFree = e.readFree.Add(time.Duration(float64(n) / e.read * float64(time.Second)))
	}
	e.s.after(e.readFree.Sub(e.s.now), func() {
		e.delivered += n
		if offset := e.c.consumed(n, e.s.now, e.w.minRTT(), e.share.grow); offset != 0 {
			e.credits = append(e.credits, offset)
			e.pump()
		}
	})
}

// frame counts a frame and acknowledges by the rule of session §3.6: the model has nothing more to read after each.
func (e *simEnd) frame(n int, data bool) {
	e.got++
	e.arrived = e.s.now
	if e.got-e.gotAcked >= 2 && data && e.s.jitter == 0 {
		e.ack()
		return
	}
	if e.got-e.gotAcked > 1 {
		return
	}
	e.timer++
	mine := e.timer
	wait := 10 * time.Millisecond
	if e.s.jitter != 0 {
		wait += time.Duration(e.s.rnd.Int64N(int64(e.s.jitter)))
	}
	e.s.after(wait, func() {
		if mine == e.timer {
			e.ack()
		}
	})
}

func (e *simEnd) ack() {
	if e.got == e.gotAcked {
		return
	}
	e.timer++
	e.gotAcked = e.got
	count := e.got
	clock := e.clock(e.arrived)
	e.s.send(e.out, 16, func() { e.peer.ackCame(count, clock) })
}

// clock reads the clock of this end: another time than that of its peer, and another speed.
func (e *simEnd) clock(t time.Time) time.Duration {
	d := t.Sub(simBegin)
	return 3*time.Hour + d + time.Duration(e.drift*float64(d))
}

func (e *simEnd) ackCame(count int, clock time.Duration) {
	if e.acked < count {
		newest := e.kept[count-e.acked-1].sent
		e.round.acknowledged(e.s.now.Sub(newest), clock-newest.Sub(simBegin))
	}
	for ; e.acked < count; e.acked++ {
		e.outstanding -= e.kept[0].n
		e.kept = e.kept[1:]
	}
	if e.roundEnd != 0 && e.acked >= e.roundEnd {
		e.w.round(e.round, e.s.now)
		e.roundEnd, e.round = 0, round{}
	}
	e.pump()
}

// forget begins the measurement anew, after warm-up.
func (e *simEnd) forget() {
	e.delivered, e.queues, e.keyTimes, e.biggest = 0, nil, nil, 0
}

// press types a key every d.
func (e *simEnd) press(d time.Duration) {
	e.s.after(d, func() {
		e.keys = append(e.keys, e.s.now)
		e.pump()
		e.press(d)
	})
}

// cross sends bursts of other traffic into the queue of e's direction, which use the share of its rate on average.
func (e *simEnd) cross(share float64, burst int) {
	mean := float64(burst) / (e.out.rate * share) * float64(time.Second)
	e.s.after(time.Duration(e.s.rnd.ExpFloat64()*mean), func() {
		e.s.send(e.out, burst, func() {})
		e.cross(share, burst)
	})
}

func quantile(list []time.Duration, q float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	list = slices.Sorted(slices.Values(list))
	return list[min(int(q*float64(len(list))), len(list)-1)]
}
