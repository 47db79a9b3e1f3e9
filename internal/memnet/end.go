package memnet

import (
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// An end is what a TCP and a UDP socket have in common.
type end struct {
	network       string
	local, remote net.Addr   // remote nil: not connected
	cond          *sync.Cond // on Network.mu, which guards all below: this end may go on

	closed bool
	read   deadline
	write  deadline
}

func (e *end) LocalAddr() net.Addr  { return e.local }
func (e *end) RemoteAddr() net.Addr { return e.remote }

func (e *end) SetDeadline(t time.Time) error      { return e.setDeadline(t, &e.read, &e.write) }
func (e *end) SetReadDeadline(t time.Time) error  { return e.setDeadline(t, &e.read) }
func (e *end) SetWriteDeadline(t time.Time) error { return e.setDeadline(t, &e.write) }

func (e *end) setDeadline(t time.Time, which ...*deadline) error {
	e.cond.L.Lock()
	defer e.cond.L.Unlock()
	if e.closed {
		return e.opError("set", net.ErrClosed)
	}
	for _, d := range which {
		d.set(e.cond, t)
	}
	return nil
}

// shutLocked stops the deadlines' timers: one that is left in a bubble would let its time run on.
func (e *end) shutLocked() {
	e.closed = true
	e.read.set(e.cond, time.Time{})
	e.write.set(e.cond, time.Time{})
}

func (e *end) opError(op string, err error) error {
	return opError(op, e.network, e.local, e.remote, err)
}

// A deadline wakes the waiters on a cond when it passes. The zero deadline never does.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

// set is called with cond's lock held. It stops the timer of before: one that is left would keep a bubble's time
// running after everything has ended.
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
