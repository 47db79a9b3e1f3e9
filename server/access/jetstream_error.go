package access

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// storeError gives the client library's errors our words.
func (s *jetStream) storeError(verb, bucket, key string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jetstream.ErrKeyNotFound), errors.Is(err, jetstream.ErrKeyDeleted):
		err = ErrNotFound
	case errors.Is(err, jetstream.ErrKeyExists), errors.Is(err, jetstream.ErrKeyRevisionMismatch):
		err = ErrConflict
	}
	return fmt.Errorf("%s %s %q: %w", verb, bucket, key, s.away(err))
}

// away says which server is away when err is of that kind.
func (s *jetStream) away(err error) error { return awayError(s.conn, err) }

func awayError(conn *nats.Conn, err error) error {
	if !isAway(err) {
		return err
	}
	return fmt.Errorf("NATS server %s %w: %w", serverOf(conn), ErrAway, err)
}

// serverOf names the servers that a connection is for, without passwords.
func serverOf(conn *nats.Conn) string {
	if url := conn.ConnectedUrlRedacted(); url != "" {
		return url
	}
	return redacted(conn.Servers())
}

// isAway reports whether err is no answer of a store, but says that none came.
func isAway(err error) bool {
	for _, e := range []error{
		nats.ErrConnectionClosed, nats.ErrReconnectBufExceeded, nats.ErrConnectionReconnecting, nats.ErrDisconnected,
		nats.ErrTimeout, nats.ErrNoServers, context.DeadlineExceeded,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	api, ok := errors.AsType[*jetstream.APIError](err)
	return isMissing(err) || ok && api.Code == 503
}

// isMissing reports whether err says that a stream is not there, or that
// nobody is who could know.
func isMissing(err error) bool {
	return errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrNoStreamResponse) ||
		errors.Is(err, jetstream.ErrBucketNotFound) || errors.Is(err, nats.ErrNoResponders)
}
