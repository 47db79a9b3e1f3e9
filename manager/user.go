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
// end by themselves. One that was used twice goes into the list with the keys that came with it: nobody knows whose they are.
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
	if twice := a.usedCodes(pool, name); len(twice) > 0 {
		if err := a.strike(ctx, "make code for "+name, p, twice, nil, func(texts []string) error { return a.publishAll(ctx, texts) }); err != nil {
			return u, err
		}
	}
	p.signers = a.signersOf(pool, subject, p)
	return a.sendCode(ctx, p, subject, serial, "make code for "+name, path+"/code")
}

// usedCodes are entries for the codes of a user that more than one key came with, and for these keys. A key that counts by
// another word is left out: whoever has a code can state any key with it.
func (a *Account) usedCodes(pool statements, name string) (entries []identity.Entry) {
	subject, until := identity.Subject{User: name}, a.m.now().Add(entryLife).Unix()
	about := a.near(pool)[subject]
	for _, s := range about {
		invite, ok := s.Statement.(identity.InviteStatement)
		if !ok || invite.Subject != subject || a.struck(invite) || !a.genuine(about, s) {
			continue
		}
		var came []identity.KeyStatement
		for _, by := range about {
			key, ok := by.Statement.(identity.KeyStatement)
			known := func(other identity.KeyStatement) bool { return other.Key == key.Key }
			if ok && key.Serial == 0 && !slices.ContainsFunc(came, known) && by.SignedBy(invite.Key) {
				came = append(came, key)
			}
		}
		if len(came) < 2 {
			continue
		}
		entries = append(entries, identity.Entry{SPKI: invite.Key.SPKI(), Until: until})
		for _, key := range came {
			if len(entries) < maxListed && !a.isConfirmed(about, key) && !a.isOthers(pool, key) {
				entries = append(entries, identity.Entry{SPKI: key.Key.SPKI(), Until: until})
			}
		}
	}
	return identity.SortEntries(entries)
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

// prepareTime is how long it may take to read and to judge what a server has, before somebody is shut out.
const prepareTime = 2 * time.Minute

// UserInfo is a user by the owner's words, and what the server knows of his computers.
type UserInfo struct {
	Stated
	Revoked time.Time     `json:"revoked,omitzero"`
	Logins  []api.UserKey `json:"logins"`          // of those keys that are not in Keys none is confirmed
	Hangs   []Stated      `json:"hangs,omitempty"` // who is reached by nobody when this admin ends
}

// User tells what is stated of a user, and where he is logged in. Keys that wait for an admin are confirmed.
func (a *Account) User(ctx context.Context, name string) (u UserInfo, err error) {
	if _, err := userPath(name); err != nil {
		return u, err
	}
	pool, err := a.readAndConfirm(ctx)
	if err != nil {
		return u, err
	}
	var answer api.Users
	if err := a.do(ctx, "show user "+name, http.MethodGet, "/users", nil, &answer); err != nil {
		return u, err
	}
	subject := identity.Subject{User: name}
	u.Stated = statedOf(subject, pool.latest(subject, func(s identity.Signed) bool { return !a.struck(s.Statement) && a.genuine(pool, s) }))
	if u.Role == identity.RoleAdmin {
		u.Hangs = a.hanging(ctx, pool, a.near(pool), identity.Entry{Subject: subject, All: identity.MaxSerial})
	}
	for _, known := range answer.Users {
		if known.Name == name {
			u.Revoked, u.Logins = known.Revoked, list(known.Keys)
			return u, nil
		}
	}
	if len(u.says) == 0 {
		return u, fail(api.NotFound, "show user "+name, errors.New("the domain has none of that name"))
	}
	u.Logins = []api.UserKey{}
	return u, nil
}

// RevokeUser shuts a user out: by a list that every gateway learns, and in the registry. His sessions end at once where the
// list arrives. His keys are listed, too: whoever does not know of it, since a server shows him no list, may state him again, and
// with him no key. So he comes back only by a new statement and a new key. keep: what he has stated as an admin is stated again
// first, so that nobody is lost with him (identity §15.6). Without it that falls with him: whoever has stolen his key may have
// stated somebody, too. Either is shown for approval before anything is signed.
func (a *Account) RevokeUser(ctx context.Context, name string, keep bool) error {
	path, err := userPath(name)
	if err != nil {
		return err
	}
	op := "revoke user " + name
	prepare, cancel := context.WithTimeout(ctx, prepareTime)
	defer cancel()
	ahead := time.Duration(0) // by which another admin's clock may be, whose statements are not seen here
	pool, err := a.readAndConfirm(prepare)
	if err != nil && (keep || ctx.Err() != nil || isClock(err)) {
		return err
	}
	if err != nil {
		// A server that says nothing, or too much, keeps nobody in: the list is signed, and kept for whom this PC visits.
		a.m.log().Warn("what the server knows is not read before the list is signed", "err", clean(err.Error()))
		pool, ahead = parsed(a.state.owner.Chain()), maxClockOff
	}
	p, err := a.pen(false)
	if err != nil {
		return err
	}
	serial, err := a.serialAt(pool, identity.Subject{User: name}, a.m.now().Add(ahead))
	if err != nil {
		return err
	}
	entry := identity.Entry{Subject: identity.Subject{User: name}, All: serial, Until: a.m.now().Add(entryLife).Unix()}
	if err := a.letGo(ctx, prepare, pool, entry, keep); err != nil {
		return err
	}
	entries := []identity.Entry{entry}
	keys := a.keysOf(prepare, pool, entry.Subject)
	for _, spki := range keys[:min(maxListed, len(keys))] {
		entries = append(entries, identity.Entry{SPKI: spki, Until: entry.Until})
	}
	return a.strike(ctx, op, p, entries, nil, func(texts []string) error {
		return a.do(ctx, op, http.MethodPost, path+"/revoke", api.Statements{Statements: texts}, nil)
	})
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
	pool, err := a.readAndConfirmAlso(ctx, nil)
	if err == nil {
		a.remind(pool)
	}
	return pool, err
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
