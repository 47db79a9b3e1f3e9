package agent

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"hawser/identity"
	"hawser/internal/owner"
	"hawser/transport"
	"hawser/transport/control"
	"hawser/transport/mux"
	"hawser/transport/session"
	"hawser/transport/wire"
)

const (
	streamMemory = 8 << 20 // of all sessions together (session §6)
)

// sessions owns the running sessions. They outlive the control connection on which
// they were offered: losing the Access Server interrupts no session.
type sessions struct {
	agent   *Agent
	ctx     context.Context // of Agent.Run
	tasks   sync.WaitGroup
	memory  *mux.Budget // of all streams
	most    int         // streams of all sessions together
	open    connections // to machines
	closing closing     // of streams whose hours end
	life    Lifetime

	mu         sync.Mutex // guards all below
	link       *control.Link
	running    map[string]*running
	begun      map[string]time.Time // of sessions that run, or may come back; at most maxBegun
	rounds     int                  // how often all were judged again
	locked     bool                 // by the key switch: no session may run
	unreported []wire.EndSession    // ends that no Access Server was told of; at most maxSessions
}

// The identity is kept as it was at the offer: a renewal in between changes the certificate under the handshake.
type running struct {
	offer  wire.Offer
	self   *Self     // as it was when the offer came
	user   string    // the peer's name
	since  time.Time // of this epoch
	began  time.Time // of the first epoch
	cancel context.CancelCauseFunc
	owner  *owner.Owner // who judges; nil: none is known
	ledger ledger       // of this epoch

	// Guarded by sessions.mu.
	leaves   bool             // its place is somebody else's
	live     *session.Session // nil until admitted
	chain    []string         // of the peer's statements; nil: not told yet
	admitted bool
	verdict  identity.Verdict
}

// attach sets the control connection; nil: there is none. Ends of sessions that
// could not be reported are reported on it. The frames are written after the lock is released: a write may block for 10
// s, and offers wait for this lock.
func (s *sessions) attach(l *control.Link) {
	s.mu.Lock()
	s.link = l
	s.paceLocked()
	var say []wire.EndSession
	if l != nil {
		say, s.unreported = s.unreported, nil
	}
	s.mu.Unlock()
	for _, m := range say {
		l.EndSession(m) // an error means that the connection is lost, and link.Run returns it
	}
}

// paceLocked lets the control connection notice a loss sooner while somebody works: an idle one pings rarely, because
// some gateways pay for each byte of a mobile contract.
func (s *sessions) paceLocked() {
	s.agent.status.told.Ring()
	if s.link != nil {
		s.link.Busy(len(s.running) > 0)
	}
}

// consent decides about an offer (wire §4.5): "" accepts it. It is pure. Epoch is that of the same session if it runs
// already, or zero. The switch comes first: what is locked at the machine is told nobody anything more.
func consent(o wire.Offer, locked, authentic bool, epoch, count int) transport.Reason {
	switch {
	case locked:
		return transport.Locked
	case o.Role != wire.RoleRuntime || o.Session == "" || o.Epoch <= epoch:
		return transport.Protocol
	// Certificates of peers cannot be judged without the time.
	case !authentic:
		return transport.ClockWrong
	// One that moves is no further session: its old epoch ends as the new one begins.
	case count >= maxSessions && epoch == 0:
		return transport.Busy
	}
	return ""
}

// offer answers an offer, nil for consent, and starts the session if it consents. The same session
// in an older epoch ends: it continues over another relay. It is called by link.Run and must not block, so joining the
// relay is left to a goroutine, which wait waits for.
func (s *sessions) offer(o wire.Offer) *wire.Refusal {
	_, authentic := s.agent.clock.Floor()
	s.mu.Lock()
	defer s.mu.Unlock()
	epoch, old := 0, s.running[o.Session]
	if old != nil {
		epoch = old.offer.Epoch
	}
	user := "?"
	if name, err := identity.ParseName(o.Peer); err == nil {
		user = name.ID
	}
	// Under the lock: of two offers for the last place one is refused.
	goes, others, full := s.placeLocked(old, user)
	if reason := consent(o, s.locked, authentic, epoch, others); reason != "" {
		return &wire.Refusal{Reason: reason, Text: full}
	}
	if full != "" {
		return &wire.Refusal{Reason: transport.Busy, Text: full}
	}
	began := s.beganLocked(o, old)
	if time.Since(began) >= s.life.Max {
		return overdue(s.life.Max)
	}
	if old != nil {
		old.cancel(&transport.Error{Reason: transport.Moved, Op: "serve session"})
	}
	if goes != nil {
		s.giveWayLocked(goes, user)
	}
	s.agent.relays.used(o.Relay.Name)
	ctx, cancel := context.WithCancelCause(s.ctx)
	r := &running{offer: o, self: s.agent.self.Load(), user: user, since: time.Now(), began: began, cancel: cancel, ledger: newLedger()}
	s.running[o.Session] = r
	s.paceLocked()
	s.tasks.Go(func() { s.run(ctx, r) })
	return nil
}

// end ends a session at the Access Server's request. Who has ended it on purpose is told to the other end.
func (s *sessions) end(m wire.EndSession) {
	var why error = &transport.Error{Reason: m.Reason, Op: "serve session"}
	if m.Reason == transport.Ended {
		why = &wire.Refusal{Reason: m.Reason, Text: "the Access Server says: " + wire.Printable(m.Text)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.running[m.Session]; r != nil {
		r.cancel(why)
	}
}

// revoked ends the sessions whose peer is no longer accepted. The list is whole at each change and comes after each
// welcome, so one that was missed while offline is not lost.
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

// run serves one session from its offer to its end.
func (s *sessions) run(ctx context.Context, r *running) {
	log := s.agent.log.With("session", r.offer.Session, "relay", r.offer.Relay.Name, "user", r.offer.User)
	err := s.serve(ctx, r)
	r.cancel(nil)
	reason := transport.ReasonOf(err)
	s.agent.counts.over(r.live, reason)
	s.report(r, cmp.Or(reason, transport.Closed))
	s.ended(r, reason)
	var why any = err
	if own, ok := errors.AsType[*wire.Refusal](context.Cause(ctx)); ok {
		why = own.Text // it was this end that refused
	}
	log.Info("session ended", "reason", reason, "took", time.Since(r.since).Round(time.Millisecond), "err", why)
}

// ended removes a session and reports its end to the Access Server, or keeps the report for the next control
// connection. An end that nobody hears of would leave the session open at the server, and count against the device. The
// newest maxSessions ends are kept: a server that is away for weeks must not fill the memory of a gateway.
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
		return // it continues in another epoch, the agent stops, or the end was reported
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unreported = append(s.unreported, m); len(s.unreported) > maxSessions {
		s.unreported = s.unreported[1:]
	}
}

// serve joins the session and serves its streams until it ends; the error says why
// it ended.
func (s *sessions) serve(ctx context.Context, r *running) error {
	a := s.agent
	var noOwner error
	r.owner, noOwner = a.ownerOf(r.self)
	live, err := session.Join(uncounted(ctx), session.Config{Dialer: a.dialer, Certificate: r.self.Cert,
		Roots: r.self.Roots, Offer: r.offer, Now: a.clock.Now, Budget: s.memory, Streams: s.most, Hello: hello(r.owner), Hold: true})
	if err != nil {
		return cause(ctx, err)
	}
	// A stream in the middle of a write does not look at ctx; it ends when the session is closed below it.
	stop := context.AfterFunc(ctx, func() { part(ctx, live) })
	defer stop()
	// The infrastructure has sent this peer. The owner decides.
	if r.owner == nil {
		err = &wire.Refusal{Reason: transport.NotStated, Text: byRules + noOwner.Error()}
	} else {
		err = s.admit(ctx, r, live)
	}
	if err != nil {
		r.cancel(err)
		part(ctx, live)
		return cause(ctx, err)
	}
	a.counts.begin(live)
	a.log.Info("session up", "session", r.offer.Session, "relay", r.offer.Relay.Name, "user", r.offer.User, "role", s.rights(r).Role)
	s.mu.Lock()
	r.live = live
	s.mu.Unlock()

	var attending sync.WaitGroup
	defer attending.Wait()
	attending.Go(func() { s.attend(ctx, r, live) })
	attending.Go(func() { s.watch(ctx, r, live) })
	var streams sync.WaitGroup
	streaming, cancel := context.WithCancel(ctx)
	for {
		stream, err := live.Accept(ctx)
		if err != nil {
			break
		}
		streams.Go(func() { a.serveStream(streaming, stream, r) })
	}
	part(ctx, live)
	cancel() // ends connects under way and streams whose machine is silent
	streams.Wait()
	return cause(ctx, live.Err())
}

// cause returns the cause of ctx, if it ended, rather than the error of the
// connection that was closed because of it.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	return err
}

// load returns how many sessions run, and whether the key switch is locked.
func (s *sessions) load() (running int, locked bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.running), s.locked
}

// SessionStatus is a session as status shows it.
type SessionStatus struct {
	ID      string    `json:"id"`
	User    string    `json:"user"`
	Relay   string    `json:"relay"`
	Since   time.Time `json:"since"`
	Streams int       `json:"streams"`
}

// list returns the running sessions, oldest first.
func (s *sessions) list() []SessionStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.SortedFunc(maps.Values(s.running), func(a, b *running) int {
		return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.offer.Session, b.offer.Session))
	})
	now := s.agent.clock.Now()
	list := make([]SessionStatus, len(all))
	for i, r := range all {
		// Counted back from now by the monotonic clock: the clock may have been set by decades since the session began.
		list[i] = SessionStatus{ID: r.offer.Session, User: r.offer.User, Relay: r.offer.Relay.Name, Since: now.Add(-time.Since(r.since)).UTC().Truncate(time.Second)}
		if r.live != nil {
			list[i].Streams = r.live.Streams()
		}
	}
	return list
}
