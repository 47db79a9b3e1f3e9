// Package agent is the Runtime: one state machine that owns every goroutine and
// makes every decision. It learns about the network from package probe, talks
// through transport, and uses the machine that it runs on through board.
//
// The state machine:
//
//	Boot ───> Dial ───> Attached      Boot: is there an identity?
//	│  ^      ^  │ ^        │  │
//	v  │      │  │ └────────┘  │      link or server lost
//	Enroll    │  v             v
//	  Boot <──Quarantined <────┘      the infrastructure does not accept the identity
//
//	Dial ──> Boot                     the owner has released the gateway
//	any state ──> Stopped             the context ended
//
// Boot loads the identity; Enroll waits until there is one; Dial searches for a way
// to an Access Server, sets the clock by its signed time, renews an identity that
// has expired and says hello; Attached serves the control connection; Quarantined
// waits. A state that failed is entered again after a wait with full jitter; there
// is no last attempt.
//
// Names, SNTP and the dial run in parallel. The clock has states of its own
// (package clock), and sessions outlive the control connection that brought them.
package agent
