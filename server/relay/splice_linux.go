package relay

import (
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// moveSockets moves bytes from socket to socket by a pipe of the system, so that they are not copied; io.Copy does that
// too, but keeps its pipe while it waits. A pipe is taken when there is something to read, and given back when there is
// nothing left. When all are taken, a buffer does the same.
func (m *mover) moveSockets(dst, src *net.TCPConn, f *flow) error {
	out, err := dst.SyscallConn()
	if err != nil {
		return farError{err}
	}
	in, err := src.SyscallConn()
	if err != nil {
		return err
	}
	m.pipes.enter()
	defer m.pipes.leave()
	b := &burst{mover: m, flow: f, out: out}
	b.drainable = b.drain // bound once: each use of a method as a value allocates
	// All of a direction is one Read: between two of them, the news that there is something to read could be lost.
	if err := in.Read(b.readable); b.err == nil && err != nil {
		return err
	}
	return b.err
}

// A burst is the state of a direction between two sockets.
type burst struct {
	mover     *mover
	flow      *flow
	out       syscall.RawConn
	drainable func(fd uintptr) bool
	copies    bool // the system cannot splice these sockets

	pipe   *kernelPipe // while bytes move; nil: there is a buffer, or nothing moves
	buffer *[moveBytes]byte
	held   int   // bytes that were read and not written yet
	from   int   // where they begin in buffer
	errno  error // of writing
	err    error // that ends the direction
}

// readable moves what there is to read. It reports false when it has to be called again as soon as there is more, and
// true when the direction has ended.
func (b *burst) readable(fd uintptr) (ended bool) {
	defer b.giveBack()
	for {
		if b.flow.isGone() {
			b.err = os.ErrDeadlineExceeded
			return true
		}
		n, err := b.fill(int(fd))
		switch {
		case err == unix.EAGAIN:
			return false
		case err == unix.EINTR:
			continue
		case err != nil:
			b.err = os.NewSyscallError("read", err)
			return true
		case n == 0:
			return true
		}
		b.held, b.from = n, 0
		if err := b.out.Write(b.drainable); err != nil || b.errno != nil {
			b.err = farError{errors.Join(err, b.errno)}
			return true
		}
		if c := b.flow.count(n); c != nil {
			b.giveBack()
			b.flow.wait(c)
		}
	}
}

// fill reads from a socket into the pipe or the buffer, which is empty.
func (b *burst) fill(fd int) (int, error) {
	if b.pipe == nil && b.buffer == nil && !b.copies {
		b.pipe = b.mover.pipes.take()
	}
	if b.pipe != nil {
		n, err := unix.Splice(fd, nil, b.pipe.w, nil, min(b.pipe.size, b.flow.most), unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		if err != unix.EINVAL {
			return int(n), err
		}
		b.copies = true
		b.giveBack()
	}
	if b.buffer == nil {
		b.buffer = b.mover.buffers.Get().(*[moveBytes]byte)
	}
	return unix.Read(fd, b.buffer[:])
}

// drain writes what is held. It reports false when it has to be called again as soon as there is room.
func (b *burst) drain(fd uintptr) (done bool) {
	for b.errno = nil; b.held > 0; {
		var n int
		var err error
		if b.pipe != nil {
			moved, e := unix.Splice(b.pipe.r, nil, int(fd), nil, b.held, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
			n, err = int(moved), e // which is an int64 on some processors
		} else {
			n, err = unix.Write(int(fd), b.buffer[b.from:b.from+b.held])
		}
		switch {
		case err == unix.EAGAIN:
			return false
		case err == unix.EINTR:
		case err != nil:
			b.errno = os.NewSyscallError("write", err)
			return true
		default:
			b.held, b.from = b.held-n, b.from+n
		}
	}
	return true
}

// giveBack returns the pipe or the buffer. A pipe that still holds bytes, which could not be written, is closed: the
// next session must not get them.
func (b *burst) giveBack() {
	if b.pipe != nil {
		b.mover.pipes.give(b.pipe, b.held == 0)
		b.pipe = nil
	}
	b.mover.put(b.buffer)
	b.buffer = nil
}

// largePipes of the pipes are made larger than the system makes them. A pipe has one slot for each 4 KiB of its size, and
// a piece of a packet takes a slot: from a network, 64 KiB of a pipe carry 23 KiB. Measured on loopback, a pipe of 64 KiB
// costs its relay twice the time of one of 512 KiB.
const (
	largePipes = 64
	smallBytes = 64 << 10
	largeBytes = 512 << 10
)

// A kernelPipe is a pipe of the system.
type kernelPipe struct{ r, w, size int }

// pipes are the pipes of the process: those that are used, and those that are kept for the next use while there is a
// direction that may use one.
type pipes struct {
	max int

	mu    sync.Mutex // guards the rest
	users int        // directions
	made  int        // pipes that are open
	large int        // of those
	most  int        // that ever were
	// denied: the system has given no large one, because the user has too many pipes elsewhere.
	denied bool
	// Large ones are used first, and the last one first: its memory may still be in a cache.
	free, freeLarge []*kernelPipe
}

// enter notes a direction that may use pipes until it leaves.
func (p *pipes) enter() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.users++
}

// leave closes all pipes with the last direction.
func (p *pipes) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.users--; p.users > 0 {
		return
	}
	for _, k := range slices.Concat(p.free, p.freeLarge) {
		p.closeLocked(k)
	}
	p.free, p.freeLarge, p.denied = nil, nil, false
}

// take returns an empty pipe; nil when all are used, or the system gives no more.
func (p *pipes) take() *kernelPipe {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k := pop(&p.freeLarge); k != nil {
		return k
	}
	if p.large == largePipes || p.denied || p.made >= p.max {
		if k := pop(&p.free); k != nil || p.made >= p.max {
			return k
		}
	}
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
		return pop(&p.free)
	}
	k := &kernelPipe{fds[0], fds[1], smallBytes}
	if p.large < largePipes && !p.denied {
		if _, err := unix.FcntlInt(uintptr(k.w), unix.F_SETPIPE_SZ, largeBytes); err == nil {
			k.size = largeBytes
			p.large++
		} else {
			p.denied = true
		}
	}
	p.made++
	p.most = max(p.most, p.made)
	return k
}

func pop(list *[]*kernelPipe) *kernelPipe {
	last := len(*list) - 1
	if last < 0 {
		return nil
	}
	k := (*list)[last]
	*list = (*list)[:last]
	return k
}

func (p *pipes) give(k *kernelPipe, empty bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !empty:
		p.closeLocked(k)
	case k.size == largeBytes:
		p.freeLarge = append(p.freeLarge, k)
	default:
		p.free = append(p.free, k)
	}
}

func (p *pipes) closeLocked(k *kernelPipe) {
	// Nothing is lost by an error.
	_ = unix.Close(k.r)
	_ = unix.Close(k.w)
	p.made--
	if k.size == largeBytes {
		p.large--
	}
}
