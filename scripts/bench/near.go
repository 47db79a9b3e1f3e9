//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"
)

// flows are the loads of the first table.
var flows = []flow{{1, false}, {8, false}, {1, true}, {8, true}}

// contestant is a system that is up.
type contestant struct {
	system
	*tunnel
	*stage
}

// bring starts the systems that are wanted and on this machine, each on a stage of its own. The others are named in the
// result.
func (b *bench) bring(ctx context.Context, names []string, backend string, nets *networks) (up []*contestant, end func(), err error) {
	end = func() {
		for _, c := range up {
			c.stop()
		}
	}
	for _, sys := range systems() {
		if len(names) > 0 && !slices.Contains(names, sys.name) || len(b.only) > 0 && !slices.Contains(b.only, sys.name) {
			continue
		}
		s, err := b.newStage(sys.name, backend, nets)
		if err != nil {
			return up, end, err
		}
		t, err := sys.start(ctx, s)
		if err != nil {
			s.stop()
			if ctx.Err() != nil {
				return up, end, ctx.Err()
			}
			b.result.missing(sys.name, err.Error())
			b.say("%s is not measured: %v", sys.name, err)
			continue
		}
		up = append(up, &contestant{sys, t, s})
	}
	return up, end, nil
}

// measureNear is loopback: what a byte, a round trip and a stream cost when the line costs nothing.
func measureNear(ctx context.Context, b *bench) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	back := serveBackend(l)
	defer back.close()
	up, end, err := b.bring(ctx, nil, back.addr(), nil)
	defer end()
	if err != nil {
		return err
	}
	time.Sleep(3 * time.Second) // for what programs do once at their start
	for _, c := range up {
		b.memory(c, "fresh")
	}
	for round := 1; round <= b.rounds && ctx.Err() == nil; round++ {
		for _, c := range up {
			if err := b.roundTrips(c, round); err != nil {
				b.say("round %d, %s: %v", round, c.name, err)
			}
		}
		for _, f := range flows {
			for _, c := range up {
				if err := b.throughput(c, f, round); err != nil {
					b.say("round %d, %s, %v: %v", round, c.name, f, err)
				}
				time.Sleep(100 * time.Millisecond) // for what is still on its way
			}
		}
		b.say("near: round %d of %d", round, b.rounds)
	}
	for _, c := range up {
		b.memory(c, "after")
	}
	return nil
}

func (b *bench) roundTrips(c *contestant, round int) error {
	d, err := c.pings(2000, 0)
	if err != nil {
		return err
	}
	b.result.add(c.name, "round trip p50 µs", round, micros(percentile(d, 50)))
	b.result.add(c.name, "round trip p99 µs", round, micros(percentile(d, 99)))
	var opened []time.Duration
	for range 25 {
		d, err := c.opening()
		if err != nil {
			return err
		}
		opened = append(opened, d)
	}
	b.result.add(c.name, "stream opening µs", round, micros(percentile(opened, 50)))
	return nil
}

func micros(d time.Duration) float64 { return float64(d) / 1e3 }
func millis(d time.Duration) float64 { return float64(d) / 1e6 }

func (b *bench) throughput(c *contestant, f flow, round int) error {
	m, err := c.carry(f, 400*time.Millisecond, b.time)
	if err != nil {
		return err
	}
	b.result.add(c.name, fmt.Sprintf("%v MB/s", f), round, m.mbps())
	b.result.add(c.name, fmt.Sprintf("%v CPU s/GiB", f), round, m.all.cpu.Seconds()/m.gib())
	if c.relay != nil {
		b.result.add(c.name, fmt.Sprintf("%v relay CPU s/GiB", f), round, m.relay.cpu.Seconds()/m.gib())
	}
	if c.agent != nil {
		b.result.add(c.name, fmt.Sprintf("%v agent CPU s/GiB", f), round, m.agent.cpu.Seconds()/m.gib())
	}
	return nil
}

// memory is measured once a run: what a program has taken it does not give back between rounds.
func (b *bench) memory(c *contestant, when string) {
	if c.agent != nil {
		rss, _ := resident(c.agent)
		b.result.add(c.name, "agent RSS "+when+" MiB", 1, float64(rss)/(1<<20))
	}
	if c.relay != nil {
		rss, _ := resident(c.relay)
		b.result.add(c.name, "relay RSS "+when+" MiB", 1, float64(rss)/(1<<20))
	}
}
