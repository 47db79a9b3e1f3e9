// Package local is how programs of one machine talk to each other: over a Unix socket, on Windows over a named pipe. No
// other user but the administrators can connect, and nobody from another machine.
//
// A server serves one address at a time: Listen takes over what a dead server left behind, and refuses to take it from
// one that lives (ErrTaken).
package local

import "errors"

// Errors that callers branch on, with errors.Is.
var (
	// ErrTaken: another process serves the address.
	ErrTaken = errors.New("another hawser-agent is running")
	// ErrStranger: an ordinary user's process serves the address. A Unix socket's directory keeps such out.
	ErrStranger = errors.New("served by another user, who is no administrator")
)
