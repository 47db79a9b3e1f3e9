package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/api"
)

// soonTime is how long before their end people hear of it whose business it is.
const soonTime = 60 * 24 * time.Hour

// RenewUsers states users again for as long as the last time, with the rights that they have, and their confirmed keys. It is
// shown for approval before anything is signed, and nothing is when one of them cannot be renewed.
func (a *Account) RenewUsers(ctx context.Context, names ...string) ([]identity.UserStatement, error) {
	for _, name := range names {
		if _, err := userPath(name); err != nil {
			return nil, err
		}
	}
	pool, err := a.readAndConfirmAlso(ctx, nil)
	self := slices.Contains(names, a.state.config.User)
	if self && transport.ReasonOf(err) == transport.NotStated {
		err = a.clockRight(ctx)
	}
	if err != nil {
		return nil, err
	}
	if self {
		// An admin whose own statement has ended is shown little. With the domain key he states himself, as he knows himself.
		pool = append(pool, parsed(a.state.owner.Chain())...)
	}
	return a.renewUsers(ctx, pool, names)
}

// RenewDue is RenewUsers for those whose statements end within 60 days, if there are any. Who was stated for 60 days or less is
// not among them: somebody has meant him to end.
func (a *Account) RenewDue(ctx context.Context) ([]identity.UserStatement, error) {
	pool, err := a.readAndConfirmAlso(ctx, nil)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, u := range a.due(pool) {
		names = append(names, u.User)
	}
	return a.renewUsers(ctx, pool, names)
}

// renewUsers states users again by what the server has of them. It is never nil, so that JSON has a list.
func (a *Account) renewUsers(ctx context.Context, pool statements, names []string) ([]identity.UserStatement, error) {
	renewed := []identity.UserStatement{}
	if len(names) == 0 {
		return renewed, nil
	}
	var c Change
	var serials []uint64
	for _, name := range names {
		says := a.toRenew(pool, name)
		if says == nil {
			return nil, a.notStated("renew user "+name, name)
		}
		subject := identity.Subject{User: name}
		serial, err := a.serial(pool, subject)
		if err != nil {
			return nil, err
		}
		u := says[0].(identity.UserStatement)
		u.Exp = time.UnixMilli(int64(serial)).Add(lifeOf(u)).Unix()
		says[0] = u
		c.Again, serials = append(c.Again, statedOf(subject, says)), append(serials, serial)
	}
	if err := a.approved(c); err != nil {
		return nil, err
	}
	var texts []string
	for i, one := range c.Again {
		p, err := a.pen(one.Role == identity.RoleAdmin)
		if err != nil {
			return nil, err
		}
		says, signed, err := p.restate(one.says, serials[i])
		if err != nil {
			return nil, err
		}
		texts, renewed = append(texts, signed...), append(renewed, says[0].(identity.UserStatement))
	}
	if err := a.publishAll(ctx, texts); err != nil {
		return nil, err
	}
	_, err := a.state.owner.Take(texts, a.m.now()) // this user may be among them
	return renewed, asUsage(err)
}

// NewRights are the rights that a user gets in place of those that he has. What is left out stays.
type NewRights struct {
	Role    identity.Role
	Devices []string      // nil: as before
	Targets []string      // nil: as before
	Life    time.Duration // zero: as long as the last time
}

// ChangeUser states a user again with other rights. If he loses any, what was stated of him before goes into the list, in the
// same request: else a server could go on with the old statement. His sessions end then, and what hangs on an admin who is none
// any more falls with it, or with keep is stated again first. It is shown for approval before anything is signed.
func (a *Account) ChangeUser(ctx context.Context, name string, r NewRights, keep bool) (u identity.UserStatement, err error) {
	if _, err := userPath(name); err != nil {
		return u, err
	}
	if name == a.state.config.User {
		return u, usage("change user %s: your own rights are another admin's to change", name)
	}
	pool, err := a.readAndConfirm(ctx)
	if err != nil {
		return u, err
	}
	says := a.toRenew(pool, name)
	if says == nil {
		return u, a.notStated("change user "+name, name)
	}
	was := says[0].(identity.UserStatement)
	subject := identity.Subject{User: name}
	serial, err := a.serial(pool, subject)
	if err != nil {
		return u, err
	}
	u = r.of(was, serial)
	says[0] = u
	if err := a.approved(Change{Again: []Stated{statedOf(subject, says)}}); err != nil {
		return u, err
	}
	less := isLess(u, was)
	entry := identity.Entry{Subject: subject, Statements: serial, Until: a.m.now().Add(entryLife).Unix()}
	if less && was.Role == identity.RoleAdmin {
		if err := a.letGo(ctx, ctx, pool, entry, keep); err != nil {
			return u, err
		}
	}
	p, err := a.pen(was.Role == identity.RoleAdmin || u.Role == identity.RoleAdmin)
	if err != nil {
		return u, err
	}
	says, texts, err := p.restate(says, serial)
	if err != nil {
		return u, err
	}
	u = says[0].(identity.UserStatement)
	if !less {
		return u, a.publishAll(ctx, texts)
	}
	return u, a.strike(ctx, "change user "+name, p, []identity.Entry{entry}, texts, func(texts []string) error { return a.publishAll(ctx, texts) })
}

// of is a statement with these rights.
func (r NewRights) of(u identity.UserStatement, serial uint64) identity.UserStatement {
	life := lifeOf(u)
	if r.Life > 0 {
		life = r.Life
	}
	if r.Role != "" {
		u.Role = r.Role
	}
	scope := identity.Scope{Devices: []string{"*"}, Targets: []string{"*"}}
	if u.Scope != nil {
		scope = *u.Scope
	}
	if r.Devices != nil {
		scope.Devices = sorted(r.Devices)
	}
	if r.Targets != nil {
		scope.Targets = sorted(r.Targets)
	}
	u.Scope = &scope
	if u.Role == identity.RoleAdmin {
		u.Scope = nil
	}
	u.Exp = time.UnixMilli(int64(serial)).Add(life).Unix()
	return u
}

// isLess reports whether a statement gives less than the one before it, or something else, in rights or in time. What is not
// named in the same words counts as less: a list too many only ends a session.
func isLess(is, was identity.UserStatement) bool {
	rank := []identity.Role{identity.RoleViewer, identity.RoleOperator, identity.RoleAdmin}
	has := func(list []string, all []string) bool {
		return slices.Contains(list, "*") || !slices.ContainsFunc(all, func(one string) bool { return !slices.Contains(list, one) })
	}
	switch {
	case slices.Index(rank, is.Role) < slices.Index(rank, was.Role), is.Exp < was.Exp:
		return true
	case is.Scope == nil:
		return false
	case was.Scope == nil:
		return true
	}
	return !has(is.Scope.Devices, was.Scope.Devices) || !has(is.Scope.Targets, was.Scope.Targets)
}

// due are the newest statements of users that end soon, who ends first before the others.
func (a *Account) due(pool statements) (due []identity.UserStatement) {
	now := a.statementTime()
	soon := func(u identity.UserStatement) bool {
		end := time.Unix(u.Exp, 0)
		return lifeOf(u) > soonTime && !end.Before(now) && end.Before(now.Add(soonTime))
	}
	var asked []string
	for _, s := range pool { // those alone are judged, which takes a while
		u, ok := s.Statement.(identity.UserStatement)
		if !ok || slices.Contains(asked, u.User) || !soon(u) {
			continue
		}
		asked = append(asked, u.User)
		if newest, ok := a.user(pool, u.User); ok && !a.struck(newest.Statement) && soon(newest.Statement.(identity.UserStatement)) {
			due = append(due, newest.Statement.(identity.UserStatement))
		}
	}
	slices.SortStableFunc(due, func(x, y identity.UserStatement) int { return cmp.Compare(x.Exp, y.Exp) })
	return due
}

// remind tells an admin whose statements end soon, and when nobody is an admin any more: what is not renewed ends, and with an
// admin the gateways that he has stated.
func (a *Account) remind(pool statements) {
	self, err := a.state.owner.Statement()
	if u, _ := self.Statement.(identity.UserStatement); err != nil || u.Role != identity.RoleAdmin {
		return // whom it does not concern
	}
	due := a.due(pool)
	if len(due) == 0 {
		return
	}
	const shown = 3
	var ends []string
	for _, u := range due[:min(shown, len(due))] {
		ends = append(ends, fmt.Sprintf("%s on %s", clean(u.User), time.Unix(u.Exp, 0).UTC().Format(time.DateOnly)))
	}
	if more := len(due) - shown; more > 0 {
		ends = append(ends, fmt.Sprintf("%d more", more))
	}
	text := "within 60 days end: " + strings.Join(ends, ", ") + "; hawser user renew --due shows and renews them"
	if last, ok := a.lastAdmin(pool, due); ok {
		text += fmt.Sprintf(". After %s nobody is an admin", time.Unix(last, 0).UTC().Format(time.DateOnly))
	}
	a.m.notice(text)
}

// lastAdmin is when the last admin ends, in seconds since 1970, if all of them are among due.
func (a *Account) lastAdmin(pool statements, due []identity.UserStatement) (last int64, ok bool) {
	for _, u := range due {
		if u.Role == identity.RoleAdmin {
			last, ok = max(last, u.Exp), true
		}
	}
	for _, s := range pool {
		u, is := s.Statement.(identity.UserStatement)
		if !ok || !is || u.Role != identity.RoleAdmin || u.Exp <= last || a.struck(u) {
			continue
		}
		if newest, found := a.user(pool, u.User); found && newest.JWS == s.JWS {
			return 0, false
		}
	}
	return last, ok
}

// toRenew is what is said of a user, his statement first; nil when nothing is. The word of a signer who is struck is taken
// only where nobody else has stated the user: a thief may have widened his rights. It is taken of the user alone, and of no
// key: whoever has that signer's key can state any key of anybody, and a server can withhold the user's own.
func (a *Account) toRenew(pool statements, name string) []identity.Statement {
	for _, by := range []struct {
		judge func(statements, identity.Signed) bool
		keys  bool
	}{{a.genuine, true}, {a.fallen, false}} {
		says := pool.latest(identity.Subject{User: name}, func(s identity.Signed) bool { return !a.struck(s.Statement) && by.judge(pool, s) })
		if len(says) == 0 {
			continue
		}
		if _, ok := says[0].(identity.UserStatement); !ok {
			continue
		}
		if !by.keys {
			a.m.notice(fmt.Sprintf("who has stated %s is shut out: his keys are not stated again; make a code for him: hawser user code %s", name, name))
			says = says[:1]
		}
		return says
	}
	return nil
}

// notStated says why there is nothing to say again of a user.
func (a *Account) notStated(op, name string) error {
	for _, e := range a.state.owner.Lists().Entries() {
		if e.User == name && e.All != 0 {
			return fail(transport.Revoked, op, errors.New("a list of the owner strikes him: add him again, with a new key"))
		}
	}
	return fail(api.NotFound, op, errors.New("no statement about him counts"))
}

// lifeOf is for how long a statement was made.
func lifeOf(u identity.UserStatement) time.Duration {
	return time.Unix(u.Exp, 0).Sub(time.UnixMilli(int64(u.Serial))).Round(time.Second)
}
