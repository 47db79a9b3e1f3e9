package access

import (
	"context"
	"crypto"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

// enrol gives a device or relay its first identity (access §2).
func (s *Server) enrol(ctx context.Context, from netip.Addr, m wire.Enrol) (wire.Identity, error) {
	pub, spki, err := parseCSR(m.CSR)
	if err != nil {
		return wire.Identity{}, err
	}
	var id wire.Identity
	err = s.withCode(ctx, from, m.Code, func(code identity.Code, c codeRecord) error {
		member, err := s.enrolMember(ctx, from, code, c, pub, spki, cleanHints(m.Hints))
		if err == nil {
			id = identityOf(member)
		}
		return err
	})
	return id, err
}

// withCode finds the record of a code and hands it to use. Attempts that end
// in bad-code are limited; all of them look alike.
func (s *Server) withCode(ctx context.Context, from netip.Addr, text string, use func(identity.Code, codeRecord) error) error {
	attempt, wait := s.codes.begin(from, s.now())
	if attempt == nil {
		return busy(wait)
	}
	code, c, err := s.findCode(ctx, text)
	if err == nil {
		err = use(code, c)
	}
	if r, ok := errors.AsType[*wire.Refusal](err); !ok || r.Reason != transport.BadCode {
		s.codes.succeeded(attempt) // or failed through no fault of the client
	}
	return err
}

var errBadCode = refuse(transport.BadCode, "the code is unknown, used or expired")

func (s *Server) findCode(ctx context.Context, text string) (identity.Code, codeRecord, error) {
	code, err := identity.ParseCode(text)
	if err != nil {
		return code, codeRecord{}, errBadCode
	}
	c, _, err := load[codeRecord](ctx, s.cfg.Store, bucketCodes, code.LookupID())
	sum := code.Hash()
	switch {
	case errors.Is(err, ErrNotFound):
		return code, c, errBadCode
	case err != nil:
		return code, c, err
	case subtle.ConstantTimeCompare(sum[:], c.Hash[:]) != 1:
		return code, c, errBadCode
	}
	return code, c, nil
}

// enrolMember commits the enrolment in the member's record: whoever writes it
// first has the identity.
func (s *Server) enrolMember(ctx context.Context, from netip.Addr, code identity.Code, c codeRecord,
	pub crypto.PublicKey, spki identity.SPKI, hints map[string]string) (memberRecord, error) {
	bucket := bucketDevices
	switch c.Kind {
	case identity.KindRelay:
		bucket = bucketRelays
	case identity.KindDevice:
	default:
		return memberRecord{}, errBadCode
	}
	var v verdict
	m, err := update(ctx, s.cfg.Store, bucket, c.Key, func(m *memberRecord) (bool, error) {
		now := s.now()
		if v = judgeEnrol(*m, code, spki, now); v != verdictIssue {
			return false, nil
		}
		m.Hints = hints
		return true, s.certify(m, pub, enrolment{SPKI: spki, At: now.UTC()})
	})
	if errors.Is(err, ErrNotFound) {
		return m, errBadCode
	} else if err != nil {
		return m, err
	}
	return m, s.auditEnrol(ctx, from, m, v, spki)
}

// auditEnrol writes what came of an enrolment and returns what to answer.
func (s *Server) auditEnrol(ctx context.Context, from netip.Addr, m memberRecord, v verdict, spki identity.SPKI) error {
	actor := from.String()
	switch v {
	case verdictIssue:
		return s.audit(ctx, actionEnrol, actor, m.name(), nil, "key "+spki.String())
	case verdictAgain:
		return s.audit(ctx, actionEnrol, actor, m.name(), nil, "again, key "+spki.String())
	case verdictAlarm:
		err := s.audit(ctx, actionEnrolRefused, actor, m.name(), errBadCode, "a used code with another key "+spki.String())
		return errors.Join(err, errBadCode)
	}
	return errBadCode
}

// certify issues a certificate for a member and puts it into its record.
func (s *Server) certify(m *memberRecord, pub crypto.PublicKey, e enrolment) error {
	chain, err := s.issue(m.name(), pub, memberLife)
	if err != nil {
		return err
	}
	e.Chain, e.NotAfter = string(identity.MarshalChain(chain)), chain[0].NotAfter.UTC()
	m.Enrolled = &e
	return nil
}

func identityOf(m memberRecord) wire.Identity {
	return wire.Identity{Chain: m.Enrolled.Chain, Domain: m.Domain, UID: m.UID, Name: m.Name}
}

// newCode makes a code for a record and stores what it is for. Lookup ids are
// short, so that one may be taken.
func newCode(ctx context.Context, store Store, kind identity.Kind, domain, key string, now time.Time) (identity.Code, codeRef, error) {
	for range 10 {
		code := identity.NewCode()
		ref := codeRef{code.LookupID(), hash(code.Hash()), now.Add(codeLife).UTC().Truncate(time.Second)}
		c := codeRecord{Kind: kind, Domain: domain, Key: key, Hash: ref.Hash, Expires: ref.Expires}
		if err := save(ctx, store, bucketCodes, ref.Lookup, c, 0); !errors.Is(err, ErrConflict) {
			return code, ref, err
		}
	}
	return identity.Code{}, codeRef{}, fmt.Errorf("make code: %w", ErrConflict)
}

// Bounds of the hints that a device gives about its hardware.
const (
	maxHints     = 16
	maxHintBytes = 64
)

// cleanHints keeps the hints that are short and harmless to show. They are a
// signal for people, so one that is not is just left out.
func cleanHints(hints map[string]string) map[string]string {
	clean := make(map[string]string)
	for k, v := range hints {
		ok := len(k) <= maxHintBytes && len(v) <= maxHintBytes && k != "" && printable(k) == k && printable(v) == v
		if ok && len(clean) < maxHints {
			clean[k] = v
		}
	}
	return clean
}
