package access

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/wire"
)

// errNotNow is why a report is not answered: the device comes again.
var errNotNow = errors.New("the device has used up its share of the audit")

// reportFrom takes a device's report of a session, and answers when it is on the disk, or is refused for good (wire §4.10).
func (s *Server) reportFrom(ctx context.Context, l *link, f wire.Frame) error {
	if l.peer.Name.Kind != identity.KindDevice {
		return unexpected(f)
	}
	jws := string(f.Payload)
	refused, err := s.takeReport(ctx, l.peer, jws)
	switch {
	case errors.Is(err, errNotNow):
		s.log.Debug("session report has to wait", "uid", l.peer.Name.ID)
	case err != nil:
		s.logFailure("session report not kept", err, "uid", l.peer.Name.ID)
	default:
		l.send(encode(wire.TypeReportAck, wire.ReportAck{Report: wire.ReportID(jws), Reason: refused}))
	}
	return nil
}

// takeReport writes a report into the audit, once; the reason says that it never will be. Who sends what the device did not
// sign, or what is about another one's session, changes nothing. A session that has ended may be reported all the same.
func (s *Server) takeReport(ctx context.Context, peer identity.Peer, jws string) (refused transport.Reason, err error) {
	r, err := identity.ParseReport(jws)
	if err != nil {
		return transport.Protocol, nil
	}
	if identity.DeviceName(r.Domain, r.UID) != peer.Name {
		return transport.WrongName, nil
	}
	// The key of this connection, which the registry has for this device.
	if key, err := identity.NewPublicKey(peer.Leaf.PublicKey); err != nil || !r.SignedBy(key) {
		return transport.WrongKey, nil
	}
	if !s.flaps.admitReport(peer.Name, time.Now()) {
		return "", errNotNow
	}
	record := s.record(actionSessionReport, identity.UserName(r.Domain, r.User).String(), peer.Name, nil, summary(r.Report))
	record.Report = jws
	// Also while rows are missing, as the ends of sessions: it grants nothing.
	err = s.store.UpdateAlways(ctx, func(tx *store.Tx) error {
		refused = ""
		session := store.Session{ID: r.Session}
		switch err := tx.Get(&session); {
		case errors.Is(err, store.ErrDamaged):
			refused = transport.Damaged
			return nil
		case err != nil && !errors.Is(err, store.ErrNotFound):
			return err
		case err != nil, session.DeviceIdentity() != peer.Name, session.User != r.User, uint64(session.Epoch) < r.Epoch:
			refused = transport.NoSession
			return nil
		}
		err := tx.Insert(&store.Reported{ID: sha256.Sum256([]byte(jws)), At: s.now().UTC()})
		if errors.Is(err, store.ErrExists) {
			return nil // the answer was lost
		}
		return errors.Join(err, tx.Append(record))
	})
	return refused, err
}

// summary is for people who read the audit without looking into the report.
func summary(r identity.Report) string {
	sum := r.More
	for _, e := range r.Streams {
		sum.Add(e.Carried)
	}
	text := fmt.Sprintf("session %s epoch %d part %d: %d streams, %d bytes in, %d out", r.Session, r.Epoch, r.Part, sum.Count, sum.In, sum.Out)
	if r.Reason != "" {
		text += ", ended: " + r.Reason
	}
	return text
}
