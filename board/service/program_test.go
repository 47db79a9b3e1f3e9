package service

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A manager is a service manager that starts a program and stops it after a while.
func manager(p *program, stopAfter time.Duration) func() error {
	return func() error {
		if err := p.Start(nil); err != nil {
			return err
		}
		time.Sleep(stopAfter)
		return p.Stop(nil)
	}
}

func TestStopOrderEndsTheContextAndWaits(t *testing.T) {
	for _, want := range []error{nil, errors.New("could not save")} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			p := newProgram(t.Context(), func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(3 * time.Second) // the way down
				return want
			})
			if err := p.run(manager(p, time.Hour)); err != want {
				t.Errorf("run: %v, want %v", err, want)
			}
			if took := time.Since(start); took != time.Hour+3*time.Second {
				t.Errorf("returned after %v, want it to wait for the way down", took)
			}
		})
	}
}

// Windows starts a service again only when its process ends unannounced.
func TestProgramThatEndsByItselfDoesNotWaitForTheManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, want := time.Now(), errors.New("wrong configuration")
		p := newProgram(t.Context(), func(context.Context) error { return want })
		leave := make(chan struct{})
		defer close(leave) // the end of the process
		err := p.run(func() error {
			p.Start(nil)
			<-leave
			return nil
		})
		if err != want || time.Since(start) != 0 {
			t.Errorf("run: %v after %v, want %v at once", err, time.Since(start), want)
		}
	})
}

func TestManagerThatFailsIsReported(t *testing.T) {
	want := errors.New("no service controller")
	p := newProgram(t.Context(), nil)
	if err := p.run(func() error { return want }); err != want {
		t.Errorf("run: %v, want %v", err, want)
	}
}

func TestRunOutsideAServiceManagerIsACall(t *testing.T) {
	want := errors.New("done")
	if err := Run(t.Context(), func(context.Context) error { return want }); err != want {
		t.Errorf("run: %v, want %v", err, want)
	}
}
