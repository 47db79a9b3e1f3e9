//go:build linux

package lab

import (
	"crypto/rand"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

// Q6's bounds for the agent on the board, in KiB: memory, and what an hour of idling writes.
const (
	mostIdle    = 20 << 10
	mostStreams = 32 << 10
	mostHourly  = 4
)

// rss is the agent's resident memory in KiB, with the pages of the program itself.
func (b *board) rss(t *testing.T) (kib int) {
	t.Helper()
	if _, err := fmt.Sscan(b.console.run(t, "sed -n 's/^VmRSS:\t*//p' /proc/$(pidof hawser-agent)/status"), &kib); err != nil {
		t.Fatal(err)
	}
	return kib
}

// noOutOfMemory wants that the 32 MiB that the gateway's processes have together, since the boot, were enough.
func (b *board) noOutOfMemory(t *testing.T) {
	t.Helper()
	events := b.console.run(t, "cd /sys/fs/cgroup/gateway; cat memory.max; cat memory.events; echo peak $(cat memory.peak); cat cgroup.procs | wc -l")
	if !strings.HasPrefix(events, "33554432\n") || !strings.Contains(events, "\noom_kill 0\n") || !strings.Contains(events, "\noom 0\n") {
		t.Errorf("the group of the gateway: %s", events)
	}
	_, rest, _ := strings.Cut(events, "peak ")
	var peak, processes int
	if _, err := fmt.Sscan(rest, &peak, &processes); err != nil || processes < 2 {
		t.Errorf("peak %d, %d processes: %v", peak, processes, err)
	}
	t.Logf("the group of %d processes had at most %d KiB", processes, peak>>10)
}

// written returns how many KiB the data partition has been sent so far, in how many requests.
func (b *board) written(t *testing.T) (kib float64, requests int) {
	t.Helper()
	// Of the whole line, field 8 is writes completed and field 10 sectors written (Linux's iostats.rst).
	text := b.console.run(t, `sync; awk '$3 == "mmcblk0p2" { print $10 / 2, $8 }' /proc/diskstats`)
	if _, err := fmt.Sscan(text, &kib, &requests); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return kib, requests
}

// idle looks for a minute at a board that has nothing to do, and then at what the card is sent when the agent writes its
// state, which it does once a day: that is counted in fake time (internal/e2e).
func (b *board) idle(t *testing.T) {
	t.Attr("id", "Q6")
	const long = 30 * time.Second
	before, _ := b.written(t)
	most := 0
	poll := time.NewTicker(5 * time.Second)
	defer poll.Stop()
	for until := time.Now().Add(long); time.Now().Before(until); <-poll.C {
		most = max(most, b.rss(t))
	}
	after, _ := b.written(t)
	t.Attr("count", fmt.Sprintf("idle RSS on the board, KiB=%d", most))
	t.Attr("count", fmt.Sprintf("KiB written in 30 idle seconds=%.0f", after-before))
	if most > mostIdle {
		t.Errorf("RSS %d KiB, want at most %d", most, mostIdle)
	}
	if after != before {
		t.Errorf("%v KiB in %v of doing nothing", after-before, long)
	}
	mark := b.process.mark()
	b.console.run(t, "killall hawser-agent")
	b.awaitOnline(mark)
	once, requests := b.written(t)
	t.Attr("count", fmt.Sprintf("KiB on the card for a day's one write of state=%.0f", once-after))
	t.Logf("in all %d requests", requests)
	if once <= after || once-after > 24*mostHourly {
		t.Errorf("%v KiB for one write of the state", once-after)
	}
	b.noOutOfMemory(t)
}

// streams has 20 of them carry 256 KiB each way at once, and stay open.
func (b *board) streams(t *testing.T) {
	t.Attr("id", "Q6")
	const many, size = 20, 256 << 10
	_, addrs := b.connect(t, echoMachine(t))
	var tools []*tool
	for range many {
		tool, err := useForward(addrs[0], outer)
		if err != nil {
			t.Fatal(err)
		}
		defer tool.Close()
		tools = append(tools, tool)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, tool := range tools {
		wg.Go(func() {
			if err := tool.flood(size); err != nil {
				t.Error(err)
			}
		})
	}
	go func() { wg.Wait(); close(stop) }()
	most := 0
	for done := false; !done; {
		most = max(most, b.rss(t))
		select {
		case <-stop:
			done = true
		default:
		}
	}
	most = max(most, b.rss(t))
	t.Attr("count", fmt.Sprintf("RSS with 20 streams on the board, KiB=%d", most))
	if most > mostStreams {
		t.Errorf("RSS %d KiB, want at most %d", most, mostStreams)
	}
	b.noOutOfMemory(t)
}

// flood sends so many bytes and wants them back.
func (t *tool) flood(size int) error {
	if err := t.SetDeadline(time.Now().Add(2 * outer)); err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		_, err := io.CopyN(t, rand.Reader, int64(size))
		sent <- err
	}()
	if _, err := io.CopyN(io.Discard, t, int64(size)); err != nil {
		return err
	}
	return <-sent
}
