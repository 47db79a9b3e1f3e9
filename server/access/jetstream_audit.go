package access

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// Subjects of the audit stream are audit.NODE.DOMAIN; noDomain stands for none,
// which no label can be.
const (
	auditStream   = "audit"
	auditSubjects = "audit.*.*"
	noDomain      = "_"
)

// auditSubject returns the subject of a record, or the filter for many when
// empty stands for "any".
func auditSubject(node, domain, empty string) string {
	if node == "" {
		node = empty
	}
	if domain == "" {
		domain = empty
	}
	return "audit." + node + "." + domain
}

func (s *jetStream) Append(ctx context.Context, node, domain string, record []byte) error {
	if _, err := s.js.Publish(ctx, auditSubject(node, domain, noDomain), record); err != nil {
		return fmt.Errorf("append audit record: %w", s.away(err))
	}
	return nil
}

// Records looks into ever larger windows at the end of the stream, since a
// stream can only be read forwards and other domains' records lie between.
func (s *jetStream) Records(ctx context.Context, node, domain string, limit int) ([][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	info, err := s.audit.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("read audit: %w", s.away(err))
	}
	first, last := info.State.FirstSeq, info.State.LastSeq
	for window := uint64(limit); ; window *= 8 {
		from := first
		if last >= first && last-first >= window {
			from = last - window + 1
		}
		records, err := s.recordsFrom(ctx, from, last, auditSubject(node, domain, "*"), limit)
		if err != nil {
			return nil, fmt.Errorf("read audit: %w", s.away(err))
		}
		if len(records) >= limit || from == first {
			return records, nil
		}
	}
}

// recordsFrom returns the last limit records of a filter in [from, last].
func (s *jetStream) recordsFrom(ctx context.Context, from, last uint64, filter string, limit int) ([][]byte, error) {
	var records [][]byte
	for seq := from; seq <= last && last > 0; seq++ {
		m, err := s.audit.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(filter))
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound):
			return records, nil
		case err != nil:
			return nil, err
		case m.Sequence > last:
			return records, nil
		}
		if records = append(records, m.Data); len(records) > limit {
			records = records[1:]
		}
		seq = m.Sequence
	}
	return records, nil
}
