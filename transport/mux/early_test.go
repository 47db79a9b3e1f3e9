package mux

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/transport"
	"hawser/transport/wire"
)

const farAway = 50 * time.Millisecond // one way

// asking is a Manager whose stream nobody has answered, at the other end of a line of which the round trip is known.
func asking(t *testing.T, role func(*Stream)) (s *Stream, there *path) {
	t.Helper()
	there, back := newPath(0, farAway), newPath(0, farAway)
	a, b := newEnds(there, back)
	manager, runtime := Start(a, config(wire.RoleManager)), Start(b, config(wire.RoleRuntime))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if s, err := runtime.Accept(t.Context()); err == nil {
			role(s)
		}
	}()
	t.Cleanup(func() {
		manager.Close()
		runtime.Close()
		<-done
	})
	time.Sleep(4 * farAway)
	s, err := manager.Ask(Open{Service: wire.ServiceTCP, Target: "192.0.2.7:502"})
	if err != nil {
		t.Fatal(err)
	}
	return s, there
}

// A tool that speaks first has its answer after one round trip.
func TestEarlyDataSavesARoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := asking(t, func(s *Stream) {
			s.Grant()
			echo(s)
		})
		began := time.Now()
		question := strings.Repeat("x", EarlyBytes)
		if _, err := s.Write([]byte(question)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("early data waited for %v", took)
		}
		answer := make([]byte, len(question))
		if _, err := io.ReadFull(s, answer); err != nil || string(answer) != question {
			t.Errorf("%d bytes came back, %v", len(answer), err)
		}
		if took := time.Since(began); took > 2*farAway+time.Millisecond {
			t.Errorf("the answer took %v, want one round trip", took)
		}
		if err := s.Await(t.Context()); err != nil {
			t.Error(err)
		}
		s.CloseWrite()
		io.Copy(io.Discard, s)
		s.Close()
	})
}

func TestMoreThanEarlyDataWaitsForTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var granted time.Time
		s, _ := asking(t, func(s *Stream) {
			time.Sleep(3 * time.Second) // a machine that is slow to connect
			granted = time.Now()
			s.Grant()
			echo(s)
		})
		if _, err := s.Write(make([]byte, EarlyBytes+1)); err != nil || !time.Now().After(granted) {
			t.Errorf("%v, before the answer: %v", err, !time.Now().After(granted))
		}
		s.Close()
	})
}

// What is refused was never read by anybody, and nothing of it is left.
func TestEarlyDataOfARefusedStreamIsDiscarded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked *Stream
		s, _ := asking(t, func(s *Stream) {
			asked = s
			time.Sleep(time.Second)
			s.Refuse(transport.Policy, "not this one")
		})
		s.Write([]byte("start the press"))
		err := s.Await(t.Context())
		if r, ok := errors.AsType[*wire.Refusal](err); !ok || r.Reason != transport.Policy {
			t.Errorf("got %v", err)
		}
		if _, err := io.ReadAll(asked); err == nil {
			t.Error("a stream that was refused can be read")
		}
		asked.m.mu.Lock()
		defer asked.m.mu.Unlock()
		if n := asked.m.share.promised; n != 0 {
			t.Errorf("%d bytes are still promised", n)
		}
	})
}

// On a line that may be gone nothing is said that cannot be said again.
func TestNoEarlyDataWhileAnAnswerIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, there := asking(t, func(s *Stream) { s.Grant() })
		there.mu.Lock()
		there.free = time.Now().Add(time.Hour) // nothing more arrives
		there.mu.Unlock()
		other, err := s.m.Ask(Open{Service: wire.ServiceTCP, Target: "192.0.2.7:502"})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2*2*farAway + earlyPatience + 10*time.Millisecond)
		before := s.m.Counts().Out
		if n, err := other.Write([]byte("x")); n > 0 || err == nil {
			t.Errorf("%d bytes went, %v", n, err)
		}
		if sent := s.m.Counts().Out - before; sent > 0 {
			t.Errorf("%d bytes were queued", sent)
		}
	})
}
