package session

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hawser/transport"
	"hawser/transport/mux"
	"hawser/transport/wire"
)

// wantEnd waits for the end of a session and wants it by a reason, within so long.
func wantEnd(t *testing.T, s *Session, why transport.Reason, within time.Duration) {
	t.Helper()
	begin := time.Now()
	<-s.Done()
	if got := transport.ReasonOf(s.Err()); got != why || time.Since(begin) > within {
		t.Errorf("ended with %v after %v, want %s within %v", s.Err(), time.Since(begin), why, within)
	}
}

func TestOrderlyCloseIsReasonClosed(t *testing.T) {
	for _, first := range []string{"runtime", "manager"} {
		synctest.Test(t, func(t *testing.T) {
			runtime, manager := newSite(t).up(nil)
			ends := map[string][2]*Session{"runtime": {runtime, manager}, "manager": {manager, runtime}}[first]
			if err := ends[0].Close(); err != nil {
				t.Error(err)
			}
			wantEnd(t, ends[0], transport.Closed, 0)
			wantEnd(t, ends[1], transport.Closed, 0)
			if _, err := runtime.Accept(t.Context()); transport.ReasonOf(err) != transport.Closed {
				t.Errorf("accept: %v", err)
			}
			if _, err := manager.Open(t.Context(), mux.Open{}); transport.ReasonOf(err) != transport.Closed {
				t.Errorf("open: %v", err)
			}
			if err := ends[0].Close(); err != nil {
				t.Errorf("closed twice: %v", err)
			}
		})
	}
}

func TestCloseAmidstDataIsReasonClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		runtime, manager := s.up(func(st *mux.Stream, _ mux.Open) {
			st.Grant()
			for err := error(nil); err == nil; {
				_, err = st.Write(make([]byte, 100<<10))
			}
		})
		if _, err := manager.Open(t.Context(), mux.Open{Service: wire.ServicePing}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		runtime.Close()
		wantEnd(t, runtime, transport.Closed, time.Second)
		wantEnd(t, manager, transport.Closed, time.Second)
	})
}

func TestLostLinkIsNoticedByBothEndsWithin10s(t *testing.T) {
	for _, idle := range []time.Duration{0, 3900 * time.Millisecond, 4 * time.Second, time.Minute + 1} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			runtime, manager := s.up(nil)
			time.Sleep(idle)
			s.net.Stall(managerAddr, relayAddr)
			died := time.Now()
			wantEnd(t, manager, transport.LinkLost, silence)
			wantEnd(t, runtime, transport.LinkLost, silence-time.Since(died))
			s.net.Heal(managerAddr, relayAddr)
		})
	}
}

func TestDeadRelayIsALostLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		runtime, manager := s.up(nil)
		s.net.Cut(managerAddr, relayAddr)
		wantEnd(t, manager, transport.LinkLost, 0)
		wantEnd(t, runtime, transport.LinkLost, 0)
	})
}

func TestLinkThatIsBackInTimeIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		runtime, manager := s.up(echo)
		for range 20 {
			s.net.Stall(managerAddr, relayAddr)
			time.Sleep(5 * time.Second)
			s.net.Heal(managerAddr, relayAddr)
			time.Sleep(time.Second)
		}
		alive(t, runtime, manager)
	})
}

func TestIdleSessionLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runtime, manager := newSite(t).up(echo)
		time.Sleep(time.Hour)
		alive(t, runtime, manager)
	})
}

// alive wants a session over which a stream can be opened.
func alive(t *testing.T, runtime, manager *Session) {
	t.Helper()
	stream, err := manager.Open(t.Context(), mux.Open{Service: wire.ServicePing})
	if err != nil {
		t.Fatalf("%v; runtime says %v", err, runtime.Err())
	}
	stream.Close()
}

func TestTamperedSessionAcceptsNothing(t *testing.T) {
	for name, tamper := range map[string]func([]byte) []byte{
		"flips":    func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"injects":  func(b []byte) []byte { return append([]byte{23, 3, 3, 0, 32, 31: 7, 36: 0}, b...) },
		"drops":    func(b []byte) []byte { return b[:len(b)/2] },
		"repeats":  func(b []byte) []byte { return append(append([]byte(nil), b...), b...) },
		"scribble": func(b []byte) []byte { clear(b); return b },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				accepted := make(chan int, 1)
				runtime, manager := s.up(func(st *mux.Stream, _ mux.Open) {
					st.Grant()
					n, _ := st.Read(make([]byte, 100))
					accepted <- n
				})
				stream, err := manager.Open(t.Context(), mux.Open{Service: wire.ServicePing})
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				s.relay.Tamper = func(toRuntime bool, b []byte) []byte {
					if toRuntime && len(b) > 0 {
						return tamper(b)
					}
					return b
				}
				stream.Write([]byte("set valve 1"))
				<-runtime.Done()
				// A record that came whole before the repetition is good.
				if n := <-accepted; n != 0 && name != "repeats" {
					t.Errorf("%d bytes were accepted", n)
				}
				if why := transport.ReasonOf(runtime.Err()); why != transport.LinkLost {
					t.Errorf("ended with %v", runtime.Err())
				}
				<-manager.Done()
			})
		})
	}
}

func TestTruncatedSessionIsNotAnOrderlyEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		runtime, manager := s.up(echo)
		stream, err := manager.Open(t.Context(), mux.Open{Service: wire.ServicePing})
		if err != nil {
			t.Fatal(err)
		}
		s.net.Cut(runtimeAddr, relayAddr)
		if n, err := stream.Read(make([]byte, 1)); n != 0 || transport.ReasonOf(err) != transport.LinkLost {
			t.Errorf("a stream that was cut reads as %d, %v", n, err)
		}
		wantEnd(t, manager, transport.LinkLost, 0)
		wantEnd(t, runtime, transport.LinkLost, 0)
	})
}

func TestSlowLinkWithBulkDataIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		runtime, manager := s.up(echo)
		s.net.SetLatency(2 * time.Second) // per hop: 8 s there and back
		stream, err := manager.Open(t.Context(), mux.Open{Service: wire.ServicePing})
		if err != nil {
			t.Fatal(err)
		}
		var sending sync.WaitGroup
		sending.Go(func() {
			for range 128 {
				stream.Write(make([]byte, (16 << 10)))
				time.Sleep(time.Second)
			}
			stream.CloseWrite()
		})
		if n, err := io.Copy(io.Discard, struct{ io.Reader }{stream}); n != 128*(16<<10) || err != nil {
			t.Errorf("%d bytes came back, %v", n, err)
		}
		sending.Wait()
		time.Sleep(time.Minute)
		alive(t, runtime, manager)
	})
}

func TestOpenHonoursItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		_, manager := s.up(func(*mux.Stream, mux.Open) {}) // accepts and never answers
		for _, stalled := range []bool{false, true} {
			if stalled {
				s.net.Stall(managerAddr, relayAddr)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			begin := time.Now()
			if _, err := manager.Open(ctx, mux.Open{}); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 3*time.Second {
				t.Errorf("stalled %v: got %v after %v", stalled, err, time.Since(begin))
			}
			cancel()
		}
		s.net.Heal(managerAddr, relayAddr)
	})
}

func TestOpenThatIsNeverAnsweredTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, manager := newSite(t).up(func(*mux.Stream, mux.Open) {})
		begin := time.Now()
		if _, err := manager.Open(t.Context(), mux.Open{}); transport.ReasonOf(err) != transport.Timeout || time.Since(begin) != 30*time.Second {
			t.Errorf("got %v after %v", err, time.Since(begin))
		}
	})
}
