package manager

import (
	"context"
	"errors"
	"slices"

	"hawser/identity"
	"hawser/transport"
)

// Adoption chooses what AdoptDomain states again.
type Adoption struct {
	From    identity.PublicKey // the earlier domain key, which a person knows: the server might make one up
	Without []string           // users, and devices by UID or name, that are left out
	Sign    bool               // false: only say what it would be
}

// AdoptDomain states again, with the present domain key, whom an earlier one had stated, itself or by its admins, and no
// list has struck: after a domain reset nobody else can. This user himself is left out: he has stated himself, and the
// keys of his lost computers are not to come back.
func (a *Account) AdoptDomain(ctx context.Context, o Adoption) ([]Stated, error) {
	const op = "adopt domain"
	pinned := a.state.owner.Pinned()
	if o.From == pinned.Key {
		return nil, usage("adopt domain: this is the present domain key; give the one before it")
	}
	pool, err := a.read(ctx)
	if err != nil {
		return nil, err
	}
	next, err := a.domainKey()
	if err != nil {
		return nil, err
	}
	e := a.earlier(pool, o.From)
	found := []Stated{}
	for _, subject := range e.subjects {
		one := e.adopted(subject)
		if subject != (identity.Subject{User: a.state.config.User}) && !one.isIn(o.Without) {
			found = append(found, one)
		}
	}
	if !o.Sign {
		return found, nil
	}
	if err := a.clockRight(ctx); err != nil {
		return nil, err
	}
	// First the list, which all that follows has seen. Who was struck before stays so.
	struck := slices.DeleteFunc(e.v.Lists.Entries(), func(e identity.Entry) bool { return e.Until != 0 && e.Until <= a.m.now().Unix() })
	list, err := a.state.owner.Lists().Next(pinned, struck, a.m.now())
	if err != nil {
		return nil, fail(transport.ReasonOf(err), op, err)
	}
	signed, err := identity.Sign(list, next)
	if err != nil {
		return nil, err
	}
	texts := []string{signed.JWS}
	for _, one := range found {
		serial, err := a.serial(pool, identity.Subject{User: one.User, UID: one.UID})
		if err != nil {
			return nil, err
		}
		_, signed, err := pen{key: next, seen: list.Serial}.restate(one.says, serial)
		if err != nil {
			return nil, err
		}
		texts = append(texts, signed...)
	}
	if err := a.publishAll(ctx, texts); err != nil {
		return nil, err
	}
	_, err = a.state.owner.Take(texts, a.m.now())
	return found, asUsage(err)
}

// earlier is a domain as an earlier key of it had stated it.
type earlier struct {
	pool     statements
	v        identity.Verifier // under that key, with its lists
	live     func(identity.Signed) bool
	subjects []identity.Subject
	account  *Account
}

func (a *Account) earlier(pool statements, key identity.PublicKey) *earlier {
	now := a.m.now()
	e := &earlier{pool: pool, account: a, v: identity.Verifier{Pinned: identity.Pinned{Domain: a.state.config.Domain, Key: key}}}
	for _, s := range pool {
		if lists, err := e.v.Lists.Add(s, pool, e.v.Pinned, identity.Holder{}, now); err == nil {
			e.v.Lists = lists
		}
	}
	since := e.v // who was struck since then is not stated again either
	since.Lists = a.state.owner.Lists()
	e.live = func(s identity.Signed) bool {
		return errors.Join(e.v.Keep(s, pool, e.v.Lists.Now(now)),
			since.Keep(s, pool, since.Lists.Now(now))) == nil
	}
	e.subjects = pool.subjects(e.live)
	return e
}

// adopted is what is stated again about a subject: the newest statement, its confirmed keys, and those that came with an invite
// of the earlier key.
func (e *earlier) adopted(subject identity.Subject) Stated {
	var says []identity.Statement
	for _, s := range e.pool.latest(subject, e.live) {
		if _, open := s.(identity.InviteStatement); !open { // it dies with the key
			says = append(says, s)
		}
	}
	one := statedOf(subject, says)
	now := e.v.Lists.Now(e.account.m.now())
	for _, s := range e.pool {
		key, ok := s.Statement.(identity.KeyStatement)
		if !ok || key.Subject != subject || key.Serial != 0 || slices.Contains(one.Keys, key.Key.SPKI()) {
			continue
		}
		chain, err := e.v.Assemble(e.pool, identity.Peer{Name: nameOf(key), SPKI: key.Key.SPKI()}, now)
		if err == nil && invitedBy(chain, key) == nil {
			says = append(says, key)
			one = statedOf(subject, says)
		}
	}
	return one
}
