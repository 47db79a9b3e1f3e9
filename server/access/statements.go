package access

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
)

// How many statements there are about one subject: some for each of its machines. Who has an invite can sign any number of
// keys, and who has a key any number of invites of himself; they must not take the room of what an admin says.
const (
	maxStated      = 128
	maxUnconfirmed = 16
	maxInvites     = 64
	maxOwnInvites  = 16 // that the user's own keys have signed
)

// roomFor refuses one statement too many about a subject, of which there are these.
func roomFor(row *store.Statement, one identity.Signed, of []store.Statement) error {
	if _, ok := one.Statement.(identity.InviteStatement); ok {
		all := parseAll(of)
		if isOwnInvite(one, all) && countOwn(all) >= maxOwnInvites {
			return refuse(transport.Policy, "too many codes for a next PC: an admin makes one, or ask again in some weeks")
		}
	}
	keys, invites := 0, 0
	for _, has := range of {
		if has.Typ == typKey && has.Serial == 0 {
			keys++
		}
		if has.Typ == typInvite {
			invites++
		}
	}
	if len(of) >= maxStated || row.Typ == typKey && row.Serial == 0 && keys >= maxUnconfirmed || row.Typ == typInvite && invites >= maxInvites {
		return refuse(transport.Policy, "too much is stated of "+row.Subject)
	}
	return nil
}

// isOwnInvite tells whether a key of the user himself has signed an invite; of are the statements about him.
func isOwnInvite(invite identity.Signed, of []identity.Signed) bool {
	return slices.ContainsFunc(of, func(s identity.Signed) bool {
		key, ok := s.Statement.(identity.KeyStatement)
		return ok && key.User != "" && key.Serial != 0 && invite.SignedBy(key.Key)
	})
}

func countOwn(of []identity.Signed) (n int) {
	for _, s := range of {
		if _, ok := s.Statement.(identity.InviteStatement); ok && isOwnInvite(s, of) {
			n++
		}
	}
	return n
}

// The words of identity §11.2 by which statements are told apart in the store.
const (
	typUser   = "hawser-user"
	typDevice = "hawser-device"
	typInvite = "hawser-invite"
	typKey    = "hawser-key"
	typList   = "hawser-list"
	typDomain = "hawser-domain"
)

// kept is what statements have changed.
type kept struct {
	people  bool // users, or lists
	devices []identity.UID
	texts   []string // for the audit
}

func (k kept) empty() bool { return !k.people && len(k.devices) == 0 }

// rowOf is a statement as it is stored.
func rowOf(domain string, s identity.Signed, pool []identity.Signed, now time.Time) *store.Statement {
	row := &store.Statement{Domain: domain, ID: sha256.Sum256([]byte(s.JWS)), JWS: s.JWS, Ends: s.Ends(pool), At: now.UTC()}
	switch is := s.Statement.(type) {
	case identity.UserStatement:
		row.Typ, row.Subject, row.Serial = typUser, store.UserSubject(is.User), int64(is.Serial)
	case identity.DeviceStatement:
		row.Typ, row.Subject, row.Serial = typDevice, store.DeviceSubject(is.UID), int64(is.Serial)
	case identity.InviteStatement:
		row.Typ, row.Subject, row.Serial, row.SPKI = typInvite, storedSubject(is.Subject), int64(is.Serial), is.Key.SPKI()
	case identity.KeyStatement:
		row.Typ, row.Subject, row.Serial, row.SPKI = typKey, storedSubject(is.Subject), int64(is.Serial), is.Key.SPKI()
	case identity.ListStatement:
		row.Typ, row.Serial = typList, int64(is.Serial)
	case identity.DomainStatement:
		row.Typ, row.Serial = typDomain, int64(is.Serial)
	}
	return row
}

func storedSubject(s identity.Subject) string {
	if s.User != "" {
		return store.UserSubject(s.User)
	}
	return store.DeviceSubject(s.UID)
}

// devicesOf are the devices that statements are about.
func devicesOf(list []identity.Signed) (uids []identity.UID) {
	for _, s := range list {
		if _, uid := aboutWhom(s); !uid.IsZero() && !slices.Contains(uids, uid) {
			uids = append(uids, uid)
		}
	}
	return uids
}

// aboutWhom is the user or device that a statement is about; neither for a list.
func aboutWhom(s identity.Signed) (user string, uid identity.UID) {
	switch is := s.Statement.(type) {
	case identity.UserStatement:
		return is.User, uid
	case identity.DeviceStatement:
		return "", is.UID
	case identity.InviteStatement:
		return is.User, is.UID
	case identity.KeyStatement:
		return is.User, is.UID
	}
	return "", uid
}

func (k *kept) note(s identity.Signed, row *store.Statement) {
	if _, uid := aboutWhom(s); uid.IsZero() {
		k.people = true
	} else if !slices.Contains(k.devices, uid) {
		k.devices = append(k.devices, uid)
	}
	k.texts = append(k.texts, strings.TrimSpace(row.Typ+" "+row.Subject))
}

// refuseStatement says which one is refused, and why.
func refuseStatement(i int, err error) error {
	fault := identity.FaultOf(err)
	if fault == "" {
		return err // a refusal already, or an error of the store
	}
	reason := transport.ReasonOf(err)
	switch fault {
	case identity.FaultMalformed, identity.FaultBadName, identity.FaultWrongKey:
		reason = api.BadRequest
	case identity.FaultExpired, identity.FaultBadSignature: // no certificate
		reason = transport.NotStated
	}
	return refuse(reason, fmt.Sprintf("statement %d: %v", i+1, err))
}

// mayBring limits what somebody brings who is no admin: lists, which any technician carries, and what is about himself.
func mayBring(c caller) func(identity.Signed) error {
	return func(s identity.Signed) error {
		_, list := s.Statement.(identity.ListStatement)
		if user, _ := aboutWhom(s); c.stated.Role == identity.RoleAdmin || list || user == c.peer.Name.ID {
			return nil
		}
		return refuse(transport.Policy, "only an admin brings statements about others")
	}
}

// postStatements takes what an owner has stated, also from somebody who is not stated yet: his own key, which his invite
// has signed.
func (s *Server) postStatements(r request) (int, any, error) {
	var body api.Statements
	if err := r.read(&body); err != nil {
		return 0, nil, err
	}
	if body.Next != "" {
		return 0, nil, refuse(api.BadRequest, "next is of answers")
	}
	if err := s.judgeFirst(r.Context(), r.caller.domain(), body.Statements, mayBring(r.caller)); err != nil {
		return 0, nil, err
	}
	err := s.changeOwner(r.Context(), r.caller.domain(), func(tx *store.Tx, o *owner) (kept, error) {
		k, err := s.keep(tx, o, body.Statements, mayBring(r.caller))
		if err != nil || k.empty() {
			return k, err
		}
		return k, tx.Append(s.record(actionState, r.caller.peer.Name.String(), r.caller.peer.Name, nil, strings.Join(k.texts, ", ")))
	})
	return http.StatusNoContent, nil, err
}

// changeOwner runs a transaction that keeps statements of a domain, and tells everybody whom they concern. It writes also
// while rows are missing: it is how somebody is revoked.
func (s *Server) changeOwner(ctx context.Context, domain string, f func(*store.Tx, *owner) (kept, error)) error {
	return s.changeOwnerBy(ctx, domain, s.store.UpdateAlways, f)
}

func (s *Server) changeOwnerBy(ctx context.Context, domain string, update func(context.Context, func(*store.Tx) error) error,
	f func(*store.Tx, *owner) (kept, error)) error {
	var k kept
	err := update(ctx, func(tx *store.Tx) error {
		o, err := readOwner(tx, domain, s.now())
		if err != nil {
			return err
		}
		if k, err = f(tx, o); err != nil {
			return err
		}
		return s.publishKept(tx, domain, k)
	})
	// What failed may have been written all the same.
	s.owners.drop(domain)
	if err != nil {
		return err
	}
	if !k.empty() {
		s.hint()
		s.tellKept(ctx, domain, k)
	}
	return nil
}

// statementsChange is what a node tells the others of kept statements: about users and lists, or about one device.
type statementsChange struct {
	Domain string
	Device identity.UID
}

func (s *Server) publishKept(tx *store.Tx, domain string, k kept) error {
	var changes []statementsChange
	if k.people {
		changes = append(changes, statementsChange{Domain: domain})
	}
	for _, uid := range k.devices {
		changes = append(changes, statementsChange{domain, uid})
	}
	for _, c := range changes {
		b, err := json.Marshal(c)
		if err != nil {
			return fmt.Errorf("tell of statements: %w", err)
		}
		if err := s.publish(tx, changeStatements, string(b)); err != nil {
			return err
		}
	}
	return nil
}

// readBytes is how much of statements one page may have beyond its first statement.
const readBytes = 512 << 10

// getStatements gives an admin all of his domain, and everybody else what concerns him: lists, himself, the devices that he
// sees, and those who signed for these. Who is not stated gets what leads to the present domain key.
func (s *Server) getStatements(r request) (int, any, error) {
	limit, err := r.limit()
	if err != nil {
		return 0, nil, err
	}
	var after store.StatementPlace
	if err := r.cursor(&after); err != nil {
		return 0, nil, err
	}
	page, size := api.Statements{Statements: []string{}, DomainReset: r.caller.owner.reset}, 0
	err = s.store.View(r.Context(), func(tx *store.Tx) error {
		for {
			rows, err := tx.Statements(r.caller.domain(), after, 200)
			if err != nil || len(rows) == 0 {
				return err
			}
			for _, row := range rows {
				if len(page.Statements) == limit || len(page.Statements) > 0 && size+len(row.JWS) > readBytes {
					page.Next = cursorOf(after)
					return nil
				}
				after = store.StatementPlace{At: row.At, ID: row.ID}
				shown, err := r.caller.shown(tx, row)
				if err != nil {
					return err
				}
				if shown {
					page.Statements = append(page.Statements, row.JWS)
					size += len(row.JWS)
				}
			}
		}
	})
	return http.StatusOK, page, err
}

// shown tells whether a caller gets a statement.
func (c caller) shown(tx *store.Tx, row store.Statement) (bool, error) {
	if c.stated.Role == "" { // he may have pinned another key, and has to hear how that has changed
		return row.Typ == typDomain, nil
	}
	if c.stated.Role == identity.RoleAdmin || row.Subject == "" || row.Subject == store.UserSubject(c.peer.Name.ID) {
		return true, nil
	}
	if row.Typ == typInvite || row.Typ == typKey && !strings.HasPrefix(row.Subject, store.UserSubject("")) {
		return false, nil // most of all, and not worth a look inside
	}
	one, err := identity.ParseStatement(row.JWS)
	if err != nil {
		return false, nil
	}
	switch is := one.Statement.(type) {
	case identity.UserStatement: // of those who sign: admins alone
		return is.Role == identity.RoleAdmin, nil
	case identity.KeyStatement:
		return c.owner.isAdmin(is.User), nil
	case identity.DeviceStatement:
		m := store.Member{Kind: identity.KindDevice, ID: is.UID.String()}
		if err := tx.Get(&m); err != nil {
			if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrDamaged) {
				err = nil
			}
			return false, err
		}
		return c.sees(m), nil
	}
	return false, nil
}

// tooLate is when an invite can no more be used; a code does not outlive it.
func tooLate(invite identity.InviteStatement, now time.Time) bool {
	return cmp.Compare(invite.Exp, now.Unix()) <= 0
}
