//go:build !linux && !windows

package board

import "time"

func setClock(time.Time) error      { return ErrNoClock }
func slewClock(time.Duration) error { return ErrNoClock }
func clockKept() (bool, error)      { return false, ErrNoClock }
