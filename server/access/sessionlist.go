package access

import (
	"errors"
	"net/http"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// getSessions shows the open sessions with the devices that the caller sees, oldest first.
func (s *Server) getSessions(r request) (int, any, error) {
	limit, err := r.limit()
	if err != nil {
		return 0, nil, err
	}
	var after store.SessionPlace
	if err := r.cursor(&after); err != nil {
		return 0, nil, err
	}
	page := api.Sessions{Sessions: []api.Session{}}
	err = s.store.View(r.Context(), func(tx *store.Tx) error {
		devices := make(map[identity.UID]store.Member)
		for {
			list, err := tx.OpenSessionsIn(r.caller.domain(), after, limit)
			if err != nil {
				return err
			}
			for _, one := range list {
				after = store.SessionPlace{Created: one.Created, ID: one.ID}
				m, err := deviceOf(tx, devices, one.Device)
				if err != nil {
					return err
				}
				if !r.caller.sees(m) {
					continue
				}
				page.Sessions = append(page.Sessions, api.Session{ID: one.ID, Device: one.Device, Name: m.Name, User: one.User,
					Relay: one.Relay, Since: one.Created})
				if len(page.Sessions) == limit { // there may be more behind it
					page.Next = cursorOf(after)
					return nil
				}
			}
			if len(list) < limit {
				return nil
			}
		}
	})
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, page, nil
}

// deviceOf reads the device of a session once. One whose row is bad is shown by what can be read of it, and one that has none
// by its UID: a session that vanished from the list could not be ended.
func deviceOf(tx *store.Tx, known map[identity.UID]store.Member, uid identity.UID) (store.Member, error) {
	if m, ok := known[uid]; ok {
		return m, nil
	}
	m := store.Member{Kind: identity.KindDevice, ID: uid.String()}
	if err := tx.Get(&m); err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrDamaged) {
		return m, err
	}
	m.Kind, m.ID = identity.KindDevice, uid.String()
	known[uid] = m
	return m, nil
}

// deleteSession ends a session: an operator's own, and for an admin any of the domain. Who sees one that should not be must
// not have to find its user first. One that is ended on purpose is not opened again by the program at its other end: so is
// any of another user, and of one's own when the query says so. What remains is a program that ends its own session.
func (s *Server) deleteSession(r request) (int, any, error) {
	var reason transport.Reason
	switch r.URL.Query().Get(api.ParamReason) {
	case "", string(transport.Closed):
		reason = transport.Closed
	case string(transport.Ended):
		reason = transport.Ended
	default:
		return 0, nil, refuse(api.BadRequest, "reason is not closed or ended")
	}
	record, err := s.session(r.Context(), r.vars["session"])
	own := record.User == r.caller.peer.Name.ID
	if err == nil && (record.Domain != r.caller.domain() || !own && r.caller.role() < admin) {
		err = errNotFound
	}
	if err != nil {
		return 0, nil, err
	}
	if !own {
		reason = transport.Ended
	}
	return http.StatusNoContent, nil, s.endSession(r.Context(), record.ID, r.caller.peer.Name.String(), reason)
}

// endOf is what a Runtime is told of a session that actor has ended.
func endOf(id, actor string, reason transport.Reason) wire.EndSession {
	m := wire.EndSession{Session: id, Reason: reason}
	if name, err := identity.ParseName(actor); err == nil && reason == transport.Ended {
		m.Text = name.ID + " has ended the session"
	}
	return m
}

// errGone refuses the move of a session that has ended. Whoever is told ended does not open another one.
func errGone(r store.Session) error {
	if r.Reason == transport.Ended {
		return refuse(transport.Ended, "somebody has ended the session on purpose")
	}
	return errEnded
}
