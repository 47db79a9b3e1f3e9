package access

import (
	"context"
	"crypto"
	"errors"
	"net/http"
	"time"

	"hawser/identity"
	"hawser/transport"
)

// loginBody and loginAnswer are those of POST /api/v1/login.
type loginBody struct {
	Code string `json:"code"`
	User string `json:"user"`
	CSR  []byte `json:"csr"`
}

type loginAnswer struct {
	Chain  string           `json:"chain"`
	Domain string           `json:"domain"`
	User   string           `json:"user"`
	Hosts  []string         `json:"hosts"`
	Ports  []transport.Port `json:"ports"`
}

// postLogin gives a user a certificate for a login code (access §6). The code
// is marked used, in one compare-and-set, before anything is given out.
func (s *Server) postLogin(r request) (int, any, error) {
	var body loginBody
	if err := r.read(&body); err != nil {
		return 0, nil, err
	}
	pub, spki, err := parseCSR(body.CSR)
	if err != nil {
		return 0, nil, err
	}
	var name identity.Name
	err = s.withCode(r.Context(), r.caller.from, body.Code, func(code identity.Code, c codeRecord) error {
		name = identity.UserName(c.Domain, body.User)
		if c.Kind != identity.KindUser || c.Key != userKeyOf(c.Domain, body.User) {
			return errBadCode
		}
		return s.useLogin(r.Context(), r.caller, code, name, spki)
	})
	if err != nil {
		return 0, nil, err
	}
	chain, err := s.certifyUser(r.Context(), name, pub, spki, true)
	if err != nil {
		return 0, nil, err
	}
	if err := s.audit(r.Context(), actionLogin, r.caller.from.String(), name, nil, "key "+spki.String()); err != nil {
		return 0, nil, err
	}
	return http.StatusOK, loginAnswer{chain, name.Domain, name.ID, s.cfg.Hosts, s.cfg.Ports}, nil
}

// useLogin marks a code as used by a key.
func (s *Server) useLogin(ctx context.Context, from caller, code identity.Code, name identity.Name, spki identity.SPKI) error {
	var v verdict
	_, err := update(ctx, s.cfg.Store, bucketCodes, code.LookupID(), func(c *codeRecord) (bool, error) {
		now := s.now()
		if v = judgeLogin(*c, spki, now); v != verdictIssue {
			return false, nil
		}
		c.Used = &codeUse{spki, now.UTC()}
		return true, nil
	})
	switch {
	case err != nil:
		return err
	case v == verdictAlarm:
		err := s.audit(ctx, actionLogin, from.from.String(), name, errBadCode, "a used code with another key "+spki.String())
		return errors.Join(err, errBadCode)
	case v == verdictRefuse:
		return errBadCode
	}
	return nil
}

// certifyUser issues a certificate for a user's key and notes it in the
// registry: without that it is good for nothing. A renewal keeps the time of
// the login.
func (s *Server) certifyUser(ctx context.Context, name identity.Name, pub crypto.PublicKey, spki identity.SPKI, login bool) (string, error) {
	chain, err := s.issue(name, pub, userLife)
	if err != nil {
		return "", err
	}
	_, err = update(ctx, s.cfg.Store, bucketUsers, userKeyOf(name.Domain, name.ID), func(u *userRecord) (bool, error) {
		now := s.now().UTC()
		k := userKey{SPKI: spki, Login: now, NotAfter: chain[0].NotAfter.UTC()}
		if u.Revoked != nil {
			return false, refuse(transport.Revoked, "the user was revoked")
		}
		if !login {
			if k.Login = loginOf(*u, spki); k.Login.IsZero() {
				return false, refuse(codeNotLoggedIn, "the key was logged out")
			}
		}
		u.Keys = withKey(u.Keys, k, now)
		return true, nil
	})
	return string(identity.MarshalChain(chain)), err
}

func loginOf(u userRecord, spki identity.SPKI) (login time.Time) {
	for _, k := range u.Keys {
		if k.SPKI == spki {
			login = k.Login
		}
	}
	return login
}

// renewBody and renewAnswer are those of POST /api/v1/renew.
type renewBody struct {
	CSR []byte `json:"csr"`
}

type renewAnswer struct {
	Chain string `json:"chain"`
}

// postRenew gives a user a new certificate for the key of the present one.
func (s *Server) postRenew(r request) (int, any, error) {
	var body renewBody
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
	chain, err := s.certifyUser(r.Context(), peer.Name, pub, spki, false)
	if err != nil {
		return 0, nil, err
	}
	err = s.audit(r.Context(), actionUserRenew, peer.Name.String(), peer.Name, nil, "")
	return http.StatusOK, renewAnswer{chain}, err
}
