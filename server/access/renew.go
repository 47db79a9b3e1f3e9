package access

import (
	"context"
	"crypto/x509"
	"errors"
	"net/netip"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

// renew gives a device or relay a new certificate for the key that it has
// proven in TLS and that the registry holds (access §3). The dates of its
// present certificate do not count: a gateway comes back after years.
func (s *Server) renew(ctx context.Context, from netip.Addr, chain []*x509.Certificate, m wire.Renew) (wire.Identity, error) {
	if len(chain) == 0 {
		return wire.Identity{}, refuse(transport.NotEnrolled, "no client certificate")
	}
	peer, err := identity.VerifyIgnoringDates(chain, s.cfg.Roots, identity.KindDevice, identity.KindRelay)
	if err != nil {
		return wire.Identity{}, unproven(err)
	}
	pub, spki, err := parseCSR(m.CSR)
	if err != nil {
		return wire.Identity{}, err
	}
	if spki != peer.SPKI {
		return wire.Identity{}, refuse(transport.WrongKey, "the CSR has another key than the client certificate")
	}
	bucket, key := memberAt(peer.Name)
	member, err := update(ctx, s.cfg.Store, bucket, key, func(m *memberRecord) (bool, error) {
		if err := s.known(*m, peer); err != nil {
			return false, err
		}
		return true, s.certify(m, pub, *m.Enrolled)
	})
	if errors.Is(err, ErrNotFound) {
		return wire.Identity{}, refuse(transport.NotEnrolled, "not in the registry")
	} else if err != nil {
		return wire.Identity{}, err
	}
	err = s.audit(ctx, actionRenew, from.String(), peer.Name, nil, "key "+spki.String())
	return identityOf(member), err
}

// known refuses a verified peer that is not the one of the record.
func (s *Server) known(m memberRecord, peer identity.Peer) error {
	reason := judgeMember(m, peer.SPKI)
	switch {
	case m.name() != peer.Name: // the domain is not part of the key
		reason = transport.NotEnrolled
	case s.presence.isRevoked(peer.SPKI):
		reason = transport.Revoked
	}
	if reason == "" {
		return nil
	}
	return refuse(reason, "not accepted by the registry")
}
