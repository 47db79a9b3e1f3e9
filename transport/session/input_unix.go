//go:build unix

package session

import (
	"errors"
	"io"
	"net"
	"syscall"

	"hawser/transport/mux"
	"hawser/transport/record"
)

// inputSmall is what a session reads with while little comes, in a buffer of its own: an answer of a machine.
const inputSmall = 1 << 10

// input reads a socket: while much comes, with large buffers that it has only while there is something in them. One
// system call for sixteen records instead of one each saves a tenth of the processor time of a transfer.
type input struct {
	conn   net.Conn
	raw    syscall.RawConn // nil: conn is no socket
	memory *mux.Budget
	before func() // called before a wait

	small [inputSmall]byte
	large *[mux.LineBytes]byte // that left is in; nil: none
	left  []byte
	much  bool // the last read filled its buffer
	next  record.Border
}

func newInput(conn net.Conn, memory *mux.Budget) input {
	i := input{conn: conn, memory: memory, before: func() {}}
	if s, ok := conn.(syscall.Conn); ok {
		i.raw, _ = s.SyscallConn()
	}
	return i
}

// Read returns no byte beyond a record: a tls.Conn that gets the beginning of the next one makes its buffer twice as
// large, and keeps it. It is called by one goroutine at a time.
func (i *input) Read(b []byte) (int, error) {
	if len(i.left) == 0 {
		if err := i.fill(); err != nil {
			return 0, err
		}
	}
	n := i.next.Advance(i.left[:min(len(i.left), len(b))])
	copy(b, i.left[:n])
	if i.left = i.left[n:]; len(i.left) == 0 && i.large != nil {
		i.memory.Return(i.large)
		i.large = nil
	}
	return n, nil
}

// fill waits until the socket has something, and takes a large buffer only then.
func (i *input) fill() error {
	if i.raw == nil {
		i.before()
		n, err := i.conn.Read(i.small[:])
		i.left = i.small[:n]
		return err
	}
	var n int
	var err error
	wait := i.raw.Read(func(fd uintptr) bool {
		buffer := i.small[:]
		if i.much {
			i.large = i.memory.Lend()
			buffer = i.large[:]
		}
		for {
			if n, err = syscall.Read(int(fd), buffer); err != syscall.EINTR {
				break
			}
		}
		if n > 0 {
			i.left, i.much = buffer[:n], n >= inputSmall
			return true
		}
		if i.large != nil {
			i.memory.Return(i.large)
			i.large = nil
		}
		if !errors.Is(err, syscall.EAGAIN) {
			return true
		}
		i.before()
		return false
	})
	switch {
	case wait != nil:
		return wait
	case n > 0:
		return nil
	case err != nil:
		return &net.OpError{Op: "read", Net: "tcp", Addr: i.conn.RemoteAddr(), Err: err}
	}
	return io.EOF
}
