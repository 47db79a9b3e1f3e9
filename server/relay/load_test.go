package relay

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"hawser/transport"
	"hawser/transport/wire"
)

func TestLoadIsToldAtHelloAndAtMostEveryTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFresh(t)
		stop := f.run(t)
		time.Sleep(time.Minute)
		began := time.Now()
		var last *transport.Conn
		for _, session := range []string{"s1", "s2", "s3"} { // at 0, 1 and 2 s
			last, _ = f.pair(t, session)
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute)
		last.Close()
		time.Sleep(time.Minute)
		must(t, stop())
		got := f.access.told()
		if len(got) != 4 {
			t.Fatalf("%d loads, want 4: %+v", len(got), got)
		}
		for i, pipes := range []int{0, 1, 3, 2} {
			if want := (wire.Load{Pipes: pipes, Max: DefaultMaxPipes}); got[i].Load != want {
				t.Errorf("load %d: %+v, want %+v", i, got[i].Load, want)
			}
		}
		if a, b := got[1].at.Sub(began), got[2].at.Sub(began); a != 0 || b != loadPause {
			t.Errorf("told after %v and %v, want at once and after %v", a, b, loadPause)
		}
	})
}

func (a *accessServer) told() []load {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.loads
}

func TestFullRelayRefusesWithBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.MaxPipes = 1 })
		device, user := r.device(t), r.user(t)
		runtime := r.join(t, device, r.grant(wire.RoleRuntime, device, user, "s1"))
		synctest.Wait()
		err := answer(r.join(t, device, r.grant(wire.RoleRuntime, device, user, "s2")))
		if refusal, ok := errors.AsType[*wire.Refusal](err); !ok || refusal.Reason != transport.Busy || refusal.RetryAfter != busyTime {
			t.Errorf("over the maximum: %v, want busy for %v", err, busyTime)
		}
		// The other end of a session that is counted already has its place.
		manager := r.join(t, user, r.grant(wire.RoleManager, user, device, "s1"))
		must(t, answer(runtime))
		must(t, answer(manager))
		runtime.Close()
		manager.Close()
		synctest.Wait()
		r.pair(t, "s2")
	})
}

// TestWhoLeftItsPipeCannotComeBackToIt: the seat is free again, but the other
// end has met somebody already.
func TestWhoLeftItsPipeCannotComeBackToIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newTable(2)
		device, user := newSeated(t, wire.RoleRuntime), newSeated(t, wire.RoleManager)
		must(t, table.enter(device))
		must(t, table.enter(user))
		table.leave(device)
		wantReason(t, table.enter(newSeated(t, wire.RoleRuntime)), transport.GrantUsed)
		if n := table.load(); n != 1 {
			t.Errorf("%d sessions while one end is there, want 1", n)
		}
		table.leave(user)
		must(t, table.enter(newSeated(t, wire.RoleRuntime)))
	})
}

func TestSeatIsFreedOnlyByWhoSitsThere(t *testing.T) {
	table := newTable(2)
	first, second := newSeated(t, wire.RoleRuntime), newSeated(t, wire.RoleRuntime)
	must(t, table.enter(first))
	if !table.giveUp(first) {
		t.Fatal("nobody came, and it has not given up")
	}
	must(t, table.enter(second))
	table.leave(first)
	if n := table.load(); n != 1 {
		t.Errorf("%d sessions, want 1: the first has no seat to leave any more", n)
	}
	table.leave(second)
	if n := table.load(); n != 0 {
		t.Errorf("%d sessions after all have left", n)
	}
}

// newSeated is an end without a connection.
func newSeated(t *testing.T, role wire.Role) *end {
	var a admission
	a.grant.Session, a.grant.Role = "s1", role
	e := newEnd(t.Context(), nil, a)
	t.Cleanup(func() { e.cut(nil) })
	return e
}
