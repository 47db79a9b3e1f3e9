package owner

import (
	"bytes"
	"time"

	"hawser/identity"
)

// Offered reads the root's word that the domain has another key (identity §12.2), if it is newer than the last one that was
// taken. It changes nothing.
func (o *Owner) Offered(raw []byte, roots *identity.Roots) (identity.DomainReset, error) {
	k := o.now()
	return identity.VerifyDomainReset(raw, roots, k.pinned.Domain, k.sequence)
}

// TakeReset pins the key of a domain reset, whatever the key before has signed or signs. It is taken once: what is not newer,
// or not by a pinned root, changes nothing and is no error. statements came along: the key of the reset may have been replaced
// since by its own word. The error is that of the medium. Whoever calls it has decided that the root may do so here.
func (o *Owner) TakeReset(raw []byte, roots *identity.Roots, statements []string) (taken bool, err error) {
	if _, err := o.Offered(raw, roots); err != nil {
		return false, nil
	}
	err = o.update(func(before known) (known, bool) {
		r, err := identity.VerifyDomainReset(raw, roots, before.pinned.Domain, before.sequence)
		if taken = err == nil; !taken {
			return before, false
		}
		k := before.withReset(r, raw).withChanges(parse(statements))
		if k.pinned != before.pinned {
			// A thief may have given the statement about this end the greatest serial, after which nothing newer would be asked for.
			k.own = nil
		}
		return k, true
	})
	return taken && err == nil, err
}

func (k known) withReset(r identity.DomainReset, raw []byte) known {
	// Changes lead from one key to the next: those before it lead nowhere any more.
	k.pinned.Key, k.sequence, k.reset, k.changes = r.Key, r.Sequence, bytes.Clone(raw), nil
	return k
}

// EnrolledBy takes all resets for taken that are older than the invite of a chain: whoever made it knew the key that was
// pinned by it. An older reset, held back until now, would lead to a key that may have been stolen since. A serial ahead of
// the clock counts as the clock, so that a thief's invite does not shut resets out for ever.
func (o *Owner) EnrolledBy(chain []string, now time.Time) error {
	var serial uint64
	for _, jws := range chain {
		if s, err := identity.ParseStatement(jws); err == nil {
			if invite, ok := s.Statement.(identity.InviteStatement); ok {
				serial = max(serial, min(invite.Serial, uint64(max(now.UnixMilli(), 0))))
			}
		}
	}
	return o.update(func(k known) (known, bool) {
		newer := serial > k.sequence
		k.sequence = max(serial, k.sequence)
		return k, newer
	})
}

// Reset is the last domain reset for somebody who has pinned the domain key with this hash (zero: he does not say), nil when
// he lacks none. What follows it is in News.
func (o *Owner) Reset(domain identity.SPKI) []byte {
	k := o.now()
	if domain.IsZero() || domain == k.pinned.Key.SPKI() {
		return nil
	}
	return k.reset
}
