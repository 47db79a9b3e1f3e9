//go:build unix

package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// onHangup calls f at each SIGHUP until ctx ends. Without a handler a SIGHUP would end the agent, also that of a
// terminal which is closed.
func onHangup(ctx context.Context, f func()) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-hup:
			f()
		case <-ctx.Done():
			return
		}
	}
}

// ignoreBrokenPipes makes a write to an output without a reader an error like any other. Without it such a write ends the
// program, as it does when journald restarts.
func ignoreBrokenPipes() { signal.Ignore(syscall.SIGPIPE) }
