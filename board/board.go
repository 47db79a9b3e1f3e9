// Package board is the machine that the Runtime runs on: its clocks, its paths, what names its hardware, which networks
// hang on its LAN side, its service manager's notifications, and its watchdog, LEDs and switches. It reads and reports,
// and sets clock and devices when it is told to; whether it may is the caller's to decide.
//
// A Board is a struct of function fields that New fills with the real machine. Tests replace fields, or take a whole
// gateway from board/boardtest. Installing and controlling the service is board/service.
package board

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"time"
)

// A Board is one machine. Its fields are set before use and not changed after; then all methods may be called from
// several goroutines.
type Board struct {
	// Root is the machine's file system, which holds hardware hints, routes and OpenWrt's mark.
	Root fs.FS
	// Now is the wall clock. It may be wrong by decades: a gateway without a battery wakes in 1970.
	Now func() time.Time
	// Uptime is the time since boot, suspend included; where the platform has no such clock, since New. It only grows.
	Uptime func() time.Duration
	// SetClock sets the system clock, and the hardware clock where there is one. The error is fs.ErrPermission where that
	// is not allowed, ErrNoClock where this build cannot, ErrHardwareClock where only the system clock was set.
	SetClock func(to time.Time) error
	// SlewClock moves the system clock by a little over the next minutes, without a step: at most half a second. Errors
	// as of SetClock.
	SlewClock func(by time.Duration) error
	// ClockKept says whether another program keeps the system clock: on Linux, whether the kernel's clock is marked as
	// synchronised; on Windows, whether the service W32Time runs.
	ClockKept func() (bool, error)
	// Interfaces lists the network interfaces.
	Interfaces func() ([]Interface, error)
	// OpenWatchdog arms the hardware watchdog behind a device file, which its owner feeds from then on, and asks for a
	// timeout in whole seconds. The error is fs.ErrNotExist where there is none, ErrNoDevice where this build cannot.
	OpenWatchdog func(device string, timeout time.Duration) (Watchdog, error)
	// SetLED lights a LED of the kernel's LED class for on, darkens it for off, and so on without the program; it is
	// steadily lit when off is 0, and dark when on is 0. Times are whole milliseconds. Errors as of OpenWatchdog.
	SetLED func(name string, on, off time.Duration) error
	// WatchLine tells whether a line is active: once at the start, then at least each time that it changes, debounced, in
	// one goroutine. It blocks until ctx ends and then returns nil. An error says that nothing is known of the line any
	// more; errors as of OpenWatchdog.
	WatchLine func(ctx context.Context, line Line, tell func(active bool)) error
}

// ErrNoClock: on this platform the clock cannot be set in this way.
var ErrNoClock = errors.New("the system clock cannot be set so on this platform")

// ErrHardwareClock: the system clock is set, but the hardware clock does not take the time.
var ErrHardwareClock = errors.New("hardware clock is not set")

// An Interface is a network interface with the networks that its own addresses are in.
type Interface struct {
	Name         string
	Up           bool
	Loopback     bool
	PointToPoint bool           // a tunnel or modem: there is no network behind it, only a peer
	Prefixes     []netip.Prefix // address and length, as assigned; not masked
}

// New returns the machine that the program runs on. It does no I/O.
func New() *Board {
	return &Board{
		Root:       os.DirFS("/"),
		Now:        time.Now,
		Uptime:     uptimeSince(time.Now()),
		SetClock:   setClock,
		SlewClock:  slewClock,
		ClockKept:  clockKept,
		Interfaces: interfaces,

		OpenWatchdog: openWatchdog,
		SetLED:       setLED,
		WatchLine:    watchLine,
	}
}

// readFile returns a file of root, refusing what is over limit bytes: kernel files have no size to look at first.
func readFile(root fs.FS, name string, limit int64) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("read %s: over %d bytes", name, limit)
	}
	return b, nil
}
