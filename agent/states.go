package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"hawser/transport"
	"hawser/transport/wire"
)

// boot loads what is stored.
func (a *Agent) boot(context.Context) (State, error) {
	self, err := a.store.self()
	if errors.Is(err, ErrNotEnrolled) {
		a.self.Store(nil)
		return StateEnroll, nil
	}
	if err != nil {
		return StateBoot, err
	}
	a.self.Store(self)
	return StateDial, nil
}

const identityPoll = 5 * time.Second

// awaitIdentity waits until hawser-agent enroll has stored an identity.
func (a *Agent) awaitIdentity(ctx context.Context) (State, error) {
	a.log.Info("waiting for an identity: run hawser-agent enroll", "state", StateEnroll)
	for ctx.Err() == nil {
		_, err := a.store.self()
		if err == nil {
			return StateBoot, nil
		}
		if !errors.Is(err, ErrNotEnrolled) {
			return StateEnroll, err
		}
		a.Alive(time.Minute)
		sleep(ctx, identityPoll)
	}
	return StateStopped, nil
}

// quarantined rests: the infrastructure does not accept this identity now. It
// may again (a store that was restored, an operator who changed his mind), and
// nobody can walk up to the gateway, so it asks again, rarely. Another identity
// in the state directory, or none, ends the rest.
func (a *Agent) quarantined(ctx context.Context) (State, error) {
	until := time.Now().Add(quarantine + random(quarantine))
	for ctx.Err() == nil && time.Now().Before(until) {
		self, err := a.store.self()
		if err == nil && self.SPKI != a.self.Load().SPKI || errors.Is(err, ErrNotEnrolled) {
			return StateBoot, nil
		}
		a.Alive(time.Minute)
		sleep(ctx, min(identityPoll, time.Until(until)))
	}
	return StateDial, nil
}

// dial finds a way to an Access Server, which sets the clock by signed time,
// renews an identity whose dates do not fit, and says hello.
func (a *Agent) dial(ctx context.Context) (State, error) {
	ctx, stop := a.untilLinkUp(ctx)
	defer stop()
	client := a.client(a.self.Load())
	conn, err := client.Connect(ctx)
	if context.Cause(ctx) == errLinkUp && err != nil {
		return StateDial, nil // at once
	}
	if err != nil {
		return StateDial, unproven{err}
	}
	a.saveState()
	if outdated(a.self.Load().Cert.Leaf, a.clock.Now()) {
		if err := a.renew(ctx, conn); err != nil {
			return next(StateDial, verdict(err)), fmt.Errorf("renew identity: %w", err)
		}
		if conn, err = client.Connect(ctx); err != nil {
			return StateDial, unproven{err}
		}
	}
	link, err := conn.Control(ctx, wire.Hello{Version: a.Version, Hints: a.board.Hints(), Instance: a.instance})
	if err != nil {
		conn.NetConn().Close()
		return next(StateDial, verdict(err)), &transport.Error{Reason: transport.ReasonOf(err),
			Op: "say hello to " + conn.Candidate.Addr.String(), Err: err}
	}
	a.conn, a.link = conn, link
	return StateAttached, nil
}

// expiryMargin is by how much clocks may differ when a server judges dates. All
// else is for keepIdentity, which needs a server that works and no haste.
const expiryMargin = time.Minute

// outdated reports whether a server would refuse leaf for its dates. One that has
// not begun was issued by a clock that was wrong.
func outdated(leaf *x509.Certificate, now time.Time) bool {
	return now.Before(leaf.NotBefore) || !now.Before(leaf.NotAfter.Add(-expiryMargin))
}

// saveState stores the newest signed time and the last good addresses. A full
// or broken flash must not keep a gateway offline, so a failure is only logged.
func (a *Agent) saveState() {
	if err := a.store.save(a.clock.anchor()); err != nil {
		a.log.Error("save state", "err", err)
	}
}
