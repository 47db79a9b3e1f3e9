package clock

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"hawser/probe"
)

func answersOf(kiss string, names ...string) (list []probe.Sample) {
	for i, n := range names {
		s := probe.Sample{Source: n}
		if i == 0 {
			s.Kiss = kiss
		}
		list = append(list, s)
	}
	return list
}

func TestTheIntervalDoublesUnlessThereIsHurry(t *testing.T) {
	for name, tt := range map[string]struct {
		wait time.Duration
		soon bool
		want time.Duration
	}{
		"first":          {0, false, firstPoll},
		"first, unknown": {0, true, firstPoll},
		"second":         {firstPoll, false, 2 * firstPoll},
		"still unknown":  {firstPoll, true, firstPoll},
		"last":           {lastPoll, false, lastPoll},
		"before last":    {lastPoll - 1, false, lastPoll},
		"a step waits":   {lastPoll, true, firstPoll},
	} {
		s := newSchedule([]string{"a"})
		s.wait = tt.wait
		next := s.next(0, answersOf("", "a"), tt.soon)
		if next.wait != tt.want || s.wait != tt.wait {
			t.Errorf("%s: %v, want %v", name, next.wait, tt.want)
		}
		if low, high := next.pause(0, 0), next.pause(0, 0.999999); low != tt.want-tt.want/10 || high < tt.want+tt.want/10-time.Second || high > tt.want+tt.want/10 {
			t.Errorf("%s: pause %v to %v", name, low, high)
		}
	}
}

func TestAKissIsObeyed(t *testing.T) {
	t.Attr("id", "K4")
	t.Attr("cases", "5")
	for kiss, rest := range map[string]time.Duration{
		"DENY": day,
		"RSTR": day,
		"RATE": 2 * firstPoll * 9 / 10, // less the jitter
		"INIT": leastPoll,
		"":     leastPoll,
	} {
		s := newSchedule([]string{"a", "b"})
		const at = time.Hour
		next := s.next(at, answersOf(kiss, "a", "b"), true)
		if before, after := next.due(at+rest-1), next.due(at+rest); slices.Contains(before, "a") || !slices.Contains(after, "a") {
			t.Errorf("%q: asked %q before %v and %q after", kiss, before, rest, after)
		}
		if others := next.due(at + firstPoll); !slices.Contains(others, "b") {
			t.Errorf("%q: silenced others, too", kiss)
		}
		if len(s.due(0)) != 2 {
			t.Errorf("%q: changed the schedule before", kiss)
		}
	}
}

func TestRATEDoublesEachTimeUpToTheLongestInterval(t *testing.T) {
	s, at := newSchedule([]string{"a"}), time.Duration(0)
	want := firstPoll
	for range 10 {
		s = s.next(at, answersOf("RATE", "a"), true)
		want = min(2*want, lastPoll)
		if got := s.sources[0].every; got != want {
			t.Errorf("every %v, want %v", got, want)
		}
		at += s.pause(at, 0)
		if len(s.due(at)) != 1 {
			t.Errorf("nobody is asked after the pause, at %v", at)
		}
	}
}

// A day of the worst that sources may do: none is ever asked twice within 15 s,
// nor in vain.
func TestNobodyIsAskedTwiceWithin15Seconds(t *testing.T) {
	t.Attr("id", "K4")
	kisses := []string{"", "RATE", "", "INIT", "DENY", "RSTR", "RATE"}
	for seed := range 200 {
		s, last, asked := newSchedule([]string{"a", "b", "c"}), map[string]time.Duration{}, 0
		for at, n := time.Duration(0), 0; at < 3*day; n++ {
			due := s.due(at)
			if len(due) == 0 {
				t.Fatalf("seed %d: a round that asks nobody at %v", seed, at)
			}
			for _, name := range due {
				if before, ok := last[name]; ok && at-before < leastPoll {
					t.Fatalf("seed %d: %s asked after %v", seed, name, at-before)
				}
				last[name] = at
				asked++
			}
			s = s.next(at, answersOf(kisses[(seed+n)%len(kisses)], due...), (seed+n)%3 > 0)
			at += s.pause(at, float64((seed*7+n*13)%100)/100)
		}
		if asked == 0 || asked > 3*3*86400/57 {
			t.Errorf("seed %d: asked %d times", seed, asked)
		}
	}
}

func TestTimeSourcesAreTheAccessHostsThenTheConfigured(t *testing.T) {
	hosts, servers := []string{"a.example:8443", "192.0.2.1", "[2001:db8::1]:443", "a.example:443"}, []string{"ntp.example", "a.example"}
	want := []string{"a.example", "192.0.2.1", "2001:db8::1", "ntp.example"}
	if got := Sources(hosts, servers, nil); !slices.Equal(got, want) {
		t.Errorf("sources %q, want %q", got, want)
	}
}

// However few are configured, the site's own do not make a majority by themselves.
func TestTheSitesTimeServersAreNeverTheMajority(t *testing.T) {
	site := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}
	for n := range 6 {
		var servers []string
		for i := range n {
			servers = append(servers, fmt.Sprintf("ntp%d.example", i))
		}
		got := Sources(nil, servers, site)
		if want := n + min(n, len(site)); len(got) != want {
			t.Errorf("%d configured: %q", n, got)
		}
		var lies []probe.Sample
		for _, name := range got[n:] {
			lies = append(lies, probe.Sample{Source: name, Received: build, At: build.Add(day), RootDistance: time.Millisecond, Stratum: 2})
		}
		if v := probe.Combine(lies, len(got), build, build.AddDate(15, 0, 0)); v.Plausible {
			t.Errorf("%d configured: the site alone is believed", n)
		}
	}
	if got := Sources([]string{"10.0.0.1", "a.example"}, nil, site); !slices.Equal(got, []string{"10.0.0.1", "a.example", "10.0.0.2"}) {
		t.Errorf("one that is configured, too: %q", got)
	}
}
