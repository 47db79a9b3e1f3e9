//go:build linux || darwin || freebsd || netbsd || openbsd

package transport

import "syscall"

// limitSegments limits the segments of a socket that is not connected yet: those it
// sends, and, since the limit is announced to the peer, those it receives. A system
// that refuses is no failure: the small hello alone passes some paths.
func limitSegments(size int) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, size)
		})
	}
}
