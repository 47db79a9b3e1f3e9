package board

import (
	"time"

	"golang.org/x/sys/unix"
)

// uptimeSince reads CLOCK_BOOTTIME: unlike CLOCK_MONOTONIC, behind Go's own clock, it goes on while suspended.
func uptimeSince(start time.Time) func() time.Duration {
	return func() time.Duration {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
			return time.Since(start) // no kernel that Go supports gets here; a sandbox might
		}
		return time.Duration(ts.Nano())
	}
}
