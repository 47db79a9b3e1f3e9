package probe

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestAnswerIsKeptForItsTimeWithinLimits(t *testing.T) {
	tests := []struct {
		ttl  int
		kept time.Duration
	}{{0, minTTL}, {59, minTTL}, {300, 300 * time.Second}, {3600, maxTTL}, {86400, maxTTL}}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.ttl), func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.server("192.0.2.53", says(fmt.Sprintf("%%s %d A 203.0.113.7", tt.ttl)))
				r.resolve("access.example", 0, addr1)
				time.Sleep(tt.kept - time.Nanosecond)
				r.resolve("ACCESS.example.", 0, addr1)
				if n := r.asked.Load(); n != 2 {
					t.Errorf("%d questions before the end, want 2", n)
				}
				time.Sleep(time.Nanosecond)
				r.resolve("access.example", 0, addr1)
				if n := r.asked.Load(); n != 4 {
					t.Errorf("%d questions after the end, want 4", n)
				}
			})
		})
	}
}

func TestSmallestTimeOnTheWayCounts(t *testing.T) {
	bubble(t, func(r *rig) {
		r.server("192.0.2.53", chain(2)) // aliases 90 s, address 300 s
		r.resolve("access.example", 0, addr1)
		time.Sleep(90 * time.Second)
		r.resolve("access.example", 0, addr1)
		if n := r.asked.Load(); n != 4 {
			t.Errorf("%d questions, want 4", n)
		}
	})
}

func TestFailureIsKeptFor5SecondsDoublingTo5Minutes(t *testing.T) {
	bubble(t, func(r *rig) {
		r.server("192.0.2.53", code(dns.RcodeNameError))
		for i, kept := range []time.Duration{5, 10, 20, 40, 80, 160, 300, 300} {
			r.fail("access.example", 0, ReasonNXDomain)
			time.Sleep(kept*time.Second - time.Nanosecond)
			r.fail("access.example", 0, ReasonNXDomain)
			if n := r.asked.Load(); n != int64(2*(i+1)) {
				t.Fatalf("%d questions in round %d", n, i)
			}
			time.Sleep(time.Nanosecond)
		}
		if d := failureTime(1 << 31); d != maxFailure {
			t.Errorf("failure 2^31 is kept %v", d)
		}
	})
}

func TestFailureEndsWithForgetAndWithOtherServers(t *testing.T) {
	bubble(t, func(r *rig) {
		r.server("192.0.2.53", code(dns.RcodeServerFailure))
		r.fail("access.example", 0, ReasonServFail)
		r.resolver.Forget()
		r.fail("access.example", 0, ReasonServFail)
		if n := r.asked.Load(); n != 4 {
			t.Errorf("%d questions, want 4", n)
		}
		r.server("192.0.2.54", honest)
		r.resolve("access.example", 0, addr1, addr2)
		r.resolver.Forget()
		r.resolver.Servers = r.resolver.Servers[:1]
		r.resolve("access.example", 0, addr1, addr2) // an answer outlives both
	})
}

func TestCallerOwnsTheAnswer(t *testing.T) {
	bubble(t, func(r *rig) {
		r.server("192.0.2.53", honest)
		for range 2 {
			addrs, err := r.resolver.Resolve(r.t.Context(), "access.example")
			if err != nil || !slices.Equal(addrs, []netip.Addr{addr1, addr2}) {
				t.Fatalf("%v, %v", addrs, err)
			}
			addrs[0] = lan
		}
	})
}

func TestCacheIsBoundedAndDropsWhatExpiresFirst(t *testing.T) {
	var c nameCache
	now := time.Now()
	for i := range 10 * maxNames {
		ttl := 2 * minTTL
		if i == 7 {
			ttl = minTTL
		}
		c.put(fmt.Sprint(i), nil, result{ttl: ttl}, now)
		if i == maxNames {
			if _, ok := c.get("7", nil, now); ok {
				t.Error("kept what expires first")
			}
		}
	}
	if n := len(c.entries); n != maxNames {
		t.Errorf("%d names, limit %d", n, maxNames)
	}
}

func TestMemoryOfServersIsBounded(t *testing.T) {
	var r Resolver
	for i := range byte(200) {
		r.setKeepsNoCase(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, i}), 53))
	}
	if n := len(r.quirks); n > maxQuirks {
		t.Errorf("%d servers, limit %d", n, maxQuirks)
	}
}

func TestUsableAddresses(t *testing.T) {
	parse := func(texts ...string) (addrs []netip.Addr) {
		for _, s := range texts {
			addrs = append(addrs, netip.MustParseAddr(s))
		}
		return addrs
	}
	tests := []struct {
		name    string
		in      []netip.Addr
		private bool
		want    []netip.Addr
	}{
		{"public stay in order", parse("203.0.113.2", "2001:db8::1", "203.0.113.1"), false, parse("203.0.113.2", "2001:db8::1", "203.0.113.1")},
		{"what no server has goes", parse("127.0.0.1", "::1", "169.254.1.1", "fe80::1", "224.0.0.1", "ff02::1", "0.0.0.0", "::",
			"0.1.2.3", "255.255.255.255", "::ffff:127.0.0.1"), false, nil},
		{"private come last", parse("10.1.2.3", "203.0.113.1", "fd00::1", "2001:db8::1"), false, parse("203.0.113.1", "2001:db8::1", "10.1.2.3", "fd00::1")},
		{"unless declared", parse("10.1.2.3", "203.0.113.1"), true, parse("10.1.2.3", "203.0.113.1")},
		{"mapped is unwrapped, twice is once", parse("::ffff:203.0.113.1", "203.0.113.1"), false, parse("203.0.113.1")},
		{"eight are enough", slices.Concat(parse("10.1.2.3"), first203(20)), false, first203(8)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := usable(tt.in, tt.private); !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
