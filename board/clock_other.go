//go:build !linux && !windows

package board

import "time"

func setClock(time.Time) error      { return ErrNoClock }
func slewClock(time.Duration) error { return ErrNoClock }
func clockKept() (bool, error)      { return false, ErrNoClock }

// uptimeSince counts from start. Only developers' machines have such a system.
func uptimeSince(start time.Time) func() time.Duration {
	return func() time.Duration { return time.Since(start) }
}
