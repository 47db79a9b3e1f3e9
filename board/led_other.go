//go:build !linux

package board

import "time"

func setLED(string, time.Duration, time.Duration) error { return ErrNoDevice }
