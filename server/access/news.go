package access

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"hawser/identity"
)

// news is what a node publishes (access §9). Whoever hears it looks into the
// store, unless it holds all there is to know.
type news struct {
	Node     string                      `json:"node"`               // that says so; alone: it came or left
	Attached string                      `json:"attached,omitempty"` // name URI that came, changed or left
	Revoked  map[identity.SPKI]time.Time `json:"revoked,omitempty"`
	Session  *sessionNews                `json:"session,omitempty"`
}

// sessionNews is what a node knows of a session.
type sessionNews struct {
	Record sessionRecord `json:"record"`
	Agreed int           `json:"agreed"` // the newest epoch that the Runtime has consented to
	Lost   bool          `json:"lost"`   // it ends soon if it is not moved
}

func (s *Server) tell(ctx context.Context, n news) error {
	n.Node = s.cluster.node
	b, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("publish news: %w", err)
	}
	return s.cluster.bus.Publish(ctx, b)
}

// tellSession tells the others what has become of a session. They read it in
// the store in any case when they missed it.
func (s *Server) tellSession(ctx context.Context, id string) {
	n := s.sessions.news(id)
	if n == nil {
		return
	}
	s.tellAny(ctx, news{Session: n})
}

// tellAny is tell for news that the others can do without.
func (s *Server) tellAny(ctx context.Context, n news) {
	if err := s.tell(ctx, n); err != nil {
		s.log.Warn("the other Access Servers are not told", "err", err)
	}
}

// hear takes the news of another node.
func (s *Server) hear(message []byte) {
	var n news
	if err := json.Unmarshal(message, &n); err != nil {
		s.log.Error("news from another Access Server", "err", err)
		return
	}
	if n.Node == s.cluster.node {
		return
	}
	switch {
	case len(n.Revoked) > 0:
		s.presence.revokeAll(n.Revoked, s.now())
	case n.Session != nil:
		s.sessions.learn(*n.Session, time.Now())
		s.reckon()
	case n.Attached != "":
		s.hearAttached(n.Attached)
	default:
		s.cluster.note(func() { s.cluster.moved = true })
	}
}

func (s *Server) hearAttached(uri string) {
	name, err := identity.ParseName(uri)
	if err != nil {
		s.log.Error("news from another Access Server", "err", err)
		return
	}
	if s.presence.find(name) != nil { // two have it: the record says who is newer
		s.cluster.touch(name)
	}
	if name.Kind == identity.KindRelay {
		s.cluster.note(func() { s.cluster.moved = true })
	}
}

// missed makes this node read what it may not have heard.
func (s *Server) missed() {
	s.cluster.note(func() { s.cluster.behind = true })
}
