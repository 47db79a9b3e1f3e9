package access

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// credential is what somebody shows of a code: all of a server's code, or what an owner's code lets a server have.
type credential struct {
	lookup string
	hash   store.Hash
	owners bool
}

// serversCode reads a code of a founder or relay, as people type it.
func serversCode(text string) (credential, error) {
	code, err := identity.ParseCode(text)
	if err != nil {
		return credential{}, errBadCode
	}
	return credential{lookup: code.LookupID(), hash: code.Hash()}, nil
}

// ownersCode is what a program sends of a device's or user's code.
func ownersCode(lookup string, auth []byte) (credential, error) {
	if len(auth) != len(store.Hash{}) || !isLookup(lookup) {
		return credential{}, errBadCode
	}
	return credential{lookup: lookup, hash: identity.AuthHash([len(store.Hash{})]byte(auth)), owners: true}, nil
}

// isLookup keeps what no code has away from the database.
func isLookup(s string) bool {
	for _, c := range s {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return len(s) == len(identity.NewCode().LookupID())
}

// withCode runs use in a transaction with the record of a code. Attempts that end in bad-code are limited (failures),
// and all of them look the same to the client, so that guessing learns nothing.
func (s *Server) withCode(ctx context.Context, from netip.Addr, shown credential, use func(*store.Tx, store.Code) error) error {
	if wait := s.codes.wait(shown.lookup, from, s.now()); wait > 0 {
		return busy(wait)
	}
	err := s.tryCode(ctx, shown, use)
	if errors.Is(err, errBadCode) {
		s.codes.add(shown.lookup, from, s.now())
	}
	return err
}

// tryCode looks for the code by reading first: wrong codes of strangers must not make those wait who write.
func (s *Server) tryCode(ctx context.Context, shown credential, use func(*store.Tx, store.Code) error) error {
	err := s.store.View(ctx, func(tx *store.Tx) error { _, err := findCode(tx, shown); return err })
	// While records may be missing, it is the writer who knows what to say of a code that is not there.
	if errors.Is(err, errBadCode) && s.store.Health().Granting() == nil {
		return err
	}
	var refused error // from use: its audit record is committed all the same
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		refused = nil
		c, err := findCode(tx, shown)
		if err == nil {
			err = use(tx, c)
		}
		if errors.Is(err, errBadCode) || errors.Is(err, errUsedUp) {
			refused = err
			return nil
		}
		return err
	})
	return errors.Join(err, refused)
}

var errBadCode = refuse(transport.BadCode, "the code is unknown, used or expired")

// findCode finds the row by the lookup id, which is public. Only the hash proves the code, and it is compared in
// constant time: answers tell nothing of how much of a guess was right.
func findCode(tx *store.Tx, shown credential) (store.Code, error) {
	c := store.Code{Lookup: shown.lookup}
	err := tx.Get(&c)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return c, errBadCode
	case err != nil:
		return c, err
	case subtle.ConstantTimeCompare(shown.hash[:], c.Hash[:]) != 1, shown.owners != isOwners(c):
		return c, errBadCode
	}
	return c, nil
}

// isOwners tells codes of Managers from those of servers.
func isOwners(c store.Code) bool { return c.MAC != store.Hash{} || c.IsBatch() }

// newCode makes a code for a subject and stores it. Lookup ids are short, so one may be in use already: then it tries
// another code. Ten tries are ten collisions in a row, which is no chance any more but a fault.
func newCode(tx *store.Tx, kind identity.Kind, domain, subject string, now time.Time) (identity.Code, store.Code, error) {
	for range 10 {
		code := identity.NewCode()
		c := store.Code{
			Lookup: code.LookupID(), Kind: kind, Domain: domain, Subject: subject, Hash: code.Hash(),
			Expires: now.Add(codeLife).UTC().Truncate(time.Second),
		}
		if err := tx.Insert(&c); !errors.Is(err, store.ErrExists) {
			return code, c, err
		}
	}
	return identity.Code{}, store.Code{}, fmt.Errorf("make code: %w", store.ErrExists)
}

// takeCode keeps an owner's code with its statements, which are about somebody of this kind, and returns that statement. may
// is that of keep. What was kept before with the same code is good: the answer may have been lost. An invite belongs to one
// code: so the codes are bounded as invites are.
func (s *Server) takeCode(tx *store.Tx, o *owner, code api.NewCode, kind identity.Kind, may func(identity.Signed) error) (subject identity.Signed, c store.Code, k kept, err error) {
	read, err := readCode(o.Domain, code, kind, s.now())
	subject, c = read.subject, read.code
	if err == nil && read.invite.Slot != 0 {
		err = refuse(api.BadRequest, "code: its invite is of a batch")
	}
	if err != nil {
		return subject, c, k, err
	}
	invited := tx.Get(&store.Statement{Domain: o.Domain, ID: sha256.Sum256([]byte(code.Statements[1]))})
	if k, err = s.keep(tx, o, code.Statements, may); err != nil {
		return subject, c, k, err
	}
	err = tx.Insert(&c)
	if err == nil && invited == nil {
		err = refuse(transport.CodeTaken, "its invite is that of another code")
	}
	if errors.Is(err, store.ErrExists) {
		was := store.Code{Lookup: c.Lookup}
		err = refuse(transport.CodeTaken, "the code is used already")
		if e := tx.Get(&was); e == nil && was.Hash == c.Hash && was.MAC == c.MAC && was.Domain == c.Domain && was.Subject == c.Subject {
			return subject, was, k, errCodeKnown
		}
	}
	return subject, c, k, err
}

// invited is an owner's code that was read, and what belongs to it.
type invited struct {
	subject identity.Signed
	invite  identity.InviteStatement
	code    store.Code
}

func (i invited) stated() identity.DeviceStatement {
	return i.subject.Statement.(identity.DeviceStatement)
}

// readCode checks what can be checked of an owner's code by itself.
func readCode(domain string, code api.NewCode, kind identity.Kind, now time.Time) (i invited, err error) {
	bad := func(text string) error { return refuse(api.BadRequest, "code: "+text) }
	c := &i.code
	if !isLookup(code.Lookup) || len(code.Hash) != len(c.Hash) || len(code.MAC) != len(c.MAC) || code.List > identity.MaxSerial {
		return i, bad("its lookup id, hash, mac or list is none")
	}
	if len(code.Statements) < 2 {
		return i, bad("a statement and an invite belong to it")
	}
	if i.subject, err = identity.ParseStatement(code.Statements[0]); err != nil {
		return i, refuseStatement(0, err)
	}
	second, err := identity.ParseStatement(code.Statements[1])
	if err != nil {
		return i, refuseStatement(1, err)
	}
	ok := false
	i.invite, ok = second.Statement.(identity.InviteStatement)
	user, uid := aboutWhom(i.subject)
	*c = store.Code{Lookup: code.Lookup, Kind: kind, Domain: domain, Subject: user, Hash: store.Hash(code.Hash), MAC: store.Hash(code.MAC),
		List: int64(code.List), Statements: code.Statements, Expires: time.Unix(i.invite.Exp, 0).UTC()}
	switch i.subject.Statement.(type) {
	case identity.UserStatement:
		ok = ok && kind == identity.KindUser
	case identity.DeviceStatement:
		ok = ok && kind == identity.KindDevice
		c.Subject = uid.String()
	default:
		ok = false
	}
	switch {
	case !ok || i.invite.User != user || i.invite.UID != uid:
		return i, bad("not the statement and the invite of one " + string(kind))
	case !isOwners(*c):
		return i, bad("no mac")
	case tooLate(i.invite, now):
		return i, bad("its invite has ended")
	}
	return i, nil
}

// errCodeKnown says that takeCode has taken the same before.
var errCodeKnown = errors.New("the code is there already")

// invitation is what the maker of an owner's code says to whoever uses it (identity §13.3), and lists that are newer.
func (s *Server) invitation(tx *store.Tx, c store.Code) (wire.Invitation, error) {
	o, err := readOwner(tx, c.Domain, s.now())
	if err != nil {
		return wire.Invitation{}, err
	}
	// A frame also has a chain of certificates.
	lists, _ := o.news(maxNews-sizeOf(c.Statements)-chainRoom, func(ownerList) bool { return true })
	return wire.Invitation{DomainKey: o.Key, MAC: c.MAC[:], List: uint64(c.List), Statements: c.Statements, Lists: lists}, nil
}

// chainRoom is what certificates and names take of an identity frame.
const chainRoom = 8 << 10
