// Package local connects programs on one machine: over a Unix socket, on Windows over a named pipe. Only the same user and
// administrators can connect, and nobody from another machine.
//
// An address has one server: Listen takes it over from a server that has died, and returns ErrTaken while one is alive.
package local

import "errors"

// Errors that callers branch on, with errors.Is.
var (
	// ErrTaken: another process serves the address.
	ErrTaken = errors.New("another hawser-agent is running")
	// ErrTooLong: no socket can have this address.
	ErrTooLong = errors.New("address is too long")
	// ErrStranger: the process of another ordinary user serves the address. With Unix sockets their directory prevents it.
	ErrStranger = errors.New("served by another user, who is no administrator")
)
