//go:build !linux && !windows

package board

import "time"

// uptimeSince counts from start: only developers' machines get here.
func uptimeSince(start time.Time) func() time.Duration {
	return func() time.Duration { return time.Since(start) }
}
