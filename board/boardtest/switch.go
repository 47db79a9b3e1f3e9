package boardtest

import (
	"context"
	"fmt"
	"io/fs"
	"sync"

	"hawser/board"
)

// Switch is a switch on a GPIO line for a Board of tests. It is safe for concurrent use.
type Switch struct {
	mu     sync.Mutex // guards all below
	active bool
	err    error
	opened int
	told   chan struct{} // closed when something has changed
}

// Give connects s to a line of b.
func (s *Switch) Give(b *board.Board, line board.Line) {
	s.told = make(chan struct{})
	b.WatchLine = func(ctx context.Context, l board.Line, tell func(bool)) error {
		if l != line {
			return noLine(ctx, l, tell)
		}
		return s.watch(ctx, tell)
	}
}

func noLine(_ context.Context, l board.Line, _ func(bool)) error {
	return fmt.Errorf("watch line %d: %w", l.Number, &fs.PathError{Op: "open", Path: l.Chip, Err: fs.ErrNotExist})
}

// Set closes the switch or opens it.
func (s *Switch) Set(active bool) { s.change(func() { s.active = active }) }

// Fail makes the line fail, and every attempt to open it again; nil: it works.
func (s *Switch) Fail(err error) { s.change(func() { s.err = err }) }

// Opened is the number of attempts to open the line.
func (s *Switch) Opened() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened
}

func (s *Switch) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.told)
	s.told = make(chan struct{})
}

func (s *Switch) now() (active bool, told <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.active, s.told, s.err
}

func (s *Switch) watch(ctx context.Context, tell func(bool)) error {
	s.mu.Lock()
	s.opened++
	s.mu.Unlock()
	for {
		active, told, err := s.now()
		if err != nil {
			return err
		}
		tell(active)
		select {
		case <-told:
		case <-ctx.Done():
			return nil
		}
	}
}
