//go:build linux

package e2e

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"hawser/agent"
)

// TestIdleGatewayHardlyWrites leaves the whole system alone for two days. Whatever the agent writes goes through
// internal/durable, with two syncs for each file; what it writes when idle is its state, whose files count their writes.
func TestIdleGatewayHardlyWrites(t *testing.T) {
	t.Attr("id", "Q6")
	const days, mostSyncs, mostBytes = 2, 24, 4 << 10 // a day, an hour
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.tasks.Wait()
		stopAccess, stopRelay, stopDNS := w.accessServer(), w.relayServer(), w.resolver()
		tech := w.technician()
		defer tech.Close()
		o := w.enrolled(tech, "press 4")
		a, err := agent.New(o)
		if err != nil {
			t.Fatal(err)
		}
		stopAgent := w.task("agent", a.Run)
		w.within(time.Minute, "online", func() bool { return a.Status().State == agent.StateAttached })
		time.Sleep(time.Minute)
		before, kept := saves(t, o.Config.Data), keptFiles(t, o.Config.Data)
		time.Sleep(days * 24 * time.Hour)
		writes, bytes := saves(t, o.Config.Data)-before, stateBytes(t, o.Config.Data)
		if now := keptFiles(t, o.Config.Data); now != kept {
			t.Errorf("other files were %s, are %s", kept, now)
		}
		syncs, hourly := 2*writes/days, writes*bytes/(days*24)
		t.Attr("count", fmt.Sprintf("syncs of an idle day=%d", syncs))
		t.Attr("count", fmt.Sprintf("bytes written in an idle hour=%d", hourly))
		if writes == 0 || syncs > mostSyncs || hourly > mostBytes {
			t.Errorf("%d writes of %d bytes in %d days: %d syncs a day, %d bytes an hour", writes, bytes, days, syncs, hourly)
		}
		for _, stop := range []func(){stopAgent, stopRelay, stopAccess, stopDNS} {
			stop()
		}
	})
}

// saves is how often the state was ever written: the newer of its two files says so (durable's slots).
func saves(t *testing.T, dir string) int {
	t.Helper()
	newest := uint64(0)
	for _, name := range []string{"state.0", "state.1"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			newest = max(newest, binary.BigEndian.Uint64(b[8:]))
		}
	}
	return int(newest)
}

// stateBytes is the size of the larger of the two.
func stateBytes(t *testing.T, dir string) (size int) {
	t.Helper()
	for _, name := range []string{"state.0", "state.1"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil {
			size = max(size, int(info.Size()))
		}
	}
	return size
}

// keptFiles names all others with their times, which are real ones: a file that was written is newer.
func keptFiles(t *testing.T, dir string) (list string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if e.Type().IsRegular() && e.Name() != "state.0" && e.Name() != "state.1" {
			list += fmt.Sprintf("%s at %v, ", e.Name(), info.ModTime())
		}
	}
	return list
}
