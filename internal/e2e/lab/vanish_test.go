//go:build linux

package lab

import (
	"strings"
	"testing"
	"time"
)

// vanish swallows every packet that passes the site's gateway: nobody hears that a peer is gone. It returns when that was.
func vanish(t *testing.T) time.Time {
	t.Helper()
	firewall(t, "loss", "100")
	return time.Now()
}

// late is by how much a timer of several seconds may be late on any machine.
const late = 500 * time.Millisecond

// While a session runs, each end notices within ten seconds that the other has vanished (wire §4.6, session §3.6).
func TestVanishedPeerIsNoticedDuringASession(t *testing.T) {
	t.Attr("id", "N7")
	const bound = 10 * time.Second
	g := newRig(t).addDevice("press-4") // its heartbeat is the default, of minutes
	g.enroll()
	agent, _ := g.run(t)
	tech, _ := g.connect(t, "0:"+plc(t)+":502")
	agentMark, techMark, serverMark := agent.mark(), tech.mark(), g.server.mark()
	watch, gone := watchLab(), vanish(t)
	offline := g.awaitOffline(serverMark)
	for _, tt := range []struct {
		what string
		took time.Duration
	}{
		{"the Access Server", offline.Sub(gone)},
		{"the agent, of the Access Server", agent.await(agentMark, `reason=link-lost`).at.Sub(gone)},
		{"the agent, of the session", agent.await(agentMark, `msg="session ended"`).at.Sub(gone)},
		{"the Manager", tech.await(techMark, "session").at.Sub(gone)},
	} {
		watch.Within(t, tt.what+" notices", tt.took, bound+late)
		t.Logf("%s notices after %v", tt.what, tt.took.Round(time.Millisecond))
	}
	run(t, "lab", "firewall", "clear")
	agent.await(agentMark, "online "+g.uid)
}

// Without a session there is the heartbeat, and a grace as long, of 15 s at most (wire §4.6).
func TestVanishedPeerIsNoticedByTheHeartbeat(t *testing.T) {
	t.Attr("id", "N7")
	const heartbeat = 5 * time.Second
	g := newRig(t, "heartbeat: 2m0s", "heartbeat: "+heartbeat.String()).addDevice("press-4")
	g.enroll()
	agent, _ := g.run(t)
	if !g.online() {
		t.Error("the Access Server does not know that the gateway is online")
	}
	mark, serverMark := agent.mark(), g.server.mark()
	watch, gone := watchLab(), vanish(t)
	offline := g.awaitOffline(serverMark).Sub(gone)
	lost := agent.await(mark, `msg="will try again"`)
	noticed := lost.at.Sub(gone)
	if !strings.Contains(lost.text, "reason=link-lost") {
		t.Errorf("the agent says %q, want the reason link-lost", lost.text)
	}
	bound := heartbeat + min(heartbeat, 15*time.Second) + late
	watch.Within(t, "the Access Server notices", offline, bound)
	watch.Within(t, "the agent notices", noticed, bound)
	t.Logf("the Access Server notices after %v, the agent after %v", offline.Round(time.Millisecond), noticed.Round(time.Millisecond))
	run(t, "lab", "firewall", "clear")
	agent.await(mark, "online "+g.uid)
}
