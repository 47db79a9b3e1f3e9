//go:build linux

package lab

import (
	"fmt"
	"os/exec"
	"testing"
	"time"

	"hawser/internal/e2e/pace"
)

// A Manager's forward is of use again soon after the relay under it has died, by itself and over another relay.
func TestSessionGoesOnWhenItsRelayDies(t *testing.T) {
	t.Attr("id", "A2-failover")
	t.Attr("cases", "4") // three kills, one cut
	const killed, noticed, cut = 5 * time.Second, 10 * time.Second, 16 * time.Second
	p := newPool(t)
	for _, r := range p.relays {
		r.run(t)
	}
	g := p.addDevice("press-4")
	g.enroll()
	agent, _ := g.run(t)
	forward := echoMachine(t)
	tech, addrs := g.connect(t, forward)
	awaitForward(t, addrs[0], time.Now())

	victim := p.carrier(tech, 0)
	for i := range 3 {
		mark, gone, watch := tech.mark(), time.Now(), watchLab()
		victim.kill()
		back := awaitForward(t, addrs[0], gone)
		next := p.moved(tech, mark, victim)
		book(t, watch, fmt.Sprintf("kill %d, of use again", i+1), back, killed)
		victim.run(t) // all three can carry the next one
		victim = next
	}
	tech.stop()

	tech, addrs = g.connect(t, forward) // one that has lost nothing yet, and so does not wait before it asks again
	awaitForward(t, addrs[0], time.Now())
	victim = p.carrier(tech, 0)
	mark, agentMark := tech.mark(), agent.mark()
	watch, gone := watchLab(), pullCable(t, victim.host)
	back := awaitForward(t, addrs[0], gone)
	p.moved(tech, mark, victim)
	book(t, watch, "cable pulled, the Manager notices", tech.await(mark, "session lost").at.Sub(gone), noticed+late)
	book(t, watch, "cable pulled, the agent notices", agent.await(agentMark, `msg="session ended"`).at.Sub(gone), noticed+late)
	book(t, watch, "cable pulled, of use again", back, cut)
}

// moved wants the Manager to say that its session is lost at a relay and goes on at another, which it returns.
func (p *pool) moved(tech *process, mark int, from *relay) *relay {
	p.t.Helper()
	to := p.carrier(tech, mark)
	tech.await(mark, "via relay "+from.name+"; ")
	tech.await(mark, "moved to relay "+to.name)
	if to == from {
		p.t.Errorf("the session goes on at %s, which it has lost", to.name)
	}
	return to
}

// pullCable cuts a host off for the rest of the test, and returns when that was.
func pullCable(t *testing.T, host string) time.Time {
	t.Helper()
	run(t, "lab", "link", host, "down")
	t.Cleanup(func() {
		if err := exec.Command("lab", "link", host, "up").Run(); err != nil {
			t.Errorf("plug %s in: %v", host, err)
		}
	})
	return time.Now()
}

// book reports how long something took, which is to be at most bound on a machine that nobody else uses.
func book(t *testing.T, watch *pace.Watch, what string, took, bound time.Duration) {
	t.Helper()
	watch.Within(t, what, took, bound)
	t.Attr("count", fmt.Sprintf("%s, ms=%d", what, took.Milliseconds()))
	t.Logf("%s after %v", what, took.Round(time.Millisecond))
}
