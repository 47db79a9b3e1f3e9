package mux

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/transport"
	"hawser/transport/wire"
)

// holding faces a Runtime that lets nobody in before it is told to.
func holding(t *testing.T, there, back *path) (manager, runtime *Mux) {
	t.Helper()
	a, b := newEnds(there, back)
	m, r := config(wire.RoleManager), config(wire.RoleRuntime)
	m.Hello = Hello{List: 7, Statements: []string{"user", "key"}}
	r.Hello, r.Hold = Hello{List: 5, Device: 3, Statements: []string{"device", "key"}}, true
	manager, runtime = Start(a, m), Start(b, r)
	t.Cleanup(func() {
		manager.Close()
		runtime.Close()
	})
	return manager, runtime
}

func TestBothEndsLearnWhatTheOtherSaysOfItsOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		manager, runtime := holding(t, newPath(0, time.Millisecond), newPath(0, time.Millisecond))
		got, err := runtime.Peer(t.Context())
		if err != nil || got.List != 7 || got.Device != 0 || !slices.Equal(got.Statements, []string{"user", "key"}) {
			t.Errorf("the Runtime was told %+v, %v", got, err)
		}
		if got, err = manager.Peer(t.Context()); err != nil || got.List != 5 || got.Device != 3 || len(got.Statements) != 2 {
			t.Errorf("the Manager was told %+v, %v", got, err)
		}
		// Both ways at once, more than a frame holds, and nothing.
		for _, news := range []string{strings.Repeat("n", 60<<10), strings.Repeat("w", maxPiece), ""} {
			if err := manager.Tell([]byte(news)); err != nil {
				t.Fatal(err)
			}
			if got, err := runtime.Told(t.Context()); err != nil || string(got) != news {
				t.Errorf("%d bytes of %d came, %v", len(got), len(news), err)
			}
		}
		runtime.Tell([]byte("back"))
		if got, err := manager.Told(t.Context()); err != nil || string(got) != "back" {
			t.Errorf("%q, %v", got, err)
		}
		if err := manager.Tell(make([]byte, maxNewsBytes+1)); transport.ReasonOf(err) != transport.Protocol {
			t.Errorf("more than a line carries: %v", err)
		}
	})
}

// What a Manager opens with its first bytes waits for the Runtime's judgement, and costs no further round trip.
func TestAHeldManagerIsLetInByOneFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const leg = 100 * time.Millisecond
		begin := time.Now()
		manager, runtime := holding(t, newPath(0, leg), newPath(0, leg))
		opened := make(chan *Stream, 1)
		go func() {
			s, _ := manager.Open(t.Context(), Open{Service: wire.ServiceTCP, Target: "192.0.2.7:502"})
			opened <- s
		}()
		if _, err := runtime.Peer(t.Context()); err != nil {
			t.Fatal(err)
		}
		runtime.Admit()
		runtime.Admit() // once is enough
		s, err := runtime.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.Grant()
		if <-opened == nil || time.Since(begin) != 2*leg {
			t.Errorf("opened after %v", time.Since(begin))
		}
		if err := manager.Ready(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Who is not let in yet has few streams: what they may send is promised from what all sessions share.
func TestAHeldManagerHasFewStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		manager, runtime := holding(t, newPath(0, time.Millisecond), newPath(0, time.Millisecond))
		refused := make(chan error, 2*heldStreams)
		for range 2 * heldStreams {
			go func() {
				_, err := manager.Open(t.Context(), Open{Service: wire.ServiceTCP, Target: "192.0.2.7:502"})
				refused <- err
			}()
		}
		synctest.Wait()
		time.Sleep(time.Second)
		if n := runtime.Streams(); n != heldStreams || len(refused) != heldStreams {
			t.Errorf("%d streams, %d refused", n, len(refused))
		}
		for len(refused) > 0 {
			if err := <-refused; transport.ReasonOf(err) != transport.Busy {
				t.Errorf("refused with %v", err)
			}
		}
		manager.Close()
	})
}

func TestAHeldManagerIsToldWhyHeIsNotLetIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		manager, runtime := holding(t, newPath(0, time.Millisecond), newPath(0, time.Millisecond))
		if _, err := runtime.Peer(t.Context()); err != nil {
			t.Fatal(err)
		}
		runtime.Refuse(&wire.Refusal{Reason: transport.NotStated, Text: "ann is nobody here"})
		err := manager.Ready(t.Context())
		if transport.ReasonOf(err) != transport.NotStated || !strings.Contains(err.Error(), "ann is nobody here") {
			t.Errorf("the Manager was told %v", err)
		}
		if _, err := runtime.Accept(t.Context()); transport.ReasonOf(err) != transport.NotStated {
			t.Errorf("and the Runtime has %v", err)
		}
	})
}

func TestARuntimeThatNeverAnswersIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		manager, _ := holding(t, newPath(0, time.Millisecond), newPath(0, time.Millisecond))
		if err := manager.Ready(t.Context()); transport.ReasonOf(err) != transport.Timeout {
			t.Errorf("ready: %v", err)
		}
	})
}
