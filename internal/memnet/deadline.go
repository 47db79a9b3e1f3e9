package memnet

import (
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// A deadline wakes whoever waits on a cond when it passes. The zero deadline never does.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

// set is called with cond's lock held.
func (d *deadline) set(cond *sync.Cond, at time.Time) {
	if d.timer != nil {
		d.timer.Stop()
	}
	d.at, d.timer = at, nil
	if at.IsZero() {
		return
	}
	d.timer = wakeIn(cond, time.Until(at))
}

func (d *deadline) expired() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// wakeIn wakes those who wait on cond, at once or after a delay. The lock makes sure that nobody is between looking
// at the state and waiting.
func wakeIn(cond *sync.Cond, delay time.Duration) *time.Timer {
	if delay <= 0 {
		cond.Broadcast()
		return nil
	}
	return time.AfterFunc(delay, func() {
		cond.L.Lock()
		defer cond.L.Unlock()
		cond.Broadcast()
	})
}

// opError has the shape of package net's errors, which callers look into with errors.Is and errors.As.
func opError(op, network string, source, addr net.Addr, err error) error {
	if errno, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError(op, errno)
	}
	return &net.OpError{Op: op, Net: network, Source: source, Addr: addr, Err: err}
}
