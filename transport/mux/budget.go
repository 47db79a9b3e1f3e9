package mux

import (
	"sync"

	"hawser/internal/wait"
)

// Session §4.2 and §6, in bytes where nothing else is said.
const (
	sureShare    = 256 << 10 // a session can always keep so much
	leastSure    = 32 << 10  // two full frames: with less, a session of many would stand still
	firstCredit  = 64 << 10
	smallCredit  = 8 << 10
	manyStreams  = 32 // from so many on, the first credit is small
	leastGranted = 4 << 10

	// Each session is sure of 1/64 of the streams of a process, and a quarter is kept for that: a Runtime has 16 sessions
	// at most. Who opens all that there are leaves the others theirs.
	sureStreams = 64
	keptStreams = 4
)

// A Budget bounds what all sessions of a process hold together: frames that are kept until they are acknowledged, and
// credit that was promised (session §4.2). Only data waits for it. What does not wait, which is the first credit and
// frames of control, may exceed it; the limit of streams bounds that. Safe for concurrent use.
type Budget struct {
	lines sync.Pool // of *[LineBytes]byte
	total int

	mu struct {
		sync.Mutex
		sure     int                 // sum of the sure shares
		pooled   int                 // taken beyond the sure shares, and all credit
		promised int                 // all credit
		streams  int                 // open in the process
		waiting  map[*share]struct{} // refused, and not told since that there is room
	}
}

// LineBytes is the size of the buffers of Lend: sixteen full records of TLS 1.3, each with its header, type and tag.
const LineBytes = 16 * (5 + 16<<10 + 1 + 16)

// Lend lends a buffer for what one system call reads from a line or writes to it. Who has nothing to read or write any
// more gives it back with Return: the sessions of a process share few of them.
func (b *Budget) Lend() *[LineBytes]byte {
	if l, _ := b.lines.Get().(*[LineBytes]byte); l != nil {
		return l
	}
	return new([LineBytes]byte)
}

// Return takes a buffer of Lend back.
func (b *Budget) Return(l *[LineBytes]byte) { b.lines.Put(l) }

// NewBudget returns a budget of total bytes: 8 MiB at a Runtime, 64 MiB at a Manager.
func NewBudget(total int) *Budget {
	b := &Budget{total: total}
	b.mu.waiting = map[*share]struct{}{}
	return b
}

// Streams returns how many streams are open in the process.
func (b *Budget) Streams() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.streams
}

// A share is what one session holds of a Budget. Of what it keeps, the sure part cannot be taken by others. Credit
// never counts against that part: streams that nobody reads would else stop the session's own data in the other
// direction. Safe for concurrent use.
type share struct {
	b    *Budget
	bell wait.Bell
	sure int

	// Guarded by b.mu.
	kept, promised int
	streams        int // open
	want           int // the least that was refused, while it is in waiting
	left           bool
}

// join adds a session. The sure shares never add up to more than the total: when that comes near, those of new sessions
// are smaller.
func (b *Budget) join() *share {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &share{b: b, bell: wait.NewBell(), sure: min(sureShare, max(leastSure, (b.total-b.mu.sure)/2))}
	b.mu.sure += s.sure
	return s
}

// openStream counts a stream and returns its first credit, for which the share then promises. It is false when most
// streams are open in the process, or so many that the rest is for others; no positive most is no limit.
func (s *share) openStream(most int) (first int, ok bool) {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if all := s.b.mu.streams; most > 0 && (all >= most || all >= most-most/keptStreams && s.streams >= max(most/sureStreams, 1)) {
		return 0, false
	}
	s.streams++
	s.b.mu.streams++
	if s.b.mu.streams > manyStreams {
		return smallCredit, true
	}
	return firstCredit, true
}

// closeStream ends a stream of openStream.
func (s *share) closeStream() {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.streams--
	s.b.mu.streams--
}

// room returns what the pool has left, below zero when it is overdrawn.
func (b *Budget) room() int { return b.total - b.mu.sure - b.mu.pooled }

// crowded reports whether the process has many streams. Buffers for hundreds of them are small: what they hold in all is
// bounded, but not what the collector has yet to take of those that were read into.
func (s *share) crowded() bool {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	return s.b.mu.streams > manyStreams
}

// beyond returns how many bytes of the pool the share takes more if it keeps n more.
func (s *share) beyond(n int) int { return max(s.kept+n-s.sure, 0) - max(s.kept-s.sure, 0) }

// tryTake takes n bytes for a frame of data that will be kept. When it is false, freed tells when to ask again.
func (s *share) tryTake(n int) bool {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if s.left {
		return false
	}
	if !s.fits(n) {
		// Several streams of a session may be refused; the one that wants least can go first.
		if _, ok := s.b.mu.waiting[s]; !ok || n < s.want {
			s.want = n
		}
		s.b.mu.waiting[s] = struct{}{}
		return false
	}
	s.keep(n)
	return true
}

// fits reports whether n bytes can be kept without exceeding the total.
func (s *share) fits(n int) bool {
	more := s.beyond(n)
	return more == 0 || more <= s.b.room()
}

// keep adds n, of either sign, to what the share keeps. It has left: there is nothing any more that counts.
func (s *share) keep(n int) {
	if s.left {
		return
	}
	s.b.mu.pooled += s.beyond(n)
	s.kept += n
}

// take takes n bytes for a frame that waits for nothing: control.
func (s *share) take(n int) {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.keep(n)
}

// give gives back n bytes of tryTake or take.
func (s *share) give(n int) {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.keep(-n)
	s.b.wake()
}

// promise takes n bytes for the first credit of a stream, which waits for nothing.
func (s *share) promise(n int) {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.owe(n)
}

func (s *share) owe(n int) {
	if s.left {
		return
	}
	s.promised += n
	s.b.mu.promised += n
	s.b.mu.pooled += n
}

// grow takes up to want bytes for a larger window of a stream and returns how many. All credit together gets half of
// the total, and one request half of what is left of that: a promise stays for as long as its stream, so what is
// promised to the first ones must not stop the data of the others.
func (s *share) grow(want int) int {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	n := min(want, (s.b.total/2-s.b.mu.promised)/2, s.b.room()/2)
	if s.left || n < min(want, leastGranted) {
		return 0
	}
	s.owe(n)
	return n
}

// release gives back n bytes of promise or grow.
func (s *share) release(n int) {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.owe(-n)
	s.b.wake()
}

// freed is received from after tryTake was false: it rings when what was asked for fits, though another may be quicker.
// It is for one waiter.
func (s *share) freed() <-chan struct{} { return s.bell }

// wake rings those who were refused and now fit, each of them once for each refusal. All of them: one that was rung
// alone might have nothing left to send, and the others would never hear of it.
func (b *Budget) wake() {
	for s := range b.mu.waiting {
		if s.fits(s.want) {
			delete(b.mu.waiting, s)
			s.bell.Ring()
		}
	}
}

// leave gives back all that the session holds, its sure share too. After it nothing is taken, granted or given back.
func (s *share) leave() {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if s.left {
		return
	}
	s.keep(-s.kept)
	s.owe(-s.promised)
	s.b.mu.sure -= s.sure
	s.left = true
	delete(s.b.mu.waiting, s)
	s.b.wake()
}
