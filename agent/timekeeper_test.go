package agent

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"hawser/probe"
)

// sntpServer is a fake that says what time it is, off by a constant.
func sntpServer(r *rig, addr string, off time.Duration, asked *atomic.Int64) {
	serveTime(r, addr, func() time.Duration { asked.Add(1); return off })
}

// serveTime runs a fake that is off by what off returns each time.
func serveTime(r *rig, addr string, off func() time.Duration) {
	pc := must(r.net.Host(netip.MustParseAddr(addr)).ListenPacket(123))(r.t)
	r.t.Cleanup(func() { pc.Close() })
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			if n < 48 {
				continue
			}
			pc.WriteTo(timeAnswer(b[:n], time.Now().Add(off())), from)
		}
	}()
}

// timeAnswer is a good NTPv4 answer (RFC 5905 §7.3).
func timeAnswer(query []byte, now time.Time) []byte {
	stamp := uint64(uint32(now.Unix()+2_208_988_800))<<32 | uint64(now.Nanosecond())<<32/1e9
	b := make([]byte, 48)
	b[0], b[1] = 4<<3|4, 2
	copy(b[24:32], query[40:48])
	binary.BigEndian.PutUint64(b[32:], stamp)
	binary.BigEndian.PutUint64(b[40:], stamp)
	return b
}

func TestSNTPMakesTheClockPlausibleWhileNoServerIsReached(t *testing.T) {
	bubble(t, func(r *rig) {
		var asked atomic.Int64
		r.opts.Config.Time = []string{"203.0.113.1", "203.0.113.2", "203.0.113.3"}
		for _, s := range r.opts.Config.Time {
			sntpServer(r, s, 0, &asked)
		}
		p := r.start() // not enrolled
		r.until(10*time.Second, "plausible clock", func() bool { return p.Status().Clock.State == ClockPlausible })
		if off := time.Until(p.clock.Now()).Abs(); off > 100*time.Millisecond {
			t.Errorf("off by %v", off)
		}
		if floor, _ := p.clock.window(); !floor.Equal(r.opts.Build) {
			t.Errorf("sntp moved the floor to %v", floor)
		}
		time.Sleep(day)
		if n := asked.Load() / 3; n < 24 || n > 32 {
			t.Errorf("each source was asked %d times in a day, want about 21 + 6", n)
		}
		p.stop(time.Second)
		if again := must(openStore(r.dir, nil))(t).anchor(); !again.IsZero() {
			t.Errorf("sntp left the anchor %v", again)
		}
	})
}

func TestALyingMajorityIsAConflictThatChangesNothing(t *testing.T) {
	bubble(t, func(r *rig) {
		var asked atomic.Int64
		r.opts.Config.Time = []string{"203.0.113.1", "203.0.113.2", "203.0.113.3"}
		for _, s := range r.opts.Config.Time {
			sntpServer(r, s, 400*day, &asked)
		}
		r.enrolNow()
		p := r.start()
		p.await(StateAttached, 10*time.Second)
		r.until(10*time.Minute, "conflict", func() bool { return p.Status().Clock.State == ClockConflict })
		if off := time.Until(p.clock.Now()).Abs(); off > time.Second {
			t.Errorf("off by %v", off)
		}
		if _, authentic := p.clock.Floor(); !authentic {
			t.Error("a conflict took the authentic time away")
		}
		p.stop(time.Second)
	})
}

// The sources are silent: a round takes seconds, the dial must not wait for it.
func TestSNTPNeverHoldsUpTheDial(t *testing.T) {
	t.Attr("id", "K5")
	bubble(t, func(r *rig) {
		r.opts.Config.Time = []string{"203.0.113.1", "203.0.113.2", "203.0.113.3"}
		r.enrolNow()
		p := r.start()
		if took := p.await(StateAttached, 10*time.Second); took > 500*time.Millisecond {
			t.Errorf("attached after %v", took)
		}
		p.stop(time.Second)
	})
}

func TestTimeSourcesAreTheAccessHostsThenTheConfigured(t *testing.T) {
	c := Config{Access: []string{"a.example:8443", "192.0.2.1", "[2001:db8::1]:443", "a.example:443"}, Time: []string{"ntp.example", "a.example"}}
	want := []string{"a.example", "192.0.2.1", "2001:db8::1", "ntp.example"}
	if got := c.timeSources(nil); !slices.Equal(got, want) {
		t.Errorf("sources %q, want %q", got, want)
	}
}

// However few are configured, the site's own do not make a majority by themselves.
func TestTheSitesTimeServersAreNeverTheMajority(t *testing.T) {
	site := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}
	for n := range 6 {
		var c Config
		for i := range n {
			c.Time = append(c.Time, fmt.Sprintf("ntp%d.example", i))
		}
		got := c.timeSources(site)
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
	c := Config{Access: []string{"10.0.0.1", "a.example"}}
	if got := c.timeSources(site); !slices.Equal(got, []string{"10.0.0.1", "a.example", "10.0.0.2"}) {
		t.Errorf("one that is configured, too: %q", got)
	}
}

// A lease that comes while the agent runs is heeded at the next round.
func TestTheSitesTimeServersJoinWhenTheyAreKnown(t *testing.T) {
	bubbleAt(t, build.AddDate(0, 3, 0), func(r *rig) {
		var asked atomic.Int64
		sntpServer(r, "203.0.113.1", 0, new(atomic.Int64))
		sntpServer(r, "203.0.113.9", 0, &asked)
		root := r.t.TempDir()
		r.opts.Build, r.opts.Board.Root = build, os.DirFS(root)
		r.opts.Config.Access, r.opts.Config.Time = nil, []string{"203.0.113.1"}
		p := r.start()
		time.Sleep(time.Minute / 2)
		if err := os.MkdirAll(filepath.Join(root, "run/hawser"), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(root, "run/hawser/ntp"), "203.0.113.9\n", 0o600)
		time.Sleep(2 * time.Minute)
		if asked.Load() == 0 {
			t.Error("not asked")
		}
		p.stop(time.Second)
	})
}

// While nothing is known, or a step waits for its second verdict, the next round
// comes soon; else rarely.
func TestRoundsComeSoonWhileThereIsNeed(t *testing.T) {
	t.Run("unknown", func(t *testing.T) {
		bubble(t, func(r *rig) {
			var asked atomic.Int64
			timeServers(r, 4, func(i int) time.Duration { asked.Add(1); return time.Duration(i+1) * time.Hour }) // no majority
			r.opts.Config.Access = nil
			p := r.start()
			time.Sleep(time.Hour)
			if n := asked.Load() / 4; n < 50 || n > 64 || p.Status().Clock.State != ClockUnknown {
				t.Errorf("%d rounds in an hour, clock %s", n, p.Status().Clock.State)
			}
			p.stop(time.Second)
		})
	})
	t.Run("a step waits", func(t *testing.T) {
		bubble(t, func(r *rig) {
			leap, firstAsked := atomic.Bool{}, atomic.Int64{}
			timeServers(r, 4, func(int) time.Duration {
				if leap.Load() {
					firstAsked.CompareAndSwap(0, time.Now().UnixNano())
					return 10 * time.Second
				}
				return 0
			})
			r.opts.Config.Access = nil
			p := r.start()
			time.Sleep(day)
			leap.Store(true)
			r.until(3*time.Hour, "step", func() bool { return time.Until(p.clock.Now()) > 9*time.Second })
			if took := time.Since(time.Unix(0, firstAsked.Load())); took > firstPoll*11/10+20*time.Second {
				t.Errorf("the second round came %v after the first that differs", took)
			}
			p.stop(time.Second)
		})
	})
}
