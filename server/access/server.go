package access

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"hawser/identity"
	"hawser/internal/wait"
	"hawser/server/count"
	"hawser/server/gate"
	"hawser/server/grant"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/wire"
)

// Limits and lifetimes of access §2 to §6 and wire §5.3.
const (
	defaultHeartbeat = 120 * time.Second
	preludeTimeout   = 10 * time.Second // until a connection has named its purpose
	writeTimeout     = 10 * time.Second // of one frame
	offerTimeout     = 5 * time.Second  // wire §4.5
	codeLife         = 72 * time.Hour
	repeatTime       = 24 * time.Hour // the same code and key are answered again
	memberLife       = 30 * 24 * time.Hour
	userLife         = 12 * time.Hour
	seenLife         = 90 * 24 * time.Hour // a user who was not seen for so long logs in with a new code
	backdate         = time.Hour           // for verifiers whose clock is a little behind
	serverLife       = 30*24*time.Hour - backdate
)

// Config is what an Access Server is made of. Everything except FloorResets, DomainResets, RefusedKeys, ClockSet, Heartbeat,
// Descriptors, Shared, Bus, Now, Logger and Metrics must be set.
type Config struct {
	Name     identity.Name // of kind access
	Hosts    []string      // where clients reach this server; logins are told
	Ports    []transport.Port
	Roots    *identity.Roots
	Issuing  *identity.Authority
	TimeKey  crypto.Signer // signs time (identity §6)
	TimeCert *x509.Certificate
	Grant    grant.Signer
	// FloorResets is a directory with the floor resets to send (access §10), or empty. It need not exist, and is read
	// for each request, so that a new reset needs no restart.
	FloorResets string
	// DomainResets is a directory with the domain resets to apply (access §11), or empty. It need not exist either.
	DomainResets string
	// RefusedKeys is a directory with lists of refused keys (access §12), or empty. It need not exist either.
	RefusedKeys string
	// ClockSet is when an operator has corrected a wrong clock: later times that are in the store at the start are
	// ignored when the clock is judged. Zero: none is ignored.
	ClockSet time.Time
	// Heartbeat is how often idle clients ping (wire §4.6); zero: 120 s.
	Heartbeat time.Duration
	Store     *store.Store // opened as the node Name.ID; its opener closes it after Run and all Serve calls have returned
	// Descriptors is how many the process may open, of which those who have not proven who they are get a share; zero: any
	// number.
	Descriptors int
	Shared      bool             // other Access Servers may be on the same database
	Bus         Bus              // to those; nil: over the network (ServeNode)
	Now         func() time.Time // nil: time.Now
	Logger      *slog.Logger     // nil: none
	Metrics     *metrics.Set     // where this one server counts; nil: nowhere
}

// Server is an Access Server. Its methods are safe for concurrent use. Each member locks itself; there is no lock of
// the whole.
type Server struct {
	cfg        Config
	log        *slog.Logger
	store      *records
	clock      clock
	codes      failures
	asked      failures // questions of those who wait to be claimed: no failures, but limited in the same way
	claims     claims
	places     places
	admission  admission
	turns      chan struct{} // one in it for each who is in inTurn
	cert       serverCertificate
	cluster    cluster
	owners     owners
	presence   presence
	sessions   sessions
	measured   measurements
	flaps      flaps
	refused    refusedKeys
	dueChanged wait.Bell     // something is due earlier than maintain knows
	sequence   atomic.Uint64 // of signed times
	badResets  gate.Throttle
	damaged    gate.Throttle
	badNodes   gate.Throttle
	counted    *counters

	life  context.Context // ends with Run
	end   context.CancelFunc
	ready chan struct{} // closed when Run has read the store
	began time.Time     // set before ready is closed
}

// New checks cfg and returns a Server that does nothing before Run. It does no I/O. A mistake in cfg is found here and
// not at the first connection.
func New(cfg Config) (*Server, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("make access server: %w", err)
	}
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = defaultHeartbeat
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	set := count.SetOr(cfg.Metrics)
	st := newRecords(cfg.Store, cfg.Logger)
	s := &Server{
		cfg: cfg, log: cfg.Logger, store: st,
		measured:   measurements{store: st},
		places:     newPlaces(cfg.Descriptors, cfg.Logger, set),
		dueChanged: wait.NewBell(),
		counted:    newCounters(set),
		ready:      make(chan struct{}),
		turns:      make(chan struct{}, atOnce),
	}
	s.clock.now = cfg.Now
	s.cluster.init(cfg, st)
	if cfg.Shared && cfg.Bus == nil {
		s.cluster.bus = newPeers(s)
	}
	// Of the server and not of a request: ServeConn has the context of the listener, and must end with Run as well.
	s.life, s.end = context.WithCancel(context.Background())
	s.exportState(set)
	return s, nil
}

func (c *Config) check() error {
	switch {
	case c.Name.Kind != identity.KindAccess:
		return errors.New("name is not an access server's")
	case c.Roots == nil || c.Issuing == nil:
		return errors.New("no roots or no issuing authority")
	case c.TimeKey == nil || c.TimeCert == nil || c.Grant.Key == nil || c.Grant.Cert == nil:
		return errors.New("no time key or no grant key")
	case c.Store == nil:
		return errors.New("no store")
	case c.Heartbeat < 0 || c.Heartbeat > 0 && c.Heartbeat < time.Second:
		return errors.New("heartbeat is under 1 s")
	}
	return nil
}

// Run reads the store and then blocks until ctx ends; when it returns, every ServeConn and ServeAPI returns soon. It
// returns nil on cancel, and store.ErrInUse if another process has this node's name. Connections that are served before
// Run has read the store wait for it.
func (s *Server) Run(ctx context.Context) error {
	defer s.end()
	err := s.run(ctx)
	if err == nil || ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("run access server: %w", err)
}

func (s *Server) run(ctx context.Context) error {
	// Joined before the store is read, so that a hint about a change during that is not missed.
	leave, err := s.cluster.join(s)
	if err != nil {
		return err
	}
	defer leave()
	if err := s.load(ctx); err != nil {
		return err
	}
	// After the store was read: a lease is good for 15 s, and reading a large store may take longer.
	if err := s.cluster.lease.take(ctx); err != nil {
		return err
	}
	defer s.leaveCluster(ctx)
	if err := s.announce(ctx); err != nil {
		return err
	}
	if err := s.clusterStep(ctx, false); err != nil {
		return err
	}
	s.takeResets(ctx)
	// Connections were accepted meanwhile and wait: a client that is refused would search all other ports in vain.
	s.began = time.Now()
	close(s.ready)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var owned sync.WaitGroup
	defer owned.Wait()
	owned.Go(func() { s.maintain(ctx) })
	owned.Go(func() { s.store.Scrub(ctx) })
	err = s.clusterLoop(ctx)
	cancel(err)
	return err
}

// auditTail is how many audit records are read at the start for their times. More than one, because a record of a wrong
// clock may be ignored (ClockSet).
const auditTail = 1000

// load reads what must be known before the first answer: the newest time, the revoked keys, and the open sessions,
// which go on while no Access Server runs.
func (s *Server) load(ctx context.Context) error {
	newest, err := newestTimes(ctx, s.store)
	if err := s.unlessKnown(err); err != nil {
		return err
	}
	for _, at := range newest {
		if countsAgainst(at, s.cfg.ClockSet) {
			s.clock.observe(at)
		}
	}
	return errors.Join(s.unlessKnown(s.loadRevoked(ctx)), s.unlessKnown(s.loadSessions(ctx)))
}

// unlessKnown returns err, unless it is damage for which nothing is granted anyway: a server with a page that cannot be
// read still signs the time, and takes in whom it knows.
func (s *Server) unlessKnown(err error) error {
	if errors.Is(err, store.ErrDamaged) && s.store.Health().Granting() != nil {
		return nil
	}
	return err
}

// orLost returns a refusal of what is not there, or that the store is damaged while it may be among what was lost.
func (s *Server) orLost(refusal error) error {
	if err := s.store.Health().Granting(); err != nil {
		return err
	}
	return refusal
}

func (s *Server) loadRevoked(ctx context.Context) error {
	keys, cloned := make(map[identity.SPKI]time.Time), make(map[identity.SPKI]time.Time)
	err := s.store.View(ctx, func(tx *store.Tx) error {
		list, err := tx.Revoked()
		for _, k := range list {
			keys[k.SPKI] = k.When
		}
		if err != nil {
			return err
		}
		twice, err := tx.Cloned("")
		for _, j := range twice {
			cloned[j.SPKI] = j.Cloned
		}
		return err
	})
	if err == nil {
		s.presence.revokeAll(keys, s.now())
		s.presence.suspend(cloned, s.now())
	}
	return err
}

// loadSessions makes memory what the store has. What ended without this node having heard of it is told to the Runtime.
// It only adds and removes what differs, since sessions go on while it runs.
func (s *Server) loadSessions(ctx context.Context) error {
	known := s.sessions.ids() // before: the store has had all of them
	var open, ended []store.Session
	err := s.store.View(ctx, func(tx *store.Tx) (err error) {
		open, err = tx.OpenSessions()
		for _, r := range open {
			delete(known, r.ID)
		}
		for id := range known {
			r := store.Session{ID: id}
			if err := tx.Get(&r); err == nil && !r.Ended.IsZero() {
				ended = append(ended, r)
			}
		}
		return err
	})
	for _, r := range open {
		s.sessions.load(r)
	}
	for _, r := range ended {
		s.sessions.remove(r.ID)
		s.sendEnd(ctx, r.DeviceIdentity(), wire.EndSession{Session: r.ID, Reason: r.Reason})
	}
	return err
}

// endRevoked ends the sessions of revoked devices that a process has left that died while it revoked them.
func (s *Server) endRevoked(ctx context.Context) {
	var ended []store.Session
	err := s.store.View(ctx, func(tx *store.Tx) error {
		for id := range s.sessions.ids() {
			r := store.Session{ID: id}
			if tx.Get(&r) != nil {
				continue
			}
			m := store.Member{Kind: identity.KindDevice, ID: r.Device.String()}
			if tx.Get(&m) == nil && !m.Revoked.IsZero() {
				ended = append(ended, r)
			}
		}
		return nil
	})
	for _, r := range ended {
		err = errors.Join(err, s.endSession(ctx, r.ID, s.cfg.Name.String(), transport.Revoked))
	}
	if err != nil && ctx.Err() == nil {
		s.logFailure("sessions of revoked devices not ended", err)
	}
}

// pruneEvery is how often records that are too old are deleted.
const pruneEvery = time.Hour

// maintain does what becomes due, until ctx ends: it writes measurements that waited, ends lost sessions that nobody
// has moved, and deletes records that are too old. One goroutine for all of it: none of it is urgent, and two writers
// would only wait for each other.
func (s *Server) maintain(ctx context.Context) {
	timer, prune := time.NewTimer(0), time.NewTicker(pruneEvery)
	defer timer.Stop()
	defer prune.Stop()
	again := time.NewTimer(0)
	again.Stop()
	defer again.Stop()
	// Once at the start: a revocation and the ends of its sessions are several transactions.
	s.endRevoked(ctx)
	for {
		// Only then, so that a server whose store is well has no timer that asks it.
		if s.store.isDown() {
			again.Reset(healEvery)
		}
		select {
		case <-ctx.Done():
			s.flushLast(ctx)
			return
		case <-s.dueChanged:
		case <-s.store.failed:
		case <-again.C:
			s.heal(ctx)
		case <-timer.C:
			s.runDue(ctx, time.Now())
		case <-prune.C:
			s.takeResets(ctx)
			if err := s.prune(ctx); err != nil && ctx.Err() == nil {
				s.logFailure("old records not removed", err)
			}
		}
		timer.Stop()
		if next := sooner(s.flaps.next(), sooner(s.sessions.next(), s.measured.next())); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// prune deletes what is too old. Of audit records that go it leaves the signed head: nobody else can begin the chain later.
func (s *Server) prune(ctx context.Context) error {
	failed := s.store.Prune(ctx, s.now()) // a table that cannot be read must not let the audit fill the disk
	now, ok := s.clock.trusted()
	if !ok {
		return failed // a wrong clock would say of records that they are old
	}
	cut, err := s.store.PruneAudit(ctx, now, s.signCheckpoint)
	if err != nil {
		return errors.Join(failed, err)
	}
	if cut.Seq > 0 {
		s.log.Info("old audit records were removed", "seq", cut.Seq)
	}
	full, err := s.store.AuditNearlyFull(ctx)
	if full != nil && cut.Seq == 0 {
		s.log.Warn("audit records will be removed", "err", full)
	}
	return errors.Join(failed, err)
}

func (s *Server) signCheckpoint(c store.Checkpoint) ([]byte, error) {
	h := identity.AuditHead{Seq: c.Seq, Time: c.At}
	hash, err := hex.DecodeString(c.Hash)
	if err != nil || copy(h.Hash[:], hash) != len(h.Hash) {
		return nil, fmt.Errorf("sign audit head: the hash of record %d is none", c.Seq)
	}
	return h.Sign(s.cfg.Grant.Key, s.cfg.Grant.Cert)
}

// sooner returns the earlier time; the zero time is never. One timer for all that is due, set to the earliest: most of
// the time there is nothing.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// runDue does what is due at now. An error leaves it due, and does not keep the rest from being done.
func (s *Server) runDue(ctx context.Context, now time.Time) {
	for _, r := range s.flaps.due(now) {
		s.auditLater(r)
	}
	if err := s.measured.flushDue(ctx, now); err != nil {
		s.logFailure("measurements not stored", err)
	}
	for _, id := range s.sessions.overdue(now) {
		if err := s.endSession(ctx, id, s.cfg.Name.String(), transport.LinkLost); err != nil {
			s.logFailure("session not ended", err, "session", id)
			if isAway(err) {
				break // the others wait as well
			}
		}
	}
}

// storeTimeout is how long the last writes at the end of Run may take.
const storeTimeout = 10 * time.Second

// flushLast writes the measurements that are only in this process. Without the context that has ended, but with a
// bound: a store that is away must not keep a server from stopping.
func (s *Server) flushLast(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := s.measured.flushDue(ctx, time.Now().Add(measureEvery)); err != nil {
		s.log.Error("measurements not stored", "err", err)
	}
}

// Ready is closed when Run has read the store and, if others may be on it, has its lease. Connections that are served
// earlier wait for it.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// whenReady waits until the server is ready, and returns a context that also ends with Run. ok is false if ctx or Run
// has ended. The caller calls done. The caller's context may be the listener's, which lives on after Run: both ends
// must end a connection.
func (s *Server) whenReady(ctx context.Context) (_ context.Context, done func(), ok bool) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.life, cancel)
	end := func() { stop(); cancel() }
	select {
	case <-s.ready:
		return ctx, end, ctx.Err() == nil
	case <-ctx.Done():
		return ctx, end, false
	}
}

func (s *Server) now() time.Time { return s.clock.now() }
