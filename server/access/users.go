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

// getUsers shows who there is, by the newest statement that the server has of each.
func (s *Server) getUsers(r request) (int, any, error) {
	o, page := r.caller.owner, api.Users{Users: []api.User{}}
	err := s.store.View(r.Context(), func(tx *store.Tx) error {
		users, err := tx.Users(r.caller.domain())
		if err != nil {
			return err
		}
		for _, u := range users {
			keys, err := tx.UserKeys(u.Domain, u.Name)
			if err != nil {
				return err
			}
			v := api.User{Name: u.Name, Created: u.Created, Revoked: u.Revoked, Keys: []api.UserKey{}}
			if stated, ok := o.newest(u.Name, s.now()); ok {
				v.Role, v.Ends = stated.Role, time.Unix(stated.Exp, 0).UTC()
			}
			for _, k := range keys {
				v.Keys = append(v.Keys, api.UserKey{SPKI: k.SPKI, Login: k.Login, NotAfter: k.NotAfter})
			}
			page.Users = append(page.Users, v)
		}
		return nil
	})
	return http.StatusOK, page, err
}

// postUsers makes a user. One who was revoked comes back by a new statement.
func (s *Server) postUsers(r request) (int, any, error) {
	return s.takeUser(r, actionUserAdd, func(tx *store.Tx, name string) error {
		u := store.User{Domain: r.caller.domain(), Name: name}
		switch err := tx.Get(&u); {
		case errors.Is(err, store.ErrNotFound):
			u.Created = s.now().UTC()
		case err != nil:
			return err
		case u.Revoked.IsZero():
			return refuse(api.NameTaken, "there is such a user")
		}
		u.Revoked = time.Time{}
		return tx.Put(&u)
	})
}

// postUserCode gives a user another code: a new PC, or a code that was lost.
func (s *Server) postUserCode(r request) (int, any, error) {
	return s.takeUser(r, actionUserCode, func(tx *store.Tx, name string) error {
		if name != r.vars["user"] {
			return refuse(api.BadRequest, "code: of another user")
		}
		u := store.User{Domain: r.caller.domain(), Name: name}
		if err := tx.Get(&u); err != nil || u.Revoked.IsZero() {
			return err
		}
		u.Revoked = time.Time{}
		return tx.Put(&u)
	})
}

// takeUser keeps a user's code, in the transaction of enter, which enters the user.
func (s *Server) takeUser(r request, action string, enter func(*store.Tx, string) error) (int, any, error) {
	var body api.UserRequest
	if err := r.read(&body); err != nil {
		return 0, nil, err
	}
	var c store.Code
	err := s.changeOwnerBy(r.Context(), r.caller.domain(), s.store.Update, func(tx *store.Tx, o *owner) (k kept, err error) {
		if err := s.hasUser(tx, r); err != nil {
			return k, err
		}
		_, c, k, err = s.takeCode(tx, o, body.Code, identity.KindUser)
		if errors.Is(err, errCodeKnown) {
			return k, nil
		} else if err != nil {
			return k, err
		}
		if err := enter(tx, c.Subject); err != nil {
			return k, err
		}
		return k, tx.Append(s.record(action, r.caller.peer.Name.String(), identity.UserName(c.Domain, c.Subject), nil, ""))
	})
	return http.StatusCreated, api.NewSubject{Name: c.Subject, Expires: c.Expires}, err
}

// hasUser refuses a path with a user whom there is not.
func (s *Server) hasUser(tx *store.Tx, r request) error {
	name, ok := r.vars["user"]
	if !ok {
		return nil
	}
	if identity.CheckLabel(name) != nil { // PostgreSQL must not be asked for just anything
		return errNotFound
	}
	err := tx.Get(&store.User{Domain: r.caller.domain(), Name: name})
	if errors.Is(err, store.ErrNotFound) {
		return s.orLost(errNotFound)
	}
	return err
}

// postUserRevoke shuts a user out: by lists, which the ends go by, and in the registry.
func (s *Server) postUserRevoke(r request) (int, any, error) {
	var body api.Statements
	if err := r.read(&body); err != nil {
		return 0, nil, err
	}
	name := identity.UserName(r.caller.domain(), r.vars["user"])
	now := s.now().UTC()
	var keys map[identity.SPKI]time.Time
	err := s.changeOwner(r.Context(), name.Domain, func(tx *store.Tx, o *owner) (k kept, err error) {
		u := store.User{Domain: name.Domain, Name: name.ID}
		if err := s.hasUser(tx, r); err != nil && !errors.Is(err, store.ErrDamaged) {
			return k, err
		}
		if err := tx.Get(&u); err != nil && !errors.Is(err, store.ErrDamaged) {
			return k, err
		}
		if k, err = s.keep(tx, o, body.Statements, nil); err != nil {
			return k, err
		}
		if keys, err = s.shutOut(tx, u, now); err != nil {
			return k, err
		}
		return k, tx.Append(s.record(actionUserRevoke, r.caller.peer.Name.String(), name, nil, ""))
	})
	if err != nil {
		return 0, nil, err
	}
	s.presence.revokeAll(keys, now)
	s.hint()
	return http.StatusNoContent, nil, s.endSessionsBy(r.Context(), name, r.caller.peer.Name.String())
}

// shutOut revokes a user and all his keys.
func (s *Server) shutOut(tx *store.Tx, u store.User, now time.Time) (map[identity.SPKI]time.Time, error) {
	keys := make(map[identity.SPKI]time.Time)
	list, err := tx.UserKeys(u.Domain, u.Name)
	if err != nil {
		return nil, err
	}
	for i := range list {
		k := store.RevokedKey{SPKI: list[i].SPKI, Name: identity.UserName(u.Domain, u.Name).String(), When: now}
		if err := tx.Insert(&k); err != nil && !errors.Is(err, store.ErrExists) {
			return nil, err
		}
		if err := tx.Delete(&list[i]); err != nil {
			return nil, err
		}
		if err := s.publish(tx, changeRevoked, k.SPKI.String()); err != nil {
			return nil, err
		}
		keys[k.SPKI] = now
	}
	if !u.Revoked.IsZero() {
		return keys, nil
	}
	u.Revoked = now
	return keys, tx.Put(&u)
}

// endSessionsBy ends the open sessions of a user.
func (s *Server) endSessionsBy(ctx context.Context, user identity.Name, actor string) error {
	var open []store.Session
	err := s.store.View(ctx, func(tx *store.Tx) (err error) {
		open, err = tx.OpenSessionsBy(user.Domain, user.ID)
		return err
	})
	for _, r := range open {
		err = errors.Join(err, s.endSession(ctx, r.ID, actor, transport.Revoked))
	}
	return err
}
