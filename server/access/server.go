package access

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"hawser/identity"
	"hawser/server/grant"
	"hawser/transport"
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
	loginLife        = 30 * 24 * time.Hour // after it a user logs in with a new code
	backdate         = time.Hour           // for verifiers whose clock is a little behind
	serverLife       = 30*24*time.Hour - backdate
)

// Config is what an Access Server is made of. All of it but FloorResets,
// ClockSet, Heartbeat, Now and Logger must be set.
type Config struct {
	Name     identity.Name // of kind access
	Node     string        // names the audit chain; a label
	Hosts    []string      // where clients reach this server; logins are told
	Ports    []transport.Port
	Roots    *identity.Roots
	Issuing  *identity.Authority
	TimeKey  crypto.Signer // signs time (identity §6)
	TimeCert *x509.Certificate
	Grant    grant.Signer
	// FloorResets is a directory with the floor resets that are to be sent (access
	// §10), or empty. It need not be there, and is read for each request.
	FloorResets string
	// ClockSet is when an operator has put a wrong clock right: later times that are
	// in the store at the start do not speak against it. Zero: all do.
	ClockSet time.Time
	// Heartbeat is how often idle clients ping (wire §4.6); zero: 120 s.
	Heartbeat time.Duration
	Store     Store            // its opener closes it, after Run and all Serve calls have returned
	Bus       Bus              // to the others that have the same Store; nil: there are none
	Now       func() time.Time // nil: time.Now
	Logger    *slog.Logger     // nil: none
}

// Server is an Access Server. Its methods are safe for concurrent use.
type Server struct {
	cfg      Config
	log      *slog.Logger
	clock    clock
	chain    chain
	codes    limiter
	cert     ownCertificate
	cluster  cluster
	presence presence
	sessions sessions
	measured measurements
	later    chan struct{} // keep has something new to do later
	sequence atomic.Uint64 // of signed times
	badReset seldom

	life  context.Context // ends with Run
	end   context.CancelFunc
	ready chan struct{} // closed when Run has read the store
}

// New checks cfg and returns a Server that does nothing before Run. It does no I/O.
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
	s := &Server{
		cfg: cfg, log: cfg.Logger,
		chain:    chain{store: cfg.Store, node: cfg.Node},
		measured: measurements{store: cfg.Store},
		later:    make(chan struct{}, 1),
		ready:    make(chan struct{}),
	}
	s.clock.now = cfg.Now
	s.cluster.init(cfg)
	s.life, s.end = context.WithCancel(context.Background())
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
	return identity.CheckLabel(c.Node)
}

// Run reads the store and then blocks until ctx ends; after it every ServeConn
// and ServeAPI returns. It gives nil on cancel, and ErrInUse when another
// process has the same Node and Store. Connections that are served before Run
// has read the store wait for it.
func (s *Server) Run(ctx context.Context) error {
	defer s.end()
	err := s.run(ctx)
	if err == nil || ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("run access server: %w", err)
}

func (s *Server) run(ctx context.Context) error {
	// What is published while the store is read must be heard.
	leave, err := s.cluster.bus.Attend(s.cfg.Node, BusHandler{s.hear, s.obey, s.missed})
	if err != nil {
		return err
	}
	defer leave()
	if err := s.load(ctx); err != nil {
		return err
	}
	if err := s.cluster.lease.take(ctx); err != nil {
		return err
	}
	defer s.leaveCluster(ctx)
	s.introduce(ctx)
	if err := s.tendOnce(ctx, false); err != nil {
		return err
	}
	close(s.ready)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var keeper sync.WaitGroup
	defer keeper.Wait()
	keeper.Go(func() { s.keep(ctx) })
	err = s.tend(ctx)
	cancel(err)
	return err
}

// auditTail is how many audit records are looked at when the server starts.
const auditTail = 1000

// load reads what must be known before the first answer: the newest time, the
// revoked keys and the sessions that outlived the process.
func (s *Server) load(ctx context.Context) error {
	records, err := readAudit(ctx, s.cfg.Store, "", "", auditTail)
	if err != nil {
		return err
	}
	for _, r := range records {
		if counts(r.Time, s.cfg.ClockSet) {
			s.clock.saw(r.Time)
		}
	}
	if err := VerifyAudit(records); err != nil {
		s.log.Error("audit chain is broken", "err", err)
	}
	return errors.Join(s.loadRevoked(ctx), s.loadSessions(ctx))
}

func (s *Server) loadRevoked(ctx context.Context) error {
	entries, err := s.cfg.Store.List(ctx, bucketRevoked, "")
	if err != nil {
		return err
	}
	keys := make(map[identity.SPKI]time.Time)
	for _, e := range entries {
		var r revokedRecord
		if err := decode(e, bucketRevoked, &r); err != nil {
			return err
		}
		spki, err := identity.ParseSPKI(e.Key)
		if err != nil {
			return err
		}
		keys[spki] = r.When
	}
	s.presence.revokeAll(keys, s.now())
	return nil
}

func (s *Server) loadSessions(ctx context.Context) error {
	records, err := list[sessionRecord](ctx, s.cfg.Store, bucketSessions, "")
	for _, r := range records {
		s.sessions.read(r)
	}
	return err
}

// Ready is closed when Run has read the store and, with others on it, holds its
// lease. What is served before waits for it.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// attend returns a context that also ends with Run, once the server is ready;
// ok is false when it never will be. The caller calls done.
func (s *Server) attend(ctx context.Context) (_ context.Context, done func(), ok bool) {
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
