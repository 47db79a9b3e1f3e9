//go:build linux

package lab

import (
	"fmt"
	"os"
	"regexp"
	"syscall"
	"testing"
	"time"
)

// A loose plug: the gateway is of use again at most five seconds after each time that its link is back, and keeps nothing
// of the connections that it has lost.
func TestLooseCableIsNoticedAtOnceAndCostsNothing(t *testing.T) {
	t.Attr("id", "N6")
	t.Attr("cases", "20")
	const flaps, bound = 20, 5 * time.Second
	g := newRig(t, "heartbeat: 2m0s", "heartbeat: 5s").addDevice("press-4")
	g.enroll()
	base := g.stacks(t)
	agent := g.runTraced(t)
	g.manager(nil, "ping", g.name, "--count", "1")
	files := g.descriptors(agent)

	var slowest time.Duration
	for i := range flaps {
		mark := agent.mark()
		run(t, "lab", "link", "device", "down")
		if i%5 == 4 { // so long that the connection is given up
			agent.await(mark, `msg="will try again"`)
		} else if pings("device", describe(t).ways("access1")[0], false) {
			t.Error("the link is not down")
		}
		watch := watchLab()
		run(t, "lab", "link", "device", "up")
		back := g.awaitPing(time.Now())
		watch.Within(t, fmt.Sprintf("flap %d: of use again", i+1), back, bound)
		t.Logf("flap %d: of use again after %v", i+1, back.Round(time.Millisecond))
		slowest = max(slowest, back)
	}
	t.Logf("the slowest after %v", slowest.Round(time.Millisecond))
	awaitCount(t, "descriptors", func() int { return g.descriptors(agent) }, files)
	if got := g.quit(agent); got > base {
		t.Errorf("%d goroutines, %d in an agent that has lost nothing", got, base)
	}
}

// awaitPing returns how long after since the technician's ping went through the whole path.
func (g *gateway) awaitPing(since time.Time) time.Duration {
	g.t.Helper()
	for time.Since(since) < outer {
		if finish(g.t, "tech", hawser("hawser"), "--home", g.home, "ping", g.name, "--count", "1").code == 0 {
			return time.Since(since)
		}
	}
	g.t.Fatalf("%s does not answer %v after its link is back", g.name, outer)
	return 0
}

// runTraced runs the agent so that it prints its goroutines when it is told to quit.
func (g *gateway) runTraced(t *testing.T) *process {
	t.Helper()
	p := start(t, "device", "env", "GOTRACEBACK=all", hawser("hawser-agent"), "--data", g.data, "run")
	p.await(0, "online "+g.uid)
	return p
}

// stacks counts the goroutines of an agent that is online and has carried a session.
func (g *gateway) stacks(t *testing.T) int {
	t.Helper()
	p := g.runTraced(t)
	g.manager(nil, "ping", g.name, "--count", "1")
	return g.quit(p)
}

// quit ends an agent after its last session and counts its goroutines.
func (g *gateway) quit(p *process) int {
	g.t.Helper()
	p.await(0, `msg="session ended"`)
	if err := p.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		g.t.Fatal(err)
	}
	p.wait()
	return len(regexp.MustCompile(`created by [^r]`).FindAllString(p.String(), -1)) // those of the runtime come and go
}

func (g *gateway) descriptors(p *process) int {
	g.t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.pid()))
	if err != nil {
		g.t.Fatal(err)
	}
	return len(list)
}

// awaitCount waits until there are no more of something than want.
func awaitCount(t *testing.T, what string, count func() int, want int) {
	t.Helper()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for limit := time.After(outer); count() > want; {
		select {
		case <-poll.C:
		case <-limit:
			t.Errorf("%d %s, want at most %d", count(), what, want)
			return
		}
	}
}
