//go:build !unix

package mux

import "io"

// source reads from what a stream sends.
type source struct{ io.Reader }

func newSource(r io.Reader) source { return source{r} }

// gathers reports whether readInto fills several buffers at once.
func (s *source) gathers() bool { return false }

// readInto reads into the first buffer. It waits for the first byte.
func (s *source) readInto(buffers [][]byte, _ func(), _ func() [][]byte) (n int, err error) {
	return s.Read(buffers[0])
}

// sink is a socket that takes what fits into its buffer. Here there is none.
type sink interface{ try(b []byte) (n int) }

func newSink(io.Writer) sink { return nil }
