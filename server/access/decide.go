package access

import (
	"context"
	"errors"
	"fmt"

	"hawser/identity"
	"hawser/transport"
)

// decide gathers what is known and chooses (access §8). It waits for nobody.
// lost is the relay that a move leaves, or empty.
func (s *Server) decide(ctx context.Context, user identity.Peer, device identity.UID, lost string) (decision, error) {
	runtime, err := s.measured.of(ctx, measuredByRuntime(device))
	if err != nil {
		return decision{}, err
	}
	manager, err := s.measured.of(ctx, measuredByManager(user.SPKI))
	if err != nil {
		return decision{}, err
	}
	last, _, err := load[decision](ctx, s.cfg.Store, bucketDecisions, decisionKey(device, user.Name.ID))
	if err != nil && !errors.Is(err, ErrNotFound) {
		return decision{}, err
	}
	q := question{device: device, at: s.now().UTC(), incumbent: last.Chosen, lost: lost}
	for _, r := range s.presence.relays() {
		name := r.name.ID
		q.relays = append(q.relays, contender{
			name: name, manager: findMeasurement(manager, name), runtime: findMeasurement(runtime, name), load: r.load,
		})
	}
	return choose(q), nil
}

// chooseRelay decides and returns the chosen relay. Without
// one the error is a refusal, no-relay.
func (s *Server) chooseRelay(ctx context.Context, user identity.Peer, device identity.UID, lost string) (decision, *attached, error) {
	d, err := s.decide(ctx, user, device, lost)
	if err != nil {
		return d, nil, err
	}
	relay := s.presence.relay(d.Chosen)
	switch {
	case len(d.Relays) == 0:
		return d, nil, refuse(transport.NoRelay, "no relay is online")
	case relay == nil:
		return d, nil, refuse(transport.NoRelay, "every relay carries its maximum")
	}
	return d, relay, nil
}

// keepDecision stores a decision that was acted on: its relay is the incumbent
// from now on.
func (s *Server) keepDecision(ctx context.Context, user string, d decision) error {
	_, err := upsert(ctx, s.cfg.Store, bucketDecisions, decisionKey(d.Device, user), func(last *decision) (bool, error) {
		*last = d
		return true, nil
	})
	return err
}

// decisionKey returns the key of access §1. A user's name is a label.
func decisionKey(device identity.UID, user string) string { return device.String() + "." + user }

// String is what the audit log says of a decision.
func (d decision) String() string {
	return fmt.Sprintf("relay %s score %.1f ms", d.Chosen, d.score())
}
