// Package soak lets a test of chance run for long: `make soak` sets SOAK=1, `make test` does not. A test asks it how many
// cases to try, and has no variable of its own:
//
//	for range soak.Or(300, 10_000) {
//
// It is for tests alone.
package soak

import "os"

// On tells whether this is a long run.
func On() bool { return os.Getenv("SOAK") != "" }

// Or returns usual, and long in a long run.
func Or[T any](usual, long T) T {
	if On() {
		return long
	}
	return usual
}
