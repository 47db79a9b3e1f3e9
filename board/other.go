//go:build !linux

package board

import (
	"context"
	"net/netip"
	"time"
)

// The devices of the board have drivers on Linux only.

func setLED(string, time.Duration, time.Duration) error    { return ErrNoDevice }
func watchLine(context.Context, Line, func(bool)) error    { return ErrNoDevice }
func openWatchdog(string, time.Duration) (Watchdog, error) { return nil, ErrNoDevice }

// Routes and kinds are read on Linux only.
func routesNow() ([]Route, error) { return nil, nil }

func localNow(netip.Addr) (bool, error) { return false, nil }

func readLinks() (map[int]link, error) { return nil, nil }

// LinkUp blocks until ctx ends: there is no implementation for this platform.
func (b *Board) LinkUp(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return nil
}
