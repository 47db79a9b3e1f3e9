package mux

import "time"

// The line window of session §3.6 and §6. Sizes are in bytes.
const (
	firstWindow   = 16 << 10
	leastWindow   = 8 << 10
	largestWindow = 64 << 20 // only a bound for arithmetic: in practice the budget is the limit
	probeWindow   = 2 << 10  // while the round trip is measured; 20 ms of a line of 100 KB/s
	leastFrame    = 1 << 10
	frameParts    = 8                     // a frame is so small a part of the window
	queueTarget   = 50 * time.Millisecond // above it the window shrinks
	queueBegun    = 10 * time.Millisecond // above it slow start does not double
	remeasureGap  = 10 * time.Minute
)

// A window decides how many bytes of counted frames may be on their way (session §3.6). It is pure: the caller tells it
// of times. Without it a keystroke would wait behind all that the buffers of TCP and of the relay hold, which is
// minutes of a slow line. Not safe for concurrent use.
type window struct {
	w      int           // bytes
	slow   bool          // slow start: it doubles
	min    time.Duration // the smallest round trip; 0: none yet
	minAt  time.Time     // when min was last measured anew
	way    time.Duration // the smallest way there, with the unknown difference of two clocks
	hasWay bool
	before int // w before the round that measures anew; 0: no such round
}

// A round gathers what the acknowledgements of one round trip say. A round trip begins when the next frame is sent
// after the last one has ended, and ends when that frame is acknowledged. So its first frame has seen the present
// window, and not what an earlier one had left in the queues.
type round struct {
	limited  bool // W, and not the lack of data or credit, held a frame back
	smallest time.Duration

	// The ways there, by the clock of this end when a frame is sent and of the other end when it comes. The difference
	// of the clocks is unknown, but the same for all of them.
	ways     int
	nearest  time.Duration
	firstWay time.Duration
	sum      float64 // of way - firstWay; the peer says what it likes, so it is not an integer that overflows
}

// acknowledged adds an ack: rtt is the time since its newest frame was sent, way is the time at which the other end got
// that frame by its clock, less the time at which it was sent by ours.
func (r *round) acknowledged(rtt, way time.Duration) {
	if r.ways == 0 {
		r.smallest, r.nearest, r.firstWay = rtt, way, way
	}
	r.ways++
	r.smallest, r.nearest = min(r.smallest, rtt), min(r.nearest, way)
	r.sum += float64(way) - float64(r.firstWay)
}

// mean returns the mean of the ways there.
func (r *round) mean() time.Duration { return r.firstWay + time.Duration(r.sum/float64(r.ways)) }

// newWindow returns the window of a line that begins. Each line has its own: it may be another relay.
func newWindow() window { return window{w: firstWindow, slow: true} }

// size returns W in bytes. It is small until the first round trip is known: both ends begin at once, and would take the
// queues of each other's first data for the length of the way.
func (w *window) size() int {
	if w.min == 0 {
		return probeWindow
	}
	return w.w
}

// frame returns how many bytes a data frame may have: a small part of the window, so that what is urgent soon finds a
// border, and so that acknowledgements, one for two frames, come while there is still something on its way. With a
// quarter of the window instead, a line of 100 KB/s and 300 ms carried 80 % of what it could.
func (w *window) frame() int { return min(max(w.size()/frameParts, leastFrame), maxData) }

// may reports whether a frame of n bytes, with its header, may go while outstanding bytes are not acknowledged.
func (w *window) may(outstanding, n int) bool { return outstanding == 0 || outstanding+n <= w.size() }

// minRTT returns the smallest round trip of the line, 0 before the first one.
func (w *window) minRTT() time.Duration { return w.min }

// measured tells of the round trip of a ping.
func (w *window) measured(rtt time.Duration, now time.Time) {
	rtt = max(rtt, 1)
	if w.min == 0 {
		w.minAt = now
	}
	if w.min == 0 || rtt < w.min {
		w.min = rtt
	}
}

// due reports whether minRTT is to be measured anew. After a change of the way under the line, the old one would keep
// the window too small for ever. The clocks of the ends drift apart as well, by up to 60 ms in this time.
func (w *window) due(now time.Time) bool {
	return w.before == 0 && w.min != 0 && now.Sub(w.minAt) >= remeasureGap
}

// round ends a round trip and adapts W. One without an acknowledgement says nothing.
func (w *window) round(r round, now time.Time) {
	if r.ways == 0 {
		return
	}
	if w.before != 0 { // it went with a small window: what it saw is the line alone
		w.min, w.minAt, w.way, w.w, w.before = max(r.smallest, 1), now, r.nearest, w.before, 0
		return
	}
	w.measured(r.smallest, now)
	if !w.hasWay || r.nearest < w.way {
		w.way, w.hasWay = r.nearest, true
	}
	w.adapt(w.queued(r), r.limited)
	if w.due(now) {
		w.before, w.w = w.w, probeWindow
	}
}

// queued returns how long the frames of r waited in queues on their way there. The round trip alone would not tell it
// from the queue of the other direction, in which the acknowledgements wait: then a download that begins during an
// upload would see the queue of the upload, and never get more than 1 % of its own direction. The way there alone
// depends on the peer's clock, and on jitter. The smaller of both has neither fault.
func (w *window) queued(r round) time.Duration {
	return max(min(r.smallest-w.min, r.mean()-w.way), 0)
}

// adapt brings W nearer to what holds a queue of queueTarget. Growth is bounded by the same factor as shrinking:
// without it W would pass the target by an eighth of the round trip each time, 40 ms of a line of 300 ms.
func (w *window) adapt(q time.Duration, limited bool) {
	// In float64: bytes times nanoseconds overflows 64 bits.
	factor := float64(w.min+queueTarget) / float64(w.min+q)
	switch {
	case q > queueTarget:
		w.slow = false
	case !limited:
		return
	case w.slow && q <= queueBegun:
		factor = 2
	default:
		factor = min(factor, 1+1./8)
	}
	w.w = min(max(int(float64(w.w)*factor), leastWindow), largestWindow)
}
