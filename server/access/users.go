package access

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
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
	return s.takeUser(r, actionUserAdd, nil, func(tx *store.Tx, name string) error {
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
	return s.takeUser(r, actionUserCode, nil, func(tx *store.Tx, name string) error {
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

// postCode takes the code that a user has made for his next PC.
func (s *Server) postCode(r request) (int, any, error) {
	return s.takeUser(r, actionUserCode, mayBring(r.caller), func(_ *store.Tx, name string) error {
		if name != r.caller.peer.Name.ID {
			return refuse(transport.Policy, "only an admin makes codes for others")
		}
		return nil // his certificate says that he is there
	})
}

// postLogout ends the validity of the key that asks, or of all that the user has.
func (s *Server) postLogout(r request) (int, any, error) {
	var body api.LogoutRequest
	if err := r.read(&body); err != nil {
		return 0, nil, err
	}
	peer, now := r.caller.peer, s.now().UTC()
	keys := make(map[identity.SPKI]time.Time)
	err := s.store.UpdateAlways(r.Context(), func(tx *store.Tx) error {
		keys = map[identity.SPKI]time.Time{peer.SPKI: now}
		has, err := tx.UserKeys(peer.Name.Domain, peer.Name.ID)
		if err != nil {
			return err
		}
		gone := []string{peer.SPKI.String()}
		for i := range has {
			if has[i].SPKI != peer.SPKI && !body.All {
				continue
			}
			if has[i].SPKI != peer.SPKI {
				gone = append(gone, has[i].SPKI.String())
			}
			keys[has[i].SPKI] = now
			if err := tx.Delete(&has[i]); err != nil {
				return err
			}
		}
		if err := s.refuseKeys(tx, peer.Name, keys); err != nil {
			return err
		}
		return tx.Append(s.record(actionLogout, peer.Name.String(), peer.Name, nil, "key "+strings.Join(gone, " ")))
	})
	if err != nil {
		return 0, nil, err
	}
	s.presence.revokeAll(keys, now) // Runtimes end the sessions of these keys
	s.hint()
	return http.StatusNoContent, nil, nil
}

// takeUser keeps a user's code, in the transaction of enter, which enters the user. may is that of keep.
func (s *Server) takeUser(r request, action string, may func(identity.Signed) error, enter func(*store.Tx, string) error) (int, any, error) {
	var body api.UserRequest
	if err := r.read(&body); err != nil {
		return 0, nil, err
	}
	var c store.Code
	err := s.changeOwnerBy(r.Context(), r.caller.domain(), s.store.Update, func(tx *store.Tx, o *owner) (k kept, err error) {
		if err := s.hasUser(tx, r); err != nil {
			return k, err
		}
		_, c, k, err = s.takeCode(tx, o, body.Code, identity.KindUser, may)
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
	var body api.UserRevocation
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
		if keys, err = s.shutOut(tx, u, body.Keys, now); err != nil {
			return k, err
		}
		return k, tx.Append(s.record(actionUserRevoke, r.caller.peer.Name.String(), name, nil, ""))
	})
	if err != nil {
		return 0, nil, err
	}
	s.presence.revokeAll(keys, now)
	s.hint()
	if len(body.Keys) > 0 {
		return http.StatusNoContent, nil, nil // Runtimes end the sessions of these keys; his others go on
	}
	return http.StatusNoContent, nil, s.endSessionsBy(r.Context(), name, r.caller.peer.Name.String())
}

// shutOut revokes a user and all his keys, or these of his keys alone.
func (s *Server) shutOut(tx *store.Tx, u store.User, only []identity.SPKI, now time.Time) (map[identity.SPKI]time.Time, error) {
	keys := make(map[identity.SPKI]time.Time)
	list, err := tx.UserKeys(u.Domain, u.Name)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if len(only) > 0 && !slices.Contains(only, list[i].SPKI) {
			continue
		}
		keys[list[i].SPKI] = now
		if err := tx.Delete(&list[i]); err != nil {
			return nil, err
		}
	}
	if err := s.refuseKeys(tx, identity.UserName(u.Domain, u.Name), keys); err != nil {
		return nil, err
	}
	if !u.Revoked.IsZero() || len(only) > 0 {
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
