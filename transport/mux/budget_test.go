package mux

import (
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// held is what all sessions hold together.
func (b *Budget) held(shares ...*share) (n int) {
	for _, s := range shares {
		n += s.kept + s.promised
	}
	return n
}

// rung reports whether the share was told that there is room, and hears it.
func (s *share) rung() bool {
	select {
	case <-s.freed():
		return true
	default:
		return false
	}
}

func TestSureShareCannotBeTaken(t *testing.T) {
	b := NewBudget(8 << 20)
	greedy, other := b.join(), b.join()
	for greedy.tryTake(16 << 10) {
	}
	if want := 8<<20 - sureShare; greedy.kept != want {
		t.Errorf("one session keeps %d, want %d", greedy.kept, want)
	}
	for range sureShare / (16 << 10) {
		if !other.tryTake(16 << 10) {
			t.Fatalf("the other is refused with %d kept", other.kept)
		}
	}
	if other.tryTake(1) || b.held(greedy, other) != 8<<20 {
		t.Errorf("%d bytes held", b.held(greedy, other))
	}
}

// Streams that nobody reads must not stop the data of their session in the other direction.
func TestCreditDoesNotTouchTheSureShare(t *testing.T) {
	b := NewBudget(1 << 20)
	s := b.join()
	for range 100 {
		s.promise(firstCredit)
	}
	if !s.tryTake(sureShare) || s.tryTake(1) {
		t.Errorf("keeps %d with all of the budget promised", s.kept)
	}
}

func TestGrowthLeavesHalfOfTheBudgetToData(t *testing.T) {
	b := NewBudget(8 << 20)
	s := b.join()
	if n := s.grow(100 << 20); n != 2<<20 {
		t.Errorf("the first asks for all and gets %d, want half of the half", n)
	}
	for range 100 {
		s.grow(100 << 20)
	}
	if n := s.promised; n > 4<<20 || n < 4<<20-2*leastGranted {
		t.Errorf("promised %d", n)
	}
	if n := s.grow(1); n != 1 {
		t.Errorf("one byte of the rest: %d", n)
	}
	if !s.tryTake(4<<20 - maxData) {
		t.Error("data does not get the other half")
	}
	s.release(s.promised)
	if n := s.grow(64 << 10); n != 64<<10 {
		t.Errorf("after the release: %d", n)
	}
}

func TestControlWaitsForNothing(t *testing.T) {
	b := NewBudget(1 << 20)
	s := b.join()
	s.take(2 << 20)
	if s.tryTake(1) || s.grow(1) != 0 {
		t.Error("data and growth go beyond the budget")
	}
	s.give(2 << 20)
	if !s.tryTake(1<<20) || b.held(s) != 1<<20 {
		t.Errorf("keeps %d", s.kept)
	}
}

func TestLaterSessionsAreSureOfLess(t *testing.T) {
	b := NewBudget(1 << 20)
	var shares []*share
	for i, want := range []int{256, 256, 256, 128, 64, 32, 32, 32} {
		shares = append(shares, b.join())
		if got := shares[i].sure >> 10; got != want {
			t.Errorf("session %d is sure of %d KiB, want %d", i, got, want)
		}
	}
	for _, s := range shares {
		if !s.tryTake(maxData + headerBytes) {
			t.Error("a session cannot keep one frame")
		}
		s.leave()
	}
	if s := b.join(); !s.tryTake(1 << 20) {
		t.Error("those who left have kept something")
	}
}

func TestBellRingsWhenThereIsRoom(t *testing.T) {
	b := NewBudget(1 << 20)
	s, small, large := b.join(), b.join(), b.join()
	s.take(4 << 20)
	small.take(sureShare)
	large.take(sureShare)
	if small.tryTake(300<<10) || small.tryTake(1000) || small.tryTake(400<<10) || large.tryTake(200<<10) {
		t.Fatal("they are not refused")
	}
	s.give(100)
	if small.rung() || large.rung() {
		t.Error("rung while there is no room")
	}
	s.give(4<<20 - 100 - sureShare - 100<<10)
	if !small.rung() || large.rung() {
		t.Error("only the small one fits")
	}
	s.give(1000)
	if small.rung() {
		t.Error("rung twice for one refusal")
	}
	s.leave()
	if !large.rung() || !large.tryTake(200<<10) {
		t.Error("not rung when a session left")
	}
	large.release(0)
	if large.rung() || small.rung() {
		t.Error("rung without a refusal")
	}
}

func TestShareThatHasLeftTakesNothing(t *testing.T) {
	b := NewBudget(1 << 20)
	s, other := b.join(), b.join()
	s.take(100)
	s.promise(100)
	s.leave()
	s.leave()
	s.give(100)
	s.release(100)
	s.take(100)
	s.promise(100)
	if s.tryTake(1) || s.grow(1) != 0 || b.held(s) != 0 {
		t.Errorf("%d bytes held", b.held(s))
	}
	if !other.tryTake(1 << 20) {
		t.Error("something is missing from the budget")
	}
}

func TestFirstCreditIsSmallWithManyStreams(t *testing.T) {
	s := NewBudget(8 << 20).join()
	for i := range 512 {
		want := 64 << 10
		if i >= 32 {
			want = 8 << 10
		}
		if first, ok := s.openStream(0); !ok || first != want {
			t.Fatalf("stream %d: %d, %v", i, first, ok)
		}
	}
}

// The quarter that is kept is for somebody, however few streams there are.
func TestFewStreamsAreAllOfUse(t *testing.T) {
	for _, most := range []int{1, 16, 40, 63} {
		b, n := NewBudget(8<<20), 0
		for range 16 { // sessions
			for s := b.join(); ; n++ {
				if _, ok := s.openStream(most); !ok {
					break
				}
			}
		}
		if n != most {
			t.Errorf("of %d streams %d can be opened", most, n)
		}
	}
}

func TestEachSessionIsSureOfStreams(t *testing.T) {
	b := NewBudget(8 << 20)
	all := func(s *share) (n int) {
		for {
			if _, ok := s.openStream(512); !ok {
				return n
			}
			n++
		}
	}
	greedy := b.join()
	if n := all(greedy); n != 384 {
		t.Errorf("one session gets %d", n)
	}
	var others []*share
	for n := range 15 {
		others = append(others, b.join())
		if got := all(others[n]); got != 8 {
			t.Errorf("session %d after it gets %d", n, got)
		}
	}
	others[0].closeStream()
	if n := all(greedy); n != 0 {
		t.Error("what one of them ends goes to the greedy session")
	}
	if n := all(others[0]); n != 1 || b.Streams() != 504 {
		t.Errorf("what it has ended it gets again: %d; %d open", n, b.Streams())
	}
	last := b.join()
	if n := all(last); n != 8 {
		t.Errorf("one more gets %d", n)
	}
	if n := all(b.join()); n != 0 || b.Streams() != 512 {
		t.Errorf("when there are none: %d of %d", n, b.Streams())
	}
}

// Whatever sessions do, the total is exceeded by no more than what does not wait, and by the sure shares of those who
// came when it was full.
func TestTotalHolds(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		b := NewBudget(1<<20 + rnd.IntN(8<<20))
		shares := []*share{b.join(), b.join(), b.join()}
		free := map[*share]int{} // taken without waiting
		late := 0                // sure shares of those who came later
		for range 2000 {
			s := shares[rnd.IntN(len(shares))]
			switch rnd.IntN(8) {
			case 0, 1, 2:
				s.tryTake(rnd.IntN(maxData) + 64)
			case 3:
				s.give(min(s.kept, rnd.IntN(64<<10)))
			case 4:
				s.grow(rnd.IntN(1 << 20))
			case 5:
				s.release(min(s.promised, rnd.IntN(256<<10)))
			case 6:
				n := rnd.IntN(8 << 10)
				free[s] += n
				s.promise(n)
			case 7:
				if len(shares) < 6 && rnd.IntN(20) == 0 {
					shares = append(shares, b.join())
					late += shares[len(shares)-1].sure
				} else {
					n := rnd.IntN(100)
					free[s] += n
					s.take(n)
				}
			}
			over := late
			pooled, promised := 0, 0
			for _, s := range shares {
				over += free[s]
				pooled += max(s.kept-s.sure, 0) + s.promised
				promised += s.promised
			}
			if held := b.held(shares...); held > b.total+over {
				t.Fatalf("seed %d: %d held of %d, %d beyond it allowed", seed, held, b.total, over)
			}
			if pooled != b.mu.pooled || promised != b.mu.promised {
				t.Fatalf("seed %d: counted %d, %d; it is %d, %d", seed, b.mu.pooled, b.mu.promised, pooled, promised)
			}
		}
		for _, s := range shares {
			s.leave()
		}
		if b.mu.pooled != 0 || b.mu.sure != 0 || b.mu.promised != 0 || len(b.mu.waiting) != 0 {
			t.Fatalf("seed %d: all have left, and %+v remains", seed, &b.mu)
		}
	}
}

// Sessions that wait for each other's frames all come to their end: a wake-up that is lost would leave one asleep, and
// the bubble says so.
func TestNobodySleepsForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(512 << 10)
		var wg sync.WaitGroup
		for range 8 {
			s := b.join()
			wg.Go(func() {
				acks := make(chan int, 1000)
				var acker sync.WaitGroup
				acker.Go(func() {
					for n := range acks {
						s.give(n)
					}
				})
				for i := range 500 {
					n := 64 + (i*7919)%maxData
					for !s.tryTake(n) {
						<-s.freed()
					}
					acks <- n
				}
				close(acks)
				acker.Wait()
				s.leave()
			})
		}
		wg.Wait()
	})
}

// A train may weigh more than what a session is sure of: then a frame goes, or nothing ever would.
func TestATrainThatDoesNotFitGoesAsAFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, newPath(0, time.Millisecond), newPath(0, time.Millisecond), echo)
		s := p.open()
		greedy := p.manager.config.Budget.join()
		for _, n := range []int{weightOf(maxData), 1} {
			for greedy.tryTake(n) {
			}
		}
		p.manager.mu.Lock()
		p.manager.out.window = window{w: largestWindow, min: time.Millisecond, minAt: time.Now()}
		s.send.allowance.until = 1 << 30
		p.manager.mu.Unlock()
		if n, _, err := s.tryReserve(trainFrames * maxData); n != maxData || err != nil {
			t.Errorf("%d bytes, %v; want %d", n, err, maxData)
		}
		p.manager.Close()
	})
}
