// Package boardtest makes boards for tests: a gateway that has just booted, with any time on its wall clock.
package boardtest

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing/fstest"
	"time"

	"hawser/board"
)

// Clock is a system clock for a Board of tests, in place of the machine's. It is safe for concurrent use. Its fields are
// set before use.
type Clock struct {
	Kept bool  // by another program
	Err  error // of each attempt to set or slew it; nil: they succeed

	mu     sync.Mutex // guards all below
	by     time.Duration
	wall   func() time.Time
	set    []time.Time
	slewed []time.Duration
}

// Give replaces b's clock by c, which starts at the same time.
func (c *Clock) Give(b *board.Board) {
	c.wall = b.Now
	b.Now, b.SetClock, b.SlewClock = c.now, c.setTo, c.slew
	b.ClockKept = func() (bool, error) { return c.Kept, nil }
}

// Moves lists the times to which the clock was set, and the corrections by which it was slewed.
func (c *Clock) Moves() (set []time.Time, slewed []time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.set), slices.Clone(c.slewed)
}

func (c *Clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wall().Add(c.by)
}

func (c *Clock) setTo(to time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set = append(c.set, to)
	if c.Err == nil || errors.Is(c.Err, board.ErrHardwareClock) {
		c.by = to.Sub(c.wall())
	}
	return c.Err
}

func (c *Clock) slew(by time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slewed = append(c.slewed, by)
	if c.Err == nil {
		c.by += by // at once: nobody looks in between
	}
	return c.Err
}

// New returns a gateway that boots at this moment with its wall clock at wall; both its clocks then run with time.Now,
// which in a synctest bubble is fake. It has an uplink wan0, whose networks are not LAN, and a LAN of 192.168.10.0/24
// and 2001:db8:10::/64 on lan0, and no other devices. Fields may be replaced before use.
func New(wall time.Time) *board.Board {
	boot := time.Now()
	uptime := func() time.Duration { return time.Since(boot) }
	b := &board.Board{
		Root:       root(),
		Now:        func() time.Time { return wall.Add(uptime()) },
		Uptime:     uptime,
		Interfaces: interfaces,
		Routes:     routes,
		Local:      func(netip.Addr) (bool, error) { return false, nil },

		Descriptors: func() int { return 0 },

		OpenWatchdog: noWatchdog,
		SetLED:       noLED,
		WatchLine:    noLine,
	}
	new(Clock).Give(b)
	return b
}

// root returns a new file system each time, so that a test may add files to it.
func root() fstest.MapFS {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	return fstest.MapFS{
		"sys/firmware/devicetree/base/serial-number": file("0123456789abcdef\x00"),
		"sys/block/mmcblk0/device/cid":               file("150100424a4e423452073a1b2c3d4e5f\n"),
		"sys/class/net/lan0/address":                 file("02:00:00:00:00:01\n"),
		"sys/class/net/lan0/device/uevent":           file(""),
		"etc/machine-id":                             file("00112233445566778899aabbccddeeff\n"),
	}
}

func interfaces() ([]board.Interface, error) {
	return []board.Interface{
		{Name: "lo", Up: true, Loopback: true, Prefixes: prefixes("127.0.0.1/8", "::1/128")},
		{Name: "wan0", Up: true, Prefixes: prefixes("198.51.100.7/24", "fe80::7/64")},
		{Name: "lan0", Up: true, Prefixes: prefixes("192.168.10.1/24", "2001:db8:10::1/64", "fe80::1/64")},
	}, nil
}

func routes() ([]board.Route, error) {
	return []board.Route{{Interface: "wan0", Table: 254, Gateway: netip.MustParseAddr("198.51.100.1"), Live: true}}, nil
}

func prefixes(list ...string) (all []netip.Prefix) {
	for _, s := range list {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}
