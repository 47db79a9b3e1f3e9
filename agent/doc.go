// Package agent is the Runtime: one state machine that owns every goroutine,
// and the only place that decides. What it knows it gets from probe, what it
// says goes out through transport, and the machine it runs on is board's.
//
// The state machine:
//
//	Boot ───> Dial ───> Attached      Boot: is there an identity?
//	│  ^      ^  │ ^        │  │
//	v  │      │  │ └────────┘  │      link or server lost
//	Enroll    │  v             v
//	  Boot <──Quarantined <────┘      the infrastructure does not accept the identity
//
//	any state ──> Stopped             the context ended
//
// Boot loads what is stored; Enroll waits until there is an identity; Dial
// searches a way to an Access Server, sets the clock by its signed time, renews
// an identity that has expired and says hello; Attached serves the control
// connection; Quarantined rests. What fails waits, with full jitter, and is
// tried again for ever.
//
// Names, SNTP and the dial run in parallel. The clock has states of its own
// (Clock), and sessions outlive the control connection that brought them.
package agent
