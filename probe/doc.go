// Package probe asks the network and returns facts: names, time, ways and relays.
//
// It changes nothing: no clock is set, nothing is written, and what an answer
// is worth is decided by pure functions that take the floor and ceiling of
// time as parameters. Acting on the facts is the agent's work.
//
//   - [Resolver] turns a host name into addresses (names.md).
//   - [SNTP] measures what time servers say, [Sample.Check] says whether one
//     answer counts and [Combine] which time may be believed (time.md).
//   - [Resolver.Inspect] says how one DNS server behaves, for package netcheck,
//     which looks at a site for people.
//   - [MeasureRelays] measures how far away each relay is (wire §5.4).
//
// Names and times are not authenticated: an address is right when TLS says so,
// and a time from SNTP is plausible at best. Servers and relays are, by the
// dialer that reaches them. No goroutine outlives the call that started it.
// The package promises no compatibility to the outside.
package probe
