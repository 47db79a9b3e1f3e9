// Package transport finds a way out to a Hawser server and authenticates it.
//
// A [Dialer] searches addresses × ports until authenticated TLS completes (wire
// §1, §8). Its sub-packages speak over the connection that it returns: wire
// (frames), control (the Access Server), session (relay join and the end-to-end
// session). Everything that dials uses it: Runtime, Manager, relays and probes.
// The examples dial a network in memory.
package transport
