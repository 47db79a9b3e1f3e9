package access

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// NATS says which NATS server, or cluster, an Access Server keeps its state in.
type NATS struct {
	URLs        []string // nats://HOST:PORT or tls://HOST:PORT; more than one of a cluster
	Credentials string   // file; empty: none
	Name        string   // of this client, shown by the server
}

// How an external server is watched and found again.
const (
	natsPing      = 5 * time.Second // two without an answer: away
	natsReconnect = time.Second     // between two attempts, for ever
	clustered     = 3               // replicas of a stream in a cluster
)

// OpenNATS opens the Store in an external NATS server with JetStream, and the
// Bus over it to all who have the same. It blocks until it is there, 30 s at
// most; ErrAway says that it is not. Afterwards the connection is made again
// for ever; while it is down every call fails with ErrAway, at once or, when it
// was on its way, after 10 s at most. Closing the Store ends the Bus.
func OpenNATS(o NATS) (Store, Bus, error) {
	s, err := connect(o)
	if err == nil {
		if err = s.open(); err != nil {
			err = fmt.Errorf("JetStream of %s: %w", serverOf(s.conn), s.away(err))
			err = errors.Join(err, s.Close())
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open store: %w", err)
	}
	return s, &natsBus{conn: s.conn}, nil
}

// CheckNATS says what Store.Check would, and makes nothing: a server that has
// no store of ours yet is fine.
func CheckNATS(ctx context.Context, o NATS, clockSet, now time.Time) (text string, err error) {
	s, err := connect(o)
	if err != nil {
		return "", fmt.Errorf("check store: %w", err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if s.js, err = jetstream.New(s.conn, jetstream.WithDefaultTimeout(storeTimeout)); err != nil {
		return "", fmt.Errorf("check store: %w", err)
	}
	s.audit, err = s.js.Stream(ctx, auditStream)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return fmt.Sprintf("NATS %s at %s has no store yet: init or run makes it", s.conn.ConnectedServerVersion(), serverOf(s.conn)), nil
	case err != nil:
		return "", fmt.Errorf("check store: JetStream of %s: %w", serverOf(s.conn), s.away(err))
	}
	if text, err = s.Check(ctx); err == nil {
		err = CheckClock(ctx, s, clockSet, now)
	}
	return text, err
}

// connect connects and makes nothing.
func connect(o NATS) (*jetStream, error) {
	options := []nats.Option{
		nats.Name(o.Name), nats.Timeout(storeTimeout), nats.PingInterval(natsPing), nats.MaxPingsOutstanding(2),
		nats.MaxReconnects(-1), nats.ReconnectWait(natsReconnect),
		nats.ReconnectBufSize(-1), // what cannot be sent now fails now: nothing is written late
	}
	if o.Credentials != "" {
		options = append(options, nats.UserCredentials(o.Credentials))
	}
	conn, err := nats.Connect(strings.Join(o.URLs, ","), options...)
	if err != nil {
		return nil, fmt.Errorf("NATS server %s %w: %w", redacted(o.URLs), ErrAway, err)
	}
	s := &jetStream{conn: conn, replicas: 1}
	if conn.ConnectedClusterName() != "" {
		s.replicas = clustered
	}
	return s, nil
}

// redacted lists servers without what may be secret in their URLs.
func redacted(urls []string) string {
	var clean []string
	for _, u := range urls {
		if at := strings.LastIndex(u, "@"); at >= 0 {
			scheme, _, _ := strings.Cut(u, "//")
			u = scheme + "//" + u[at+1:]
		}
		clean = append(clean, u)
	}
	return strings.Join(clean, ",")
}

// foundExternal says what the server tells. When it syncs it tells no client.
func (s *jetStream) foundExternal() (string, error) {
	if !s.conn.IsConnected() {
		return "", fmt.Errorf("NATS server %s %w", serverOf(s.conn), ErrAway)
	}
	where := "a single server"
	if cluster := s.conn.ConnectedClusterName(); cluster != "" {
		where = "cluster " + cluster
	}
	return fmt.Sprintf("NATS %s at %s, %s, %d replicas; whether it syncs before it acknowledges it does not tell: "+
		"its own configuration must say sync_interval: always",
		s.conn.ConnectedServerVersion(), serverOf(s.conn), where, s.audit.CachedInfo().Config.Replicas), nil
}
