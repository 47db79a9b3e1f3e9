package relay

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"hawser/server/grant"
	"hawser/transport"
	"hawser/transport/wire"
)

func TestLoadIsToldAtHelloAndAtMostEveryTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFresh(t)
		stop := f.run(t)
		time.Sleep(time.Minute)
		began := time.Now()
		var last *line
		for _, session := range []string{"s1", "s2", "s3"} { // at 0, 1 and 2 s
			last, _ = f.pair(t, session)
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute)
		last.Close()
		time.Sleep(time.Minute)
		must(t, stop())
		got := f.access.Heard(wire.TypeLoad)
		loads := decoded[wire.Load](t, got)
		if len(got) != 4 {
			t.Fatalf("%d loads, want 4: %+v", len(got), loads)
		}
		for i, pipes := range []int{0, 1, 3, 2} {
			if want := (wire.Load{Pipes: pipes, Max: DefaultMaxPipes}); loads[i] != want {
				t.Errorf("load %d: %+v, want %+v", i, loads[i], want)
			}
		}
		if a, b := got[1].At.Sub(began), got[2].At.Sub(began); a != 0 || b != loadPause {
			t.Errorf("told after %v and %v, want at once and after %v", a, b, loadPause)
		}
	})
}

func TestFullRelayRefusesWithBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.MaxPipes = 1 })
		device, user := r.device(), r.user()
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

// TestWhoLeftItsPipeCannotComeBackToIt: the slot is free again, but the other
// end has met somebody already.
func TestWhoLeftItsPipeCannotComeBackToIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pairs := newPairing(2)
		device, user := newWaiting(t, wire.RoleRuntime), newWaiting(t, wire.RoleManager)
		must(t, pairs.enter(device))
		must(t, pairs.enter(user))
		pairs.leave(device)
		wantReason(t, pairs.enter(newWaiting(t, wire.RoleRuntime)), transport.GrantUsed)
		if n := pairs.load(); n != 1 {
			t.Errorf("%d sessions while one end is there, want 1", n)
		}
		pairs.leave(user)
		must(t, pairs.enter(newWaiting(t, wire.RoleRuntime)))
	})
}

func TestASlotIsFreedOnlyByItsEnd(t *testing.T) {
	pairs := newPairing(2)
	first, second := newWaiting(t, wire.RoleRuntime), newWaiting(t, wire.RoleRuntime)
	must(t, pairs.enter(first))
	if !pairs.giveUp(first) {
		t.Fatal("nobody came, and it has not given up")
	}
	must(t, pairs.enter(second))
	pairs.leave(first)
	if n := pairs.load(); n != 1 {
		t.Errorf("%d sessions, want 1: the first has no slot any more", n)
	}
	pairs.leave(second)
	if n := pairs.load(); n != 0 {
		t.Errorf("%d sessions after all have left", n)
	}
}

// newWaiting is an end without a connection.
func newWaiting(t *testing.T, role wire.Role) *end {
	e := newEnd(t.Context(), nil, grant.Grant{Session: "s1", Role: role})
	t.Cleanup(func() { e.cancel(nil) })
	return e
}
