package agent

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hawser/internal/memnet"
	"hawser/transport/wire"
)

var boxAddr = netip.MustParseAddr("203.0.113.80")

// box stands between the gateway and its Access Server, as a NAT or a load balancer does, and ends connections that
// were idle for too long.
type box struct {
	net   *memnet.Network
	limit time.Duration // 0: none
	how   string        // one of cutsHow

	service *memnet.Service // what hears on port 443

	mu    sync.Mutex // guards the rest
	flows map[*flow]bool
	cuts  int
}

// cutsHow are the ways in which a connection ends: end of stream, reset, and without a word.
var cutsHow = []string{"eof", "reset", "silence"}

type flow struct {
	near, far net.Conn
	idle      *time.Timer
	forgotten bool // what comes goes nowhere
}

// behindBox puts a box in front of the rig's Access Server.
func (r *rig) behindBox(limit time.Duration, how string) *box {
	r.t.Helper()
	b := &box{net: r.net, limit: limit, how: how, flows: map[*flow]bool{}}
	b.open(r.t)
	r.t.Cleanup(func() {
		b.each(func(f *flow) { f.far.Close() })
		b.service.Kill()
	})
	r.opts.Config.Access = []string{boxAddr.String()}
	return b
}

// open lets connections through again after service.Kill.
func (b *box) open(t testing.TB) {
	t.Helper()
	b.service = must(b.net.Host(boxAddr).Serve(443, b.serve))(t)
}

func (b *box) serve(near net.Conn) {
	far, err := b.net.Host(boxAddr).DialContext(context.Background(), "tcp", netip.AddrPortFrom(accessAddr, 443).String())
	if err != nil {
		return
	}
	f := &flow{near: near, far: far}
	b.mu.Lock()
	b.flows[f] = true
	if b.limit > 0 {
		f.idle = time.AfterFunc(b.limit, func() { b.cut(f, b.how) })
	}
	b.mu.Unlock()
	var back sync.WaitGroup
	back.Go(func() { b.carry(f, near, far) })
	b.carry(f, far, near)
	back.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.flows, f)
	if f.idle != nil {
		f.idle.Stop()
	}
}

func (b *box) carry(f *flow, dst, src net.Conn) {
	buf := make([]byte, 16<<10)
	for {
		n, err := src.Read(buf)
		b.mu.Lock()
		forgotten := f.forgotten
		if f.idle != nil && !forgotten {
			f.idle.Reset(b.limit)
		}
		b.mu.Unlock()
		if forgotten && err == nil {
			continue
		}
		if _, failed := dst.Write(buf[:n]); err != nil || failed != nil {
			if err == io.EOF && forgotten {
				f.far.Close() // for the end of the bubble: no NAT does
			}
			dst.Close()
			return
		}
	}
}

// cut ends one connection.
func (b *box) cut(f *flow, how string) {
	b.mu.Lock()
	gone := f.forgotten
	if !gone {
		b.cuts++
		f.forgotten = how == "silence"
	}
	b.mu.Unlock()
	if gone {
		return
	}
	switch how {
	case "eof":
		f.near.Close()
		f.far.Close()
	case "reset": // of all connections between the two; there are no others
		b.net.Cut(agentAddr, boxAddr)
		b.net.Heal(agentAddr, boxAddr)
	}
}

func (b *box) each(do func(*flow)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for f := range b.flows {
		do(f)
	}
}

// forget forgets all connections.
func (b *box) forget() { b.each(func(f *flow) { f.forgotten = true }) }

func (b *box) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cuts
}

// After three cuts there are no more: neither of links nor, after a restart, of those of the next process.
func TestIdleLimitsAreLearntWithinThreeCuts(t *testing.T) {
	for _, limit := range []time.Duration{10, 30, 50, 100, 300} {
		for _, how := range cutsHow {
			t.Run(fmt.Sprintf("%d s, %s", limit, how), func(t *testing.T) {
				t.Attr("id", "W-idle")
				bubble(t, func(r *rig) {
					r.enrollNow()
					b := r.behindBox(limit*time.Second, how)
					p := r.start()
					time.Sleep(3 * time.Hour)
					cuts := b.count()
					if cuts > 3 || limit > 120 && cuts > 0 {
						t.Errorf("%d cuts in three hours; log:\n%s", cuts, r.notes)
					}
					time.Sleep(10 * time.Hour)
					if more := b.count() - cuts; more > 0 || p.Status().State != StateAttached {
						t.Errorf("%d cuts in the next ten hours, now %s", more, p.Status().State)
					}
					p.stop(time.Second)
					before := b.count()
					p = r.start()
					time.Sleep(10 * time.Hour)
					if more := b.count() - before; more > 0 {
						t.Errorf("%d cuts after a restart; log:\n%s", more, r.notes)
					}
					t.Logf("%d cuts, then every %d s", cuts, p.Status().Data.IntervalS)
					if limit == 50 {
						time.Sleep(5 * day) // each one tries one step
						if more := b.count() - before; more > 5 {
							t.Errorf("%d cuts in the five days after", more)
						}
					}
					p.stop(time.Second)
				})
			})
		}
	}
}

// A line that is cut off each night, at any moment of an interval, is no reason to ping more often.
func TestNightlyReconnectsTeachNothing(t *testing.T) {
	t.Attr("id", "W-idle")
	for _, how := range cutsHow {
		t.Run(how, func(t *testing.T) {
			t.Attr("id", "W-idle")
			bubble(t, func(r *rig) {
				r.enroll(time.Now().Add(-time.Hour), time.Now().Add(90*day))
				b := r.behindBox(0, "")
				p := r.start()
				for night := range 10 {
					time.Sleep(day + time.Duration(night)*7*time.Second)
					b.each(func(f *flow) { time.AfterFunc(0, func() { b.cut(f, how) }) })
					p.await(StateDial, 3*time.Minute)
					p.await(StateAttached, 10*time.Second)
					if got := p.Status().Data.IntervalS; got != 120 {
						t.Fatalf("night %d: pings every %d s", night, got)
					}
				}
				p.stop(time.Second)
			})
		})
	}
}

// A NAT whose table is emptied tells nobody. The next ping finds out, whenever that was, and whatever was learnt.
func TestAForgottenLinkIsOfUseAgainSoon(t *testing.T) {
	t.Attr("id", "W-idle")
	for _, limit := range []time.Duration{0, 50 * time.Second} {
		bubble(t, func(r *rig) {
			r.enrollNow()
			b := r.behindBox(limit, "eof")
			p := r.start()
			time.Sleep(time.Hour)
			interval := time.Duration(p.Status().Data.IntervalS) * time.Second
			for n := range 20 {
				time.Sleep(10*time.Minute + time.Duration(n)*interval/20)
				dials := r.access.Dials()
				b.forget()
				if took := r.until(5*time.Minute, "new link", func() bool {
					return r.access.Dials() > dials && p.Status().State == StateAttached
				}); took > interval+15*time.Second {
					t.Errorf("limit %v, time %d: of use again after %v, want %v and 15 s", limit, n, took, interval)
				}
			}
			if limit > 0 && interval > limit || limit == 0 && interval != 120*time.Second {
				t.Errorf("limit %v: pings every %v", limit, interval)
			}
			p.stop(time.Second)
		})
	}
}

// Behind an idle limit, the pauses between two links do not grow. What cuts for ever is none, and each dial costs data.
func TestCutLinksAreDialledAgainAtOnce(t *testing.T) {
	t.Attr("id", "W-idle")
	bubble(t, func(r *rig) {
		r.enrollNow()
		b := r.behindBox(0, "")
		p := r.start()
		var paused time.Duration // in the last ten
		for n := range 3 * maxCuts {
			lost := time.Now()
			patience := 3 * time.Second
			if n > maxCuts {
				patience = 2 * time.Minute
			}
			p.await(StateAttached, patience)
			if n >= 2*maxCuts {
				paused += time.Since(lost)
			}
			time.Sleep(7 * time.Second)
			b.each(func(f *flow) { time.AfterFunc(0, func() { b.cut(f, "eof") }) })
			p.await(StateDial, time.Second)
		}
		if paused < maxCuts*10*time.Second { // 30 s each on average
			t.Errorf("the pauses after %d cuts are %v together", 2*maxCuts, paused)
		}
		synctest.Wait()
		p.stop(time.Second)
	})
}

// A way that comes and goes: however long none was there, and however short the last one was, the next one is found soon.
func TestLinkThatWasCutSoonIsDialledAgainSoon(t *testing.T) {
	t.Attr("id", "W-proxy")
	bubble(t, func(r *rig) {
		r.enrollNow()
		b := r.behindBox(0, "")
		p := r.start()
		p.await(StateAttached, 3*time.Second)
		for range maxCuts - 1 {
			b.service.Kill()
			b.each(func(f *flow) { time.AfterFunc(0, func() { b.cut(f, "eof") }) })
			p.await(StateDial, time.Second)
			time.Sleep(5 * time.Minute) // in which nothing is found
			b.open(t)
			p.await(StateAttached, 70*time.Second)
			time.Sleep(time.Second)
			b.each(func(f *flow) { time.AfterFunc(0, func() { b.cut(f, "eof") }) })
			p.await(StateDial, time.Second)
			cut := time.Now()
			p.await(StateAttached, 10*time.Second)
			if took := time.Since(cut); took > 5*time.Second { // 4 s and a search
				t.Errorf("attached again after %v", took)
			}
			time.Sleep(2 * steady)
		}
		p.stop(time.Second)
	})
}

// An offer on an idle link makes it fast, and what was learnt stays for the time after.
func TestASessionDoesNotTouchWhatWasLearnt(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrollNow()
		r.behindBox(50*time.Second, "eof")
		p := r.start()
		time.Sleep(time.Hour)
		pings := func() (list []time.Duration) {
			r.access.Forget()
			time.Sleep(time.Minute)
			for _, f := range r.access.Heard(wire.TypePing) {
				next, _ := f.PingInterval()
				list = append(list, next)
			}
			return list
		}
		if got := pings(); len(got) < 2 || got[1] != 25*time.Second {
			t.Errorf("pings announce %v, want 25 s", got)
		}
		p.sessions.mu.Lock()
		p.sessions.link.Busy(true)
		p.sessions.mu.Unlock()
		if got := pings(); len(got) < 14 || got[1] != 4*time.Second {
			t.Errorf("while busy pings announce %v, want 4 s", got)
		}
		p.sessions.mu.Lock()
		p.sessions.link.Busy(false)
		p.sessions.mu.Unlock()
		if got := pings(); len(got) < 2 || got[len(got)-1] != 25*time.Second {
			t.Errorf("afterwards pings announce %v, want 25 s", got)
		}
		p.stop(time.Second)
	})
}
