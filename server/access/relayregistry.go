package access

import (
	"context"
	"errors"
	"net/http"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
)

// getRegistered shows all relays to who runs the infrastructure, also those that are offline or revoked.
func (s *Server) getRegistered(r request) (int, any, error) {
	var list []store.Member
	err := s.store.View(r.Context(), func(tx *store.Tx) (err error) {
		if err := runsInfrastructure(tx, r.caller); err != nil {
			return err
		}
		list, err = tx.Relays()
		return err
	})
	if err != nil {
		return 0, nil, err
	}
	answer := api.RegisteredRelays{Relays: []api.RegisteredRelay{}}
	for _, m := range list {
		v, err := s.viewRelay(r.Context(), m)
		if err != nil {
			return 0, nil, err
		}
		answer.Relays = append(answer.Relays, v)
	}
	return http.StatusOK, answer, nil
}

// viewRelay is a relay of the registry, with what is now.
func (s *Server) viewRelay(ctx context.Context, m store.Member) (api.RegisteredRelay, error) {
	v := api.RegisteredRelay{Name: m.ID, State: api.StatePending, Created: m.Created, NotAfter: m.NotAfter, SPKI: m.SPKI,
		Hosts: []string{}, Ports: []transport.Port{}}
	if m.IsEnrolled() {
		v.State = api.StateEnrolled
	}
	if !m.Revoked.IsZero() {
		v.State = api.StateRevoked
		return v, nil
	}
	on, err := s.locate(ctx, m.Identity())
	if err != nil || on == nil {
		return v, err
	}
	v.Online, v.Address, v.Since, v.Hosts, v.Ports = true, on.address, on.since, on.hosts, on.ports
	v.Pipes, v.Max = on.load.Pipes, on.load.Max
	return v, nil
}

// postRelayRevoke shuts a relay out for good. Its name is in certificates and grants, and is never used again. The sessions
// that it carries end at their Runtimes, whatever it does: their Managers ask for new ones.
func (s *Server) postRelayRevoke(r request) (int, any, error) {
	m := store.Member{Kind: identity.KindRelay, ID: r.vars["relay"]}
	actor, now := r.caller.peer.Name.String(), s.now().UTC()
	var keys map[identity.SPKI]time.Time
	err := s.store.UpdateAlways(r.Context(), func(tx *store.Tx) error {
		keys = make(map[identity.SPKI]time.Time)
		if err := runsInfrastructure(tx, r.caller); err != nil {
			return err
		}
		if identity.CheckLabel(m.ID) != nil { // PostgreSQL must not be asked for just anything
			return errNotFound
		}
		switch err := tx.Get(&m); {
		case errors.Is(err, store.ErrNotFound):
			return s.orLost(errNotFound)
		case err != nil && !errors.Is(err, store.ErrDamaged):
			return err
		}
		if m.IsEnrolled() {
			keys[m.SPKI] = now
		}
		if err := s.refuseKeys(tx, m.Identity(), keys); err != nil {
			return err
		}
		if m.Revoked.IsZero() {
			m.Revoked = now
			if err := tx.Put(&m); err != nil {
				return err
			}
		}
		return tx.Append(s.record(actionRelayRevoke, actor, m.Identity(), nil, ""))
	})
	if err != nil {
		return 0, nil, err
	}
	s.presence.revokeAll(keys, now)
	s.hint()
	if err := s.endSessionsAt(r.Context(), m.ID, actor); err != nil {
		return 0, nil, err
	}
	v, err := s.viewRelay(r.Context(), m)
	return http.StatusOK, v, err
}

// endSessionsAt ends the sessions that a relay carries, as if their line was lost: they may go on at another relay.
func (s *Server) endSessionsAt(ctx context.Context, relay, actor string) error {
	var open []store.Session
	err := s.store.View(ctx, func(tx *store.Tx) (err error) {
		open, err = tx.OpenSessionsAt(relay)
		return err
	})
	for _, r := range open {
		err = errors.Join(err, s.endSession(ctx, r.ID, actor, transport.LinkLost))
	}
	return err
}
