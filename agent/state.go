package agent

import (
	"context"
	"errors"
	"slices"
	"time"

	"hawser/internal/wait"
	"hawser/transport"
	"hawser/transport/control"
	"hawser/transport/wire"
)

// State is a state of the connection. Status and logs use its words.
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

// edges lists the states that may follow s, besides s itself and Stopped. A table and no conditions at each place: a
// test walks every edge and refuses every other one.
func edges(s State) []State {
	switch s {
	case StateBoot:
		return []State{StateEnroll, StateDial}
	case StateEnroll:
		return []State{StateBoot}
	case StateDial:
		return []State{StateAttached, StateQuarantined, StateBoot} // released
	case StateAttached:
		return []State{StateDial, StateQuarantined}
	case StateQuarantined:
		return []State{StateBoot, StateDial}
	}
	return nil
}

// allowed guards against a fault of this program: machine logs it and stays where it is, since an end would help
// nobody.
func allowed(from, to State) bool {
	return from != StateStopped && (to == from || to == StateStopped || slices.Contains(edges(from), to))
}

// next returns the state after a failure in s. It is pure. Only a refusal of the
// identity by the Access Server leads to Quarantined; everything else is tried
// again, because waiting may cure it.
func next(s State, reason transport.Reason) State {
	if s != StateDial && s != StateAttached {
		return s
	}
	switch reason {
	// Quarantine and no new enrollment: a code is good once, and nobody may be near the gateway (docs/decisions/0003).
	case transport.Revoked, transport.WrongKey, transport.NoDevice:
		return StateQuarantined
	}
	return StateDial
}

// serverReason returns the reason that the server itself gave in a refuse frame,
// or "". Reasons that were found on this side (another chain than expected, a
// file that does not parse) say nothing about whether the identity is accepted.
func serverReason(err error) transport.Reason {
	if r, ok := errors.AsType[*wire.Refusal](err); ok {
		return r.Reason
	}
	return ""
}

// cutOff reports whether a link ended because the way to the server did, and nobody said
// why. What this side found wrong in a frame is no such end: of a server with a fault,
// all gateways would have a new link every few seconds.
func cutOff(err error) bool {
	if serverReason(err) != "" {
		return false
	}
	switch transport.ReasonOf(err) {
	case transport.LinkLost, transport.Unreachable:
		return true
	}
	return false
}

const (
	steady     = time.Minute // an attachment this long resets the back-off
	maxCuts    = 10          // attachments in a row that were cut before that; an idle limit is learnt after three
	quarantine = 15 * time.Minute
)

// carried returns how many of the failures before a state that lasted d still count. A successful dial does not
// reset them: a server that accepts the connection and then refuses the hello would be dialled without a pause, and two
// gateways with the same identity would replace each other every second. A link that something on the way has cut is no
// failure, or a gateway behind an idle limit of less than a minute would wait a minute after each (wire §4.6.1). One that
// lived for less than leastIdle shows all the same that there was a way a moment ago: the failures before it were of
// another way, which a gateway whose proxy and direct way come and go in turns paid for with pauses of 8 s and more. What
// cuts more than maxCuts in a row is no such limit, and each dial costs the data of an hour's pings.
func carried(failures int, s State, d time.Duration, cut bool, cuts int) int {
	switch {
	case s == StateQuarantined, s == StateEnroll, s == StateAttached && d > steady:
		return 0
	case s == StateAttached && cut && cuts <= maxCuts && d >= leastIdle:
		return 0
	case s == StateAttached && cut && cuts <= maxCuts:
		return min(failures, 1)
	}
	return failures
}

// backoff is the wait before a state that failed is entered again. A minute at most: whoever repairs the uplink waits
// in front of the box for it to come back.
func backoff() wait.Backoff { return wait.Backoff{First: 2 * time.Second, Longest: time.Minute} }

// machine runs one state after the other until ctx ends, with a pause after each
// failure. Nothing else changes the state. StateDial leaves its connection in up
// for StateAttached.
func (a *Agent) machine(ctx context.Context, up *attachment) {
	a.log.Info("state", "state", StateBoot)
	told := false // by the last failure, when to come again
	for state, failures, cuts := StateBoot, 0, 0; ; {
		a.enter(state)
		if state == StateStopped {
			up.drop()
			return
		}
		begin := time.Now()
		to, err := a.run(ctx, state, up)
		if ctx.Err() != nil {
			to, err = StateStopped, nil
		}
		if !allowed(state, to) {
			a.log.Error("impossible transition", "state", state, "to", to)
			to = state
		}
		// By the monotonic clock: the first signed time moves the other one by decades.
		lived := time.Since(begin)
		switch {
		case lived > steady:
			cuts = 0
		case state == StateAttached:
			cuts++
		}
		failures = carried(failures, state, lived, cutOff(err), cuts)
		if err != nil {
			hinted := control.RetryAfter(err) > 0
			failures, told = wait.InARow(failures, told, hinted), hinted
			a.fail(ctx, to, failures, err)
		}
		state = to
	}
}

// attachment is the control connection that StateDial made last; zero: none.
type attachment struct {
	conn *control.Conn
	link *control.Link // over conn
}

// drop closes the connection, which the context may have left between two states.
func (up *attachment) drop() {
	if up.conn != nil {
		up.conn.NetConn().Close()
	}
}

func (a *Agent) run(ctx context.Context, s State, up *attachment) (State, error) {
	switch s {
	case StateBoot:
		return a.boot(ctx)
	case StateEnroll:
		return a.awaitIdentity(ctx)
	case StateDial:
		return a.dial(ctx, up)
	case StateAttached:
		return a.attached(ctx, *up)
	case StateQuarantined:
		return a.quarantined(ctx)
	}
	return StateStopped, nil
}

// enter promises two minutes, because a search with doubled time-outs may be silent between two attempts; trace
// promises anew at each.
func (a *Agent) enter(s State) {
	a.alive(2 * time.Minute)
	if a.status.enter(s) {
		a.log.Info("state", "state", s)
	}
}

// fail reports a failure and waits before state s is entered, shorter when a
// network comes up. The state is shown before the wait: a person who looks meanwhile sees what will be tried and why it
// failed.
func (a *Agent) fail(ctx context.Context, s State, failures int, err error) {
	rest := backoff().After(failures, control.RetryAfter(err))
	a.status.failed(s, err)
	a.log.Warn("will try again", "state", s, "reason", transport.ReasonOf(err), "err", err, "after", rest.Round(time.Millisecond))
	timer, beat := time.NewTimer(rest), time.NewTicker(beatEvery)
	defer timer.Stop()
	defer beat.Stop()
	for {
		a.alive(time.Minute)
		select {
		case <-beat.C:
			continue
		case <-timer.C:
		// Without jitter: what has changed is this gateway's network, and the others know nothing of it.
		case <-a.linkUp:
			a.networkUp()
		case <-ctx.Done():
		}
		return
	}
}
