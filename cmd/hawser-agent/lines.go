package main

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	waitingLines = 256         // a burst; some 64 KiB
	lastLines    = time.Second // for what waits when the agent ends
)

// lines is an output that never holds the agent up. Whoever collects the log may be gone, or may have stopped reading: then
// lines are lost, and the agent stays reachable. It is safe for concurrent use.
type lines struct {
	name  string
	to    io.Writer
	queue chan []byte
	ended chan struct{}

	mu     sync.Mutex // guards all below, and the end of queue
	closed bool
	lost   int   // since the last line that was written
	err    error // of the last write
}

// newLines starts to write to an output. Close it in the end.
func newLines(name string, to io.Writer) *lines {
	l := &lines{name: name, to: to, queue: make(chan []byte, waitingLines), ended: make(chan struct{})}
	go l.write()
	return l
}

// Write takes a line, and always succeeds. What comes after close is lost.
func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return len(b), nil
	}
	select {
	case l.queue <- bytes.Clone(b):
	default:
		l.lost++
	}
	return len(b), nil
}

func (l *lines) lose(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost++
	l.err = err
}

// write ends when the queue is closed.
func (l *lines) write() {
	defer close(l.ended)
	for b := range l.queue {
		lost, note := l.losses()
		if lost > 0 {
			b = append(fmt.Appendln(nil, note), b...)
		}
		if _, err := l.to.Write(b); err != nil {
			l.lose(err)
			continue
		}
		l.mu.Lock()
		l.lost -= lost // more may have been lost during the write
		l.err = nil
		l.mu.Unlock()
	}
}

// losses says how many lines were lost that the reader has not been told of.
func (l *lines) losses() (lost int, note string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.lost == 0:
		return 0, ""
	case l.err != nil:
		return l.lost, fmt.Sprintf("%s: %d lines were lost: %v", l.name, l.lost, l.err)
	}
	return l.lost, fmt.Sprintf("%s: %d lines were lost: nobody reads it", l.name, l.lost)
}

// trouble is losses for status; empty: none.
func (l *lines) trouble() string {
	_, note := l.losses()
	return note
}

// close waits for what is still to be written, at most a second: a write that hangs ends with the process.
func (l *lines) close() {
	l.mu.Lock()
	l.closed = true
	close(l.queue)
	l.mu.Unlock()
	select {
	case <-l.ended:
	case <-time.After(lastLines):
	}
}
