// Package board is the machine that the agent runs on: clocks, paths, the numbers that identify the hardware, the
// networks of the LAN side, notifications to the service manager, and watchdog, LEDs and switches. It does what it is
// called for; whether the agent may set the clock or use a device is decided by the caller.
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
// several goroutines. Function fields and no interface: a test replaces the one function that it is about, and a new
// device is one more field and no change of every fake.
type Board struct {
	// Root is the machine's file system: hardware hints and the release file of OpenWrt are read from it.
	Root fs.FS
	// Now is the wall clock. It may be wrong by decades: a gateway without a battery wakes in 1970.
	Now func() time.Time
	// Uptime is the time since boot, suspend included, or since New where the platform has no such clock. It only grows.
	Uptime func() time.Duration
	// SetClock sets the system clock, and the hardware clock if there is one. The error is fs.ErrPermission if that is not
	// allowed, ErrNoClock if this build cannot, ErrHardwareClock if only the system clock was set.
	SetClock func(to time.Time) error
	// SlewClock moves the system clock gradually, by at most half a second. The errors are those of SetClock.
	SlewClock func(by time.Duration) error
	// ClockKept says whether another program keeps the system clock: on Linux, whether the kernel's clock is marked as
	// synchronised; on Windows, whether the service W32Time runs.
	ClockKept func() (bool, error)
	// Interfaces lists the network interfaces.
	Interfaces func() ([]Interface, error)
	// Routes lists the routes of all routing tables that lead everywhere, or to a part of a network of an interface, on
	// Linux.
	Routes func() ([]Route, error)
	// Local reports whether what is sent to an address comes back to the machine itself, on Linux: by its address, or by a
	// route of type local. Elsewhere it is false.
	Local func(netip.Addr) (bool, error)
	// Descriptors is how many files and sockets the program may have open; 0: no such limit.
	Descriptors func() int
	// OpenWatchdog arms the hardware watchdog behind a device file and sets its timeout, in whole seconds. From then on
	// the caller must feed it. The error is fs.ErrNotExist if there is none, ErrNoDevice if this build has no driver.
	OpenWatchdog func(device string, timeout time.Duration) (Watchdog, error)
	// SetLED makes a LED of the kernel's LED class blink, lit for on and dark for off, which the kernel does alone. It is
	// always lit if off is 0, and dark if on is 0. Times are in whole milliseconds. The errors are those of OpenWatchdog.
	SetLED func(name string, on, off time.Duration) error
	// WatchLine calls tell with the state of a line, debounced: once at the start, then at least at each change, from one
	// goroutine. It blocks until ctx ends and then returns nil. After an error the state of the line is not known. The
	// errors are those of OpenWatchdog.
	WatchLine func(ctx context.Context, line Line, tell func(active bool)) error
}

// ErrNoClock: on this platform the clock cannot be set in this way.
var ErrNoClock = errors.New("the system clock cannot be set so on this platform")

// ErrHardwareClock: the system clock is set, but the hardware clock does not take the time.
var ErrHardwareClock = errors.New("hardware clock is not set")

// An Interface is a network interface with the networks of its addresses. A type of its own and not net.Interface, so
// that tests can make machines with networks that this one does not have.
type Interface struct {
	Name         string
	Up           bool
	Loopback     bool
	PointToPoint bool           // a tunnel or modem: there is no network behind it, only a peer
	Kind         string         // the kernel's word for a virtual one, such as bridge or veth; empty: hardware. Linux only
	Master       string         // the bridge or bond whose port it is; empty: none
	Lower        string         // what a vlan or macvlan is stacked on; empty: none, or another network namespace has it
	Prefixes     []netip.Prefix // address and length, as assigned; not masked
}

// Addrs are the interface's own addresses.
func (i Interface) Addrs() (all []netip.Addr) {
	for _, p := range i.Prefixes {
		all = append(all, p.Addr())
	}
	return all
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
		Routes:     routesNow,
		Local:      localNow,

		Descriptors: descriptors,

		OpenWatchdog: openWatchdog,
		SetLED:       setLED,
		WatchLine:    watchLine,
	}
}

// readFile returns a file of root of at most limit bytes. Files of the kernel have no size that could be checked first.
// One byte more than the limit is read, to tell a file that fits from one that was cut.
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

// ErrNoDevice: this build has no driver for the board's devices (watchdog, LEDs, lines).
var ErrNoDevice = errors.New("not supported on this platform")

// A Watchdog resets the machine when it was not fed for its timeout. It stays armed when the process dies without Stop,
// which is its purpose. Its methods are called one at a time.
type Watchdog interface {
	// Timeout is the one that the driver has set, which may differ from the one that was asked for.
	Timeout() time.Duration
	// Feed starts the timeout again.
	Feed() error
	// Stop disarms it, where driver and kernel allow that, and closes it.
	Stop() error
}

// A Line is an input line of a GPIO chip, to which a switch is connected. Chips are numbered in the order in which
// drivers load, so on a board with several the number may change with the kernel. A Line is comparable and holds
// nothing open.
type Line struct {
	Chip      string // device file of the chip: /dev/gpiochip0
	Number    uint32 // of the line within the chip
	ActiveLow bool   // active is the low level
	Bias      Bias
}

// Bias is the resistor that the chip puts on a line.
type Bias string

// The biases. If a chip has no such resistor the kernel gives no error, and the line floats.
const (
	BiasAsIs     Bias = ""
	BiasPullUp   Bias = "pull-up"
	BiasPullDown Bias = "pull-down"
	BiasDisabled Bias = "disabled"
)
