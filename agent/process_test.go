package agent

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hawser/transport"
	"hawser/transport/wire"
)

func TestCancelEndsEveryStateAtOnce(t *testing.T) {
	silent := func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
	for name, setUp := range map[string]func(r *rig){
		"enroll":      func(*rig) {},
		"dial":        func(r *rig) { r.enrollNow(); r.opts.DialContext = silent },
		"attached":    func(r *rig) { r.enrollNow() },
		"quarantined": func(r *rig) { r.enrollNow(); r.access.RefuseHello = &wire.Refusal{Reason: transport.Revoked} },
		"boot":        func(r *rig) { r.enrollNow(); damage(r) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				setUp(r)
				p := r.start()
				p.await(State(name), time.Minute)
				time.Sleep(7 * time.Second)
				p.stop(time.Second)
			})
		})
	}
	t.Run("at once", func(t *testing.T) {
		bubble(t, func(r *rig) {
			r.enrollNow()
			for after := range 25 { // lands on every step of the way, the one between two states included
				p := r.start()
				time.Sleep(time.Duration(after) * 8 * time.Millisecond)
				p.stop(6 * time.Second)
			}
		})
	})
}

func damage(r *rig) { write(r.t, filepath.Join(r.dir, identityFile), "damaged", 0o600) }

func TestADamagedIdentityIsReportedAndReadAgain(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrollNow()
		good := must(os.ReadFile(filepath.Join(r.dir, identityFile)))(t)
		damage(r)
		p := r.start()
		time.Sleep(time.Hour)
		if st := p.Status(); st.State != StateBoot || st.Error == "" {
			t.Errorf("state %s, error %q", st.State, st.Error)
		}
		if n := r.notes.count("will try again"); n > 200 {
			t.Errorf("logged %d times in an hour", n)
		}
		write(t, filepath.Join(r.dir, identityFile), string(good), 0o600)
		p.await(StateAttached, 70*time.Second)
		p.stop(time.Second)
	})
}

// If only the key is gone, no new one is made: the certificate is for the old one.
func TestAMissingKeyIsNotReplaced(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrollNow()
		if err := os.Remove(filepath.Join(r.dir, keyFile)); err != nil {
			t.Fatal(err)
		}
		p := r.start()
		time.Sleep(time.Minute)
		if slices.Contains(names(t, r.dir), keyFile) {
			t.Error("there is a new key")
		}
		if st := p.Status(); st.State != StateBoot || !strings.Contains(st.Error, keyFile) {
			t.Errorf("state %s, error %q", st.State, st.Error)
		}
		p.stop(time.Second)
	})
}

func TestTheStateMachineVouchesForItselfInEveryState(t *testing.T) {
	bubble(t, func(r *rig) {
		var until atomic.Int64 // unix nanoseconds
		r.opts.Alive = func(d time.Duration) { until.Store(int64(time.Now().Add(d).UnixNano())) }
		p := r.start()
		check := func(what string, d time.Duration) {
			t.Helper()
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
				synctest.Wait()
				if left := time.Until(time.Unix(0, until.Load())); left <= 0 || left > time.Hour {
					t.Fatalf("%s: vouched for %v from now", what, left)
				}
			}
		}
		check("enroll", time.Hour)
		r.access.Set(func() { r.access.Welcome.HeartbeatS = 1 << 30 })
		r.enrollNow()
		p.await(StateAttached, 10*time.Second)
		check("attached", 2*time.Hour)
		r.access.Down()
		check("dial", time.Hour)
		r.access.Set(func() { r.access.RefuseHello = &wire.Refusal{Reason: transport.Revoked} })
		r.access.Up()
		p.await(StateQuarantined, 2*time.Minute)
		check("quarantined", time.Hour)
		p.stop(time.Second)
	})
}

func TestNewRefusesAnExposedStateDirectory(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrollNow()
		if err := os.Chmod(r.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := New(r.opts); err == nil || errors.Is(err, ErrNotEnrolled) {
			t.Errorf("New = %v", err)
		}
	})
}

// The context may end after the dial has succeeded and before its connection is
// served: nobody else would close it.
func TestAConnectionThatNoStateServesIsClosed(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrollNow()
		a := must(New(r.opts))(t)
		a.sessions.ctx = r.t.Context()
		a.boot(r.t.Context())
		var up attachment
		if to, err := a.dial(r.t.Context(), &up); to != StateAttached || err != nil {
			t.Fatalf("dial: %s, %v", to, err)
		}
		cancelled, cancel := context.WithCancel(r.t.Context())
		cancel()
		a.machine(cancelled, &up)
		select {
		case <-(<-r.access.Links).Ended:
		case <-time.After(time.Second):
			t.Error("it stayed open")
		}
	})
}
