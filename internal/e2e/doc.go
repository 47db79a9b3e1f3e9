// Package e2e holds the tests of the whole path: all roles in one bubble, and
// the three real programs as processes on loopback. It has no code of its own.
package e2e
