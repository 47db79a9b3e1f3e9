package mux

import (
	"sync"
	"time"
)

// deadline is a point in time for those who wait in a select. The zero value is none.
type deadline struct {
	mu    sync.Mutex // guards the rest
	timer *time.Timer
	over  chan struct{} // closed when the time has come; nil: nobody has asked yet
}

// set moves the deadline; the zero time removes it. Who waits already waits for the new one.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.over // its function is about to close the channel, or has
	}
	d.timer = nil
	if d.over == nil || isClosed(d.over) {
		d.over = make(chan struct{})
	}
	if t.IsZero() {
		return
	}
	over := d.over
	if left := time.Until(t); left > 0 {
		d.timer = time.AfterFunc(left, func() { close(over) })
	} else {
		close(over)
	}
}

// passed is closed when the time has come. It is asked for anew by each wait.
func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over == nil {
		d.over = make(chan struct{})
	}
	return d.over
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
