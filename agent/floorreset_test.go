package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"hawser/agent/clock"
	"hawser/board/boardtest"
	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/durable"
	"hawser/transport/wire"
)

// poison makes the stored anchor one that a server signed whose clock was ahead.
func (r *rig) poison(ahead time.Duration) (floor time.Time) {
	r.t.Helper()
	floor = time.Now().Add(ahead)
	if err := must(openStore(r.dir, nil))(r.t).save(floor, 0); err != nil {
		r.t.Fatal(err)
	}
	return floor
}

// signs makes the Access Server have a reset in its preludes.
func (r *rig) signs(by *identity.Authority, reset identity.FloorReset) {
	r.t.Helper()
	b := must(reset.Sign(by))(r.t)
	r.access.Set(func() { r.access.Reset = b })
}

// resetTo is a reset for this device to so long ago.
func resetTo(ago time.Duration, sequence uint64) identity.FloorReset {
	return identity.FloorReset{UID: testUID, To: time.Now().Add(-ago), Sequence: sequence}
}

// A server once signed a time ten years on. All that is wrong is the anchor.
func TestAPoisonedFloorHoldsUntilTheRootResetsIt(t *testing.T) {
	t.Attr("id", "K11")
	bubble(t, func(r *rig) {
		r.enrollNow()
		floor := r.poison(10 * 365 * day)
		p := r.start()
		time.Sleep(time.Hour)
		if f, _ := p.clock.Anchor(); len(r.access.Links) != 0 || !f.Equal(floor) {
			t.Fatalf("without a reset: %d links, floor %v", len(r.access.Links), f)
		}
		r.signs(r.access.PKI.Root, resetTo(time.Hour, 1))
		p.await(StateAttached, longestPause)
		st := p.Status().Clock
		if st.State != clock.Authentic || st.FloorReset == nil || time.Since(*st.FloorReset) < time.Hour || r.notes.count("floor was reset by the root") != 1 {
			t.Errorf("status %+v; log:\n%s", st, r.notes)
		}
		if off := time.Until(p.clock.Now()).Abs(); off > time.Second {
			t.Errorf("off by %v after one signed time", off)
		}
		p.stop(time.Second)
		a := must(New(r.opts))(t)
		if f, _ := a.clock.Anchor(); time.Since(f) < 0 || time.Since(f) > 2*time.Hour || a.store.saved.Reset != 1 {
			t.Errorf("after a restart: floor %v, sequence %d", f, a.store.saved.Reset)
		}
	})
}

// The board's own clock makes no difference, whatever it says.
func TestAPoisonedFloorIsResetWhateverTheBoardsClockSays(t *testing.T) {
	walls := map[string]time.Duration{"1970": -time.Since(time.Unix(0, 0)), "the truth": 0, "the poisoned time": 10 * 365 * day}
	t.Attr("id", "K11")
	t.Attr("cases", fmt.Sprint(len(walls)))
	for name, off := range walls {
		bubble(t, func(r *rig) {
			floor := r.poison(10 * 365 * day)
			r.opts.Board = boardtest.New(time.Now().Add(off))
			a := must(New(r.opts))(t)
			signed := identity.SignedTime{Time: time.Now()}
			if f, _ := a.clock.Anchor(); !f.Equal(floor) || a.clock.Signed(signed, 0) == nil {
				t.Errorf("%s: floor %v, and the true time was taken", name, f)
			}
			if err := a.clock.Reset(resetTo(time.Hour, 1)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			err := a.clock.Signed(signed, 0)
			if off := time.Until(a.clock.Now()).Abs(); err != nil || off > time.Second || a.clock.Status().State != clock.Authentic {
				t.Errorf("%s: after the reset and signed time: %v, off by %v", name, err, off)
			}
		})
	}
}

// longestPause is the longest time between two tries of a gateway that is offline.
const longestPause = 6 * time.Minute

// Whatever is not a new reset by the root, for this device, to before F: one gateway is told all of them.
func TestAFloorResetThatIsNotForItNowLeavesTheFloor(t *testing.T) {
	foreign := func() *identity.Authority { return identitytest.New(time.Now().Add(-day)).Root }
	cases := []struct {
		name string
		sign func(r *rig)
	}{
		{"none", func(*rig) {}},
		{"of another device", func(r *rig) {
			r.signs(r.access.PKI.Root, identity.FloorReset{UID: identity.NewUID(), To: time.Now(), Sequence: 9})
		}},
		{"by another root", func(r *rig) { r.signs(foreign(), resetTo(0, 9)) }},
		{"by the issuing CA", func(r *rig) { r.signs(r.access.PKI.Issuing, resetTo(0, 9)) }},
		{"unsigned", func(r *rig) {
			r.signs(r.access.PKI.Root, resetTo(0, 9))
			r.access.Set(func() { r.access.Reset = append(r.access.Reset[:54:54], make([]byte, 64)...) })
		}},
		{"replayed", func(r *rig) { r.signs(r.access.PKI.Root, resetTo(0, 7)) }},
		{"older than a taken", func(r *rig) { r.signs(r.access.PKI.Root, resetTo(0, 6)) }},
		{"raising", func(r *rig) { r.signs(r.access.PKI.Root, resetTo(-11*365*day, 9)) }},
		{"to the very floor", func(r *rig) {
			r.signs(r.access.PKI.Root, identity.FloorReset{UID: testUID, To: must(openStore(r.dir, nil))(r.t).saved.Anchor, Sequence: 9})
		}},
		{"with a stolen key, unsigned", func(r *rig) {
			r.signs(foreign(), resetTo(0, 9))
			stolen := r.access.PKI.Leaf(r.access.PKI.Access, -40*day, -10*day)
			r.access.Set(func() { r.access.Leaf = stolen })
		}},
	}
	t.Attr("id", "K11")
	t.Attr("cases", fmt.Sprint(len(cases)))
	bubble(t, func(r *rig) {
		r.enrollNow()
		floor := time.Now().Add(10 * 365 * day)
		if err := must(openStore(r.dir, nil))(t).Reset(floor, 7); err != nil {
			t.Fatal(err)
		}
		p := r.start()
		for _, c := range cases {
			c.sign(r)
			r.access.Forget()
			time.Sleep(longestPause)
			if f, authentic := p.clock.Floor(); len(r.access.Links) != 0 || !f.Equal(floor) || authentic {
				t.Errorf("%s: %d links, floor %v, authentic %v", c.name, len(r.access.Links), f, authentic)
			}
			asked := r.access.Types()
			if len(asked) == 0 {
				t.Errorf("%s: nobody asked for a reset", c.name)
			}
			for _, kind := range asked {
				if kind != wire.TypeTimeRequest {
					t.Errorf("%s: the server was sent a frame %#x", c.name, kind)
				}
			}
			if s := must(openStore(r.dir, nil))(t).saved; !s.Anchor.Equal(floor) || s.Reset != 7 {
				t.Errorf("%s: stored %v, sequence %d", c.name, s.Anchor, s.Reset)
			}
		}
		p.stop(time.Second)
	})
}

// A poisoned floor of some days lets TLS through: then the reset comes in the
// ordinary prelude, and the signed time after it counts.
func TestAFloorWithinTheCertificatesIsResetInThePrelude(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrollNow()
		r.poison(10 * day)
		p := r.start()
		time.Sleep(time.Minute)
		if len(r.access.Links) != 0 {
			t.Fatal("online with a floor in the future")
		}
		r.signs(r.access.PKI.Root, resetTo(0, 1))
		p.await(StateAttached, longestPause)
		if off := time.Until(p.clock.Now()).Abs(); off > time.Second {
			t.Errorf("off by %v", off)
		}
		p.stop(time.Second)
	})
}

// A reset that nobody needs any more is taken once, and the same prelude proves
// the time again.
func TestAFloorResetDoesNotHurtAHealthyGateway(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrollNow()
		r.signs(r.access.PKI.Root, resetTo(time.Hour, 1))
		p := r.start()
		p.await(StateAttached, 10*time.Second)
		for range 3 {
			(<-r.access.Links).Close()
			r.until(time.Minute, "link", func() bool { return len(r.access.Links) > 0 })
			if st := p.Status().Clock; st.State != clock.Authentic || time.Until(p.clock.Now()).Abs() > time.Second {
				t.Errorf("status %+v", st)
			}
		}
		if n := r.notes.count("floor was reset by the root"); n != 1 {
			t.Errorf("reset %d times", n)
		}
		p.stop(time.Second)
	})
}

// The server that poisoned the floor has renewed the identity at that time, too.
func TestAnIdentityThatBeginsInTheFutureIsRenewed(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enroll(time.Now().Add(9*365*day), time.Now().Add(10*365*day))
		r.poison(9*365*day + time.Hour)
		r.access.Certify(testName, 30*day)
		r.signs(r.access.PKI.Root, resetTo(0, 1))
		p := r.start()
		p.await(StateAttached, time.Minute)
		if leaf := p.self.Load().Cert.Leaf; leaf.NotBefore.After(time.Now()) || r.notes.count("identity renewed") != 1 {
			t.Errorf("the identity begins at %v", leaf.NotBefore)
		}
		p.stop(time.Second)
	})
}

func TestAFloorResetIsNeverBelowTheBuild(t *testing.T) {
	bubble(t, func(r *rig) {
		r.poison(day)
		a := must(New(r.opts))(t)
		if err := a.clock.Reset(resetTo(10*365*day, 1)); err != nil {
			t.Fatal(err)
		}
		if f, _ := a.clock.Anchor(); !f.Equal(r.opts.Build) {
			t.Errorf("floor %v, built at %v", f, r.opts.Build)
		}
	})
}

// A flash that is full or broken must not make the sequence worth nothing.
func TestAFloorResetThatCannotBeStoredIsNotTaken(t *testing.T) {
	bubble(t, func(r *rig) {
		floor := r.poison(day)
		a := must(New(r.opts))(t)
		if err := os.RemoveAll(r.dir); err != nil {
			t.Fatal(err)
		}
		if err := a.clock.Reset(resetTo(0, 1)); err == nil || errors.Is(err, errReplayed) {
			t.Errorf("got %v", err)
		}
		if f, _ := a.clock.Anchor(); !f.Equal(floor) || a.store.saved.Reset != 0 || !a.store.saved.Anchor.Equal(floor) {
			t.Errorf("floor %v, stored %+v", f, a.store.saved)
		}
	})
}

// Of two slots one is written: a power cut leaves the other.
func TestAPowerCutDuringAFloorResetLeavesTheOldOrTheNew(t *testing.T) {
	bubble(t, func(r *rig) {
		floor := r.poison(day)
		if err := must(New(r.opts))(t).clock.Reset(resetTo(time.Hour, 1)); err != nil {
			t.Fatal(err)
		}
		for _, slot := range []string{"state.0", "state.1"} {
			path := filepath.Join(r.dir, slot)
			whole := must(os.ReadFile(path))(t)
			for n := range len(whole) {
				write(t, path, string(whole[:n]), 0o600)
				s := must(openStore(r.dir, nil))(t).saved
				if old, fresh := s.Anchor.Equal(floor) && s.Reset == 0, s.Anchor.Before(floor) && s.Reset == 1; !old && !fresh {
					t.Fatalf("%s cut at %d: anchor %v with sequence %d", slot, n, s.Anchor, s.Reset)
				}
			}
			write(t, path, string(whole), 0o600)
		}
	})
}

func TestSlotsOfOlderVersionsAreRead(t *testing.T) {
	dir := stateDir(t)
	must(openStore(dir, nil))(t)
	slots := must(durable.OpenSlots(dir, stateSlots))(t)
	if err := slots.Save([]byte(`{"anchor":"2036-01-01T00:00:00Z","spent":100000000000,"good":{"a":["192.0.2.1:443"]}}`)); err != nil {
		t.Fatal(err)
	}
	s := must(openStore(dir, nil))(t)
	if s.saved.Anchor.Year() != 2036 || s.saved.Spent != 100*time.Second || len(s.lastGood("a", build)) != 1 || s.saved.Reset != 0 {
		t.Errorf("read %+v", s.saved)
	}
	if err := s.Reset(build, 1); err != nil {
		t.Error(err)
	}
	if err := s.Reset(build, 1); !errors.Is(err, errReplayed) {
		t.Errorf("again: %v", err)
	}
}
