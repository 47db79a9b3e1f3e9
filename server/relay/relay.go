package relay

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"hawser/identity"
	"hawser/internal/credential"
	"hawser/server/count"
	"hawser/server/gate"
	"hawser/transport"
	"hawser/transport/control"
)

// DefaultMaxJoining is how many connections of clients with a certificate, but without an accepted grant a relay holds
// (wire §5.3).
const DefaultMaxJoining = 1024

// strangerPlaces are for clients without a certificate: they hear why nobody pairs them, and that is all.
const strangerPlaces = 128

// Places for those who measure, for 15 s at most, and for those who are told that there is no place, for 2 s.
const (
	measuringPlaces = 512
	refusalPlaces   = 32
)

// DefaultMaxPipes is how many sessions a relay carries at most, unless its configuration
// says otherwise.
const DefaultMaxPipes = 2000

// instanceBytes is 128 bits, so that no two processes have the same audience. A new process must not accept what the
// old one has, whose list of used grants is gone.
const instanceBytes = 16

// Config is what a relay is made of. It is not changed after New.
type Config struct {
	Name    string        // of its identity; empty: any
	Dir     string        // private to the relay: relay.key, identity.pem and, until it has enrolled, code
	Code    identity.Code // activation code; zero: the one in Dir
	Version string        // of this build, for the Access Server's records

	Access []string         // hosts of Access Servers, HOST or HOST:PORT
	Ports  []transport.Port // of those without one; nil: the default ports
	Roots  *identity.Roots

	Hosts      []string         // where clients reach this relay
	ServePorts []transport.Port // on which ports

	Proxies    func() transport.Proxies // on the way to the Access Servers; nil: none
	Dialer     *transport.Dialer        // nil: a new one; the relay sets its Certificate
	Now        func() time.Time         // nil: time.Now
	Logger     *slog.Logger             // nil: no log
	MaxJoining int                      // 0: DefaultMaxJoining
	// Descriptors is how many the process may open, of which those without an accepted grant get a share; 0: any number.
	Descriptors int
	MaxPipes    int          // sessions that it carries at most; 0: DefaultMaxPipes
	Limits      Limits       // of what sessions carry
	Metrics     *metrics.Set // where this one relay counts; nil: nowhere
}

// Server is a Relay Server.
type Server struct {
	config   Config
	home     home
	log      *slog.Logger
	client   *control.Client
	instance string

	own      atomic.Pointer[own] // nil until enrolled
	enrolled chan struct{}       // closed when own is set for the first time

	used      *used
	pairing   *pairing
	mover     *mover
	limiter   *limiter // nil: no limits
	counters  *counters
	joining   *gate.Gate // clients with a certificate, and without an accepted grant
	strangers *gate.Gate // clients without one
	measuring *gate.Gate // clients that measure
	refusals  *gate.Gate // clients that are told that there is no place
}

// New makes a relay. It does not touch the network or the disk.
func New(c Config) (*Server, error) {
	if c.Dir == "" || c.Roots == nil || len(c.Access) == 0 || len(c.Hosts) == 0 {
		return nil, errors.New("make relay: directory, roots, access hosts and own hosts are needed")
	}
	c = c.withDefaults()
	set := count.SetOr(c.Metrics)
	s := &Server{
		counters: newCounters(set),
		config:   c, home: home(c.Dir), log: cmp.Or(c.Logger, slog.New(slog.DiscardHandler)), instance: newInstance(),
		enrolled: make(chan struct{}), used: newUsed(), pairing: newPairing(c.MaxPipes), mover: newMover(), limiter: newLimiter(c.Limits),
	}
	s.joining = gate.New("connections without a grant", gate.Places(c.MaxJoining, c.Descriptors, 16), s.log, set)
	s.strangers = gate.New("relay connections without a certificate", gate.Places(strangerPlaces, c.Descriptors, 32), s.log, set)
	s.measuring = gate.New("measurements", gate.Places(measuringPlaces, c.Descriptors, 32), s.log, set)
	s.refusals = gate.New("relay refusals", gate.Places(refusalPlaces, c.Descriptors, 32), s.log, set)
	c.Dialer.Certificate = func() *tls.Certificate {
		cert, _ := s.Certificate() // none: an enrolling client shows nothing
		return cert
	}
	s.client = c.client()
	s.client.Refused = func(raw []byte, list identity.RefusedKeys, roots *identity.Roots) {
		s.log.Warn("the root has refused keys", "sequence", list.Sequence, "keys", len(list.Keys))
		if err := credential.KeepRefused(c.Dir, raw, list, roots); err != nil { // it counts, and comes again
			s.log.Error("refused keys are not kept", "err", err)
		}
	}
	s.exportState(set)
	return s, nil
}

// withDefaults works on a copy: the caller's Config may make several relays.
func (c Config) withDefaults() Config {
	if c.Dialer == nil {
		c.Dialer = &transport.Dialer{Now: c.Now, Proxies: c.Proxies}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if len(c.Ports) == 0 {
		c.Ports = transport.DefaultPorts()
	}
	c.MaxJoining = cmp.Or(c.MaxJoining, DefaultMaxJoining)
	c.MaxPipes = cmp.Or(c.MaxPipes, DefaultMaxPipes)
	return c
}

// client returns a client of the Access Servers. The relay uses the clock of its machine.
func (c Config) client() *control.Client {
	return &control.Client{
		Dialer: c.Dialer, Hosts: c.Access, Ports: c.Ports, Roots: c.Roots,
		Clock: control.WallClock{Now: c.Now},
	}
}

func newInstance() string {
	var b [instanceBytes]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Run keeps the relay enrolled, its certificate fresh and itself registered, until ctx is cancelled; then it returns
// nil. It fails only on errors in the relay's directory, never on network errors. Connections are served by ServeConn,
// also while no Access Server answers. Being registered needs an identity and the other way round does not, so that
// they run side by side; Run waits for both.
func (s *Server) Run(ctx context.Context) error {
	if err := s.load(); err != nil {
		return fmt.Errorf("run relay: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var register sync.WaitGroup
	register.Go(func() { s.keepRegistered(ctx) })
	err := s.keepIdentity(ctx)
	cancel()
	register.Wait()
	if err != nil {
		return fmt.Errorf("run relay: %w", err)
	}
	return nil
}

// Certificate returns the relay's present certificate with its whole chain,
// root included. Until the relay has enrolled, it is an error with reason
// not-enrolled.
func (s *Server) Certificate() (*tls.Certificate, error) {
	own := s.own.Load()
	if own == nil {
		return nil, refuse(transport.NotEnrolled, "show certificate")
	}
	return &own.certificate, nil
}

// joinPolicy is the policy for joins at this moment.
func (s *Server) joinPolicy(now time.Time) policy {
	l := policy{roots: s.config.Roots, instance: s.instance, now: now}
	if own := s.own.Load(); own != nil {
		l.relay = own.name.ID
	}
	return l
}
