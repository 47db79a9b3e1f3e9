//go:build linux

package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
)

// TestStreamsDoNotTakeTheGateway asks for far more connections than a gateway has, to machines that send without end and
// read nothing, and leaves full what it gets. Meanwhile another technician works.
func TestStreamsDoNotTakeTheGateway(t *testing.T) {
	t.Attr("id", "L-streams")
	const (
		managers, forwards, each = 8, 8, 32 // 2048 connections
		mostKiB                  = 40 << 10
	)
	in := newInfra(t)
	g := in.addDevice("press-4", `"127.0.0.0/8:*"`)
	g.enroll()
	g.run()
	_, works := g.connect(g.echo())
	_, later := g.connect(g.echo())
	before := g.peak()

	var held sync.WaitGroup
	over := make(chan struct{})
	defer func() { close(over); held.Wait() }()
	full := func(c net.Conn) { // nobody reads what it sends, and it reads nothing
		held.Go(func() { <-over; c.Close() })
		for b := bytes.Repeat([]byte("bytes "), 4096); ; {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}
	var asked, got sync.WaitGroup
	var mu sync.Mutex
	opened, refused := 0, 0
	homes := []string{in.addUser("ann"), in.addUser("bob")}
	for m := range managers {
		args := []string{"--home", homes[m%len(homes)], "connect", g.name}
		for f := range forwards {
			target := machineAt(t, fmt.Sprintf("127.0.%d.%d:0", m+1, f+1), full)
			args = append(args, "-L", "0:"+target)
		}
		p := start(t, "hawser", args...)
		for range forwards {
			addr := strings.Fields(p.line("forward "))[1]
			for range each {
				asked.Add(1)
				got.Go(func() {
					c, err := net.DialTimeout("tcp", addr, patience)
					if err == nil {
						_, err = c.Read(make([]byte, 1)) // of an endless machine
					}
					mu.Lock()
					if err == nil {
						opened++
					} else {
						refused++
					}
					mu.Unlock()
					asked.Done()
					if err == nil {
						full(c)
					}
				})
			}
		}
	}
	asked.Wait()
	for range 20 {
		if err := roundTrip(works); err != nil {
			t.Fatalf("the other session: %v", err)
		}
	}
	if err := roundTrip(later); err != nil {
		t.Errorf("a session without streams of its own gets none: %v", err)
	}
	peak := g.peak()
	t.Attr("count", fmt.Sprintf("agent KiB at 2048 streams asked=%d", peak))
	t.Logf("%d KiB before, %d KiB at most; %d streams opened, %d refused", before, peak, opened, refused)
	if peak > mostKiB {
		t.Errorf("the agent had %d KiB, want at most %d", peak, mostKiB)
	}
	if opened < 150 || opened+refused != managers*forwards*each {
		t.Errorf("%d streams opened, %d refused", opened, refused)
	}
	t.Cleanup(got.Wait)
}

// peak is the most memory that the agent has had, in KiB.
func (g *gateway) peak() (kib int) {
	g.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.agent.cmd.Process.Pid))
	if err != nil {
		g.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\nVmHWM:")
	if _, err := fmt.Sscanf(rest, "%d kB", &kib); err != nil {
		g.t.Fatal(err)
	}
	return kib
}
