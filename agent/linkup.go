package agent

import (
	"context"
	"errors"
)

// errLinkUp ends a search that began before a network came up: its connects are
// lost in a network that was not there.
var errLinkUp = errors.New("a network has come up")

// untilLinkUp returns a context that ends, with errLinkUp as its cause, when a
// network comes up. Stop waits for the watcher.
func (a *Agent) untilLinkUp(ctx context.Context) (watched context.Context, stop func()) {
	watched, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-a.LinkUp:
			a.resolver.Forget() // what failed without a network
			cancel(errLinkUp)
		case <-watched.Done():
		}
	}()
	return watched, func() { cancel(nil); <-done }
}

// eachLinkUp calls f each time that a network comes up, until ctx ends.
func (a *Agent) eachLinkUp(ctx context.Context, f func()) {
	for {
		select {
		case <-a.LinkUp:
			a.resolver.Forget()
			f()
		case <-ctx.Done():
			return
		}
	}
}
