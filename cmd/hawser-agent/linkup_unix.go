//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// linkUpSignal turns SIGHUP, which OpenWrt's interface trigger sends when the
// WAN comes up, into "try again now".
func linkUpSignal() (<-chan struct{}, func()) {
	hup, up, done := make(chan os.Signal, 1), make(chan struct{}), make(chan struct{})
	signal.Notify(hup, syscall.SIGHUP)
	go func() {
		for {
			select {
			case <-hup:
				select {
				case up <- struct{}{}:
				default: // nothing waits: it is online or trying
				}
			case <-done:
				return
			}
		}
	}()
	return up, func() { signal.Stop(hup); close(done) }
}
