package store

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"hawser/identity"
)

// DeviceFilter selects devices of a domain, in the order of their names.
type DeviceFilter struct {
	Domain string
	Query  string // part of the name, or how the UID begins, in any case of the letters A to Z; empty: all
	State  string // pending, enrolled or revoked; empty: all
	After  DevicePlace
	Limit  int // 1 or more
}

// minUIDPart is how many digits of a UID are enough to look for one. One digit is how every 16th UID begins.
const minUIDPart = 4

// DevicePlace is where a device stands in the list of its domain.
type DevicePlace struct{ Name, ID string }

// Devices returns the devices that f selects, at most f.Limit. Those whose rows are not what was written are among them:
// a device that vanished from the list could not be revoked.
func (t *Tx) Devices(f DeviceFilter) ([]Member, error) {
	// The rows are found in an index alone, which is small, and only those that are shown are read: they have a chain.
	ids, args := f.selects("domain=?", f.Domain)
	if f.Query != "" {
		part := lowerASCII(f.Query)
		ids, args = f.selects("domain=? AND lower(name) LIKE ? ESCAPE '!'", f.Domain, "%"+likeEscaper().Replace(part)+"%")
		// One statement for each of the two. As one condition it would be asked of every name: 40 ms in place of 25 for
		// 100,000 devices with SQLite. The domain is asked for so that no index is for it: UIDs have their own.
		if len(part) >= minUIDPart && strings.Trim(part, "0123456789abcdef") == "" {
			more, moreArgs := f.selects("domain||''=? AND id>=? AND id<?", f.Domain, part, part+"g")
			ids = "SELECT id FROM (" + ids + ") AS named UNION SELECT id FROM (" + more + ") AS numbered"
			args = append(args, moreArgs...)
		}
	}
	return rows(t, Member{Kind: identity.KindDevice}, " WHERE id IN ("+ids+") ORDER BY name, id LIMIT ?", append(args, f.Limit),
		func(*Member, error) {})
}

// selects is a statement for the first f.Limit ids of what a condition and f select.
func (f DeviceFilter) selects(condition string, args ...any) (string, []any) {
	text := "SELECT id FROM devices WHERE " + condition
	switch f.State {
	case "pending":
		text += " AND revoked=0 AND enrolled=0"
	case "enrolled":
		text += " AND revoked=0 AND enrolled<>0"
	case "revoked":
		text += " AND revoked<>0"
	}
	// A place and not an offset: the database would count through all that it leaves out, and a device that is added
	// meanwhile would push another one onto two pages.
	if f.After != (DevicePlace{}) {
		text += " AND (name,id)>(?,?)"
		args = append(args, f.After.Name, f.After.ID)
	}
	return text + " ORDER BY name, id LIMIT ?", append(args, f.Limit)
}

// lowerASCII lowers what lower() of both engines lowers. They leave other letters alone: SQLite knows ASCII only, and
// with the "C" collation PostgreSQL does the same.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

func likeEscaper() *strings.Replacer { return strings.NewReplacer("!", "!!", "%", "!%", "_", "!_") }

// DeviceByName returns the device of a domain that has a name; of several the one that is not revoked, else the newest.
// A name is free again when its device was revoked (access §1.1), so several may have had it.
func (t *Tx) DeviceByName(domain, name string) (Member, error) {
	var damage error
	list, err := rows(t, Member{Kind: identity.KindDevice},
		" WHERE domain=? AND name=? ORDER BY CASE WHEN revoked=0 THEN 0 ELSE 1 END, created DESC LIMIT 1", []any{domain, name},
		func(_ *Member, err error) { damage = err })
	switch {
	case err != nil:
		return Member{}, err
	case len(list) == 0:
		return Member{}, fmt.Errorf("read devices %s: %w", keyText([]any{domain, name}), ErrNotFound)
	}
	return list[0], damage
}

// UserKeys returns the keys of a user that can be read. A bad row of a key shuts out that key: it cannot be listed as
// one that is good.
func (t *Tx) UserKeys(domain, user string) ([]UserKey, error) {
	return rows(t, UserKey{}, " WHERE domain=? AND user_name=? ORDER BY login, spki", []any{domain, user}, nil)
}

// Revoked returns all revoked keys, those whose rows are bad too. A key that may be revoked is refused.
func (t *Tx) Revoked() ([]RevokedKey, error) {
	return rows(t, RevokedKey{}, "", nil, func(*RevokedKey, error) {})
}

// Cloned returns what is known of the devices of a domain, or of all with an empty one, of which there are two. A bad row is
// as good as none (access §1.5).
func (t *Tx) Cloned(domain string) ([]Join, error) {
	if domain == "" {
		return rows(t, Join{}, " WHERE cloned<>0", nil, nil)
	}
	return rows(t, Join{}, " WHERE domain=? AND cloned<>0", []any{domain}, nil)
}

// OpenSessions returns the sessions that have not ended and can be read. A bad row shuts out its session (access §1.5).
func (t *Tx) OpenSessions() ([]Session, error) {
	return rows(t, Session{}, " WHERE ended=0 ORDER BY created, id", nil, nil)
}

// SessionPlace is where a session stands among the open ones of its domain.
type SessionPlace struct {
	Created time.Time
	ID      string
}

// OpenSessionsIn returns those of a domain after a place, oldest first.
func (t *Tx) OpenSessionsIn(domain string, after SessionPlace, limit int) ([]Session, error) {
	return rows(t, Session{}, " WHERE ended=0 AND domain=? AND (created,id)>(?,?) ORDER BY created, id LIMIT ?",
		[]any{domain, micros(after.Created), after.ID, limit}, nil)
}

// OpenSessionsOf returns those with one device.
func (t *Tx) OpenSessionsOf(device identity.UID) ([]Session, error) {
	return rows(t, Session{}, " WHERE ended=0 AND device=? ORDER BY created, id", []any{device.String()}, nil)
}

// RelaysElsewhere returns which relays are attached to other nodes.
func (t *Tx) RelaysElsewhere(node string) ([]Presence, error) {
	prefix := identity.RelayName("").String()
	return rows(t, Presence{}, " WHERE node<>? AND name>? AND name<?", []any{node, prefix, prefix + "\x7f"}, nil)
}

// People returns what a domain's owner has stated about users, and his lists, oldest first. Bad rows are left out: what they
// said counts for nobody.
func (t *Tx) People(domain string) ([]Statement, error) {
	// Asked for in the order of the index, in which devices stand between the two: there may be very many.
	lists, err := t.StatementsOf(domain, "")
	if err != nil {
		return nil, err
	}
	users, err := rows(t, Statement{}, " WHERE domain=? AND subject>='user.' ORDER BY subject, at, id", []any{domain}, nil)
	all := append(lists, users...)
	slices.SortFunc(all, func(a, b Statement) int { return cmp.Or(a.At.Compare(b.At), bytes.Compare(a.ID[:], b.ID[:])) })
	return all, err
}

// StatementsOf returns what is stated about one subject, oldest first.
func (t *Tx) StatementsOf(domain, subject string) ([]Statement, error) {
	return rows(t, Statement{}, " WHERE domain=? AND subject=? ORDER BY at, id", []any{domain, subject}, nil)
}

// StatementPlace is where a statement stands in the order of its domain.
type StatementPlace struct {
	At time.Time
	ID Hash
}

// Statements returns what is stated in a domain, oldest first, after a place.
func (t *Tx) Statements(domain string, after StatementPlace, limit int) ([]Statement, error) {
	return rows(t, Statement{}, " WHERE domain=? AND (at,id)>(?,?) ORDER BY at, id LIMIT ?",
		[]any{domain, micros(after.At), hex.EncodeToString(after.ID[:]), limit}, nil)
}

// Users returns the users of a domain by name, those whose rows are bad too: one that vanished could not be revoked.
func (t *Tx) Users(domain string) ([]User, error) {
	return rows(t, User{}, " WHERE domain=? ORDER BY name", []any{domain}, func(*User, error) {})
}

// OpenSessionsBy returns the open sessions of one user.
func (t *Tx) OpenSessionsBy(domain, user string) ([]Session, error) {
	return rows(t, Session{}, " WHERE ended=0 AND domain=? AND user_name=? ORDER BY created, id", []any{domain, user}, nil)
}

// SlotOf returns the slot of a batch that a key has.
func (t *Tx) SlotOf(lookup string, spki identity.SPKI) (Slot, error) {
	var damage error
	list, err := rows(t, Slot{}, " WHERE lookup=? AND used=? ORDER BY slot LIMIT 1", []any{lookup, spki.String()},
		func(_ *Slot, err error) { damage = err })
	switch {
	case err != nil:
		return Slot{}, err
	case len(list) == 0:
		return Slot{}, fmt.Errorf("read slots %s: %w", keyText([]any{lookup, spki.String()}), ErrNotFound)
	}
	return list[0], damage
}

// FreeSlots returns the first slots of a batch that can be given out: nobody has them, their devices are not revoked, and no
// code of its own was made for them. Bad rows are left out: others are as good.
func (t *Tx) FreeSlots(lookup string, limit int) ([]Slot, error) {
	return rows(t, Slot{}, " WHERE lookup=? AND used='' AND EXISTS (SELECT 1 FROM devices WHERE id=slots.subject AND code=? AND enrolled=0 AND revoked=0) "+
		"ORDER BY slot LIMIT ?", []any{lookup, lookup, limit}, nil)
}

// PendingOf returns devices of a domain that wait for their gateways with a code. Bad rows are left out.
func (t *Tx) PendingOf(domain, lookup string, limit int) ([]Member, error) {
	return rows(t, Member{Kind: identity.KindDevice}, " WHERE domain=? AND revoked=0 AND enrolled=0 AND code=? ORDER BY name LIMIT ?",
		[]any{domain, lookup, limit}, nil)
}
