package board

import (
	"time"

	"golang.org/x/sys/windows"
)

// uptimeSince reads GetTickCount64, which goes on while suspended, in steps of about 16 ms.
func uptimeSince(time.Time) func() time.Duration { return windows.DurationSinceBoot }
