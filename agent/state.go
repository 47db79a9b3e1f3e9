package agent

import (
	"errors"
	"slices"
	"time"

	"hawser/transport"
	"hawser/transport/wire"
)

// State is where the state machine is. Its words stand in status and logs.
type State string

// The states; doc.go draws their edges.
const (
	StateBoot        State = "boot"
	StateEnroll      State = "enroll"
	StateDial        State = "dial"
	StateAttached    State = "attached"
	StateQuarantined State = "quarantined"
	StateStopped     State = "stopped"
)

// edges lists where each state may lead, besides itself and Stopped.
func edges(s State) []State {
	switch s {
	case StateBoot:
		return []State{StateEnroll, StateDial}
	case StateEnroll:
		return []State{StateBoot}
	case StateDial:
		return []State{StateAttached, StateQuarantined}
	case StateAttached:
		return []State{StateDial, StateQuarantined}
	case StateQuarantined:
		return []State{StateBoot, StateDial}
	}
	return nil
}

func allowed(from, to State) bool {
	return from != StateStopped && (to == from || to == StateStopped || slices.Contains(edges(from), to))
}

// next decides where a failure in a state leads. It is pure. What the Access
// Server says about the identity is final only for that identity; everything
// else is tried again.
func next(s State, reason transport.Reason) State {
	if s != StateDial && s != StateAttached {
		return s
	}
	switch reason {
	case transport.Revoked, transport.WrongKey, transport.NoDevice:
		return StateQuarantined
	}
	return StateDial
}

// verdict is what the server itself said in a failure. Everything else (a chain
// that somebody showed, a file that does not parse) decides nothing about the
// own identity.
func verdict(err error) transport.Reason {
	if r, ok := errors.AsType[*wire.Refusal](err); ok {
		return r.Reason
	}
	return ""
}

const (
	backoffBase = time.Second
	backoffCap  = time.Minute
	steady      = time.Minute // an attachment that held this long was a success
	quarantine  = 15 * time.Minute
)

// forgives reports whether a state that lasted d ends a row of failures. A dial
// that succeeds does not: a server that takes the connection and then refuses
// the hello would be asked without a pause, and two gateways with one identity
// would replace each other every second.
func forgives(s State, d time.Duration) bool {
	return s == StateQuarantined || s == StateEnroll || s == StateAttached && d > steady
}

// unproven marks a failure from before the server had proven itself: what it
// said is a hint (wire §2.3).
type unproven struct{ error }

func (u unproven) Unwrap() error { return u.error }

// retryAfter is the least wait that the server asked for. Who holds no more than
// an old key of a server shall not silence a gateway for an hour.
func retryAfter(err error) time.Duration {
	r, ok := errors.AsType[*wire.Refusal](err)
	if !ok {
		return 0
	}
	if _, ok := errors.AsType[unproven](err); ok {
		return min(r.RetryAfter, backoffCap)
	}
	return r.RetryAfter
}

// backoff is the wait before a state that failed n times in a row is entered
// again: full jitter, so that a thousand gateways that lost the same server do
// not come back in step. random gives a uniform number below its argument;
// atLeast is what the server asked for. It is pure but for random.
func backoff(failures int, atLeast time.Duration, random func(time.Duration) time.Duration) time.Duration {
	top := min(backoffBase<<min(failures, 16), backoffCap)
	return atLeast + random(top)
}
