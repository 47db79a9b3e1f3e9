package service

import (
	"context"
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

// Start lets f run; run or Stop waits for it.
func (p *program) Start(kardianos.Service) error {
	go func() {
		defer close(p.done)
		p.err = p.f(p.ctx)
	}()
	return nil
}

// Stop ends f's context and waits for f, but no longer than stopGrace: the process then ends with f in it.
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

// run serves the service manager until it has stopped the service or f has ended by itself; in the second case serve is
// left behind, because only the end of the process ends it.
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
