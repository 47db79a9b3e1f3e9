package access

import (
	"context"
	"errors"
	"time"

	"hawser/identity"
	"hawser/transport"
)

// revoke takes a device out of service at once (access §1, §6). The key is put
// on the list first: if the server dies in between, the device is out already.
func (s *Server) revoke(ctx context.Context, user identity.Peer, uid identity.UID) (memberRecord, error) {
	m, err := update(ctx, s.cfg.Store, bucketDevices, uid.String(), func(m *memberRecord) (bool, error) {
		now := s.now().UTC()
		if e := m.Enrolled; e != nil {
			r := revokedRecord{Name: m.name().String(), When: now}
			if err := save(ctx, s.cfg.Store, bucketRevoked, e.SPKI.String(), r, 0); err != nil && !errors.Is(err, ErrConflict) {
				return false, err
			}
		}
		if m.Revoked != nil {
			return false, nil
		}
		m.Revoked = &now
		return true, nil
	})
	if err != nil {
		return m, err
	}
	if m.Enrolled != nil {
		now, spki := s.now(), m.Enrolled.SPKI
		s.presence.revoke(spki, now)
		if err := s.tell(ctx, news{Revoked: map[identity.SPKI]time.Time{spki: now}}); err != nil {
			return m, err
		}
	}
	for _, r := range s.sessions.of(uid) {
		if err := s.endSession(ctx, r.Session, user.Name.String(), transport.Revoked); err != nil {
			return m, err
		}
	}
	return m, s.audit(ctx, actionDeviceRevoke, user.Name.String(), m.name(), nil, "")
}
