package manager

import (
	"context"
	"errors"
	"slices"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/api"
)

// verifier judges by what this account keeps of its owner.
func (a *Account) verifier() identity.Verifier {
	return identity.Verifier{Pinned: a.state.owner.Pinned(), Lists: a.state.owner.Lists()}
}

// statementTime is the time by which statements are judged now.
func (a *Account) statementTime() time.Time {
	return a.state.owner.Lists().Now(a.m.now())
}

// genuine tells whether somebody who may has signed a statement, and no list strikes it or him, though it may have ended
// since. A server can put anything into the pool: what is signed anew, or counted on from, has to be the owner's.
func (a *Account) genuine(pool statements, s identity.Signed) bool {
	return leadsTo(a.verifier(), pool, s, a.statementTime())
}

// fallen is genuine whatever lists say of who has signed it: what a person, who knows whom it is about, may state again.
func (a *Account) fallen(pool statements, s identity.Signed) bool {
	return leadsTo(identity.Verifier{Pinned: a.state.owner.Pinned()}, pool, s, a.statementTime())
}

func leadsTo(v identity.Verifier, pool statements, s identity.Signed, now time.Time) bool {
	err := v.Keep(s, pool, now)
	return err == nil || identity.FaultOf(err) == identity.FaultExpired
}

// struck reports whether a list strikes a statement, or the key that it is about, also one that is over: who was shut out is
// not stated again.
func (a *Account) struck(s identity.Statement) bool {
	about, serial := numberOf(s)
	var key identity.PublicKey
	switch s := s.(type) {
	case identity.KeyStatement:
		key = s.Key
	case identity.InviteStatement:
		key = s.Key
	}
	return slices.ContainsFunc(a.state.owner.Lists().Entries(), func(e identity.Entry) bool {
		return e.Subject == about && serial < e.All || !key.IsZero() && e.SPKI == key.SPKI()
	})
}

// near are the statements that decide what counts about one subject: those about it, and those by which the domain keys make
// somebody an admin. There may be thousands of devices, and each statement is judged by all of those beside it; and a server may
// say of thousands that they are admins.
func (p statements) near(domain ...identity.PublicKey) map[identity.Subject]statements {
	near, admins := make(map[identity.Subject]statements), make(map[identity.Subject]statements)
	for _, s := range p {
		if about, _ := numberOf(s.Statement); about != (identity.Subject{}) {
			near[about] = append(near[about], s)
		}
	}
	for about, of := range near {
		if about.User == "" || !of.admin(about.User) {
			continue
		}
		stated := slices.DeleteFunc(slices.Clone(of), func(s identity.Signed) bool { return !slices.ContainsFunc(domain, s.SignedBy) })
		if stated.admin(about.User) {
			admins[about] = stated
		}
	}
	for about := range near {
		for admin, of := range admins {
			if admin != about {
				near[about] = append(near[about], of...)
			}
		}
	}
	return near
}

// admin reports whether somebody says that a user is an admin, or was.
func (p statements) admin(user string) bool {
	return slices.ContainsFunc(p, func(s identity.Signed) bool {
		u, ok := s.Statement.(identity.UserStatement)
		return ok && u.User == user && u.Role == identity.RoleAdmin
	})
}

// near are those of the domain key that is pinned.
func (a *Account) near(pool statements) map[identity.Subject]statements {
	return pool.near(a.state.owner.Pinned().Key)
}

// device finds a device by UID, name, or folder and name, in the owner's own words: a server that said which one is meant
// could let another one be revoked. Of each device the newest statement counts; one that a list strikes is none.
func (a *Account) device(pool statements, typed string) (identity.DeviceStatement, error) {
	op := "find device " + typed
	newest := make(map[identity.UID]identity.DeviceStatement)
	for _, s := range pool { // those alone are judged, which takes a while
		if d, ok := s.Statement.(identity.DeviceStatement); ok && d.Answers(typed) == nil {
			newest[d.UID] = identity.DeviceStatement{}
		}
	}
	near := a.near(pool)
	for _, s := range pool {
		d, ok := s.Statement.(identity.DeviceStatement)
		if was, candidate := newest[d.UID]; ok && candidate && d.Serial > was.Serial && a.genuine(near[identity.Subject{UID: d.UID}], s) {
			newest[d.UID] = d
		}
	}
	var found []identity.DeviceStatement
	for _, d := range newest {
		if d.Answers(typed) == nil {
			found = append(found, d)
		}
	}
	known, err := a.home.readDevices()
	switch {
	case err != nil:
		return identity.DeviceStatement{}, err
	case len(found) == 0:
		return identity.DeviceStatement{}, fail(api.NotFound, op, errors.New("the owner has stated none of that name"))
	case len(found) > 1:
		return identity.DeviceStatement{}, fail(transport.Policy, op, errors.New("there are several of that name: say which by its UID"))
	case found[0].Serial < known.serial(found[0].UID.String(), a.struck):
		return identity.DeviceStatement{}, fail(transport.Stale, op, errors.New("the server withholds a newer statement, which was seen here"))
	}
	return found[0], nil
}

// keysOf are the keys that were stated of a device or user, by whoever may. One that is stated of somebody else too is not
// there: whoever has a code can state any key as his own, and who shuts him out must not shut out another with him. The search
// ends with ctx: a server may show very many.
func (a *Account) keysOf(ctx context.Context, pool statements, subject identity.Subject) (keys []identity.SPKI) {
	for _, s := range pool {
		key, ok := s.Statement.(identity.KeyStatement)
		if ctx.Err() != nil {
			break
		}
		spki := key.Key.SPKI()
		if !ok || key.Subject != subject || slices.Contains(keys, spki) || a.isOthers(pool, key) || !a.genuine(pool, s) {
			continue
		}
		keys = append(keys, spki)
	}
	return keys
}

func (a *Account) isOthers(pool statements, key identity.KeyStatement) bool {
	return slices.ContainsFunc(pool, func(s identity.Signed) bool {
		other, ok := s.Statement.(identity.KeyStatement)
		return ok && other.Key == key.Key && other.Subject != key.Subject && a.genuine(pool, s)
	})
}

// newest is the greatest serial that the owner has used about a subject, 0 for none. What a list strikes is counted by what
// the list says: a stolen key may have used up the numbers. What a user's own key has signed is not counted: it falls with
// the key, and he could keep himself from being revoked.
func (a *Account) newest(pool statements, subject identity.Subject) (serial uint64) {
	others := slices.DeleteFunc(slices.Clone(pool), func(s identity.Signed) bool {
		key, ok := s.Statement.(identity.KeyStatement)
		return ok && key.User != "" && key.Subject == subject
	})
	for _, s := range pool {
		if about, n := numberOf(s.Statement); about == subject && n > serial && a.genuine(others, s) {
			serial = n
		}
	}
	for _, e := range a.state.owner.Lists().Entries() {
		if e.Subject == subject && max(e.Statements, e.All) > serial {
			serial = max(e.Statements, e.All) - 1
		}
	}
	return serial
}

// numberOf is whom a statement is about, and its serial; nobody for a list and a change of the domain key.
func numberOf(s identity.Statement) (identity.Subject, uint64) {
	switch s := s.(type) {
	case identity.UserStatement:
		return identity.Subject{User: s.User}, s.Serial
	case identity.DeviceStatement:
		return identity.Subject{UID: s.UID}, s.Serial
	case identity.InviteStatement:
		return s.Subject, s.Serial
	case identity.KeyStatement:
		return s.Subject, s.Serial
	}
	return identity.Subject{}, 0
}

// user is the owner's newest statement about a user.
func (a *Account) user(pool statements, name string) (found identity.Signed, ok bool) {
	for _, s := range pool {
		u, is := s.Statement.(identity.UserStatement)
		if is && u.User == name && (!ok || u.Serial > found.Statement.(identity.UserStatement).Serial) && a.genuine(pool, s) {
			found, ok = s, true
		}
	}
	return found, ok
}
