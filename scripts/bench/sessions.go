//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// collected is how long it takes until Go has collected what a handshake left, which it does after two minutes at the
// latest, and has given it back: an agent that has just opened 16 sessions holds several times what they need.
const collected = 150 * time.Second

const (
	perAgent = 16 // sessions that an agent carries at most
	perUser  = 4  // of them that one technician has
)

// measureSessions reads the memory of sessions that do nothing, at the agent and at a relay that does nothing else;
// each has a technician's program of its own.
func measureSessions(ctx context.Context, b *bench) error {
	if err := moreFiles(); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	back := serveBackend(l)
	defer back.close()
	s, err := b.newStage("sessions", back.addr(), nil)
	if err != nil {
		return err
	}
	defer s.stop()
	in, err := s.newInfra(ctx)
	if err == nil {
		err = in.login(ctx)
	}
	if err == nil {
		err = in.noRelay(ctx)
	}
	if err == nil {
		err = in.addRelay(ctx)
	}
	if err != nil {
		return err
	}
	c := &crowd{infra: in, homes: []string{in.home}}
	for i := 1; i < perAgent/perUser; i++ {
		home, err := in.addUser(ctx, fmt.Sprintf("technician%d", i))
		if err != nil {
			return err
		}
		c.homes = append(c.homes, home)
	}
	if err := c.add(ctx, "gateway0"); err != nil {
		return err
	}
	if err := c.awaitRelay(ctx); err != nil {
		return err
	}
	agents := (b.sessions + perAgent - 1) / perAgent
	for i := 1; i < agents; i++ {
		if err := c.add(ctx, fmt.Sprintf("gateway%d", i)); err != nil {
			return err
		}
	}
	if err := c.open(ctx, 1); err != nil { // what the first session costs is not what a session costs
		return err
	}
	time.Sleep(collected)
	before := c.memory()
	if err := c.roundTrips(b, fmt.Sprintf("with %d sessions", len(c.sessions))); err != nil {
		return err
	}
	if err := c.open(ctx, perAgent-1); err != nil {
		return err
	}
	time.Sleep(collected)
	after, more := c.memory(), float64(agents*(perAgent-1))
	b.result.add("hawser", "sessions at the relay", 1, float64(len(c.sessions)))
	b.result.add("hawser", "relay, KiB per idle session", 1, float64(after.relay-before.relay)/1024/more)
	b.result.add("hawser", "agent, KiB per idle session", 1, float64(after.agents-before.agents)/1024/more)
	b.result.add("hawser", "technician's program with a session, MiB", 1, float64(after.technicians)/(1<<20)/float64(len(c.sessions)))
	return c.roundTrips(b, fmt.Sprintf("with %d sessions", len(c.sessions)))
}

// noRelay takes the role of a relay from the Access Server.
func (in *infra) noRelay(ctx context.Context) error {
	text, err := os.ReadFile(in.config())
	if err != nil {
		return err
	}
	kept, _, ok := strings.Cut(string(text), "\nrelay:")
	if !ok {
		return errors.New("server.yaml has no section relay")
	}
	if err := os.WriteFile(in.config(), []byte(kept+"\n"), 0o600); err != nil {
		return err
	}
	in.server.stop()
	return in.serve(ctx)
}

// awaitRelay waits until a session would be given a relay.
func (c *crowd) awaitRelay(ctx context.Context) error {
	return until(ctx, "no relay for a session", func() bool {
		var d struct{ Chosen string }
		return c.tech(ctx, &d, "relays", "gateway0", "--json") == nil && d.Chosen != ""
	})
}

// crowd is many gateways, and the sessions with them.
type crowd struct {
	*infra
	homes    []string // of the technicians, who take turns
	gateways []*gateway
	sessions []*process
	fronts   []string
}

func (c *crowd) add(ctx context.Context, name string) error {
	g, err := c.addGateway(ctx, name)
	if err == nil {
		err = g.run(ctx)
	}
	c.gateways = append(c.gateways, g)
	return err
}

// open opens n more sessions with each gateway.
func (c *crowd) open(ctx context.Context, n int) error {
	for range n {
		for _, g := range c.gateways {
			home := c.homes[len(c.sessions)/len(c.gateways)%len(c.homes)] // another one with each session of a gateway
			p, front, err := g.connectAs(ctx, home)
			if err != nil {
				return fmt.Errorf("session %d: %w", len(c.sessions), err)
			}
			c.sessions, c.fronts = append(c.sessions, p), append(c.fronts, front)
		}
	}
	return nil
}

// footprint is memory in bytes.
type footprint struct{ relay, agents, technicians int64 }

func (c *crowd) memory() (f footprint) {
	f.relay, _ = resident(c.relay)
	for _, g := range c.gateways {
		rss, _ := resident(g.agent)
		f.agents += rss
	}
	for _, p := range c.sessions {
		rss, _ := resident(p)
		f.technicians += rss
	}
	return f
}

// roundTrips measures the newest session.
func (c *crowd) roundTrips(b *bench, when string) error {
	t := &tunnel{dial: c.dialer(c.fronts[len(c.fronts)-1])}
	d, err := t.pings(2000, 0)
	if err != nil {
		return err
	}
	b.result.add("hawser", "round trip p50 µs "+when, 1, micros(percentile(d, 50)))
	b.result.add("hawser", "round trip p99 µs "+when, 1, micros(percentile(d, 99)))
	return nil
}
