package agent

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"hawser/transport"
	"hawser/transport/control"
	"hawser/transport/session"
	"hawser/transport/wire"
)

const maxSessions = 16

// sessions owns the sessions that run. They outlive the control connection that
// brought them: an Access Server that is away ends nobody's work.
type sessions struct {
	agent *Agent
	ctx   context.Context // of Agent.Run
	tasks sync.WaitGroup

	mu      sync.Mutex // guards all below
	link    *control.Link
	running map[string]*running
	locked  bool              // by the key switch: none runs, none begins
	unsaid  []wire.EndSession // ends that no Access Server knows of; at most maxSessions
}

type running struct {
	offer  wire.Offer
	self   *Self // as it was when the offer came
	since  time.Time
	cancel context.CancelCauseFunc
	live   *session.Session // nil until joined
}

// attach names the control connection that is in force; nil: none.
func (s *sessions) attach(l *control.Link) {
	s.mu.Lock()
	s.link = l
	s.paceLocked()
	var say []wire.EndSession
	if l != nil {
		say, s.unsaid = s.unsaid, nil
	}
	s.mu.Unlock()
	for _, m := range say {
		l.EndSession(m) // if that fails, so does the connection, and its end tells as much
	}
}

func (s *sessions) paceLocked() {
	s.agent.status.told.ring()
	if s.link != nil {
		s.link.Busy(len(s.running) > 0)
	}
}

// consent decides about an offer (wire §4.5). It is pure. Epoch is the one in
// which the session runs already, or zero.
func consent(o wire.Offer, locked, authentic bool, epoch, count int) transport.Reason {
	switch {
	case locked:
		return transport.Locked
	case o.Role != wire.RoleRuntime || o.Session == "" || o.Epoch <= epoch:
		return transport.Protocol
	case o.Crypto != wire.CryptoNested:
		return transport.Unsupported
	case !authentic:
		return transport.ClockWrong
	case count >= maxSessions && epoch == 0:
		return transport.Busy
	}
	return ""
}

// offer answers an offer and starts the session that it consents to. One that
// runs in an older epoch ends: it goes on over another relay.
func (s *sessions) offer(o wire.Offer) transport.Reason {
	_, authentic := s.agent.clock.Floor()
	s.mu.Lock()
	defer s.mu.Unlock()
	epoch, old := 0, s.running[o.Session]
	if old != nil {
		epoch = old.offer.Epoch
	}
	if reason := consent(o, s.locked, authentic, epoch, len(s.running)); reason != "" {
		return reason
	}
	if old != nil {
		old.cancel(&transport.Error{Reason: transport.Moved, Op: "serve session"})
	}
	s.agent.relays.used(o.Relay.Name)
	ctx, cancel := context.WithCancelCause(s.ctx)
	r := &running{offer: o, self: s.agent.self.Load(), since: time.Now(), cancel: cancel}
	s.running[o.Session] = r
	s.paceLocked()
	s.tasks.Go(func() { s.run(ctx, r) })
	return ""
}

// end ends a session because somebody said so.
func (s *sessions) end(id string, reason transport.Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.running[id]; r != nil {
		r.cancel(&transport.Error{Reason: reason, Op: "serve session"})
	}
}

// revoked ends the sessions whose peer is no longer accepted.
func (s *sessions) revoked(m wire.Revoked) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.running {
		if slices.Contains(m.SPKI, r.offer.PeerSPKI) {
			r.cancel(&transport.Error{Reason: transport.Revoked, Op: "serve session"})
		}
	}
}

func (s *sessions) wait() { s.tasks.Wait() }

// run is one session, from its offer to its end.
func (s *sessions) run(ctx context.Context, r *running) {
	log := s.agent.log.With("session", r.offer.Session, "relay", r.offer.Relay.Name, "user", r.offer.User)
	err := s.serve(ctx, r)
	r.cancel(nil)
	reason := transport.ReasonOf(err)
	s.ended(r, reason)
	log.Info("session ended", "reason", reason, "took", time.Since(r.since).Round(time.Millisecond), "err", err)
}

// ended books the end of a session and tells the Access Server: this one, or
// the next that is there.
func (s *sessions) ended(r *running, reason transport.Reason) {
	s.mu.Lock()
	link, current := s.link, s.running[r.offer.Session] == r
	if current {
		delete(s.running, r.offer.Session)
		s.paceLocked()
	}
	s.mu.Unlock()
	m := wire.EndSession{Session: r.offer.Session, Reason: reason}
	if !current || s.ctx.Err() != nil || link != nil && link.EndSession(m) == nil {
		return // else: it goes on in another epoch, all ends, or it is told
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unsaid = append(s.unsaid, m); len(s.unsaid) > maxSessions {
		s.unsaid = s.unsaid[1:]
	}
}

// serve joins and serves streams until the session ends; the error says why.
func (s *sessions) serve(ctx context.Context, r *running) error {
	a := s.agent
	live, err := session.Join(ctx, session.Config{Dialer: a.dialer, Certificate: r.self.Cert,
		Roots: r.self.Roots, Offer: r.offer, Now: a.clock.Now})
	if err != nil {
		return cause(ctx, err)
	}
	a.log.Info("session up", "session", r.offer.Session, "relay", r.offer.Relay.Name, "user", r.offer.User)
	s.mu.Lock()
	r.live = live
	s.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { live.Close() })
	defer stop()

	var streams sync.WaitGroup
	streaming, cancel := context.WithCancel(ctx)
	for {
		stream, err := live.Accept(ctx)
		if err != nil {
			break
		}
		streams.Go(func() { a.serveStream(streaming, stream, r.offer) })
	}
	live.Close()
	cancel() // a machine that is being reached, or that says nothing, shall not keep the session
	streams.Wait()
	return cause(ctx, live.Err())
}

// cause prefers what the owner of ctx had to say over what that did to a
// connection.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	return err
}

// load is how many sessions run, and whether the key switch keeps more out.
func (s *sessions) load() (running int, locked bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.running), s.locked
}

// SessionStatus is what status says of a session.
type SessionStatus struct {
	ID      string    `json:"id"`
	User    string    `json:"user"`
	Relay   string    `json:"relay"`
	Since   time.Time `json:"since"`
	Streams int       `json:"streams"`
}

// list returns the sessions that run, oldest first.
func (s *sessions) list() []SessionStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.SortedFunc(maps.Values(s.running), func(a, b *running) int {
		return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.offer.Session, b.offer.Session))
	})
	now := s.agent.clock.Now()
	list := make([]SessionStatus, len(all))
	for i, r := range all {
		list[i] = SessionStatus{ID: r.offer.Session, User: r.offer.User, Relay: r.offer.Relay.Name, Since: now.Add(-time.Since(r.since)).UTC().Truncate(time.Second)}
		if r.live != nil {
			list[i].Streams = r.live.Streams()
		}
	}
	return list
}
