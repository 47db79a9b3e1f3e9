package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"hawser/internal/owner"
	"hawser/internal/wait"
	"hawser/transport"
	"hawser/transport/wire"
)

// release is the owner's word that the gateway is nobody's any more. Only the state machine acts on it: nothing else may
// write an identity meanwhile.
type release struct {
	said atomic.Bool
	bell wait.Bell
}

func newRelease() release { return release{bell: wait.NewBell()} }

// heedRelease looks whether statements let this gateway go. Only its owner's do (docs/decisions/0003): whatever a server says
// by itself, it keeps its identity.
func (a *Agent) heedRelease(known *owner.Owner, statements []string) {
	if known.Released(statements, a.statementTime()) && !a.release.said.Swap(true) {
		a.log.Warn("the owner has released this gateway: it forgets who it is")
		a.release.bell.Ring()
	}
}

// untilReleased returns a context that ends when the owner lets the gateway go. Stop releases it and waits for its goroutine.
func (a *Agent) untilReleased(ctx context.Context) (watched context.Context, stop func()) {
	watched, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-a.release.bell:
			cancel()
		case <-watched.Done():
		}
	}()
	return watched, func() { cancel(); <-done }
}

// forgetOwner ends all sessions and erases identity, key, and what is known of the owner. identity.pem first: without it the
// rest counts for nothing after a power cut. The root stays, and so do the time and the addresses that work: they are no
// owner's. Then the gateway shows a new code, by which anybody beside it can claim it. An error is tried again.
func (a *Agent) forgetOwner() (State, error) {
	a.sessions.endAll(&wire.Refusal{Reason: transport.NotStated, Text: byOwner + "the gateway was released"})
	a.sessions.wait() // a session may write what it has learnt of the owner
	for _, f := range []string{acceptedFile, identityFile, freshFile, keyFile, owner.SlotName + ".0", owner.SlotName + ".1"} {
		if err := os.Remove(filepath.Join(a.store.dir, f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return StateDial, fmt.Errorf("forget the owner: %w", err)
		}
	}
	select {
	case <-a.release.bell: // said while no link was there to end
	default:
	}
	a.release.said.Store(false)
	a.log.Info("released: the identity is erased")
	a.owners.forget()
	return StateBoot, nil
}

// endAll ends every session with a reason.
func (s *sessions) endAll(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.running {
		r.cancel(why)
	}
}
