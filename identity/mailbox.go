package identity

import (
	"slices"
	"time"
)

// Keep tells whether a statement is worth keeping for others (identity §15.7): it is of the domain, who has signed it may do
// so by what stands in pool, and it is neither struck nor ended. Who keeps it so decides nothing: each end judges for itself.
// The faults are those of §15.3 and §16.1; a [DomainStatement] is [FaultNotStated].
func (v Verifier) Keep(s Signed, pool []Signed, now time.Time) error {
	if s.Statement.domain() != v.Domain {
		return refuse(FaultNotStated, "keep statement: of another domain")
	}
	if _, ok := s.Statement.(ListStatement); ok {
		_, err := v.Lists.Add(s, pool, v.Pinned, Holder{}, now)
		return err
	}
	invite, err := v.signer(s, pool, now)
	if err != nil {
		return err
	}
	key, ok := s.Statement.(KeyStatement)
	if ok && (key.Serial == 0) != (invite.Serial != 0) {
		return refuse(FaultNotStated, "keep statement: the serial 0 belongs to a key that an invite states, and to no other")
	}
	if invite.Serial != 0 && now.After(invite.lastDay()) {
		return refuse(FaultExpired, "keep statement: the invite has ended")
	}
	return firstError(v.Lists.strike(s, invite.Serial, now), ended(s, now))
}

// signer finds who has signed a statement, and refuses it when nobody did who may. The invite is that of a key that it
// stated.
func (v Verifier) signer(s Signed, pool []Signed, now time.Time) (InviteStatement, error) {
	user, ok := s.Statement.(UserStatement)
	if _, domain := s.Statement.(DomainStatement); domain {
		return InviteStatement{}, refuse(FaultNotStated, "keep statement: a change of the domain key")
	}
	if s.SignedBy(v.Key) {
		return InviteStatement{}, nil
	}
	refusal := refuse(FaultNotStated, "keep statement: a "+s.Statement.typ()+" that nobody signed who may")
	if ok && user.Role == RoleAdmin {
		return InviteStatement{}, refusal
	}
	for _, by := range pool {
		switch k := by.Statement.(type) {
		case InviteStatement:
			key, ok := s.Statement.(KeyStatement)
			// Its serial is 0, so that no two statements vouch for each other: an invite leads to a key with another one.
			if ok && key.Serial == 0 && key.Subject == k.Subject && s.SignedBy(k.Key) {
				if refusal = v.Keep(by, pool, now); refusal == nil {
					return k, nil
				}
			}
		case KeyStatement:
			own := v.ownInvite(s, k)
			// A signature last: it is the dearest of all, and there are as many keys as users.
			if k.User == "" || k.Serial == 0 || !own && !statesAdmin(pool, k.User) || !s.SignedBy(k.Key) {
				continue
			}
			switch {
			case own:
				refusal = v.Keep(by, pool, now)
			case v.ofAdmin(s, pool, now):
				continue
			default:
				refusal = v.byAdmin(by, pool, now)
			}
			if refusal == nil {
				return InviteStatement{}, nil
			}
		}
	}
	return InviteStatement{}, refusal
}

// ownInvite tells whether s is an invite for the user whose key this is: his next PC.
func (v Verifier) ownInvite(s Signed, key KeyStatement) bool {
	invite, ok := s.Statement.(InviteStatement)
	return ok && invite.User == key.User && key.Domain == v.Domain
}

// statesAdmin tells whether somebody, whoever it is, says of a user that he is an admin.
func statesAdmin(pool []Signed, of string) bool {
	return slices.ContainsFunc(pool, func(u Signed) bool {
		user, ok := u.Statement.(UserStatement)
		return ok && user.User == of && user.Role == RoleAdmin
	})
}

// ofAdmin tells whether a key or an invite is one of an admin, which no admin states. One whose statement has ended is an
// admin still: he may be stated again, with his keys.
func (v Verifier) ofAdmin(s Signed, pool []Signed, now time.Time) bool {
	var of string
	switch s := s.Statement.(type) {
	case KeyStatement:
		of = s.User
	case InviteStatement:
		of = s.User
	}
	return of != "" && slices.ContainsFunc(pool, func(u Signed) bool {
		user, ok := u.Statement.(UserStatement)
		return ok && user.User == of && user.Role == RoleAdmin && u.SignedBy(v.Key) && v.Lists.strike(u, 0, now) == nil
	})
}

// byAdmin refuses a key that is no admin's by two statements of the domain key that count.
func (v Verifier) byAdmin(key Signed, pool []Signed, now time.Time) error {
	refusal := refuse(FaultNotStated, "keep statement: who signed is no admin by a statement of the domain key")
	for _, u := range pool {
		user, ok := u.Statement.(UserStatement)
		if !ok || user.User != key.Statement.(KeyStatement).User || !isAdmin(u, key, v.Pinned) {
			continue
		}
		if refusal = firstError(v.Lists.strike(u, 0, now), v.Lists.strike(key, 0, now), ended(u, now), ended(key, now)); refusal == nil {
			return nil
		}
	}
	return refusal
}

// Ends is when a statement does not count any more, by itself: zero for never. A key that an invite stated ends with the
// invite, which pool has.
func (s Signed) Ends(pool []Signed) time.Time {
	switch is := s.Statement.(type) {
	case InviteStatement:
		return is.lastDay()
	case KeyStatement:
		if is.Serial != 0 {
			break
		}
		for _, by := range pool {
			if invite, ok := by.Statement.(InviteStatement); ok && invite.Subject == is.Subject && s.SignedBy(invite.Key) {
				return invite.lastDay()
			}
		}
	}
	return endOf(s.Statement)
}
