package manager

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/api"
)

// userLife is how long a user is stated, unless somebody says less (identity §11.2 allows a day more).
const userLife = 365 * 24 * time.Hour

// entryLife is how long an entry about a user lasts: a day less than it may, since the next list with it is dated by another
// PC, whose clock may be behind this one.
const entryLife = identity.EntryLifetime - 24*time.Hour

// UserRights is what an admin says of a user.
type UserRights struct {
	Role    identity.Role
	Devices []string      // UIDs and folders, or "*"; not of an admin
	Targets []string      // see identity.ParseTarget, or "*"; not of an admin
	Life    time.Duration // zero: a year
}

// NewUser is a user who has not logged in yet, or who gets another code.
type NewUser struct {
	Name    string        `json:"name"`
	Role    identity.Role `json:"role"`
	Code    string        `json:"code"` // shown once; no server has it
	Expires time.Time     `json:"expires"`
}

// AddUser states a user and makes the code for his login. Admins are stated by the domain key, everybody else by any admin.
// Reason name-taken when the domain has one of that name.
func (a *Account) AddUser(ctx context.Context, name string, r UserRights) (u NewUser, err error) {
	if _, err := userPath(name); err != nil {
		return u, err
	}
	pool, err := a.readAndConfirm(ctx)
	if err != nil {
		return u, err
	}
	p, err := a.pen(r.Role == identity.RoleAdmin)
	if err != nil {
		return u, err
	}
	serial, err := a.serial(pool, identity.Subject{User: name})
	if err != nil {
		return u, err
	}
	s := identity.UserStatement{Domain: a.state.config.Domain, User: name, Role: r.Role, Serial: serial, Seen: p.seen}
	if r.Life == 0 {
		r.Life = userLife
	}
	s.Exp = time.UnixMilli(int64(serial)).Add(r.Life).Unix()
	if r.Role != identity.RoleAdmin {
		s.Scope = &identity.Scope{Devices: sorted(r.Devices), Targets: sorted(r.Targets)}
	}
	subject, err := identity.Sign(s, p.key)
	if err != nil {
		return u, usage("state user %s: %w", name, err)
	}
	return a.sendCode(ctx, p, subject, serial, "add user "+name, "/users")
}

// UserCode makes another code for a user: for another computer, or when the last one was lost. Codes that were not used yet
// end by themselves.
func (a *Account) UserCode(ctx context.Context, name string) (u NewUser, err error) {
	path, err := userPath(name)
	if err != nil {
		return u, err
	}
	pool, err := a.readAndConfirm(ctx)
	if err != nil {
		return u, err
	}
	subject, ok := a.user(pool, name)
	if !ok || a.struck(subject.Statement) {
		return u, a.notStated("make code for "+name, name)
	}
	p, err := a.pen(subject.Statement.(identity.UserStatement).Role == identity.RoleAdmin)
	if err != nil {
		return u, err
	}
	serial, err := a.serial(pool, identity.Subject{User: name})
	if err != nil {
		return u, err
	}
	p.signers = a.signersOf(pool, subject, p)
	return a.sendCode(ctx, p, subject, serial, "make code for "+name, path+"/code")
}

// signersOf are the statements about whoever has signed a user's statement, which may be another admin, or this one's key of
// before, and then about the pen that invites him, in the order of a chain.
func (a *Account) signersOf(pool statements, subject identity.Signed, p pen) []string {
	domain := a.state.owner.Pinned().Key
	own, err := identity.NewPublicKey(p.key.Public())
	if subject.SignedBy(domain) || err == nil && subject.SignedBy(own) { // of its key there may be several statements
		return p.signers
	}
	for _, s := range pool {
		key, ok := s.Statement.(identity.KeyStatement)
		if !ok || key.Serial == 0 || !subject.SignedBy(key.Key) || !s.SignedBy(domain) || a.struck(key) {
			continue
		}
		by, ok := a.user(pool, key.User)
		if !ok {
			continue
		}
		texts := []string{by.JWS, s.JWS}
		for _, jws := range p.signers {
			one, err := identity.ParseStatement(jws)
			u, is := one.Statement.(identity.UserStatement)
			if err == nil && !slices.Contains(texts, jws) && (!is || u.User != key.User) {
				texts = append(texts, jws)
			}
		}
		return texts
	}
	return p.signers
}

// sendCode makes a code and gives the server its part. A lookup id that is in use already is drawn again.
func (a *Account) sendCode(ctx context.Context, p pen, subject identity.Signed, serial uint64, op, path string) (u NewUser, err error) {
	s := subject.Statement.(identity.UserStatement)
	u = NewUser{Name: s.User, Role: s.Role}
	for range maxTries {
		code := identity.NewOwnerCode()
		var sent api.NewCode
		if sent, err = a.invite(code, p, subject, 0, serial, endOf(serial, codeLife)); err != nil {
			return u, err
		}
		var answer api.NewSubject
		err = a.do(ctx, op, http.MethodPost, path, api.UserRequest{Code: sent}, &answer)
		u.Code, u.Expires = code.String(), answer.Expires
		if transport.ReasonOf(err) != transport.CodeTaken {
			break
		}
	}
	return u, err
}

// Users lists the users of the domain. It is never nil, so that JSON has a list. Keys that wait for an admin are confirmed.
func (a *Account) Users(ctx context.Context) ([]api.User, error) {
	if _, err := a.readAndConfirm(ctx); err != nil {
		return nil, err
	}
	var answer api.Users
	err := a.do(ctx, "list users", http.MethodGet, "/users", nil, &answer)
	return list(answer.Users), err
}

// RevokeUser shuts a user out: by a list that every gateway learns, and in the registry. His sessions end at once where the
// list arrives. He comes back only by a new statement and a new key. keep: what he has stated as an admin is stated again
// first, so that nobody is lost with him (identity §15.6). Without it that falls with him: whoever has stolen his key may have
// stated somebody, too.
func (a *Account) RevokeUser(ctx context.Context, name string, keep bool) error {
	path, err := userPath(name)
	if err != nil {
		return err
	}
	op := "revoke user " + name
	pool, err := a.readAndConfirm(ctx)
	if err != nil && (keep || ctx.Err() != nil || isClock(err)) {
		return err
	}
	if err != nil {
		// A server that says nothing does not keep anybody in: the list is signed, and kept for whom this PC visits.
		a.m.log().Warn("what the server knows is not read before the list is signed", "err", clean(err.Error()))
		pool = parsed(a.state.owner.Chain())
	}
	p, err := a.pen(false)
	if err != nil {
		return err
	}
	serial, err := a.serial(pool, identity.Subject{User: name})
	if err != nil {
		return err
	}
	entry := identity.Entry{Subject: identity.Subject{User: name}, All: serial, Until: a.m.now().Add(entryLife).Unix()}
	if keep {
		adopted, err := a.adopt(pool, entry)
		if err != nil {
			return err
		}
		if err := a.publishAll(ctx, adopted); err != nil {
			return err
		}
	}
	return a.strike(ctx, op, p, []identity.Entry{entry}, nil, func(texts []string) error {
		return a.do(ctx, op, http.MethodPost, path+"/revoke", api.Statements{Statements: texts}, nil)
	})
}

// RenewUser states a user again for as long as the last time, with the rights that he has, and his confirmed keys.
func (a *Account) RenewUser(ctx context.Context, name string) (u identity.UserStatement, err error) {
	if _, err := userPath(name); err != nil {
		return u, err
	}
	pool, err := a.readAndConfirm(ctx)
	if name == a.state.config.User && transport.ReasonOf(err) == transport.NotStated {
		// An admin whose own statement has ended is shown nothing. With the domain key he states himself.
		pool, err = parsed(a.state.owner.Chain()), nil
	}
	if err != nil {
		return u, err
	}
	says := a.toRenew(pool, name)
	if says == nil {
		return u, a.notStated("renew user "+name, name)
	}
	u = says[0].(identity.UserStatement)
	p, err := a.pen(u.Role == identity.RoleAdmin)
	if err != nil {
		return u, err
	}
	serial, err := a.serial(pool, identity.Subject{User: name})
	if err != nil {
		return u, err
	}
	u.Exp = time.UnixMilli(int64(serial)).Add(lifeOf(u)).Unix()
	says[0] = u
	says, texts, err := p.restate(says, serial)
	if err != nil {
		return u, err
	}
	u = says[0].(identity.UserStatement)
	if err := a.publish(ctx, texts...); err != nil {
		return u, err
	}
	_, err = a.state.owner.Take(texts, a.m.now()) // it may be this user
	return u, asUsage(err)
}

// toRenew is what is said of a user, his statement first; nil when nothing is. The word of a signer who is struck is taken
// only where nobody else has stated the user: a thief may have widened his rights.
func (a *Account) toRenew(pool statements, name string) []identity.Statement {
	for _, judge := range []func(statements, identity.Signed) bool{a.genuine, a.fallen} {
		says := pool.latest(identity.Subject{User: name}, func(s identity.Signed) bool { return !a.struck(s.Statement) && judge(pool, s) })
		if len(says) > 0 {
			if _, ok := says[0].(identity.UserStatement); ok {
				return says
			}
		}
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

func parsed(texts []string) (pool statements) {
	for _, jws := range texts {
		if s, err := identity.ParseStatement(jws); err == nil {
			pool = append(pool, s)
		}
	}
	return pool
}

// readAndConfirm is what every command of an admin does first.
func (a *Account) readAndConfirm(ctx context.Context) (statements, error) {
	return a.readAndConfirmAlso(ctx, nil)
}

// readAndConfirmAlso is readAndConfirm with keys of batches that a person has looked at.
func (a *Account) readAndConfirmAlso(ctx context.Context, seen map[deviceKey]bool) (statements, error) {
	pool, err := a.read(ctx)
	if err != nil {
		return nil, err
	}
	if err := a.clockRight(ctx); err != nil {
		return nil, err
	}
	pool, done, err := a.confirm(ctx, pool, seen)
	for _, c := range done {
		a.m.log().Info("key confirmed", "user", clean(c.Subject.User), "uid", c.Subject.UID, "key", c.SPKI)
	}
	if err == nil {
		a.freshen(ctx)
	}
	return pool, err
}

// listAge is after which an admin's Manager signs the list again (identity §16.4): so its signers are those who count now, and
// no gateway's time is further behind than that.
const listAge = 24 * time.Hour

// freshen signs the list again when it is old. It is the next command's to try again: what this one is for goes on.
func (a *Account) freshen(ctx context.Context) {
	if list, _ := a.state.owner.Serials(); list == 0 || a.m.now().Sub(a.state.owner.Lists().Time()) < listAge {
		return
	}
	p, err := a.pen(false)
	if err != nil {
		return // who may sign nothing
	}
	err = a.strike(ctx, "sign the list again", p, nil, nil, func(texts []string) error { return a.publish(ctx, texts...) })
	if err != nil {
		a.m.log().Warn("the list was not signed again", "err", clean(err.Error()))
	}
}

func sorted(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	if list = slices.Compact(list); list == nil {
		list = []string{}
	}
	return list
}
