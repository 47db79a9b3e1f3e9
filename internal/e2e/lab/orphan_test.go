//go:build linux

package lab

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A session does not need the Access Server that has made it, and whoever lost that comes back to it without help.
func TestSessionGoesOnWhenTheAccessServerDies(t *testing.T) {
	t.Attr("id", "A2-access")
	const away, limit = 11 * time.Second, outer // longer than anybody takes to notice (wire §4.6, session §3.6); of one trip
	p := newPool(t)
	for _, r := range p.relays {
		r.run(t)
	}
	g := p.addDevice("press-4")
	g.enroll()
	agent, _ := g.run(t)
	tech, addrs := g.connect(t, echoMachine(t))
	kept, err := useForward(addrs[0], outer)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()

	agentMark, techMark := agent.mark(), tech.mark()
	relayMarks := make([]int, len(p.relays))
	for i, r := range p.relays {
		relayMarks[i] = r.mark()
	}
	p.server.kill()
	streams := 0
	pace := time.NewTicker(500 * time.Millisecond)
	defer pace.Stop()
	for gone := time.Now(); time.Since(gone) < away; <-pace.C {
		fresh, err := useForward(addrs[0], limit)
		if err != nil {
			t.Fatalf("a new stream %v after the Access Server died: %v", time.Since(gone), err)
		}
		fresh.Close()
		if _, err := kept.trip(limit); err != nil {
			t.Fatalf("the old stream %v after the Access Server died: %v", time.Since(gone), err)
		}
		streams++
	}
	t.Attr("count", fmt.Sprintf("new streams without an Access Server=%d", streams))
	agent.await(agentMark, `msg="will try again"`)

	p.serve()
	back := time.Now()
	online := agent.await(agentMark, "online "+g.uid).at.Sub(back)
	for i, r := range p.relays {
		r.await(relayMarks[i], registered)
	}
	g.manager(nil, "ping", g.name, "--count", "1")
	if _, err := kept.trip(limit); err != nil {
		t.Errorf("the old stream, with the Access Server back: %v", err)
	}
	lines, _ := tech.since(techMark)
	for _, l := range lines {
		if strings.Contains(l.text, "session") {
			t.Errorf("the Manager's session did not simply go on: %s", l.text)
		}
	}
	t.Logf("%d new streams in %v without an Access Server; online %v after it was back", streams, away, online.Round(time.Millisecond))
}

// serve starts the Access Server anew, and returns when it answers.
func (r *rig) serve() {
	r.t.Helper()
	r.server = start(r.t, "access1", hawser("hawser-server"), "run", "--config", r.path("server/server.yaml"))
	r.server.await(0, "ready ")
}
