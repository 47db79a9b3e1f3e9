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

func TestAProgramThatDoesNotStopIsLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leave := make(chan struct{})
		defer close(leave) // the end of the process
		start := time.Now()
		p := newProgram(t.Context(), func(context.Context) error { <-leave; return nil })
		if err := p.run(manager(p, time.Hour)); !errors.Is(err, errStillRunning) || time.Since(start) != time.Hour+stopGrace {
			t.Errorf("run: %v after %v", err, time.Since(start))
		}
	})
}

func TestWaitingForAStopEnds(t *testing.T) {
	broken := errors.New("no such service")
	for name, c := range map[string]struct {
		after     time.Duration // when it has stopped, or asking fails
		err, want error
		took      time.Duration
	}{
		"stopped at once": {0, nil, nil, 0},
		"stopped later":   {3 * time.Second, nil, nil, 3 * time.Second},
		"asking fails":    {time.Second, broken, broken, time.Second},
		"never":           {time.Hour, nil, errStillRunning, stopPatience},
	} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			err := awaitStop(func() (bool, error) {
				if time.Since(start) < c.after {
					return false, nil
				}
				return c.err == nil, c.err
			})
			if !errors.Is(err, c.want) || time.Since(start) != c.took {
				t.Errorf("%s: %v after %v, want %v after %v", name, err, time.Since(start), c.want, c.took)
			}
		})
	}
}
