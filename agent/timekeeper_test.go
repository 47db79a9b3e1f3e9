package agent

import (
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"hawser/agent/clock"
	"hawser/identity"
	"hawser/probe/probetest"
	"hawser/transport"
	"hawser/transport/accesstest"
)

// sntpServer is a fake that says what time it is, off by a constant.
func sntpServer(r *rig, addr string, off time.Duration, asked *atomic.Int64) {
	serveTime(r, addr, func() time.Duration { asked.Add(1); return off })
}

// serveTime runs a fake that is off by what off returns each time.
func serveTime(r *rig, addr string, off func() time.Duration) {
	pc := must(r.net.Host(netip.MustParseAddr(addr)).ListenPacket(123))(r.t)
	probetest.ServeTime(r.t, pc, func() time.Time { return time.Now().Add(off()) })
}

func TestSNTPMakesTheClockPlausibleWhileNoServerIsReached(t *testing.T) {
	bubble(t, func(r *rig) {
		var asked atomic.Int64
		r.opts.Config.Time = []string{"203.0.113.1", "203.0.113.2", "203.0.113.3"}
		for _, s := range r.opts.Config.Time {
			sntpServer(r, s, 0, &asked)
		}
		p := r.start() // not enrolled
		r.until(10*time.Second, "plausible clock", func() bool { return p.Status().Clock.State == clock.Plausible })
		if off := time.Until(p.clock.Now()).Abs(); off > 100*time.Millisecond {
			t.Errorf("off by %v", off)
		}
		if floor, _ := p.clock.Anchor(); !floor.Equal(r.opts.Build) {
			t.Errorf("sntp moved the floor to %v", floor)
		}
		time.Sleep(day)
		if n := asked.Load() / 3; n < 24 || n > 32 {
			t.Errorf("each source was asked %d times in a day, want about 21 + 6", n)
		}
		p.stop(time.Second)
		if again := must(openStore(r.dir, nil))(t).saved.Anchor; !again.IsZero() {
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
		r.enrollNow()
		p := r.start()
		p.await(StateAttached, 10*time.Second)
		r.until(10*time.Minute, "conflict", func() bool { return p.Status().Clock.State == clock.Conflict })
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
		r.enrollNow()
		p := r.start()
		if took := p.await(StateAttached, 10*time.Second); took > 500*time.Millisecond {
			t.Errorf("attached after %v", took)
		}
		p.stop(time.Second)
	})
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
			if n := asked.Load() / 4; n < 50 || n > 64 || p.Status().Clock.State != clock.Unknown {
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
			if took := time.Since(time.Unix(0, firstAsked.Load())); took > 64*time.Second*11/10+20*time.Second {
				t.Errorf("the second round came %v after the first that differs", took)
			}
			p.stop(time.Second)
		})
	})
}

// Whoever has the servers has stopped their clock, so that nobody's statement ends. A majority of time servers ends it.
func TestAStoppedClockOfTheServersKeepsNobodyIn(t *testing.T) {
	var off atomic.Int64
	servers := func(r *rig) {
		r.opts.Config.Time = []string{"203.0.113.1", "203.0.113.2", "203.0.113.3"}
		for _, s := range r.opts.Config.Time {
			serveTime(r, s, func() time.Duration { return time.Duration(off.Load()) })
		}
	}
	attachedRigWith(t, servers, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		user := identity.UserStatement{Domain: "plant", User: "ann", Role: identity.RoleAdmin, Exp: time.Now().Add(20 * day).Unix(), Serial: r.owner.Serial()}
		m.hello.Statements[0] = r.owner.Sign(user).JWS
		s := m.open(l, p, "s1", "tcp")
		if err := s.Ready(r.t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		if s.Err() != nil || !p.Status().Owner.TimeServers.IsZero() {
			t.Fatalf("%v, %+v", s.Err(), p.Status().Owner)
		}
		off.Store(int64(30 * day))
		r.ends(s, l, transport.Expired, byOwner)
		st := p.Status()
		if ahead := st.Owner.TimeServers.Sub(p.clock.Now()); ahead < 29*day || ahead > 31*day || st.Clock.State != clock.Conflict {
			t.Errorf("%v ahead, clock %s", ahead, st.Clock.State)
		}
		off.Store(0)
		r.until(3*time.Hour, "they are right again", func() bool { return p.Status().Owner.TimeServers.IsZero() })
		s = m.open(l, p, "s2", "tcp")
		if err := s.Ready(r.t.Context()); err != nil {
			t.Errorf("afterwards: %v", err)
		}
		s.Close()
	})
}
