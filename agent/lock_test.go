package agent

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/internal/answer"
)

// A second agent on one state directory says so in words, and ends so that a service manager tries again.
func TestASecondAgentIsKeptOutOfTheStateDirectory(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrollNow()
		p := r.start()
		p.await(StateAttached, 10*time.Second)
		began := time.Now()
		err := must(New(r.opts))(r.t).Run(r.t.Context())
		if ExitCode(err) != answer.ExitFailed || !strings.Contains(err.Error(), r.dir) || time.Since(began) < lockPatience {
			t.Errorf("%v, exit code %d, after %v", err, ExitCode(err), time.Since(began))
		}
		if s := p.Status().State; s != StateAttached {
			t.Errorf("the first one is in state %s", s)
		}
		stopping, stop := context.WithTimeout(r.t.Context(), time.Second)
		defer stop()
		if err := must(New(r.opts))(r.t).Run(stopping); err != nil {
			t.Errorf("one that is told to end while it waits: %v", err)
		}
		p.stop(20 * time.Second)
		next := r.start() // nothing is left of it
		next.await(StateAttached, 10*time.Second)
		next.stop(20 * time.Second)
	})
}

// An agent that is started while the one before it still ends waits for that.
func TestAStartWaitsForTheEndOfTheOneBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		first := must(lockState(t.Context(), dir))(t)
		time.AfterFunc(5*time.Second, func() { first.Close() })
		began := time.Now()
		second, err := lockState(t.Context(), dir)
		if err != nil || time.Since(began) < 5*time.Second {
			t.Fatalf("%v after %v", err, time.Since(began))
		}
		if _, err := lockDir(dir); !errors.Is(err, errLocked) {
			t.Errorf("a third one: %v", err)
		}
		second.Close()
		if _, err := lockState(t.Context(), dir+"/none"); err != nil {
			t.Errorf("a directory that cannot be locked: %v", err)
		}
	})
}
