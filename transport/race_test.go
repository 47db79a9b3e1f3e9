package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/internal/memnet"
)

const ms = time.Millisecond

func TestOneOpenPortOfThreeIsFound(t *testing.T) {
	ports := []uint16{443, 5935, 80}
	for open := range ports {
		for mask := range 4 {
			verdicts, want, name := map[uint16]memnet.Verdict{}, time.Duration(0), fmt.Sprint(ports[open])
			for i, p := range ports {
				if i == open {
					continue
				}
				verdicts[p] = memnet.Reject
				if mask&1 != 0 {
					verdicts[p] = memnet.Drop
				}
				mask >>= 1
				name += fmt.Sprintf(" %d:%d", p, verdicts[p])
				if i < open && verdicts[p] == memnet.Drop {
					want += 250 * ms
				}
			}
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newSite(t)
					s.serveTLS(ports...)
					s.block(verdicts)
					s.dial(ports[open], want)
				})
			})
		}
	}
}

func TestSecondAddressIsTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serveTLS(443)
		s.d.Resolve = func(context.Context, string) ([]netip.Addr, error) {
			return addrs("2001:db8::1", "192.0.2.1"), nil // the client has no IPv6
		}
		s.dial(443, 0)
	})
}

func TestNothingOpenGivesEveryReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serve(80, say("HTTP/1.1 400 Bad Request\r\n\r\n"))
		s.block(map[uint16]memnet.Verdict{443: memnet.Reject, 5935: memnet.Drop})
		traced := map[uint16]Reason{}
		s.d.Trace = func(a Attempt) { traced[a.Addr.Port()] = a.Reason }
		err := s.dial(0, 5*time.Second)
		want := map[uint16]Reason{443: Refused, 5935: Timeout, 80: PlainHTTP}
		if !reflect.DeepEqual(traced, want) || len(err.Attempts) != 3 || ReasonOf(err) != PlainHTTP {
			t.Errorf("got %v, %v, %s", traced, err, ReasonOf(err))
		}
		if text := err.Error(); !strings.HasPrefix(text, "no way to access.example; 192.0.2.1:443: refused; ") {
			t.Error(text)
		}
	})
}

func TestAtMostSixConnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.d.Resolve = func(context.Context, string) ([]netip.Addr, error) {
			return addrs("192.0.2.1", "192.0.2.2", "192.0.2.3"), nil
		}
		s.net.Firewall(func(netip.Addr, netip.AddrPort) memnet.Verdict { return memnet.Drop })
		err := s.dial(0, 10500*ms)
		var at []time.Duration
		for _, d := range s.dialled {
			at = append(at, d.at)
		}
		want := []time.Duration{0, 250 * ms, 500 * ms, 750 * ms, 1000 * ms, 1250 * ms, 5000 * ms, 5250 * ms, 5500 * ms}
		if !reflect.DeepEqual(at, want) || s.most != 6 || ReasonOf(err) != Timeout {
			t.Errorf("dialled at %v, %d at once; want %v, 6 at once: %v", at, s.most, want, err)
		}
	})
}

// A silent port gives up its place after 1.5 s, long before its time is over.
func TestAtMostTwoFreshHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		hellos := make(chan time.Duration, 6)
		for _, p := range DefaultPorts() {
			s.serve(uint16(p), func(c net.Conn) {
				if n, _ := c.Read(make([]byte, 1)); n > 0 {
					hellos <- time.Since(s.begin)
					silent(c)
				}
			})
		}
		// The small form of the first is beside them; those of the others wait for a place as well.
		s.dial(0, 2*slotTime+tlsTimeout)
		for _, want := range []time.Duration{0, 250 * ms, slotTime, slotTime, slotTime + 250*ms, 2 * slotTime} {
			if got := <-hellos; got != want {
				t.Errorf("a hello after %v, want %v", got, want)
			}
		}
	})
}

func TestPaceFollowsTheRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.net.SetLatency(400 * ms)
		s.serve(443, silent)
		s.d.Resolve = func(context.Context, string) ([]netip.Addr, error) { return addrs("192.0.2.1", "192.0.2.2"), nil }
		s.net.Firewall(func(_ netip.Addr, to netip.AddrPort) memnet.Verdict {
			if to.String() == "192.0.2.1:443" {
				return memnet.Pass
			}
			return memnet.Drop
		})
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		s.d.Dial(ctx, s.target)
		var at []time.Duration
		for _, d := range s.dialled {
			at = append(at, d.at)
		}
		// The first answer comes after 800 ms; from then on the step is 1.2 s. The small form of the silent one is beside it.
		want := []time.Duration{0, 250 * ms, 500 * ms, 750 * ms, 1000 * ms, 2200 * ms, 2300 * ms}
		if !reflect.DeepEqual(at, want) {
			t.Errorf("dialled at %v, want %v", at, want)
		}
	})
}

func TestPatienceDoublesUpToFourTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.target.Ports = []Port{443}
		s.serveTLS(443)
		s.block(map[uint16]memnet.Verdict{443: memnet.Drop})
		for _, want := range []time.Duration{5, 10, 20, 20} {
			s.dial(0, want*time.Second)
		}
		s.block(nil)
		s.dial(443, 0)
		s.block(map[uint16]memnet.Verdict{443: memnet.Drop})
		s.dial(0, 5*time.Second)
	})
}

func TestSlowHandshakeIsFoundWithPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.target.Ports = []Port{443}
		s.net.SetLatency(2400 * ms) // 4.8 s to connect, 4.8 s to shake hands
		s.serveTLS(443)
		s.dial(0, 8800*ms)
		s.dial(443, 9600*ms)
	})
}

func TestFailedCandidateRestsForTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serveTLS(443, 5935)
		s.block(map[uint16]memnet.Verdict{443: memnet.Reject})
		s.dial(5935, 0)
		s.block(nil)
		s.dial(5935, 0)
		if len(s.dialled) != 1 {
			t.Errorf("dialled %v, want 5935 alone", s.dialled)
		}
		time.Sleep(restTime)
		s.dial(443, 0)
	})
}

func TestClockThatIsSetBackEndsNoLongerRest(t *testing.T) {
	var m memory
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	c := Candidate{Host: "h", Addr: netip.MustParseAddrPort("192.0.2.1:443")}
	m.attempted(Attempt{Candidate: c, Reason: Refused}, now)
	if !m.resting(c, now.Add(restTime-1)) || m.resting(c, now.Add(restTime)) || m.resting(c, now.Add(-time.Hour)) {
		t.Error("a rest is not 10 min")
	}
	m.attempted(Attempt{Candidate: c}, now)
	if m.resting(c, now) {
		t.Error("a candidate that worked rests")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	var m memory
	for i := range 10 * maxMemory {
		m.attempted(Attempt{Candidate: Candidate{Host: fmt.Sprint(i), Addr: netip.MustParseAddrPort("192.0.2.1:443")}, Reason: Refused}, time.Now())
	}
	if len(m.bad) > maxMemory {
		t.Errorf("%d candidates are remembered", len(m.bad))
	}
}

func TestCancelReturnsAtOnceAndProvesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.target.Hosts = []string{"access.example", "slow.example"}
		s.d.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			if host == "slow.example" {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return []netip.Addr{serverAddr}, nil
		}
		s.serve(443, silent)
		s.serve(5935, silent)
		s.block(map[uint16]memnet.Verdict{80: memnet.Drop})
		ctx, cancel := context.WithTimeout(t.Context(), 600*ms)
		defer cancel()
		_, err := s.d.Dial(ctx, s.target)
		if time.Since(s.begin) != 600*ms || !errors.Is(err, context.DeadlineExceeded) || len(s.dialled) != 3 {
			t.Errorf("after %v: %v; dialled %v", time.Since(s.begin), err, s.dialled)
		}
		if len(s.d.memory.bad) != 0 || s.d.memory.patience() != 1 {
			t.Errorf("%v rest, patience %d", s.d.memory.bad, s.d.memory.patience())
		}
	})
}

func TestCancelledBeforeItBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.d.Dial(ctx, s.target); !errors.Is(err, context.Canceled) || len(s.dialled) != 0 {
			t.Errorf("%v; dialled %v", err, s.dialled)
		}
	})
}

func TestLosersAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.net.SetLatency(100 * ms) // 200 ms to connect, 200 ms to shake hands
		s.serve(443, silent)       // ends only when the client closes
		s.serveTLS(5935, 80)
		s.dial(5935, 650*ms)
	})
}
