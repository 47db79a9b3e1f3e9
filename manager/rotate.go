package manager

import (
	"context"
	"crypto"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"hawser/identity"
	"hawser/internal/credential"
	"hawser/internal/durable"
	"hawser/transport"
)

// nextFile is the domain key that is to take the place of the present one, until that is done.
const nextFile = "domain.key.next"

// Rotated is what a change of the domain key has stated anew.
type Rotated struct {
	Was     identity.SPKI `json:"was"`
	Is      identity.SPKI `json:"is"`
	Users   []string      `json:"users"`
	Devices int           `json:"devices"`
	Keys    int           `json:"keys"`
	Codes   int           `json:"codes"` // that were open, and do not work any more
}

// RotateDomain makes another domain key, has the present one say that it is replaced, and states again what the present one
// has signed: users and admins, keys, devices, and the list. Gateways and Managers follow as soon as they hear of it. What an
// admin has signed needs nothing. A run that was cut off is finished by the next one, with the same key.
func (a *Account) RotateDomain(ctx context.Context) (r Rotated, err error) {
	old, err := a.m.readDomainKey(a.home)
	if errors.Is(err, fs.ErrNotExist) {
		return r, fail(transport.Policy, "change domain key", errors.New("it is not on this computer; ask whoever founded the domain"))
	}
	if err != nil {
		return r, err
	}
	if pub, err := identity.NewPublicKey(old.Public()); err != nil || pub == a.state.owner.Pinned().Key {
		if _, err := a.readAndConfirm(ctx); err != nil { // with the old key while it counts
			return r, err
		}
	}
	if err := a.clockRight(ctx); err != nil {
		return r, err
	}
	pool, err := a.read(ctx)
	if err != nil {
		return r, err
	}
	next, err := a.nextKey()
	if err != nil {
		return r, err
	}
	texts, c, r, err := a.restateAll(pool, old, next)
	if err == nil {
		err = a.approved(c)
	}
	if err != nil {
		return r, err
	}
	if err := a.publishAll(ctx, texts); err != nil {
		return r, err
	}
	if _, err := a.state.owner.Take(texts, a.m.now()); err != nil {
		return r, asUsage(err)
	}
	// Whatever a server answers: the key that is pinned is not overwritten by another.
	if a.state.owner.Pinned().Key.SPKI() != r.Is {
		return r, fail(transport.NotStated, "change domain key", errors.New("it was changed meanwhile by another command, or on another computer"))
	}
	unlock, err := a.home.lock()
	if err != nil {
		return r, asUsage(err)
	}
	defer unlock.Close()
	if err := os.Rename(a.home.path(nextFile), a.home.path(domainFile)); err != nil {
		return r, err
	}
	a.remindOfCopy()
	return r, nil
}

// nextKey is the key of a change that was cut off, or a new one, kept as the present one is. Two commands at once get one key:
// of two the one that gateways follow could be lost.
func (a *Account) nextKey() (crypto.Signer, error) {
	unlock, err := a.home.lock()
	if err != nil {
		return nil, asUsage(err)
	}
	defer unlock.Close()
	b, err := durable.ReadPrivate(a.home.path(nextFile), credential.MaxFileBytes)
	if err == nil {
		return a.m.openKey(b)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, asUsage(err)
	}
	info, err := a.Domain()
	if err != nil {
		return nil, err
	}
	key, err := identity.NewKey()
	if err != nil {
		return nil, err
	}
	if info.Locked {
		b, err = a.m.seal(key)
	} else {
		b, err = identity.MarshalKey(key)
	}
	if err != nil {
		return nil, err
	}
	return key, asUsage(durable.WriteFile(a.home.path(nextFile), b, credential.Private))
}

// restateAll is the old key's word that the new one takes its place, and what the old key has signed, by the new one: first the
// list, then the user of this account, who is an admin by the new key from then on.
func (a *Account) restateAll(pool statements, old, next crypto.Signer) (texts []string, c Change, r Rotated, err error) {
	was, err1 := identity.NewPublicKey(old.Public())
	is, err2 := identity.NewPublicKey(next.Public())
	if err := errors.Join(err1, err2); err != nil {
		return nil, c, r, err
	}
	r.Was, r.Is, r.Users = was.SPKI(), is.SPKI(), []string{}
	domain, now := a.state.config.Domain, a.m.now()
	sign := func(s identity.Statement, key crypto.Signer) error {
		signed, err := identity.Sign(s, key)
		texts = append(texts, signed.JWS)
		return err
	}
	serial, err := identity.NextSerial(0, now)
	if err != nil {
		return nil, c, r, err
	}
	if a.state.owner.Pinned().Key == was {
		if err := sign(identity.DomainStatement{Domain: domain, Old: was, New: is, Serial: serial}, old); err != nil {
			return nil, c, r, err
		}
	}
	v := identity.Verifier{Pinned: identity.Pinned{Domain: domain, Key: was}, Lists: a.state.owner.Lists()}
	// Before all that must have it: a list that the old key's statements name is no list of the new key.
	list, err := v.Lists.Next(identity.Pinned{Domain: domain, Key: is}, nil, now)
	if err != nil {
		return nil, c, r, fail(transport.ReasonOf(err), "change domain key", err)
	}
	if err := sign(list, next); err != nil {
		return nil, c, r, err
	}
	// By the clock of this PC alone: a list of a thief may say that it is later than all ends, and the new list removes it.
	near := pool.near(was, a.state.owner.Pinned().Key) // which is the new one if an earlier run was cut off
	live := func(s identity.Signed) bool {
		about, _ := numberOf(s.Statement)
		return s.SignedBy(was) && v.Keep(s, near[about], now) == nil
	}
	own := identity.Subject{User: a.state.config.User}
	subjects := pool.subjects(live)
	slices.SortStableFunc(subjects, func(x, y identity.Subject) int { return order(x != own) - order(y != own) })
	for _, subject := range subjects {
		about := near[subject]
		serial, err := a.serial(about, subject)
		if err != nil {
			return nil, c, r, err
		}
		says := about.latest(subject, live)
		if movedSince(v, about, subject, says, now) { // by an admin: his word stays, as it is
			says = says[1:]
		}
		_, signed, err := pen{key: next, seen: list.Serial}.restate(says, serial)
		if err != nil {
			return nil, c, r, err
		}
		texts = append(texts, signed...)
		one := statedOf(subject, says)
		c.Again = append(c.Again, one)
		if r.Codes += one.Codes; one.Codes > 0 {
			c.Falls = append(c.Falls, Stated{User: one.User, UID: one.UID, Name: one.Name, Codes: one.Codes})
		}
		r.Keys += len(one.Keys)
		switch {
		case one.Role != "":
			r.Users = append(r.Users, one.User)
		case one.Name != "":
			r.Devices++
		}
	}
	return texts, c, r, nil
}

// movedSince reports whether an admin by v has said something newer of a user or device than the first of says.
func movedSince(v identity.Verifier, about statements, subject identity.Subject, says []identity.Statement, now time.Time) bool {
	if len(says) == 0 {
		return false
	}
	first, ok := serialOf(says[0])
	return ok && slices.ContainsFunc(about, func(s identity.Signed) bool {
		who, _ := numberOf(s.Statement)
		serial, is := serialOf(s.Statement)
		return is && who == subject && serial > first && leadsTo(v, about, s, now)
	})
}

// serialOf is that of a statement about a user or device itself, and not about a key or a code.
func serialOf(s identity.Statement) (serial uint64, ok bool) {
	switch s := s.(type) {
	case identity.UserStatement:
		return s.Serial, true
	case identity.DeviceStatement:
		return s.Serial, true
	}
	return 0, false
}

func order(later bool) int {
	if later {
		return 1
	}
	return 0
}

// subjects are those whom the statements that are kept are about, each once, in the order of the pool.
func (p statements) subjects(keep func(identity.Signed) bool) (found []identity.Subject) {
	for _, s := range p {
		about, _ := numberOf(s.Statement)
		if about != (identity.Subject{}) && !slices.Contains(found, about) && keep(s) {
			found = append(found, about)
		}
	}
	return found
}

// latest is what counts about a subject: the newest statement about it, each of its confirmed keys once, and the invites that
// nobody has used.
func (p statements) latest(subject identity.Subject, live func(identity.Signed) bool) (found []identity.Statement) {
	var stated identity.Statement
	var newest uint64
	var keys []identity.PublicKey
	for _, s := range p {
		if about, _ := numberOf(s.Statement); about != subject || !live(s) {
			continue
		}
		switch is := s.Statement.(type) {
		case identity.UserStatement:
			if is.Serial > newest {
				stated, newest = is, is.Serial
			}
		case identity.DeviceStatement:
			if is.Serial > newest {
				stated, newest = is, is.Serial
			}
		case identity.KeyStatement:
			if is.Serial != 0 && !slices.Contains(keys, is.Key) {
				keys = append(keys, is.Key)
				found = append(found, is)
			}
		case identity.InviteStatement:
			used := slices.ContainsFunc(p, func(k identity.Signed) bool {
				key, ok := k.Statement.(identity.KeyStatement)
				return ok && key.Subject == subject && k.SignedBy(is.Key)
			})
			if !used {
				found = append(found, is)
			}
		}
	}
	if stated != nil {
		found = append([]identity.Statement{stated}, found...)
	}
	return found
}
