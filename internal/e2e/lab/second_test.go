//go:build linux

package lab

import (
	"strings"
	"testing"
	"time"
)

// Of two Access Servers with one store either does what the other did: when that of a gateway dies, the gateway goes to the
// other one by itself, its session goes on, and new ones are made. The one that is back disturbs nobody, and serves as before.
func TestSecondAccessServerTakesOver(t *testing.T) {
	t.Attr("id", "A2-second")
	const limit = 60 * time.Second  // of the way to an Access Server
	const lease = 20 * time.Second  // that a process waits for the one of the process before it (access §9)
	const settle = 10 * time.Second // longer than two that think they have the gateway take to find out
	c := newCluster(t)
	g := c.addDevice("press-4")
	g.enroll()
	agent, _ := g.run(t)
	first := c.attached(agent.await(0, "online "+g.uid).text)
	c.awaitOnline(g.name, c.relay.name, accessName, secondName) // the other one hears of both a moment later
	forward := echoMachine(t)
	tech, addrs := g.connect(t, forward)
	kept := mustUse(t, addrs[0])
	agentMark, techMark := agent.mark(), tech.mark()
	online := func() []line { return agent.holding(agentMark, "online "+g.uid) }

	watch := watchLab()
	c.nodes[first].kill()
	gone := time.Now()
	trips := kept.goOn(t, gone.Add(outer), func() bool { return len(online()) > 0 })
	moved := agent.await(agentMark, "online "+g.uid)
	second := c.attached(moved.text)
	if second == first {
		t.Errorf("online at %s, which is dead", first)
	}
	book(t, watch, "Access Server killed, online at the other", moved.at.Sub(gone), limit)
	c.wantOnline(g.name, second)
	g.manager(nil, "ping", g.name, "--count", "1")
	_, fresh := g.connect(t, forward)
	made := mustUse(t, fresh[0])

	watch = watchLab()
	back := time.Now()
	c.nodes[first].run(t)
	c.wantOnline(g.name, first)
	book(t, watch, "killed Access Server started again, answers", time.Since(back), lease+late)
	trips += kept.goOn(t, time.Now().Add(settle), func() bool { return false })
	c.wantOnline(g.name, first, second)
	if lines := online(); len(lines) != 1 {
		t.Errorf("the agent was online %d times since its Access Server died, want once: %v", len(lines), lines)
	}

	mark, relayMark := agent.mark(), c.relay.mark()
	watch = watchLab()
	c.nodes[second].kill()
	gone = time.Now()
	c.nodes[second].run(t) // at once, as a service manager does
	moved = agent.await(mark, "online "+g.uid)
	book(t, watch, "Access Server killed and started at once, online", moved.at.Sub(gone), limit)
	again := c.relay.await(relayMark, registered)
	book(t, watch, "Access Server killed and started at once, relay registered", again.at.Sub(gone), limit)
	t.Logf("online at %s, then %s, then %s", first, second, c.attached(moved.text))
	g.manager(nil, "ping", g.name, "--count", "1")
	for _, tool := range []*tool{kept, made} {
		trips += tool.goOn(t, time.Now().Add(time.Millisecond), func() bool { return true })
	}
	for _, l := range tech.holding(techMark, "session") {
		t.Errorf("the Manager's session did not simply go on: %s", l.text)
	}
	t.Logf("%d trips through sessions whose Access Server had died", trips)
}

// mustUse is useForward for the rest of the test.
func mustUse(t *testing.T, address string) *tool {
	t.Helper()
	tool, err := useForward(address, outer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tool.Close() })
	return tool
}

// awaitOnline waits until each of the Access Servers knows that a gateway is online, and chooses that relay for it.
func (c *cluster) awaitOnline(gateway, relay string, names ...string) {
	c.t.Helper()
	for _, name := range names {
		at, end := c.at(name), time.Now().Add(outer)
		for {
			var device struct{ Online bool }
			var decision struct{ Chosen string }
			at.manager(&device, "device", "show", gateway, "--json")
			at.manager(&decision, "relays", gateway, "--json")
			if device.Online && decision.Chosen == relay {
				break
			}
			if time.Now().After(end) {
				c.t.Fatalf("%s does not know of the gateway or of relay %s", name, relay)
			}
		}
	}
}

// wantOnline asks each of the Access Servers for a gateway.
func (c *cluster) wantOnline(gateway string, names ...string) {
	c.t.Helper()
	for _, name := range names {
		var device struct{ Online bool }
		if c.at(name).manager(&device, "device", "show", gateway, "--json"); !device.Online {
			c.t.Errorf("%s does not tell the technician that the gateway is online", name)
		}
	}
}

// goOn makes trips until done or the end, and returns how many.
func (t *tool) goOn(test *testing.T, end time.Time, done func() bool) (trips int) {
	test.Helper()
	const limit = outer // of one trip
	pace := time.NewTicker(500 * time.Millisecond)
	defer pace.Stop()
	for ; time.Now().Before(end); <-pace.C {
		if _, err := t.trip(limit); err != nil {
			test.Fatalf("the old stream after %d trips: %v", trips, err)
		}
		if trips++; done() {
			break
		}
	}
	return trips
}

// holding returns the lines after a mark that hold text.
func (o *output) holding(mark int, text string) (held []line) {
	lines, _ := o.since(mark)
	for _, l := range lines {
		if strings.Contains(l.text, text) {
			held = append(held, l)
		}
	}
	return held
}
