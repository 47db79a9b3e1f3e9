package manager

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/api"
)

// AnotherCode makes the code for this user's next PC, by the word of this one's key (identity §15.8): no admin is needed. The
// key that comes with it ends with that of this PC, and after 17 days unless an admin confirms it.
func (a *Account) AnotherCode(ctx context.Context) (u NewUser, err error) {
	const op = "make code for your next PC"
	pool, err := a.readAndConfirm(ctx)
	if err != nil {
		return u, err
	}
	chain := a.state.owner.Chain()
	if !confirmedChain(chain) {
		return u, fail(transport.Policy, op, errors.New("the key of this computer is not confirmed yet, and signs nothing: "+
			"an admin confirms it by hawser user list, or makes the code: hawser user code "+a.state.config.User))
	}
	subject, err := a.state.owner.Statement()
	if err != nil {
		return u, err
	}
	p, err := a.pen(false)
	if p.key = a.state.Key; err != nil {
		p.seen, _ = a.state.owner.Serials()
	}
	p.signers = chain[1:]
	serial, err := a.serial(pool, identity.Subject{User: a.state.config.User})
	if err != nil {
		return u, err
	}
	return a.sendCode(ctx, p, subject, serial, op, "/code")
}

// confirmedChain reports whether the key of a chain is stated by somebody who may, and not by an invite alone.
func confirmedChain(chain []string) bool {
	if len(chain) < 2 {
		return false
	}
	s, err := identity.ParseStatement(chain[1])
	key, ok := s.Statement.(identity.KeyStatement)
	return err == nil && ok && key.Serial != 0
}

// LoggedOut says what the end of a login leaves to be done.
type LoggedOut struct {
	User      string        `json:"user"`
	Domain    string        `json:"domain"`
	SPKI      identity.SPKI `json:"spki_sha256"` // of the key that is gone
	DomainKey bool          `json:"domain_key"`  // it is still in this home
}

// Logout ends the validity of this account's key at the servers, or of all keys of the user, and removes key and certificate
// from the home. The domain key stays, and so does what is known of the owner, so that no revocation is forgotten. What the owner
// has stated of the key stays as well: to list it is an admin's (RevokeUserKey). When no server can be reached nothing is
// removed: a key that nobody has would be good for ever.
func (a *Account) Logout(ctx context.Context, all bool) (LoggedOut, error) {
	out := LoggedOut{User: a.state.config.User, Domain: a.state.config.Domain, SPKI: a.Info().SPKI}
	_, err := os.Lstat(a.home.path(domainFile))
	out.DomainKey = err == nil
	err = a.once(ctx, "log out", http.MethodPost, "/logout", api.LogoutRequest{All: all}, nil)
	if _, said := errors.AsType[*problem](err); said && isOver(transport.ReasonOf(err)) {
		err = nil // by an earlier try, whose answer was lost, or by an admin
	}
	if err != nil {
		return out, err
	}
	return out, a.home.erase(a.state.config)
}

// isOver reports whether a server does not take a key any more, whoever says that it is to end.
func isOver(r transport.Reason) bool { return r == api.NotLoggedIn || r == transport.Revoked }

// erase removes an account, the key first. It leaves the home alone when somebody else has logged in there meanwhile.
func (h home) erase(c config) error {
	unlock, err := h.lock()
	if err != nil {
		return asUsage(err)
	}
	defer unlock.Close()
	if now, err := h.readConfig(); err != nil || now.Domain != c.Domain || now.User != c.User {
		return err
	}
	for _, file := range []string{keyFile, identityFile, configFile} {
		if err := os.Remove(h.path(file)); err != nil {
			return fmt.Errorf("log out: %w", err)
		}
	}
	return nil
}

// maxListed is how many keys go into the list with one that is lost: who has it can invite any number.
const maxListed = 64

// RevokeUserKey shuts one key of a user out, a lost PC, with all that it has invited, and leaves the others. It returns what
// is listed.
func (a *Account) RevokeUserKey(ctx context.Context, name string, spki identity.SPKI) ([]identity.SPKI, error) {
	path, err := userPath(name)
	if err != nil {
		return nil, err
	}
	op := "revoke a key of " + name
	pool, err := a.readAndConfirm(ctx)
	if err != nil {
		return nil, err
	}
	p, err := a.pen(false)
	if err != nil {
		return nil, err
	}
	keys := a.invitedFrom(pool, name, spki)
	if keys == nil {
		return nil, fail(api.NotFound, op, errors.New("nothing is stated of that key: hawser user list shows those that there are"))
	}
	var entries []identity.Entry
	until := a.m.now().Add(entryLife).Unix()
	for _, k := range keys {
		entries = append(entries, identity.Entry{SPKI: k, Until: until})
	}
	return keys, a.strike(ctx, op, p, entries, nil, func(texts []string) error {
		return a.do(ctx, op, http.MethodPost, path+"/revoke", api.UserRevocation{Statements: texts, Keys: keys}, nil)
	})
}

// invitedFrom is a key of a user and those that it has invited, and these, and so on; nil: it is no key of his. Who has an
// invite can state any key with it: one that an admin has invited too, or that is stated of somebody else, is not meant.
func (a *Account) invitedFrom(pool statements, user string, first identity.SPKI) (keys []identity.SPKI) {
	about := slices.DeleteFunc(slices.Clone(pool), func(s identity.Signed) bool {
		subject, _ := numberOf(s.Statement)
		return subject.User != user
	})
	var his []identity.PublicKey
	for i := -1; i < len(his) && len(keys) < maxListed; i++ {
		for _, s := range about {
			key, ok := s.Statement.(identity.KeyStatement)
			spki := key.Key.SPKI()
			if !ok || slices.Contains(keys, spki) || len(keys) == maxListed {
				continue
			}
			if i < 0 && spki == first || i >= 0 && about.invited(s, his[i]) && !a.elsewhere(pool, key) {
				keys, his = append(keys, spki), append(his, key.Key)
			}
		}
	}
	return keys
}

// invited reports whether an invite that a key has signed states another one.
func (p statements) invited(key identity.Signed, by identity.PublicKey) bool {
	return slices.ContainsFunc(p, func(s identity.Signed) bool {
		invite, ok := s.Statement.(identity.InviteStatement)
		return ok && key.SignedBy(invite.Key) && s.SignedBy(by)
	})
}

// elsewhere reports whether a key counts without the invite of a user's own: for somebody else, or by an admin's.
func (a *Account) elsewhere(pool statements, key identity.KeyStatement) bool {
	return slices.ContainsFunc(pool, func(s identity.Signed) bool {
		other, ok := s.Statement.(identity.KeyStatement)
		if !ok || other.Key != key.Key || !a.genuine(pool, s) {
			return false
		}
		return other.Subject != key.Subject && other.Serial != 0 || other.Serial == 0 && slices.ContainsFunc(pool, func(by identity.Signed) bool {
			invite, ok := by.Statement.(identity.InviteStatement)
			return ok && s.SignedBy(invite.Key) && !pool.ownInvite(by)
		})
	})
}
