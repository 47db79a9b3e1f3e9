//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// place is three networks with what is up in them.
type place struct {
	nets    *networks
	backend string
	up      []*contestant
}

// far brings systems up in three networks, and calls measure while they are.
func (b *bench) far(ctx context.Context, names []string, agent, client route, measure func(place) error) error {
	nets, err := newNetworks(agent, client)
	if err != nil {
		return err
	}
	defer nets.close()
	l, err := nets.listen(atAgent, "0.0.0.0:0")
	if err != nil {
		return err
	}
	back := serveBackend(l)
	defer back.close()
	_, port, err := net.SplitHostPort(back.addr())
	if err != nil {
		return err
	}
	p := place{nets: nets, backend: net.JoinHostPort("127.0.0.1", port)}
	up, end, err := b.bring(ctx, names, p.backend, nets)
	defer end()
	if err != nil {
		return err
	}
	p.up = up
	return measure(p)
}

// lineRates are the round trips of the gateway's line, whose rate is that of a usual connection to the internet.
var lineRates = []time.Duration{50 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond}

const lineRate = 100e6 / 8 // bytes a second

// measureLine downloads on one stream over a long line. All that limits it is how much a tunnel, and TCP under it, keep
// on the way: the processors have nothing to do.
func measureLine(ctx context.Context, b *bench) error {
	names := []string{"hawser", unit, "chisel", "ssh -R", "floor e2e", "floor proxy"}
	for _, rtt := range lineRates {
		metric := fmt.Sprintf("one stream over %v Mbit/s", rtt)
		err := b.far(ctx, names, route{rtt: rtt, rate: lineRate, queue: rtt}, route{}, func(p place) error {
			for round := 1; round <= min(b.rounds, 3); round++ {
				for _, c := range p.up {
					m, err := c.carry(flow{1, false}, time.Second+20*rtt, 3*time.Second)
					if err != nil {
						b.say("line %v, %s: %v", rtt, c.name, err)
						continue
					}
					b.result.add(c.name, metric, round, m.mbps()*8)
					time.Sleep(4 * rtt) // for what is still on its way
				}
			}
			return ctx.Err()
		})
		if err != nil {
			return err
		}
		b.say("line: %v", rtt)
	}
	return nil
}

// slow is a line that a download fills. Its queue is short, as that of a router which minds its queue: a long one would
// be measured here, and not the tunnel.
var slow = route{rtt: 50 * time.Millisecond, rate: 100_000, queue: 100 * time.Millisecond}

// keysMetric names the two places of the slow line.
func keysMetric(where, which string) string {
	return "keystroke, slow line at the " + where + ", " + which
}

// measureKeys types beside a download. In a tunnel with one connection both share it, and a keystroke waits behind what
// was sent before it.
func measureKeys(ctx context.Context, b *bench) error {
	names := []string{"hawser", unit, "frp no mux", "chisel", "ssh -R", "floor e2e"}
	for _, at := range []struct {
		name          string
		agent, client route
	}{{"technician", route{}, slow}, {"gateway", slow, route{}}} {
		err := b.far(ctx, names, at.agent, at.client, func(p place) error {
			for round := 1; round <= min(b.rounds, 2); round++ {
				for _, c := range p.up {
					if err := b.keystrokes(c, at.name, round); err != nil {
						b.say("keys, slow line at the %s, %s: %v", at.name, c.name, err)
					}
				}
			}
			return ctx.Err()
		})
		if err != nil {
			return err
		}
		b.say("keys: slow line at the %s", at.name)
	}
	return nil
}

func (b *bench) keystrokes(c *contestant, where string, round int) error {
	load, err := c.dial()
	if err != nil {
		return err
	}
	var loading sync.WaitGroup
	var total atomic.Int64
	defer loading.Wait()
	defer load.Close()
	loading.Go(func() { pump(load, false, &total) })
	time.Sleep(5 * time.Second) // until every buffer on the way is full
	start, begin := total.Load(), time.Now()
	d, err := c.pings(60, 20*time.Millisecond)
	if err != nil {
		return err
	}
	rate := float64(total.Load()-start) / 1e3 / time.Since(begin).Seconds()
	b.result.add(c.name, keysMetric(where, "median ms"), round, millis(percentile(d, 50)))
	b.result.add(c.name, keysMetric(where, "p99 ms"), round, millis(percentile(d, 99)))
	b.result.add(c.name, keysMetric(where, "download KB/s"), round, rate)
	return nil
}

// openings are what takes round trips, each with how often it is measured.
var openings = []struct {
	name  string
	times int
}{{"stream", 21}, {"session", 7}, {"agent", 7}}

// nearLine and farLine are the round trips of both lines, in turn.
const nearLine, farLine = 50 * time.Millisecond, 150 * time.Millisecond

// measureOpening counts round trips: it measures each opening on two lines, and on two that are longer. By how much
// more it takes on the longer ones is how many round trips of one line it waits for; what programs take beside that is
// the same on both. The fastest of each counts: who waits for a round trip cannot be faster, and all that a busy
// machine does is slower.
func measureOpening(ctx context.Context, b *bench) error {
	took := map[string]map[time.Duration][]time.Duration{}
	for _, rtt := range []time.Duration{nearLine, farLine} {
		r := route{rtt: rtt}
		note := func(system, what string, d time.Duration) {
			key := system + "\x00" + what
			if took[key] == nil {
				took[key] = map[time.Duration][]time.Duration{}
			}
			took[key][rtt] = append(took[key][rtt], d)
		}
		err := b.far(ctx, []string{unit, "chisel", "ssh -R", "floor e2e"}, r, r, func(p place) error {
			for _, c := range p.up {
				for range openings[0].times {
					d, err := c.opening()
					if err != nil {
						return fmt.Errorf("%s: %w", c.name, err)
					}
					note(c.name, openings[0].name, d)
				}
			}
			return b.openHawser(ctx, p, func(what string, d time.Duration) { note("hawser", what, d) })
		})
		if err != nil {
			return err
		}
		b.say("open: %v", rtt)
	}
	for _, system := range []string{"hawser", unit, "chisel", "ssh -R", "floor e2e"} {
		for _, o := range openings {
			t := took[system+"\x00"+o.name]
			if len(t) == 2 {
				trips := float64(slices.Min(t[farLine])-slices.Min(t[nearLine])) / float64(farLine-nearLine)
				b.result.add(system, o.name+" opening, round trips", 1, trips)
				b.result.add(system, o.name+" opening over 50 ms, ms", 1, millis(percentile(t[nearLine], 50)))
			}
		}
	}
	return nil
}

// openHawser measures the agent's start, a session from the start of the technician's program to the first byte that
// comes back, and streams in it.
func (b *bench) openHawser(ctx context.Context, p place, note func(string, time.Duration)) error {
	s, err := b.newStage("hawser", p.backend, p.nets)
	if err != nil {
		return err
	}
	defer s.stop()
	g, err := s.newGateway(ctx)
	if err != nil {
		return err
	}
	for range openings[2].times {
		g.agent.stop()
		begin := time.Now()
		if err := g.run(ctx); err != nil {
			return err
		}
		note("agent", time.Since(begin))
	}
	for range openings[1].times {
		begin := time.Now()
		session, front, err := g.connect(ctx)
		if err != nil {
			return err
		}
		t := &tunnel{dial: g.dialer(front)}
		if _, err := t.opening(); err != nil {
			return err
		}
		note("session", time.Since(begin))
		for range openings[0].times / openings[1].times {
			d, err := t.opening()
			if err != nil {
				return err
			}
			note("stream", d)
		}
		session.stop()
	}
	return nil
}
