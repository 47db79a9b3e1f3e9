package manager

import (
	"slices"

	"hawser/identity"
)

// proven are the statements about a subject that somebody has signed who may, also those that have ended or are struck: a
// server shows what it likes, and what comes of it is signed.
func (a *Account) proven(pool statements, subject identity.Subject) (found statements) {
	v, now := a.verifier(), a.statementTime()
	for _, s := range pool {
		if about, _ := numberOf(s.Statement); about != subject {
			continue
		}
		switch identity.FaultOf(v.Keep(s, pool, now)) {
		case "", identity.FaultExpired, identity.FaultRevoked:
			found = append(found, s)
		}
	}
	return found
}

// struck reports whether the lists strike what was stated of a subject with this serial, or its key. Whose signer is struck
// can be stated again; who is struck himself cannot.
func (a *Account) struck(subject identity.Subject, serial uint64, key identity.SPKI) bool {
	return slices.ContainsFunc(a.state.owner.Lists().Entries(), func(e identity.Entry) bool {
		return e.Subject == subject && serial < e.All || !key.IsZero() && e.SPKI == key
	})
}

// usedTwice reports whether an unconfirmed key is not the only one that its invite has stated: by what is shown, or by what
// this Manager has ever confirmed.
func (a *Account) usedTwice(pool statements, chain []string, key identity.KeyStatement) (bool, error) {
	s, err := identity.ParseStatement(chain[2]) // identity §15.1
	if err != nil {
		return false, err
	}
	invite, ok := s.Statement.(identity.InviteStatement)
	if !ok || slices.ContainsFunc(pool, func(s identity.Signed) bool {
		other, ok := s.Statement.(identity.KeyStatement)
		return ok && other.Subject == key.Subject && other.Key != key.Key && s.SignedBy(invite.Key)
	}) {
		return true, nil
	}
	_, err = a.state.owner.Judge(chain, identity.Peer{Name: nameOf(key), SPKI: key.Key.SPKI()}, 0, a.m.now())
	if identity.FaultOf(err) != "" {
		return identity.FaultOf(err) == identity.FaultInviteUsedTwice, nil // that there is no room for a pin is no alarm
	}
	return false, err
}
