package agent

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"hawser/agent/clock"
	"hawser/internal/memnet"
	"hawser/transport"
	"hawser/transport/wire"
)

func TestAGatewayWaitsForItsIdentityThenAttachesIn1970(t *testing.T) {
	bubble(t, func(r *rig) {
		var out strings.Builder
		r.opts.Out = &out
		p := r.start()
		p.await(StateEnroll, time.Second)
		time.Sleep(time.Hour)
		if n := r.access.Dials(); n != 0 {
			t.Errorf("dialled %d times without an identity", n)
		}
		r.enrollNow()
		p.await(StateAttached, 10*time.Second)
		st := p.Status()
		if st.Clock.State != clock.Authentic || st.Clock.Source != "signed" || st.UID != testUID.String() || st.Domain != "plant" || st.Error != "" ||
			st.Access == nil || *st.Access != (AccessStatus{Host: accessAddr.String(), Addr: accessAddr.String(), Port: 443, Way: "direct"}) {
			t.Errorf("status %+v, access %+v", st, st.Access)
		}
		l := <-r.access.Links
		if l.Hello.Version != "v0.1.0-test" || len(l.Hello.Instance) != 32 || l.Hello.Hints["serial"] != "0123456789abcdef" {
			t.Errorf("hello %+v", l.Hello)
		}
		p.stop(time.Second)
		if got, want := out.String(), "online "+testUID.String()+" via 192.0.2.1:443\n"; got != want {
			t.Errorf("printed %q, want %q", got, want)
		}
		if got, want := r.notes.values("state", "state"), []string{"boot", "enroll", "boot", "dial", "attached", "stopped"}; !slices.Equal(got, want) {
			t.Errorf("states %q, want %q", got, want)
		}
	})
}

func TestALostServerIsDialledAgainWithinSeconds(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrollNow()
		p := r.start()
		p.await(StateAttached, 10*time.Second)
		time.Sleep(2 * time.Minute) // long enough to count as a success
		(<-r.access.Links).NetConn().Close()
		p.await(StateDial, time.Second)
		if st := p.Status(); st.Access != nil || st.Error == "" {
			t.Errorf("after the loss: access %v, error %q", st.Access, st.Error)
		}
		p.await(StateAttached, 5*time.Second)
		r.access.Down()
		p.await(StateDial, time.Second)
		time.Sleep(time.Hour)
		r.access.Up()
		p.await(StateAttached, time.Minute+10*time.Second)
		p.stop(time.Second)
	})
}

// Nothing closes the connection here: the network swallows it.
func TestASilentLinkIsNoticedByTheHeartbeat(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrollNow()
		p := r.start()
		p.await(StateAttached, 10*time.Second)
		r.net.Stall(agentAddr, accessAddr)
		took := p.await(StateDial, 10*time.Minute)
		if took > 120*time.Second+15*time.Second+time.Second {
			t.Errorf("noticed after %v", took)
		}
		if got := p.Status().Error; !strings.Contains(got, "Access Server") {
			t.Errorf("error %q", got)
		}
		r.net.Heal(agentAddr, accessAddr)
		p.await(StateAttached, 2*time.Minute)
		p.stop(time.Second)
	})
}

func TestARevokedIdentityRestsAndAsksAgain(t *testing.T) {
	for _, reason := range []transport.Reason{transport.Revoked, transport.WrongKey, transport.NoDevice} {
		bubble(t, func(r *rig) {
			r.enrollNow()
			r.access.RefuseHello = &wire.Refusal{Reason: reason}
			p := r.start()
			p.await(StateQuarantined, 10*time.Second)
			dials, begin := r.access.Dials(), time.Now()
			took := r.until(40*time.Minute, "second dial", func() bool { return r.access.Dials() > dials })
			if took < quarantine || took > 2*quarantine+10*time.Second {
				t.Errorf("%s: rested for %v, want 15 to 30 min", reason, took)
			}
			r.access.Set(func() { r.access.RefuseHello = nil })
			p.await(StateAttached, 40*time.Minute)
			if rest := time.Since(begin); rest < quarantine {
				t.Errorf("%s: back after %v", reason, rest)
			}
			p.stop(time.Second)
		})
	}
}

func TestRevocationWhileAttachedQuarantines(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrollNow()
		p := r.start()
		p.await(StateAttached, 10*time.Second)
		wire.Refuse(<-r.access.Links, &wire.Refusal{Reason: transport.Revoked})
		p.await(StateQuarantined, time.Second)
		p.stop(time.Second)
	})
}

func TestANewIdentityEndsTheRest(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrollNow()
		r.access.RefuseHello = &wire.Refusal{Reason: transport.Revoked}
		p := r.start()
		p.await(StateQuarantined, 10*time.Second)
		r.access.Set(func() { r.access.RefuseHello = nil })
		time.Sleep(10 * time.Second) // the rest has begun
		if err := Reset(r.dir); err != nil {
			t.Fatal(err)
		}
		p.await(StateEnroll, 6*time.Second)
		if st := p.Status(); st.UID != "" {
			t.Errorf("not enrolled, and yet uid %q", st.UID)
		}
		r.enrollNow()
		p.await(StateAttached, 10*time.Second)
		p.stop(time.Second)
	})
}

// A peer that has not proven itself cannot say who is revoked, nor silence a
// gateway for an hour.
func TestARefusalBeforeTheSignedTimeIsAHint(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrollNow()
		r.access.RefuseTime = &wire.Refusal{Reason: transport.Revoked, RetryAfter: time.Hour}
		p := r.start()
		r.until(time.Minute, "refusal", func() bool { return r.notes.count("will try again") > 0 })
		p.await(StateDial, time.Second)
		r.access.Set(func() { r.access.RefuseTime = nil })
		p.await(StateAttached, time.Minute+10*time.Second)
		p.stop(time.Second)
	})
}

func TestRetryAfterOfTheServerIsHonoured(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrollNow()
		r.access.RefuseHello = &wire.Refusal{Reason: transport.Busy, RetryAfter: 10 * time.Minute}
		p := r.start()
		r.until(time.Minute, "refusal", func() bool { return r.notes.count("will try again") > 0 })
		r.access.Set(func() { r.access.RefuseHello = nil })
		took := p.await(StateAttached, 20*time.Minute)
		if took < 10*time.Minute-time.Second || took > 11*time.Minute {
			t.Errorf("asked again after %v, want 10 min and a jitter of seconds", took)
		}
		p.stop(time.Second)
	})
}

// Two gateways with one identity replace each other: the pauses must grow.
func TestBeingReplacedAtOnceSlowsDown(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrollNow()
		p := r.start()
		end := time.Now().Add(3 * time.Hour)
		replaced := 0
		for time.Now().Before(end) {
			wire.Refuse(<-r.access.Links, &wire.Refusal{Reason: transport.Replaced})
			replaced++
		}
		if perHour := replaced / 3; perHour < 60 || perHour > 240 {
			t.Errorf("came back %d times an hour, want about 120", perHour)
		}
		p.stop(time.Second)
	})
}

func TestADeadNetworkNeverEndsTheAgentAndCostsLittle(t *testing.T) {
	for name, dial := range map[string]func(context.Context) error{
		"no route": func(context.Context) error { return syscall.ENETUNREACH },
		"silence":  func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.enrollNow()
				var attempts atomic.Int64
				r.opts.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
					if network == "tcp" {
						attempts.Add(1)
					}
					return nil, &net.OpError{Op: "dial", Net: network, Err: dial(ctx)}
				}
				p := r.start()
				time.Sleep(time.Hour)
				goroutines := runtime.NumGoroutine()
				time.Sleep(23 * time.Hour)
				synctest.Wait()
				if now := runtime.NumGoroutine(); now > goroutines+10 {
					t.Errorf("%d goroutines after an hour, %d after a day", goroutines, now)
				}
				// One host with one port, every 30 s on average and no faster than the time-outs.
				if n := attempts.Load(); n < 1000 || n > 4000 {
					t.Errorf("%d attempts in a day", n)
				}
				if st := p.Status(); st.State != StateDial || st.Error == "" || st.Clock.State != clock.Unknown {
					t.Errorf("status %+v", st)
				}
				p.stop(time.Second)
			})
		})
	}
}

func TestLinkUpEndsAPauseAtOnce(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrollNow()
		r.access.RefuseHello = &wire.Refusal{Reason: transport.Busy, RetryAfter: time.Hour}
		up := make(chan struct{})
		r.opts.LinkUp = up
		p := r.start()
		r.until(time.Minute, "refusal", func() bool { return r.notes.count("will try again") > 0 })
		r.access.Set(func() { r.access.RefuseHello = nil })
		up <- struct{}{}
		p.await(StateAttached, 5*time.Second)
		p.stop(time.Second)
	})
}

// A search that began before the network came is lost in it: a new one finds
// the way at once.
func TestLinkUpEndsASearchAtOnce(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrollNow()
		r.net.Stall(agentAddr, accessAddr)
		up := make(chan struct{})
		r.opts.LinkUp = up
		p := r.start()
		time.Sleep(time.Second)
		r.net.Heal(agentAddr, accessAddr)
		r.net.Firewall(func(netip.Addr, netip.AddrPort) memnet.Verdict { return memnet.Drop })
		time.Sleep(time.Second)
		r.net.Firewall(nil)
		up <- struct{}{}
		p.await(StateAttached, time.Second)
		p.stop(time.Second)
	})
}

// A connection that did not survive is found out when the network comes back,
// not by the heartbeat; one that did survive stays.
func TestLinkUpProbesTheConnection(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrollNow()
		up := make(chan struct{})
		r.opts.LinkUp = up
		p := r.start()
		p.await(StateAttached, 10*time.Second)
		since := p.Status().Since
		up <- struct{}{}
		time.Sleep(10 * time.Second)
		if st := p.Status(); st.State != StateAttached || st.Since != since {
			t.Errorf("a good connection was given up: %+v", st)
		}
		r.net.Stall(agentAddr, accessAddr)
		up <- struct{}{}
		if took := p.await(StateDial, 5*time.Second); took > 3500*time.Millisecond {
			t.Errorf("noticed after %v, want 3 s", took)
		}
		r.net.Heal(agentAddr, accessAddr)
		p.stop(time.Second)
	})
}
