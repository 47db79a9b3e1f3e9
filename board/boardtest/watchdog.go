package boardtest

import (
	"fmt"
	"io/fs"
	"sync"
	"time"

	"hawser/board"
)

// Watchdog is a hardware watchdog for a Board of tests. It resets nothing, but records that it would have. It is safe for
// concurrent use. Its fields are set before use.
type Watchdog struct {
	Longest time.Duration // that the driver takes; 0: any

	mu      sync.Mutex // guards all below
	timeout time.Duration
	armed   bool
	fed     time.Time
	feeds   int
	bitten  bool
}

// Give puts w behind a device file of b.
func (w *Watchdog) Give(b *board.Board, device string) {
	b.OpenWatchdog = func(name string, timeout time.Duration) (board.Watchdog, error) {
		if name != device {
			return noWatchdog(name, timeout)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.timeout = timeout; w.Longest > 0 {
			w.timeout = min(timeout, w.Longest)
		}
		w.armed = true
		w.note()
		return w, nil
	}
}

func noWatchdog(name string, _ time.Duration) (board.Watchdog, error) {
	return nil, fmt.Errorf("open watchdog: %w", &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist})
}

// Timeout implements board.Watchdog.
func (w *Watchdog) Timeout() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.timeout
}

// Feed implements board.Watchdog.
func (w *Watchdog) Feed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note()
	w.feeds++
	return nil
}

// Stop implements board.Watchdog.
func (w *Watchdog) Stop() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note()
	w.armed = false
	return nil
}

// note starts the timeout again, unless it has run out before.
func (w *Watchdog) note() {
	w.bitten = w.bitten || w.armed && !w.fed.IsZero() && time.Since(w.fed) >= w.timeout
	w.fed = time.Now()
}

// Feeds is how often it was fed, and Armed whether it is armed.
func (w *Watchdog) Feeds() (n int, armed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.feeds, w.armed
}

// Bitten reports whether it would have reset the machine by now.
func (w *Watchdog) Bitten() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bitten || w.armed && time.Since(w.fed) >= w.timeout
}
