package manager

import (
	"context"
	"fmt"
	"slices"

	"hawser/identity"
)

// confirmed is a key that an admin's Manager has confirmed: the invite that stated it is not needed any more.
type confirmed struct {
	Subject  identity.Subject
	SPKI     identity.SPKI
	Replaces []identity.SPKI // keys of the same device, which count no more
}

// InvitedKey is a key that a user's own key has invited: his next PC, or that of somebody who has his first one.
type InvitedKey struct {
	User    string
	Label   string // what that computer says of itself
	SPKI    identity.SPKI
	By      identity.SPKI // the key that has invited it
	ByLabel string
}

// confirm states the keys that came with an invite of an admin or of the domain key, and that nobody has confirmed yet: so
// they last. One that a user's own key has invited is confirmed when a person says so. A device has one key: those before it,
// and all that was stated until its code was made, go into the list, in the same request. Keys of admins are confirmed by the
// domain key alone; without it they wait. Of two keys that came with one code none is confirmed: somebody has copied it, and
// another code settles it. The code of a batch is in every copy of an image: of the keys that came with it those alone are
// confirmed that a person has seen.
func (a *Account) confirm(ctx context.Context, pool statements, seen map[deviceKey]bool) (statements, []confirmed, error) {
	p, err := a.pen(false)
	if err != nil {
		return pool, nil, nil // who may sign nothing confirms nothing
	}
	var done []confirmed
	var texts []string
	var struck []identity.Entry
	near := a.near(pool)
	for _, s := range pool {
		if err := ctx.Err(); err != nil { // a server may show very many
			return pool, nil, err
		}
		key, ok := s.Statement.(identity.KeyStatement)
		if !ok || key.Serial != 0 || a.isConfirmed(near[key.Subject], key) {
			continue
		}
		invite, by, ok := a.waits(near[key.Subject], s)
		if !ok || invite.Slot != 0 && !seen[deviceKey{key.UID, key.Key.SPKI()}] {
			continue
		}
		signer := p.key
		if u, ok := a.user(pool, key.User); ok && u.Statement.(identity.UserStatement).Role == identity.RoleAdmin {
			if signer, err = a.domainKey(); err != nil {
				continue
			}
		}
		c := confirmed{Subject: key.Subject, SPKI: key.Key.SPKI()}
		if by != nil && !a.agreed(InvitedKey{key.User, key.Label, c.SPKI, by.Key.SPKI(), by.Label}) {
			continue
		}
		if !key.UID.IsZero() {
			c.Replaces = slices.DeleteFunc(a.keysOf(ctx, pool, identity.Subject{UID: key.UID}), func(spki identity.SPKI) bool { return spki == c.SPKI })
		}
		if len(c.Replaces) > 0 {
			struck = append(struck, entriesOf(key.UID, a.codeMade(near[key.Subject], key.UID, invite), c.Replaces)...)
		}
		if key.Serial, err = a.serial(near[key.Subject], key.Subject); err != nil {
			return pool, nil, err
		}
		stated, err := identity.Sign(key, signer)
		if err != nil {
			return pool, nil, err
		}
		near[key.Subject] = append(near[key.Subject], stated)
		pool, texts, done = append(pool, stated), append(texts, stated.JWS), append(done, c)
	}
	if len(texts) == 0 {
		return pool, nil, nil
	}
	if struck != nil {
		err = a.strike(ctx, "confirm keys", p, struck, texts, func(texts []string) error { return a.publishAll(ctx, texts) })
	} else {
		err = a.publishAll(ctx, texts)
	}
	if err != nil && !isFinal(err) {
		return pool, nil, err
	} else if err != nil {
		a.m.log().Warn("the server does not keep all keys that are confirmed", "err", clean(err.Error()))
		if done, err = a.publishEach(ctx, texts, done); err != nil {
			return pool, done, err
		}
	}
	_, err = a.state.owner.Take(texts, a.m.now()) // its own key may be among them
	return pool, done, asUsage(err)
}

// publishEach publishes the statements about keys one by one: of whom too much is stated must not keep the others out, nor
// this admin from revoking him. It returns the keys that the server has taken.
func (a *Account) publishEach(ctx context.Context, texts []string, all []confirmed) (done []confirmed, err error) {
	for i, jws := range texts {
		if err := a.publish(ctx, jws); err == nil {
			done = append(done, all[i])
		} else if !isFinal(err) {
			return done, err
		}
	}
	return done, nil
}

// agreed asks a person about a key that a user has invited himself, once for each command. With nobody to ask it is told.
func (a *Account) agreed(k InvitedKey) bool {
	if a.asked[k.SPKI] {
		return false
	}
	if a.asked == nil {
		a.asked = make(map[identity.SPKI]bool)
	}
	a.asked[k.SPKI] = true
	if a.m.Confirm == nil {
		a.m.notice(fmt.Sprintf("user %s has let another computer of his in, %q, with the key %s: it is not confirmed; "+
			"hawser user list at a terminal asks", k.User, k.Label, compared(k.SPKI)))
		return false
	}
	return a.m.Confirm(k)
}

// waits tells whether a key that an invite states can be confirmed, and returns that invite: the newest of its subject for a
// device, and no other key came with it. by is the key of the user himself that has signed the invite; nil: an admin has, or
// the domain key.
func (a *Account) waits(pool statements, s identity.Signed) (invite identity.InviteStatement, by *identity.KeyStatement, ok bool) {
	key := s.Statement.(identity.KeyStatement)
	peer := identity.Peer{Name: nameOf(key), SPKI: key.Key.SPKI()}
	chain, err := a.verifier().Assemble(pool, peer, a.statementTime())
	if err != nil || len(chain) < 3 {
		return invite, nil, false
	}
	signed, err := identity.ParseStatement(chain[2])
	if err != nil {
		return invite, nil, false
	}
	if invite, ok = signed.Statement.(identity.InviteStatement); !ok {
		return invite, nil, false
	}
	for _, other := range pool {
		o, ok := other.Statement.(identity.InviteStatement)
		if ok && !key.UID.IsZero() && o.Subject == key.Subject && o.Serial > invite.Serial && a.genuine(pool, other) {
			return invite, nil, false // a code ends the ones before it
		}
	}
	if twice, err := a.usedTwice(pool, chain, key); err != nil || twice {
		a.m.log().Warn("a code was used twice, and this key is not confirmed: make another code", "of", nameOf(key).String(),
			"key", key.Key.SPKI(), "err", err)
		return invite, nil, false
	}
	return invite, invitedBy(chain, key), true
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

// codeMade is the serial from which on something was stated of a device together with a code: all before it is over.
func (a *Account) codeMade(pool statements, uid identity.UID, invite identity.InviteStatement) uint64 {
	var newest uint64
	for _, s := range pool {
		if d, ok := s.Statement.(identity.DeviceStatement); ok && d.UID == uid && d.Serial > newest && a.genuine(pool, s) {
			newest = d.Serial
		}
	}
	return min(newest, invite.Serial)
}

func (a *Account) isConfirmed(pool statements, key identity.KeyStatement) bool {
	return slices.ContainsFunc(pool, func(s identity.Signed) bool {
		other, ok := s.Statement.(identity.KeyStatement)
		return ok && other.Serial != 0 && other.Subject == key.Subject && other.Key == key.Key && a.genuine(pool, s)
	})
}

// invitedBy is the key of the user himself that has signed the invite of a chain; nil: an admin has, or the domain key.
func invitedBy(chain []string, key identity.KeyStatement) *identity.KeyStatement {
	if len(chain) < 4 {
		return nil
	}
	s, err := identity.ParseStatement(chain[3])
	own, ok := s.Statement.(identity.KeyStatement)
	if err != nil || !ok || own.Subject != key.Subject {
		return nil
	}
	return &own
}
