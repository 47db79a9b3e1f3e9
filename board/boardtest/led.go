package boardtest

import (
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"hawser/board"
)

// LEDs are the LEDs of a Board of tests. They are safe for concurrent use.
type LEDs struct {
	mu    sync.Mutex // guards all below
	names []string
	shown map[string][2]time.Duration
	sets  int
}

// Give adds LEDs with these names to b.
func (l *LEDs) Give(b *board.Board, names ...string) {
	l.names, l.shown = names, map[string][2]time.Duration{}
	b.SetLED = func(name string, on, off time.Duration) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if !slices.Contains(l.names, name) {
			return noLED(name, on, off)
		}
		l.shown[name] = [2]time.Duration{on, off}
		l.sets++
		return nil
	}
}

func noLED(name string, _, _ time.Duration) error {
	return fmt.Errorf("set LED %s: %w", name, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist})
}

// Shown is how long a LED is on and off in turn; off 0: always on, on 0: dark.
func (l *LEDs) Shown(name string) (on, off time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shown[name][0], l.shown[name][1]
}

// Sets is how often any of them was set.
func (l *LEDs) Sets() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sets
}
