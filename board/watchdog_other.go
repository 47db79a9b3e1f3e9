//go:build !linux

package board

import "time"

func openWatchdog(string, time.Duration) (Watchdog, error) { return nil, ErrNoDevice }
