package access

import (
	"context"
	"errors"
	"slices"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
)

// maxAhead is how far a list may be from the future: clocks of PCs are not those of servers.
const maxAhead = 24 * time.Hour

// keep writes what is new of statements, all of it or nothing. It is a mailbox, but takes no rubbish: what no end would
// believe is refused. may says whether the caller may bring one; nil: any.
func (s *Server) keep(tx *store.Tx, o *owner, texts []string, may func(identity.Signed) error) (k kept, err error) {
	err = s.judge(tx, o, texts, may, func(v *identity.Verifier, row *store.Statement, one identity.Signed, pool []identity.Signed) error {
		k.note(one, row)
		return s.keepOne(tx, v, row, one, pool)
	})
	return k, err
}

// judgeFirst says what keep would refuse for what is said and by whom, without writing. Signatures take a while, and there is
// one writer: whoever brings rubbish keeps nobody from writing.
func (s *Server) judgeFirst(ctx context.Context, domain string, texts []string, may func(identity.Signed) error) error {
	return s.store.View(ctx, func(tx *store.Tx) error {
		o, err := readOwner(tx, domain, s.now())
		if err != nil {
			return err
		}
		return s.judge(tx, o, texts, may, func(v *identity.Verifier, _ *store.Statement, one identity.Signed, pool []identity.Signed) (err error) {
			switch one.Statement.(type) {
			case identity.DomainStatement:
				v.Key, err = identity.Successor(one, v.Domain, v.Key)
			case identity.ListStatement:
				v.Lists, err = v.Lists.Add(one, pool, v.Pinned, identity.Holder{}, v.Lists.Now(s.now()))
			}
			return err
		})
	})
}

// judge calls take with each statement that is new and that somebody who may has signed. A change of the domain key is for
// take to judge. v gets from take what a list or such a change adds.
func (s *Server) judge(tx *store.Tx, o *owner, texts []string, may func(identity.Signed) error,
	take func(v *identity.Verifier, row *store.Statement, one identity.Signed, pool []identity.Signed) error) error {
	if o.Key.IsZero() {
		return refuse(transport.NotStated, "the domain has no key yet: its founder has to log in")
	}
	var list []identity.Signed
	for i, text := range texts {
		one, err := identity.ParseStatement(text)
		if err != nil {
			return refuseStatement(i, err)
		}
		list = append(list, one)
	}
	pool := append(slices.Clone(o.people), list...)
	for _, uid := range devicesOf(list) {
		rows, err := tx.StatementsOf(o.Domain, store.DeviceSubject(uid))
		if err != nil {
			return err
		}
		pool = append(pool, parseAll(rows)...)
	}
	v := o.verifier()
	for i, one := range list {
		row := rowOf(o.Domain, one, pool, s.now())
		err := tx.Get(&store.Statement{Domain: row.Domain, ID: row.ID})
		if err == nil {
			continue // as it is
		} else if !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrDamaged) {
			return err
		}
		if may != nil {
			if err := may(one); err != nil {
				return err
			}
		}
		if _, change := one.Statement.(identity.DomainStatement); !change {
			if err := v.Keep(one, pool, v.Lists.Now(s.now())); err != nil {
				return refuseStatement(i, err)
			}
		}
		if err := take(&v, row, one, pool); err != nil {
			return refuseStatement(i, err)
		}
	}
	return nil
}

// keepOne writes one statement, which was judged. v gets what a list adds.
func (s *Server) keepOne(tx *store.Tx, v *identity.Verifier, row *store.Statement, one identity.Signed, pool []identity.Signed) error {
	switch is := one.Statement.(type) {
	case identity.DomainStatement:
		return keepChange(tx, v, row, one)
	case identity.ListStatement:
		// Statements of whoever believed it would have ended (identity §16.4): all of them, for a thief or a wrong clock.
		if time.Unix(is.Iat, 0).After(s.now().Add(maxAhead)) {
			return refuse(transport.ClockWrong, "the list is from the future: set the clock of that computer")
		}
		return keepList(tx, v, row, one, pool, v.Lists.Now(s.now()))
	}
	of, err := tx.StatementsOf(row.Domain, row.Subject)
	if err == nil {
		err = roomFor(row, one, of)
	}
	if err != nil {
		return err
	}
	if device, ok := one.Statement.(identity.DeviceStatement); ok {
		newer := func(other identity.Signed) bool { // a thief's who is struck is none
			d, ok := other.Statement.(identity.DeviceStatement)
			return ok && d.Serial > device.Serial && v.Keep(other, pool, v.Lists.Now(s.now())) == nil
		}
		if slices.ContainsFunc(parseAll(of), newer) {
			return tx.Put(row)
		}
		if err := moveDevice(tx, device); err != nil {
			return err
		}
	}
	return tx.Put(row)
}

// keepList takes a list that is newer than all, so that two admins who sign at once do not pass each other by: the second
// gets the first one's, and signs again. One of the domain key need only be newer than those of that key; then the others
// are worth nothing (identity §16.1). Lists of an admin who is struck do not count here: he may have used up the serials.
// Older lists go that say nothing more.
func keepList(tx *store.Tx, v *identity.Verifier, row *store.Statement, one identity.Signed, pool []identity.Signed, now time.Time) error {
	list := one.Statement.(identity.ListStatement)
	byDomain := one.SignedBy(v.Key)
	if !byDomain && list.Serial <= v.Lists.NewestBeside(v.Key, append(v.Lists.Entries(), list.Entries...)) {
		return refuse(transport.Stale, "there is a newer list: take it, and sign again")
	}
	next, err := v.Lists.Add(one, pool, v.Pinned, identity.Holder{}, now)
	if err != nil {
		return err
	}
	v.Lists = next
	old, err := tx.StatementsOf(row.Domain, "")
	if err != nil {
		return err
	}
	for i := range old {
		was, err := identity.ParseStatement(old[i].JWS)
		if err != nil {
			continue
		}
		before, ok := was.Statement.(identity.ListStatement)
		if !ok {
			continue
		}
		if byDomain && before.Serial < list.Serial || sameSigner(was, one, pool) && saysAll(list, before, now) {
			if err := tx.Delete(&old[i]); err != nil {
				return err
			}
		}
	}
	return tx.Put(row)
}

// keepChange follows the domain key to the one that it has named. What the old key signed is worth nothing from here on.
func keepChange(tx *store.Tx, v *identity.Verifier, row *store.Statement, one identity.Signed) error {
	key, err := identity.Successor(one, v.Domain, v.Key)
	if err != nil {
		return err
	}
	d := store.Domain{Name: v.Domain}
	if err := tx.Get(&d); err != nil {
		return err
	}
	d.Key, v.Key = key, key
	return errors.Join(tx.Put(&d), tx.Put(row))
}

func sameSigner(a, b identity.Signed, pool []identity.Signed) bool {
	return slices.ContainsFunc(pool, func(s identity.Signed) bool {
		key, ok := s.Statement.(identity.KeyStatement)
		return ok && a.SignedBy(key.Key) && b.SignedBy(key.Key)
	})
}

// saysAll tells whether a list has all that an older one says and that is not over.
func saysAll(list, before identity.ListStatement, now time.Time) bool {
	return !slices.ContainsFunc(before.Entries, func(e identity.Entry) bool {
		return (e.Until == 0 || e.Until > now.Unix()) && !slices.Contains(list.Entries, e)
	})
}

// moveDevice gives the row of a device the name and folder of its newest statement.
func moveDevice(tx *store.Tx, stated identity.DeviceStatement) error {
	m := store.Member{Kind: identity.KindDevice, ID: stated.UID.String()}
	switch err := tx.Get(&m); {
	case errors.Is(err, store.ErrNotFound): // it is made with this statement
		return nil
	case err != nil:
		return err
	case m.Domain != stated.Domain:
		return refuse(transport.CodeTaken, "the UID is another domain's")
	}
	if stated.Released { // its name is free for another one: no device is called by a UID
		stated.Name, stated.Folder = m.ID, ""
	}
	if m.Name == stated.Name && m.Folder == stated.Folder {
		return nil
	}
	if !stated.Released {
		if err := nameIsFree(tx, stated); err != nil {
			return err
		}
	}
	m.Name, m.Folder = stated.Name, stated.Folder
	return tx.Put(&m)
}

// nameIsFree refuses the name of another device. That of a revoked one is free for its replacement.
func nameIsFree(tx *store.Tx, stated identity.DeviceStatement) error {
	if _, err := identity.ParseUID(stated.Name); err == nil {
		return refuse(api.BadRequest, "name: it would be taken for a UID")
	}
	other, err := tx.DeviceByName(stated.Domain, stated.Name)
	switch {
	case err == nil && other.ID == stated.UID.String(), errors.Is(err, store.ErrNotFound):
		return nil
	case err == nil && other.Revoked.IsZero(), errors.Is(err, store.ErrDamaged):
		return refuse(api.NameTaken, "another device has this name")
	}
	return err
}
