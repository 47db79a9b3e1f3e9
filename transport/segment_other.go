//go:build !(linux || darwin || freebsd || netbsd || openbsd)

package transport

import "syscall"

// limitSegments does nothing: this system does not let a program choose.
func limitSegments(int) func(network, address string, c syscall.RawConn) error {
	return func(string, string, syscall.RawConn) error { return nil }
}
