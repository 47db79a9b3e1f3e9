package main

import (
	"io"
	"os"
	"sync"

	"golang.org/x/term"
)

// terminal shows what long work is at in one line that the next text replaces. A nil terminal shows nothing.
type terminal struct {
	mu    sync.Mutex // guards all below
	w     io.Writer
	width int
	dirty bool
}

// newTerminal returns nil when f is no terminal, or one that says it cannot do this.
func newTerminal(f *os.File) *terminal {
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width < 20 || os.Getenv("TERM") == "dumb" {
		return nil
	}
	return &terminal{w: f, width: width}
}

// show replaces the line; an empty text only removes it.
func (t *terminal) show(text string) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if text == "" && !t.dirty {
		return
	}
	// Cut, so that it stays one line; wide letters take two columns at most.
	if r := []rune(text); len(r) > t.width/2 && len(r) >= t.width {
		text = string(r[:t.width-1])
	}
	io.WriteString(t.w, "\r\x1b[K"+text)
	t.dirty = text != ""
}
