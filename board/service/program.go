package service

import (
	"context"
	"errors"
	"time"

	kardianos "github.com/kardianos/service"
)

// A program turns a function that runs until its context ends into the Start and Stop of kardianos/service.
type program struct {
	f        func(context.Context) error
	ctx      context.Context
	cancel   context.CancelFunc
	stopping chan struct{} // closed by Stop, which the service manager calls once
	done     chan struct{} // closed when f has returned
	err      error         // f's, after done
}

func newProgram(ctx context.Context, f func(context.Context) error) *program {
	p := &program{f: f, stopping: make(chan struct{}), done: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancel(ctx)
	return p
}

// Start starts f; run or Stop waits for it.
func (p *program) Start(kardianos.Service) error {
	go func() {
		defer close(p.done)
		p.err = p.f(p.ctx)
	}()
	return nil
}

// Stop ends f's context and waits for f, at most stopGrace; then the process ends while f still runs. That is as long
// as systemd waits before it kills.
func (p *program) Stop(kardianos.Service) error {
	close(p.stopping)
	p.cancel()
	select {
	case <-p.done:
		return p.err
	case <-time.After(stopGrace):
		return errStillRunning
	}
}

// run serves the service manager until it has stopped the service, or f has returned by itself. In the second case serve
// goes on running, since only the end of the process ends it.
func (p *program) run(serve func() error) error {
	defer p.cancel()
	served := make(chan error, 1)
	go func() { served <- serve() }()
	select {
	case err := <-served:
		return err
	case <-p.done:
	}
	select {
	case <-p.stopping:
		return <-served
	default:
		return p.err
	}
}

// The agent has stopGrace to stop, and needs a second or two; commands that stop it wait longer than that.
const (
	stopGrace    = 15 * time.Second // as TimeoutStopSec in the unit
	stopPatience = 30 * time.Second
	stopPoll     = 50 * time.Millisecond
)

var errStillRunning = errors.New("it was told to stop, and still runs")

// awaitStop polls until the service has stopped, for at most stopPatience. Its clock and pauses are the package time's,
// so that a test in a bubble takes no time.
func awaitStop(stopped func() (bool, error)) error {
	for begin := time.Now(); time.Since(begin) < stopPatience; time.Sleep(stopPoll) {
		if done, err := stopped(); done || err != nil {
			return err
		}
	}
	return errStillRunning
}
