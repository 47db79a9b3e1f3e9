//go:build unix

package mux

import (
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// source reads from what a stream sends.
type source struct {
	io.Reader
	raw syscall.RawConn // nil: no socket
}

func newSource(r io.Reader) source {
	s := source{Reader: r}
	if c, ok := r.(syscall.Conn); ok {
		s.raw, _ = c.SyscallConn()
	}
	return s
}

// gathers reports whether readInto fills several buffers at once.
func (s *source) gathers() bool { return s.raw != nil }

// readInto reads into the buffers one after the other, by one system call. It waits for the first byte, and gives the
// buffers of a socket back by release before it waits: then it takes others by hold. If there are none, it returns 0.
func (s *source) readInto(buffers [][]byte, release func(), hold func() [][]byte) (n int, err error) {
	if s.raw == nil {
		return s.Read(buffers[0])
	}
	wait := s.raw.Read(func(fd uintptr) bool {
		if buffers == nil {
			if buffers = hold(); buffers == nil {
				err = nil
				return true
			}
		}
		for {
			if n, err = unix.Readv(int(fd), buffers); err != unix.EINTR {
				break
			}
		}
		if err == unix.EAGAIN {
			release()
			buffers = nil
			return false
		}
		return true
	})
	switch {
	case wait != nil:
		return 0, wait
	case err != nil:
		return 0, os.NewSyscallError("readv", err)
	case n == 0 && buffers != nil:
		return 0, io.EOF
	}
	return max(n, 0), nil
}

// sink is a socket that takes what fits into its buffer.
type sink interface{ try(b []byte) (n int) }

// newSink returns nil if w is no socket.
func newSink(w io.Writer) sink {
	if c, ok := w.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			return &socketSink{raw: raw}
		}
	}
	return nil
}

type socketSink struct{ raw syscall.RawConn }

// try writes without waiting. An error is left to whoever writes next.
func (s *socketSink) try(b []byte) (n int) {
	_ = s.raw.Write(func(fd uintptr) bool {
		n, _ = unix.Write(int(fd), b)
		return true
	})
	return max(n, 0)
}
