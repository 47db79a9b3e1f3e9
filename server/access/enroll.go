package access

import (
	"context"
	"crypto"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/wire"
)

// enroll gives a device or relay its first identity, for an activation code (access §2). Nothing of the CSR but its key
// is used, and names come from the row: a device cannot choose who it is.
func (s *Server) enroll(ctx context.Context, from netip.Addr, m wire.Enroll) (wire.Identity, error) {
	pub, spki, err := parseCSR(m.CSR)
	if err != nil {
		return wire.Identity{}, err
	}
	var member store.Member
	err = s.withCode(ctx, from, m.Code, func(tx *store.Tx, code identity.Code, c store.Code) (err error) {
		member, err = s.enrollMember(tx, from, code, c, pub, spki, cleanHints(m.Hints))
		return err
	})
	return identityOf(member), err
}

// withCode runs use in a transaction with the record of a code. Attempts that end in bad-code are limited (failures),
// and all of them look the same to the client, so that guessing learns nothing.
func (s *Server) withCode(ctx context.Context, from netip.Addr, text string, use func(*store.Tx, identity.Code, store.Code) error) error {
	code, err := identity.ParseCode(text)
	if err != nil {
		return errBadCode
	}
	if wait := s.codes.wait(code.LookupID(), from, s.now()); wait > 0 {
		return busy(wait)
	}
	if err = s.tryCode(ctx, code, use); errors.Is(err, errBadCode) {
		s.codes.add(code.LookupID(), from, s.now())
	}
	return err
}

// tryCode looks for the code by reading first: wrong codes of strangers must not make those wait who write.
func (s *Server) tryCode(ctx context.Context, code identity.Code, use func(*store.Tx, identity.Code, store.Code) error) error {
	err := s.store.View(ctx, func(tx *store.Tx) error { _, err := findCode(tx, code); return err })
	// While records may be missing, it is the writer who knows what to say of a code that is not there.
	if errors.Is(err, errBadCode) && s.store.Health().Granting() == nil {
		return err
	}
	var refused error // bad-code from use: its audit record is committed all the same
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		refused = nil
		c, err := findCode(tx, code)
		if err == nil {
			err = use(tx, code, c)
		}
		if errors.Is(err, errBadCode) {
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
func findCode(tx *store.Tx, code identity.Code) (store.Code, error) {
	c := store.Code{Lookup: code.LookupID()}
	err := tx.Get(&c)
	sum := code.Hash()
	switch {
	case errors.Is(err, store.ErrNotFound):
		return c, errBadCode
	case err != nil:
		return c, err
	case subtle.ConstantTimeCompare(sum[:], c.Hash[:]) != 1:
		return c, errBadCode
	}
	return c, nil
}

// enrollMember writes the enrollment into the member's row: the first client to do so has the identity. Two that try
// the same code at once meet in this row, and the second one sees what the first one wrote.
func (s *Server) enrollMember(tx *store.Tx, from netip.Addr, code identity.Code, c store.Code,
	pub crypto.PublicKey, spki identity.SPKI, hints map[string]string) (store.Member, error) {
	m := store.Member{Kind: c.Kind, ID: c.Subject}
	if c.Kind != identity.KindDevice && c.Kind != identity.KindRelay {
		return m, errBadCode
	}
	if err := tx.Get(&m); errors.Is(err, store.ErrNotFound) {
		return m, errBadCode
	} else if err != nil {
		return m, err
	}
	now, detail := s.now(), "key "+spki.String()
	switch judgeEnroll(m, code, spki, now) {
	case codeFresh:
		m.Hints, m.SPKI, m.Enrolled = hints, spki, now.UTC()
		if err := s.certify(&m, pub); err != nil {
			return m, err
		}
		if err := tx.Put(&m); err != nil {
			return m, err
		}
	case codeRepeated: // it is answered, and changes nothing
		r := s.record(actionEnroll, from.String(), m.Identity(), nil, "again, "+detail)
		defer s.dueChanged.Ring()
		if !s.flaps.admit(m.Identity(), r, flapRecords, time.Now()) {
			return m, nil
		}
		return m, tx.Append(r)
	case codeReused:
		r := s.record(actionEnrollRefused, from.String(), m.Identity(), errBadCode, "a used code with another "+detail)
		return m, recordReuse(tx, r)
	default:
		return m, errBadCode
	}
	return m, tx.Append(s.record(actionEnroll, from.String(), m.Identity(), nil, detail))
}

// recordReuse writes into the audit that a used code was tried with another key: somebody has copied it. It returns
// what the client is told.
func recordReuse(tx *store.Tx, r store.Record) error {
	if err := tx.Append(r); err != nil {
		return err
	}
	return errBadCode
}

// certify issues a certificate for a member.
func (s *Server) certify(m *store.Member, pub crypto.PublicKey) error {
	chain, err := s.issue(m.Identity(), pub, memberLife)
	if err != nil {
		return err
	}
	m.Chain, m.NotAfter = string(identity.MarshalChain(chain)), chain[0].NotAfter.UTC()
	return nil
}

func identityOf(m store.Member) wire.Identity {
	return wire.Identity{Chain: m.Chain, Domain: m.Domain, UID: m.UID(), Name: m.Name}
}

// renew gives a device or relay a new certificate for the key that it has proven in TLS and that the registry has
// (access §3). Its present certificate may have expired: a gateway may come back after years in a store-room.
func (s *Server) renew(ctx context.Context, from netip.Addr, chain []*x509.Certificate, m wire.Renew) (wire.Identity, error) {
	if len(chain) == 0 {
		return wire.Identity{}, refuse(transport.NotEnrolled, "no client certificate")
	}
	peer, err := identity.VerifyIgnoringDates(chain, s.cfg.Roots, identity.KindDevice, identity.KindRelay)
	if err != nil {
		return wire.Identity{}, badCertificate(err)
	}
	pub, spki, err := parseCSR(m.CSR)
	if err != nil {
		return wire.Identity{}, err
	}
	if spki != peer.SPKI {
		return wire.Identity{}, refuse(transport.WrongKey, "the CSR has another key than the client certificate")
	}
	member := store.Member{Kind: peer.Name.Kind, ID: peer.Name.ID}
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		if err := s.readMember(tx, &member, peer); err != nil {
			return err
		}
		if s.justCertified(member) {
			return nil
		}
		if err := s.certify(&member, pub); err != nil {
			return err
		}
		return errors.Join(tx.Put(&member), tx.Append(s.record(actionRenew, from.String(), peer.Name, nil, "key "+spki.String())))
	})
	return identityOf(member), err
}

// renewTime is within which a renewal gets the certificate of the one before.
const renewTime = time.Minute

// justCertified reports whether the certificate of a member is not older than renewTime. One device that renews again and
// again could else push the audit records of all others out, and keep the database busy.
func (s *Server) justCertified(m store.Member) bool {
	chain, err := identity.ParseChain([]byte(m.Chain))
	if err != nil || len(chain) == 0 {
		return false
	}
	age := s.now().Sub(chain[0].NotBefore.Add(backdate))
	return age < renewTime && age > -renewTime // older than that: the clock was set back
}

// readMember reads the row of a verified peer, and refuses a peer that is revoked or has another key.
func (s *Server) readMember(tx *store.Tx, m *store.Member, peer identity.Peer) error {
	err := tx.Get(m)
	if s.presence.isRevoked(peer.SPKI) { // whatever became of the row
		return refuse(transport.Revoked, "not accepted by the registry")
	}
	if errors.Is(err, store.ErrNotFound) {
		return s.orLost(refuse(transport.NotEnrolled, "not in the registry"))
	} else if err != nil {
		return err
	}
	reason := judgeMember(*m, peer.SPKI)
	if m.Identity() != peer.Name { // the domain is not part of the key
		reason = transport.NotEnrolled
	}
	if reason == "" {
		return nil
	}
	return refuse(reason, "not accepted by the registry")
}

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

// newMember adds a member that is not enrolled yet, and makes its activation code.
func newMember(tx *store.Tx, m store.Member) (store.Member, identity.Code, error) {
	code, c, err := newCode(tx, m.Kind, m.Domain, m.ID, m.Created)
	if err != nil {
		return m, code, err
	}
	m.Code, m.CodeHash, m.CodeExpires = c.Lookup, c.Hash, c.Expires
	return m, code, tx.Insert(&m)
}

// Limits of the hints that a device sends about its hardware.
const (
	maxHints     = 16
	maxHintBytes = 64
)

// cleanHints returns the hints that are short and harmless to show. Hints only help people to recognize a device, so a
// bad one is left out instead of refusing the device.
func cleanHints(hints map[string]string) map[string]string {
	clean := make(map[string]string)
	for k, v := range hints {
		ok := len(k) <= maxHintBytes && len(v) <= maxHintBytes && k != "" && store.Printable(k) == k && store.Printable(v) == v
		if ok && len(clean) < maxHints {
			clean[k] = v
		}
	}
	return clean
}

// Bootstrap fills an empty store: the first domain with its first user, whose login code is admin, and the first relay
// with its activation code. Both codes are valid for 72 h from now. If the store has the domain already, the error is
// store.ErrExists. All of it is one transaction: after a crash there is a whole infrastructure or none.
func Bootstrap(ctx context.Context, st *store.Store, domain, user, relay string, now time.Time) (admin, relayCode identity.Code, err error) {
	now = now.UTC()
	err = errors.Join(identity.CheckLabel(domain), identity.CheckLabel(user), identity.CheckLabel(relay))
	if err == nil {
		err = st.Update(ctx, func(tx *store.Tx) (err error) {
			if err := tx.Insert(&store.Domain{Name: domain, Created: now, Infrastructure: true}); err != nil {
				return err
			}
			if err := tx.Insert(&store.User{Domain: domain, Name: user, Created: now}); err != nil {
				return err
			}
			if admin, _, err = newCode(tx, identity.KindUser, domain, user, now); err != nil {
				return err
			}
			if _, relayCode, err = newMember(tx, store.Member{Kind: identity.KindRelay, ID: relay, Name: relay, Created: now}); err != nil {
				return err
			}
			return tx.Append(store.Record{
				Time: now, Domain: domain, Actor: actionInit, Action: actionInit,
				Object: identity.UserName(domain, user).String(), Result: resultOK, Detail: "relay " + relay,
			})
		})
	}
	if err != nil {
		return identity.Code{}, identity.Code{}, fmt.Errorf("bootstrap store: %w", err)
	}
	return admin, relayCode, nil
}
