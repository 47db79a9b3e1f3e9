//go:build linux

package lab

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestIdleAgentIsSmall reads what the kernel counts for an agent that is online, as long as it takes until it has done all
// that it does at first: time, and measuring the relays (wire §4.8).
func TestIdleAgentIsSmall(t *testing.T) {
	t.Attr("id", "A2-rss")
	const most = 12 << 10 // KiB
	g := newRig(t).addDevice("press-4")
	g.enroll()
	agent, _ := g.run(t)
	rss := 0
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for until := time.Now().Add(12 * time.Second); time.Now().Before(until); <-poll.C {
		rss = max(rss, g.memory(agent, "VmRSS"))
	}
	t.Attr("count", fmt.Sprintf("idle agent RSS KiB=%d", rss))
	if rss > most {
		t.Errorf("RSS %d KiB, want at most %d KiB", rss, most)
	}
	t.Logf("RSS %d KiB at most; now %d KiB anonymous, %d KiB of files", rss, g.memory(agent, "RssAnon"), g.memory(agent, "RssFile"))
}

// memory is a value of proc_pid_status(5), in KiB.
func (g *gateway) memory(p *process, key string) (kib int) {
	g.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid()))
	if err == nil {
		_, rest, _ := strings.Cut(string(text), "\n"+key+":")
		_, err = fmt.Sscanf(rest, "%d kB", &kib)
	}
	if err != nil {
		g.t.Fatalf("%s: %v", key, err)
	}
	return kib
}
