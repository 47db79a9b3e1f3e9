package board

import (
	"errors"
	"time"
)

// ErrNoDevice: on this platform the board's devices (watchdog, lamps, lines) are not driven.
var ErrNoDevice = errors.New("not supported on this platform")

// A Watchdog resets the machine when it was not fed for its timeout. A process that dies without Stop leaves it running:
// that is what it is for. Its methods are called one at a time.
type Watchdog interface {
	// Timeout is what the driver took, which may differ from what it was asked for.
	Timeout() time.Duration
	// Feed begins the timeout anew.
	Feed() error
	// Stop disarms it, where driver and kernel allow that, and closes it.
	Stop() error
}
