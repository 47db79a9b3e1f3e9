package access

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"net/netip"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/wire"
)

// enroll gives a device or relay its first identity: a device for an owner's code, a relay for a server's (access §2).
// Nothing of the CSR but its key is used, and names come from the row: a device cannot choose who it is.
func (s *Server) enroll(ctx context.Context, from netip.Addr, m wire.Enroll) (wire.Identity, error) {
	pub, spki, err := parseCSR(m.CSR)
	if err != nil {
		return wire.Identity{}, err
	}
	shown, err := credentialOf(m.Code, m.Lookup, m.Auth)
	if err != nil {
		return wire.Identity{}, err
	}
	if m.Claim {
		if err := s.awaitClaim(ctx, from, shown, m.Hints); err != nil {
			return wire.Identity{}, err
		}
	}
	var member store.Member
	var said wire.Invitation
	var before map[identity.SPKI]time.Time
	err = s.withCode(ctx, from, shown, func(tx *store.Tx, c store.Code) (err error) {
		if (c.Kind == identity.KindDevice) != shown.owners {
			return errBadCode
		}
		use := used{code: c}
		if c.IsBatch() {
			if use, err = s.batchUse(tx, from, c, spki); err != nil {
				return err
			}
		}
		if member, before, err = s.enrollMember(tx, from, shown, use, pub, spki, cleanHints(m.Hints)); err == nil && shown.owners {
			said, err = s.invitation(tx, use.code)
		}
		return err
	})
	if err != nil {
		return wire.Identity{}, err
	}
	s.claims.forget(claimed{shown.lookup, shown.hash})
	if err := s.replaced(ctx, member, before, from.String()); err != nil {
		s.logFailure("sessions of a gateway that was replaced are not ended", err, "uid", member.ID)
	}
	id := identityOf(member)
	id.Invitation = said
	return id, nil
}

// used is the code with which somebody enrolls. Of a batch it is as whoever has the slot sees it.
type used struct {
	code store.Code
	slot *store.Slot // nil: the code is for one
}

// mark writes who has the code, or the slot of a batch.
func (u used) mark(tx *store.Tx, spki identity.SPKI, now time.Time) error {
	if u.slot != nil {
		u.slot.Used, u.slot.UsedAt = spki, now
		return tx.Put(u.slot)
	}
	u.code.Used, u.code.UsedAt = spki, now
	return tx.Put(&u.code)
}

// batchUse finds the slot for a key. That all are used is written down: there are more copies of the code than its owner
// wanted gateways.
func (s *Server) batchUse(tx *store.Tx, from netip.Addr, c store.Code, spki identity.SPKI) (used, error) {
	slot, err := slotFor(tx, c, spki)
	if errors.Is(err, errUsedUp) {
		of := identity.Name{Kind: identity.KindDevice, Domain: c.Domain, ID: c.Lookup}
		r := s.record(actionEnrollRefused, from.String(), of, err, "every place of the batch is taken, key "+spki.String())
		defer s.dueChanged.Ring()
		if s.flaps.admit(of, r, flapRecords, time.Now()) {
			if e := tx.Append(r); e != nil {
				err = e
			}
		}
		return used{}, err
	}
	return used{c.With(slot), &slot}, err
}

// credentialOf is the one of the two kinds of codes that somebody has sent.
func credentialOf(code, lookup string, auth []byte) (credential, error) {
	if code == "" {
		return ownersCode(lookup, auth)
	}
	if lookup != "" || len(auth) > 0 {
		return credential{}, errBadCode
	}
	return serversCode(code)
}

// enrollMember writes the enrollment into the member's row: the first client to do so has the identity. Two that try
// the same code at once meet in this row, and the second one sees what the first one wrote.
func (s *Server) enrollMember(tx *store.Tx, from netip.Addr, shown credential, use used,
	pub crypto.PublicKey, spki identity.SPKI, hints map[string]string) (m store.Member, before map[identity.SPKI]time.Time, err error) {
	c := use.code
	m = store.Member{Kind: c.Kind, ID: c.Subject}
	if c.Kind != identity.KindDevice && c.Kind != identity.KindRelay {
		return m, nil, errBadCode
	}
	if err := tx.Get(&m); errors.Is(err, store.ErrNotFound) {
		return m, nil, errBadCode
	} else if err != nil {
		return m, nil, err
	}
	now, detail := s.now(), "key "+spki.String()
	judged := m
	if isNext(m, c) {
		judged.SPKI, judged.Enrolled = identity.SPKI{}, time.Time{}
	}
	switch judgeEnroll(judged, shown, use.slot != nil, spki, now) {
	case codeFresh:
		if before, err = s.replaceKey(tx, m, spki, now.UTC()); err != nil {
			return m, nil, err
		}
		m.Hints, m.SPKI, m.Enrolled = hints, spki, now.UTC()
		if err := s.certify(&m, pub); err != nil {
			return m, nil, err
		}
		if err := errors.Join(tx.Put(&m), use.mark(tx, spki, now.UTC())); err != nil {
			return m, nil, err
		}
	case codeRepeated: // it is answered, and changes nothing
		r := s.record(actionEnroll, from.String(), m.Identity(), nil, "again, "+detail)
		if !s.admits(m.Identity(), r, flapRecords) {
			return m, nil, nil
		}
		return m, before, tx.Append(r)
	case codeReused:
		r := s.record(actionEnrollRefused, from.String(), m.Identity(), errBadCode, "a used code with another "+detail)
		return m, nil, s.recordReuse(tx, m.Identity(), r)
	default:
		return m, nil, errBadCode
	}
	return m, before, tx.Append(s.record(actionEnroll, from.String(), m.Identity(), nil, detail))
}

// recordReuse writes into the audit that a used code was tried with another key: somebody has copied it. It returns
// what the client is told.
func (s *Server) recordReuse(tx *store.Tx, who identity.Name, r store.Record) error {
	if err := s.appendOf(tx, who, r, flapRecords); err != nil {
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
		return errors.Join(tx.Put(&member), s.appendOf(tx, peer.Name, s.record(actionRenew, from.String(), peer.Name, nil, "key "+spki.String()), flapRecords))
	})
	return identityOf(member), err
}

// renewTime is within which a renewal gets the certificate of the one before.
const renewTime = time.Minute

// justCertified reports whether the certificate of a member is not older than renewTime. One device that renews again and
// again could else push the audit records of all others out, and keep the database busy.
func (s *Server) justCertified(m store.Member) bool {
	chain, err := identity.ParseChain([]byte(m.Chain))
	if err != nil || len(chain) == 0 || s.cfg.Roots.Refuses(chain) { // it is what the member wants to leave behind
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
