package access

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
)

// owners is what this process has read of the owners of domains. It only saves reading: a change drops what it is about. The
// zero value works; it is safe for concurrent use.
type owners struct {
	mu    sync.Mutex // guards the rest
	drops uint64
	known map[string]*owner
}

// owner is what the owner of a domain says of users, and his lists, at one moment. Nothing in it changes but what was
// judged: statements about a device are read when it is asked for, because there may be very many devices.
type owner struct {
	identity.Pinned // the zero Key: nobody has logged in yet
	people          []identity.Signed
	union           *identity.Lists
	lists           []ownerList // newest first
	reset           []byte      // the root's last word for the key; nil: none
	sequence        uint64      // of reset
	resetTo         identity.PublicKey

	mu     sync.Mutex // guards judged
	judged map[userKey]identity.Verdict
}

// ownerList is one list, with what proves its signer: nothing for the domain key.
type ownerList struct {
	id      store.Hash
	serial  uint64
	at      time.Time
	jws     string
	signers []string
}

type userKey struct {
	user string
	spki identity.SPKI
}

// owner returns what is known of the owner of a domain.
func (s *Server) owner(ctx context.Context, domain string) (*owner, error) {
	s.owners.mu.Lock()
	o, drops := s.owners.known[domain], s.owners.drops
	s.owners.mu.Unlock()
	if o != nil {
		return o, nil
	}
	err := s.store.View(ctx, func(tx *store.Tx) (err error) {
		o, err = readOwner(tx, domain, s.now())
		return err
	})
	if err != nil {
		return nil, err
	}
	s.owners.mu.Lock()
	defer s.owners.mu.Unlock()
	if s.owners.drops == drops { // else it may be older than what was dropped
		if s.owners.known == nil {
			s.owners.known = make(map[string]*owner)
		}
		s.owners.known[domain] = o
	}
	return o, nil
}

// drop forgets what was read of a domain, or of all of them.
func (o *owners) drop(domain string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drops++
	if domain == "" {
		clear(o.known)
	}
	delete(o.known, domain)
}

// readOwner reads it all in one transaction.
func readOwner(tx *store.Tx, domain string, now time.Time) (*owner, error) {
	d := store.Domain{Name: domain}
	if err := tx.Get(&d); err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	o := &owner{Pinned: identity.Pinned{Domain: domain, Key: d.Key}, judged: make(map[userKey]identity.Verdict)}
	if o.Key.IsZero() {
		return o, nil
	}
	if err := o.readReset(tx); err != nil {
		return nil, err
	}
	rows, err := tx.People(domain)
	if err != nil {
		return nil, err
	}
	o.people = parseAll(rows)
	for _, row := range rows {
		if s, err := identity.ParseStatement(row.JWS); err == nil {
			o.addList(row, s, now)
		}
	}
	// Whoever is struck has said his last: his lists would take the room of that which strikes him.
	o.lists = slices.DeleteFunc(o.lists, func(l ownerList) bool {
		s, err := identity.ParseStatement(l.jws)
		return err == nil && identity.FaultOf(o.verifier().Keep(s, o.people, now)) == identity.FaultRevoked
	})
	slices.SortStableFunc(o.lists, func(a, b ownerList) int { return -compareSerials(a.serial, b.serial) })
	return o, nil
}

func compareSerials(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// parseAll leaves out what does not parse: it was written by another version.
func parseAll(rows []store.Statement) (all []identity.Signed) {
	for _, r := range rows {
		if s, err := identity.ParseStatement(r.JWS); err == nil {
			all = append(all, s)
		}
	}
	return all
}

func (o *owner) addList(row store.Statement, s identity.Signed, now time.Time) {
	l, ok := s.Statement.(identity.ListStatement)
	if !ok {
		return
	}
	if next, err := o.union.Add(s, o.people, o.Pinned, identity.Holder{}, now); err == nil {
		o.union = next
	}
	o.lists = append(o.lists, ownerList{id: row.ID, serial: l.Serial, at: row.At, jws: s.JWS, signers: o.signersOf(s)})
}

// changes are how the domain key has become the present one, by its own word since the last reset, oldest first. A device
// takes those that it lacks.
func (o *owner) changes() (texts []string) {
	key := o.resetTo
	for i := 0; i < len(o.people); i++ {
		s := o.people[i]
		change, ok := s.Statement.(identity.DomainStatement)
		if !ok || slices.Contains(texts, s.JWS) || o.reset != nil && change.Old != key {
			continue
		}
		texts, key = append(texts, s.JWS), change.New
		if o.reset != nil {
			i = -1 // two that came at once stand in no order
		}
	}
	return texts
}

// signersOf are the statements about the admin's key that has signed s, none for the domain key.
func (o *owner) signersOf(s identity.Signed) (texts []string) {
	if s.SignedBy(o.Key) {
		return nil
	}
	for _, by := range o.people {
		key, ok := by.Statement.(identity.KeyStatement)
		if !ok || key.Serial == 0 || !s.SignedBy(key.Key) {
			continue
		}
		texts = append(texts, by.JWS)
		for _, u := range o.people {
			if user, ok := u.Statement.(identity.UserStatement); ok && user.User == key.User && user.Role == identity.RoleAdmin {
				texts = append(texts, u.JWS)
			}
		}
	}
	return texts
}

func (o *owner) verifier() identity.Verifier {
	return identity.Verifier{Pinned: o.Pinned, Lists: o.union}
}

// at is the time by which statements are judged (identity §16.4).
func (o *owner) at(clock time.Time) time.Time {
	return o.union.Now(clock)
}

// stated is what the owner says of a user with this key. It is judged once, since that costs several signatures.
func (o *owner) stated(peer identity.Peer, clock time.Time) (identity.UserStatement, error) {
	now, k := o.at(clock), userKey{peer.Name.ID, peer.SPKI}
	o.mu.Lock()
	v, ok := o.judged[k]
	o.mu.Unlock()
	if ok && (v.Until.IsZero() || !now.After(v.Until)) {
		return v.User, nil
	}
	chain, err := o.verifier().Assemble(o.people, peer, now)
	if err == nil {
		v, err = o.verifier().Judge(chain, peer, now)
	}
	if err != nil {
		return identity.UserStatement{}, notStated(err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.judged[k] = v
	return v.User, nil
}

// notStated refuses a user whom the owner does not want, or not any more. An end is no `expired`: no renewal helps.
func notStated(err error) error {
	if identity.FaultOf(err) == identity.FaultRevoked {
		return refuse(transport.Revoked, "by a list of the owner")
	}
	return refuse(transport.NotStated, "the owner's statements do not reach this key: "+err.Error())
}

// newest is what is stated last about a user, by whoever may; ok is false when there is none.
func (o *owner) newest(user string, clock time.Time) (newest identity.UserStatement, ok bool) {
	now := o.at(clock)
	for _, s := range o.people {
		u, is := s.Statement.(identity.UserStatement)
		if is && u.User == user && u.Serial > newest.Serial && o.verifier().Keep(s, o.people, now) == nil {
			newest, ok = u, true
		}
	}
	return newest, ok
}

// maxNews is how many bytes of statements go into one frame (wire §4.9), with room for what is around them.
const maxNews = 95 << 10

// news are lists that are wanted, newest first, with the statements about their signers, as far as they have room.
func (o *owner) news(room int, wanted func(ownerList) bool) (texts []string, ids []store.Hash) {
	for _, l := range o.lists {
		if !wanted(l) {
			continue
		}
		fresh := slices.DeleteFunc(append([]string{l.jws}, l.signers...), func(t string) bool { return slices.Contains(texts, t) })
		if size := sizeOf(fresh); size <= room {
			room -= size
			texts = append(texts, fresh...)
		}
		ids = append(ids, l.id) // what has no room will never have
	}
	return texts, ids
}

// sizeOf is what texts take in JSON.
func sizeOf(texts []string) (n int) {
	for _, t := range texts {
		n += len(t) + len(`"",`)
	}
	return n
}

// chain is the chain of a device, from what is stated about it. What nobody else may say so is left to the ends: one that
// this server finds stale goes to them.
func (o *owner) chain(stated []store.Statement, device identity.Peer, clock time.Time) ([]string, error) {
	pool := append(parseAll(stated), o.people...)
	chain, err := o.verifier().Assemble(pool, device, o.at(clock))
	if identity.FaultOf(err) == identity.FaultStale {
		if chain = o.verifier().Gather(pool, device); chain != nil {
			return chain, nil
		}
	}
	return chain, err
}

// deviceChain is that of a device that is attached with this key.
func (s *Server) deviceChain(ctx context.Context, device identity.Peer) ([]string, error) {
	o, err := s.owner(ctx, device.Name.Domain)
	if err != nil {
		return nil, err
	}
	var stated []store.Statement
	err = s.store.View(ctx, func(tx *store.Tx) (err error) {
		stated, err = tx.StatementsOf(device.Name.Domain, subjectOf(device.Name))
		return err
	})
	if err != nil {
		return nil, err
	}
	chain, err := o.chain(stated, device, s.now())
	switch {
	case err == nil:
		return chain, nil
	case identity.FaultOf(err) == identity.FaultRevoked:
		return nil, refuse(transport.Revoked, "the device, by a list of the owner")
	}
	return nil, refuse(transport.NotStated, "the owner's statements do not reach the key of the device, "+
		"which must have come online once with its own statement after it enrolled: "+err.Error())
}

// subjectOf is under which subject statements about a user or device are kept.
func subjectOf(name identity.Name) string { return string(name.Kind) + "." + name.ID }

// isAdmin tells whether the domain key has ever said so.
func (o *owner) isAdmin(user string) bool {
	return slices.ContainsFunc(o.people, func(s identity.Signed) bool {
		u, ok := s.Statement.(identity.UserStatement)
		return ok && u.User == user && u.Role == identity.RoleAdmin
	})
}
