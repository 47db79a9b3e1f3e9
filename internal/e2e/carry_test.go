//go:build linux

package e2e

import (
	"context"
	"io"
	"net"
	"net/netip"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hawser/agent"
	"hawser/manager"
)

// TestCarryingAllocatesLittle counts what all programs together allocate for each MiB that they carry: an allocation or a
// write for every small piece of data shows at once, on the busiest machine. The network here allocates as well, once for
// each write, and 8 MiB for the eight ways between two hosts that a MiB takes until it is back.
func TestCarryingAllocatesLittle(t *testing.T) {
	const mib = 32
	mostAllocations, mostBytes := uint64(2500), uint64(10<<20) // for a MiB that goes to the machine and comes back
	if underRaceDetector() {
		mostAllocations, mostBytes = 4500, 16<<20
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.tasks.Wait()
		stops := []func(){w.accessServer(), w.relayServer(), w.resolver(), w.echo()}
		tech := w.technician()
		defer tech.Close()
		o := w.enrolled(tech, "press 4")
		a, err := agent.New(o)
		if err != nil {
			t.Fatal(err)
		}
		stops = append(stops, w.task("agent", a.Run))
		w.within(time.Minute, "online", func() bool { return a.Status().State == agent.StateAttached })
		forward, err := manager.ParseForward("1502:" + machineAddr.String() + ":502")
		if err != nil {
			t.Fatal(err)
		}
		stops = append(stops, w.task("connect", func(ctx context.Context) error {
			return tech.Connect(ctx, "press 4", []manager.Forward{forward}, io.Discard, w.log)
		}))
		w.within(time.Minute, "a tool reaches the machine", w.reaches)
		c, err := w.net.Host(techAddr).DialContext(t.Context(), "tcp", netip.AddrPortFrom(techAddr, 1502).String())
		if err != nil {
			t.Fatal(err)
		}
		carryBack(t, c, 4<<20) // until every buffer is there
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		carryBack(t, c, mib<<20)
		runtime.ReadMemStats(&after)
		allocations, bytes := (after.Mallocs-before.Mallocs)/mib, (after.TotalAlloc-before.TotalAlloc)/mib
		t.Logf("a MiB carried: %d allocations, %d bytes", allocations, bytes)
		if allocations > mostAllocations || bytes > mostBytes {
			t.Errorf("%d allocations, %d bytes per MiB; at most %d, %d", allocations, bytes, mostAllocations, mostBytes)
		}
		c.Close()
		for _, stop := range slices.Backward(stops) {
			stop()
		}
	})
}

// underRaceDetector says whether pools forget a part of what they are given, on purpose.
func underRaceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// carryBack sends n bytes and takes them back.
func carryBack(t *testing.T, c net.Conn, n int) {
	t.Helper()
	var sending sync.WaitGroup
	sending.Go(func() {
		piece := make([]byte, 64<<10)
		for sent := 0; sent < n; sent += len(piece) {
			if _, err := c.Write(piece); err != nil {
				t.Error(err)
				return
			}
		}
	})
	if _, err := io.CopyN(io.Discard, c, int64(n)); err != nil {
		t.Error(err)
	}
	sending.Wait()
}
