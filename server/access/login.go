package access

import (
	"crypto"
	"errors"
	"net/http"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
)

// postLogin gives a user a certificate for a code (access §6): an owner's code, or that of a founder, who brings the key of
// his domain. That the code was used is committed before the answer is sent, so that no crash makes it usable twice.
func (s *Server) postLogin(r request) (int, any, error) {
	var body api.LoginRequest
	if err := r.read(&body); err != nil {
		return 0, nil, err
	}
	pub, spki, err := parseCSR(body.CSR)
	if err != nil {
		return 0, nil, err
	}
	shown, err := credentialOf(body.Code, body.Lookup, body.Auth)
	if err != nil {
		return 0, nil, err
	}
	if !shown.owners {
		s.takeResets(r.Context()) // a founder may have been told domain-taken, and come again
	}
	answer := api.LoginAnswer{Hosts: s.cfg.Hosts, Ports: s.cfg.Ports}
	var name identity.Name
	var founded kept
	err = s.withCode(r.Context(), r.caller.from, shown, func(tx *store.Tx, c store.Code) (err error) {
		name, founded = identity.UserName(c.Domain, c.Subject), kept{}
		// A code is good for one user's name alone: whoever has found a code must know whose it is.
		if c.Kind != identity.KindUser || !shown.owners && c.Subject != body.User {
			return errBadCode
		}
		again, err := s.useLogin(tx, r.caller, c, name, spki)
		if err != nil {
			return err
		}
		if shown.owners {
			answer.Invitation, err = s.invitation(tx, c)
		} else {
			founded, err = s.found(tx, body, identity.Peer{Name: name, SPKI: spki})
		}
		if err != nil {
			return err
		}
		answer.Chain, err = s.certifyUser(tx, name, pub, spki, true)
		login := s.record(actionLogin, r.caller.from.String(), name, nil, "key "+spki.String())
		if again {
			return errors.Join(err, s.appendOf(tx, name, login, flapRecords))
		}
		return errors.Join(err, tx.Append(login))
	})
	if !founded.empty() {
		s.owners.drop(name.Domain)
		s.hint()
	}
	s.counted.gave("login", err)
	if err != nil {
		return 0, nil, err
	}
	answer.Domain, answer.User = name.Domain, name.ID
	return http.StatusOK, answer, nil
}

// found takes the domain key of a founder, with which he states himself and his key. The first one is kept; then another one
// is refused. What is first here is nobody's truth: gateways and users learn the key from a Manager (identity §13).
func (s *Server) found(tx *store.Tx, body api.LoginRequest, peer identity.Peer) (kept, error) {
	if body.DomainKey.IsZero() || len(body.Statements) == 0 {
		return kept{}, refuse(api.BadRequest, "a founder brings the domain key, and his statements: update hawser")
	}
	d := store.Domain{Name: peer.Name.Domain}
	if err := tx.Get(&d); errors.Is(err, store.ErrNotFound) {
		return kept{}, errBadCode
	} else if err != nil {
		return kept{}, err
	}
	if !d.Key.IsZero() && d.Key != body.DomainKey {
		return kept{}, refuse(transport.DomainTaken, "the domain has another key already")
	}
	o, err := readOwner(tx, d.Name, s.now())
	if err != nil {
		return kept{}, err
	}
	o.Key = body.DomainKey
	v, err := o.verifier().Judge(body.Statements, peer, o.at(s.now()))
	switch {
	case err != nil:
		return kept{}, refuseStatement(0, err)
	case v.User.Role != identity.RoleAdmin || !v.Confirmed:
		return kept{}, refuse(transport.NotStated, "a founder is an admin by the domain key")
	}
	k, err := s.keep(tx, o, body.Statements, nil)
	if err != nil {
		return k, err
	}
	if d.Key.IsZero() {
		d.Key = body.DomainKey
		k.people = true
		if err := tx.Put(&d); err != nil {
			return k, err
		}
	}
	// He may have been shut out: the domain key has the last word.
	u := store.User{Domain: d.Name, Name: peer.Name.ID}
	if err := tx.Get(&u); err == nil && !u.Revoked.IsZero() {
		u.Revoked = time.Time{}
		if err := tx.Put(&u); err != nil {
			return k, err
		}
	}
	return k, s.publishKept(tx, d.Name, k)
}

// useLogin marks a code as used by a key. The same key may repeat it, because the answer may have been lost: then it reports
// again.
func (s *Server) useLogin(tx *store.Tx, from caller, c store.Code, name identity.Name, spki identity.SPKI) (again bool, err error) {
	now := s.now()
	switch judgeLogin(c, spki, now) {
	case codeFresh:
		c.Used, c.UsedAt = spki, now.UTC()
		return false, tx.Put(&c)
	case codeRepeated:
		return true, nil
	case codeReused:
		return false, s.recordReuse(tx, name, s.record(actionLogin, from.from.String(), name, errBadCode, "a used code with another key "+spki.String()))
	}
	return false, errBadCode
}

// certifyUser issues a certificate for a user's key and enters the key in the registry, without which every request is
// refused. A renewal keeps the time of the login, so that it cannot extend a login for ever. User and keys are read in
// the same transaction, so that a revocation in the same moment is seen or comes after.
func (s *Server) certifyUser(tx *store.Tx, name identity.Name, pub crypto.PublicKey, spki identity.SPKI, login bool) (string, error) {
	u := store.User{Domain: name.Domain, Name: name.ID}
	if err := tx.Get(&u); errors.Is(err, store.ErrNotFound) {
		return "", refuse(api.NotLoggedIn, "no such user")
	} else if err != nil {
		return "", err
	}
	if !u.Revoked.IsZero() {
		return "", refuse(transport.Revoked, "the user was revoked")
	}
	chain, err := s.issue(name, pub, userLife)
	if err != nil {
		return "", err
	}
	keys, err := tx.UserKeys(u.Domain, u.Name)
	if err != nil {
		return "", err
	}
	now := s.now().UTC()
	k := store.UserKey{Domain: u.Domain, User: u.Name, SPKI: spki, Login: now, NotAfter: chain[0].NotAfter.UTC()}
	if !login {
		if k.Login = loginOf(keys, spki); k.Login.IsZero() {
			return "", refuse(api.NotLoggedIn, "the key was logged out")
		}
	}
	for _, old := range keysBeside(keys, k, now) {
		// In this transaction: a key that is one too many is gone when the new one counts.
		if err := tx.Delete(&old); err != nil {
			return "", err
		}
	}
	return string(identity.MarshalChain(chain)), tx.Put(&k)
}

// loginOf returns when a key was logged in; zero: it is not.
func loginOf(keys []store.UserKey, spki identity.SPKI) (login time.Time) {
	for _, k := range keys {
		if k.SPKI == spki {
			login = k.Login
		}
	}
	return login
}

// postRenew gives a user a new certificate for the key of the present one.
func (s *Server) postRenew(r request) (int, any, error) {
	var body api.RenewRequest
	if err := r.read(&body); err != nil {
		return 0, nil, err
	}
	pub, spki, err := parseCSR(body.CSR)
	if err != nil {
		return 0, nil, err
	}
	peer := r.caller.peer
	if spki != peer.SPKI {
		return 0, nil, refuse(transport.WrongKey, "the CSR has another key than the client certificate")
	}
	var chain string
	err = s.store.Update(r.Context(), func(tx *store.Tx) (err error) {
		if chain, err = s.certifyUser(tx, peer.Name, pub, spki, false); err != nil {
			return err
		}
		return s.appendOf(tx, peer.Name, s.record(actionUserRenew, peer.Name.String(), peer.Name, nil, ""), flapRecords)
	})
	s.counted.gave("user-renew", err)
	return http.StatusOK, api.RenewAnswer{Chain: chain, RefusedKeys: s.refusedNow()}, err
}
