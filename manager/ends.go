package manager

import (
	"context"
	"errors"
	"fmt"

	"hawser/transport"
)

// remedy is what Connect does when a session has ended.
type remedy int

const (
	move   remedy = iota // it goes on over another relay
	afresh               // a new one, which is judged from the beginning
	pause                // a new one, but not at once
	demand               // a new one when a tool connects
	giveUp               // a person has to act
)

// remedyOf is the remedy for the reason of an end (session §8.1). It is pure. Whoever asks again at once where somebody has
// decided takes the decision back.
func remedyOf(r transport.Reason) remedy {
	switch r {
	case transport.SessionMax, transport.Expired, transport.NotStated, transport.Stale:
		return afresh
	case transport.Busy: // its place is somebody else's
		return pause
	case transport.SessionIdle:
		return demand
	case transport.Ended, transport.Policy, transport.Revoked:
		return giveUp
	}
	return move
}

// heed does what the end of the last session asks for. again: the next session can be asked for at once. The error ends
// Connect.
func (t *tunnel) heed(ctx context.Context, end error) (again bool, err error) {
	switch remedyOf(transport.ReasonOf(end)) {
	case giveUp:
		return false, fmt.Errorf("session with %s: %w", t.opener.device, ofOtherEnd(end))
	case demand:
		t.tell("a new one is opened when a tool connects")
		return t.awaitTool(ctx), nil
	case pause:
		return false, nil
	case afresh:
		t.tell("opening a new session")
	}
	return true, nil
}

// awaitTool blocks until a tool waits for a session. It returns false when ctx ends.
func (t *tunnel) awaitTool(ctx context.Context) bool {
	for t.waiting.Load() == 0 {
		select {
		case <-t.wanted:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// ofOtherEnd leaves out of an error from where it was heard: the words say who has decided.
func ofOtherEnd(err error) error {
	said, ok := errors.AsType[*transport.Error](err)
	if !ok {
		return err
	}
	return &transport.Error{Reason: said.Reason, Err: said.Err}
}

// whyEnded is an end in a few words.
func whyEnded(err error) string { return ofOtherEnd(err).Error() }
