package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"hawser/board/boardtest"
	"hawser/identity"
	"hawser/internal/durable"
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
	r.access.set(func() { r.access.reset = b })
}

// resetTo is a reset for this device to so long ago.
func resetTo(ago time.Duration, sequence uint64) identity.FloorReset {
	return identity.FloorReset{UID: testUID, To: time.Now().Add(-ago), Sequence: sequence}
}

// A server once signed a time ten years on. All that is wrong is the anchor.
func TestAPoisonedFloorHoldsUntilTheRootResetsIt(t *testing.T) {
	walls := map[string]time.Duration{"1970": -time.Since(time.Unix(0, 0)), "the truth": 0, "the poisoned time": 10 * 365 * day}
	t.Attr("id", "K11")
	t.Attr("cases", fmt.Sprint(2*len(walls)))
	for name, off := range walls {
		t.Run("board at "+name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.enrolNow()
				floor := r.poison(10 * 365 * day)
				r.opts.Board = boardtest.New(time.Now().Add(off))
				p := r.start()
				time.Sleep(3 * time.Hour)
				if f, _ := p.clock.window(); len(r.access.links) != 0 || !f.Equal(floor) {
					t.Fatalf("without a reset: %d links, floor %v", len(r.access.links), f)
				}
				r.signs(r.access.in.root, resetTo(time.Hour, 1))
				p.await(StateAttached, 6*time.Minute) // the longest pause between two tries
				st := p.Status().Clock
				if st.State != ClockAuthentic || st.FloorReset == nil || time.Since(*st.FloorReset) < time.Hour || r.notes.count("floor was reset by the root") != 1 {
					t.Errorf("status %+v; log:\n%s", st, r.notes)
				}
				if off := time.Until(p.clock.Now()).Abs(); off > time.Second {
					t.Errorf("off by %v after one signed time", off)
				}
				p.stop(time.Second)
				a := must(New(r.opts))(t)
				if f, _ := a.clock.window(); time.Since(f) < 0 || time.Since(f) > 2*time.Hour || a.store.saved.Reset != 1 {
					t.Errorf("after a restart: floor %v, sequence %d", f, a.store.saved.Reset)
				}
			})
		})
	}
}

// Whatever is not a new reset by the root, for this device, to before F.
func TestAFloorResetThatIsNotForItNowLeavesTheFloor(t *testing.T) {
	foreign := func(r *rig) *identity.Authority { return newInfra(r.t, time.Now().Add(-day)).root }
	cases := map[string]func(r *rig){
		"none": func(*rig) {},
		"of another device": func(r *rig) {
			r.signs(r.access.in.root, identity.FloorReset{UID: identity.NewUID(), To: time.Now(), Sequence: 9})
		},
		"by another root":    func(r *rig) { r.signs(foreign(r), resetTo(0, 9)) },
		"by the issuing CA":  func(r *rig) { r.signs(r.access.in.issuing, resetTo(0, 9)) },
		"unsigned":           func(r *rig) { r.signs(r.access.in.root, resetTo(0, 9)); clear(r.access.reset[54:]) },
		"replayed":           func(r *rig) { r.signs(r.access.in.root, resetTo(0, 7)) },
		"older than a taken": func(r *rig) { r.signs(r.access.in.root, resetTo(0, 6)) },
		"raising":            func(r *rig) { r.signs(r.access.in.root, resetTo(-11*365*day, 9)) },
		"to the very floor":  func(r *rig) { r.signs(r.access.in.root, resetTo(-10*365*day, 9)) },
		"with a stolen key, unsigned": func(r *rig) {
			r.access.leaf = r.access.certificate(time.Now().Add(-40*day), time.Now().Add(-10*day))
			r.signs(foreign(r), resetTo(0, 9))
		},
	}
	t.Attr("id", "K11")
	t.Attr("cases", fmt.Sprint(len(cases)))
	for name, setup := range cases {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.enrolNow()
				floor := time.Now().Add(10 * 365 * day)
				if err := must(openStore(r.dir, nil))(t).resetFloor(floor, 7); err != nil {
					t.Fatal(err)
				}
				setup(r)
				p := r.start()
				time.Sleep(time.Hour)
				if f, authentic := p.clock.Floor(); len(r.access.links) != 0 || !f.Equal(floor) || authentic {
					t.Errorf("%d links, floor %v, authentic %v", len(r.access.links), f, authentic)
				}
				for _, kind := range r.access.types() {
					if kind != 0x01 {
						t.Errorf("the server was sent a frame %#x", kind)
					}
				}
				p.stop(time.Second)
				if s := must(openStore(r.dir, nil))(t).saved; !s.Anchor.Equal(floor) || s.Reset != 7 {
					t.Errorf("stored %v, sequence %d", s.Anchor, s.Reset)
				}
			})
		})
	}
}

// A poisoned floor of some days lets TLS through: then the reset comes in the
// ordinary prelude, and the signed time after it counts.
func TestAFloorWithinTheCertificatesIsResetInThePrelude(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrolNow()
		r.poison(10 * day)
		p := r.start()
		time.Sleep(time.Minute)
		if len(r.access.links) != 0 {
			t.Fatal("online with a floor in the future")
		}
		r.signs(r.access.in.root, resetTo(0, 1))
		p.await(StateAttached, 6*time.Minute)
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
		r.enrolNow()
		r.signs(r.access.in.root, resetTo(time.Hour, 1))
		p := r.start()
		p.await(StateAttached, 10*time.Second)
		for range 3 {
			(<-r.access.links).Close()
			r.until(time.Minute, "link", func() bool { return len(r.access.links) > 0 })
			if st := p.Status().Clock; st.State != ClockAuthentic || time.Until(p.clock.Now()).Abs() > time.Second {
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
		r.enrol(time.Now().Add(9*365*day), time.Now().Add(10*365*day))
		r.poison(9*365*day + time.Hour)
		r.access.certify(testName, 30*day)
		r.signs(r.access.in.root, resetTo(0, 1))
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
		if err := a.resetFloor(resetTo(10*365*day, 1)); err != nil {
			t.Fatal(err)
		}
		if f, _ := a.clock.window(); !f.Equal(r.opts.Build) {
			t.Errorf("floor %v, built at %v", f, r.opts.Build)
		}
	})
}

// What was heard before was all after the wrong floor: none of it is evidence.
func TestAFloorResetForgetsWhatWasHeard(t *testing.T) {
	wrong, now := build.AddDate(10, 0, 0), build.AddDate(0, 1, 0)
	c, _ := newTestClock(time.Time{}, wrong)
	if err := c.Signed(identity.SignedTime{Time: wrong}, 0); err != nil {
		t.Fatal(err)
	}
	c.Round(plausible(c, wrong.Add(2*time.Minute)), 4, stepBudget) // a conflict
	c.resetFloor(now)
	if st := c.Status(); st.State != ClockUnknown || st.Source != "" || !c.Now().Equal(now) {
		t.Errorf("status %+v, now %v", st, c.Now())
	}
	if err := c.Signed(identity.SignedTime{Time: now.Add(time.Hour)}, 0); err != nil {
		t.Fatal(err)
	}
	if st := c.Status(); st.State != ClockAuthentic || !c.Now().Equal(now.Add(time.Hour)) {
		t.Errorf("after signed time: status %+v, now %v", st, c.Now())
	}
}

// A flash that is full or broken must not make the sequence worth nothing.
func TestAFloorResetThatCannotBeStoredIsNotTaken(t *testing.T) {
	bubble(t, func(r *rig) {
		floor := r.poison(day)
		a := must(New(r.opts))(t)
		if err := os.RemoveAll(r.dir); err != nil {
			t.Fatal(err)
		}
		if err := a.resetFloor(resetTo(0, 1)); err == nil || errors.Is(err, errReplayed) {
			t.Errorf("got %v", err)
		}
		if f, _ := a.clock.window(); !f.Equal(floor) || a.store.saved.Reset != 0 || !a.store.saved.Anchor.Equal(floor) {
			t.Errorf("floor %v, stored %+v", f, a.store.saved)
		}
	})
}

// Of two slots one is written: a power cut leaves the other.
func TestAPowerCutDuringAFloorResetLeavesTheOldOrTheNew(t *testing.T) {
	bubble(t, func(r *rig) {
		floor := r.poison(day)
		if err := must(New(r.opts))(t).resetFloor(resetTo(time.Hour, 1)); err != nil {
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
	if s.anchor().Year() != 2036 || s.spent() != 100*time.Second || len(s.lastGood("a")) != 1 || s.saved.Reset != 0 {
		t.Errorf("read %+v", s.saved)
	}
	if err := s.resetFloor(build, 1); err != nil {
		t.Error(err)
	}
	if err := s.resetFloor(build, 1); !errors.Is(err, errReplayed) {
		t.Errorf("again: %v", err)
	}
}
