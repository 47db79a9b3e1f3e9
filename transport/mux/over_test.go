package mux

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/transport"
)

// What comes after a session has ended comes behind what was discarded: a machine must not get it.
func TestDataBehindTheEndOfASessionIsNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRaw(t, "runtime")
		r.greet()
		r.say(0x81, 1, `{"service":"tcp","target":"192.0.2.7:502","credit":65536}`)
		s, err := r.m.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.Grant()
		r.say(0x84, 1, "first")
		time.Sleep(time.Second)
		synctest.Wait()
		r.m.end(&transport.Error{Reason: transport.Locked, Op: "serve session"})
		r.say(0x84, 1, "second")
		time.Sleep(time.Second)
		synctest.Wait()
		if b, err := io.ReadAll(s); len(b) > 0 || transport.ReasonOf(err) != transport.Locked {
			t.Errorf("%q, %v, want nothing and locked", b, err)
		}
	})
}

// The number of streams is that of the process: a session must not keep those that nobody had accepted when it ended.
func TestAnEndedSessionHasNoStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRaw(t, "runtime")
		r.greet()
		for i := range uint32(3) {
			r.say(0x81, 1+i, `{"service":"tcp","target":"192.0.2.7:502","credit":65536}`)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		budget := r.m.config.Budget
		if n := budget.Streams(); n != 3 {
			t.Fatalf("%d streams, want 3", n)
		}
		r.say(0x88, 0, `{"reason":"closed"}`)
		<-r.m.Done()
		r.m.Close()
		if n := budget.Streams(); n != 0 {
			t.Errorf("%d streams are left in the process", n)
		}
	})
}

// A goroutine may close a stream on which another one waits for what it will send.
func TestNothingIsSentBehindAFin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, newPath(0, time.Millisecond), newPath(0, time.Millisecond), func(s *Stream) {
			s.CloseWrite()
			io.Copy(io.Discard, s)
			s.Close()
		})
		s := p.open()
		machine, in := io.Pipe()
		sent := make(chan int64, 1)
		go func() {
			n, _ := s.ReadFrom(machine)
			sent <- n
		}()
		synctest.Wait()
		if _, err := s.Read(make([]byte, 1)); err != io.EOF {
			t.Fatal(err)
		}
		s.Close()
		synctest.Wait()
		in.Write([]byte("late"))
		in.Close()
		if n := <-sent; n != 0 {
			t.Errorf("%d bytes were sent on a closed stream", n)
		}
	})
}

// A buffer is its stream's as soon as the stream has it, which may use it for other bytes at once. So one with frames
// that are still to be read is kept back.
func TestABufferWithMoreFramesIsNotGivenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRaw(t, "runtime")
		r.greet()
		for i := range uint32(2) {
			r.say(0x81, 1+i, `{"service":"tcp","target":"192.0.2.7:502","credit":65536}`)
		}
		for range 2 {
			s, err := r.m.Accept(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			s.Grant()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		c := r.m.pool.get(largeBytes)
		frames := appendFrame(nil, typeData, 1, []byte(strings.Repeat("a", 9000)))
		frames = appendFrame(frames, typeData, 2, []byte(strings.Repeat("b", 7000)))
		if kept, err := r.m.feed(c, c.b[:copy(c.b, frames)]); kept || err != nil {
			t.Errorf("kept: %v, %v", kept, err)
		}
		if kept, err := r.m.feed(c, c.b[:copy(c.b, frames[:9008])]); !kept || err != nil {
			t.Errorf("kept: %v, %v, though nothing follows", kept, err)
		}
	})
}

// While bytes come as fast as they are read, nothing waits; what is noted of them is bounded all the same.
func TestFramesOfNothingCostBoundedMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRaw(t, "runtime")
		r.greet()
		r.say(0x81, 1, `{"service":"tcp","target":"192.0.2.7:502","credit":65536}`)
		s, err := r.m.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.Grant()
		synctest.Wait()
		empty := appendFrame(nil, typeData, 1, nil)
		for range 10 * maxStreams {
			if _, err := r.m.feed(nil, empty); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(r.m.in.touched); n > maxStreams {
			t.Errorf("%d streams are noted, want at most %d", n, maxStreams)
		}
	})
}

// A peer that gives credit again and again makes a stream ask the budget as often.
func TestAStreamIsHungryOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRaw(t, "manager")
		r.greet()
		go func() {
			r.hear(0x81)
			r.say(0x82, 1, `{"credit":4096}`)
		}()
		s, err := r.m.Open(t.Context(), Open{Service: "tcp", Target: "192.0.2.7:502"})
		if err != nil {
			t.Fatal(err)
		}
		for r.m.share.tryTake(1000) {
		}
		go s.Write(make([]byte, 2000))
		for i := range 100 {
			synctest.Wait()
			if _, err := r.m.feed(nil, appendFrame(nil, typeCredit, 1, appendUint64(nil, uint64(5000+i)))); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		r.m.mu.Lock()
		defer r.m.mu.Unlock()
		if n := len(r.m.out.hungry); n != 1 {
			t.Errorf("noted %d times, want once", n)
		}
	})
}

// A peer that sends its hello a byte at a time keeps a line, and nobody waiting.
func TestReadyEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRaw(t, "manager")
		go func() {
			for _, c := range appendFrame(nil, typeHello, 0, make([]byte, 100)) {
				r.line.Write([]byte{c})
				r.line.Flush()
				time.Sleep(silence / 2)
			}
		}()
		began := time.Now()
		err := r.m.Ready(t.Context())
		if took := time.Since(began); transport.ReasonOf(err) != transport.Timeout || took != readyTimeout {
			t.Errorf("%v after %v", err, took)
		}
		time.Sleep(10 * time.Minute)
	})
}
