package agent

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"hawser/board"
	"hawser/identity"
	"hawser/probe"
	"hawser/transport"
	"hawser/transport/control"
)

// Options is what an Agent is made of. Config and Board are needed; the rest
// has defaults.
type Options struct {
	Config  Config
	Board   *board.Board
	Build   time.Time // of this program: the least floor of the clock
	Version string
	Log     *slog.Logger // nil: discard
	Out     io.Writer    // one line each time it becomes attached; nil: discard
	// Socket is the path of the status socket; empty: none.
	Socket string
	// Alive is told for how long from now the state machine vouches for itself,
	// each time that it moves, and at most 2 min: what the watchdogs are fed from.
	// It is called from several goroutines and must not block. Nil: the watchdogs
	// alone are told.
	Alive func(time.Duration)
	// Service is the service manager's watchdog; nil: none. That of the hardware
	// is in Config.
	Service Feeder
	// LinkUp tells that a network has come up: what waits or searches tries at
	// once, and what is connected proves that it still is. Nil: never.
	LinkUp <-chan struct{}
	// DialContext is how everything leaves the machine; nil: net.Dialer.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
}

// Agent is one Runtime. Run may be called once.
type Agent struct {
	Options
	board    *board.Board
	log      *slog.Logger
	store    *store
	clock    *Clock
	resolver *probe.Resolver
	dialer   *transport.Dialer
	sessions *sessions
	relays   *relays
	instance string
	self     atomic.Pointer[Self] // nil until enrolled
	status   statusBoard
	pulse    pulse
	conn     *control.Conn // of link
	link     *control.Link // from StateDial to StateAttached
}

// New opens the state directory and makes an Agent. It starts nothing and
// touches no network.
func New(o Options) (*Agent, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.DialContext == nil {
		o.DialContext = new(net.Dialer).DialContext
	}
	s, err := openStore(o.Config.Data, o.Config.Access)
	if err != nil {
		return nil, err
	}
	a := &Agent{Options: o, board: o.Board, log: o.Log, store: s, pulse: pulse{begin: time.Now()}, status: statusBoard{told: newBell()}}
	a.Alive = a.pulse.tell(o.Alive)
	a.instance = identity.NewUID().String() // random, and 16 bytes in hex
	a.status.enter(StateBoot)
	a.clock = newClock(o.Build, s.anchor(), o.Board.Now(), o.Board.Uptime, s.spent())
	a.resolver = &probe.Resolver{Servers: o.Config.DNS, Dial: o.DialContext, Private: o.Config.Private, Logger: o.Log}
	a.dialer = a.newDialer()
	a.relays = newRelays()
	a.sessions = &sessions{agent: a, running: map[string]*running{}, locked: o.Config.KeySwitch != nil}
	return a, nil
}

// newDialer makes a Dialer, which is a memory of what failed lately. Measuring has
// one of its own: a dead relay must not make the way to a living server slow.
func (a *Agent) newDialer() *transport.Dialer {
	return &transport.Dialer{Resolve: a.resolver.Resolve, Now: a.clock.Now, DialContext: a.DialContext,
		Certificate: a.certificate, LastGood: a.store.lastGood, Good: a.store.good, Trace: a.trace}
}

// random is uniform in [0, n).
func random(n time.Duration) time.Duration {
	if n <= 0 {
		return 0
	}
	var b [8]byte
	rand.Read(b[:])
	return time.Duration(binary.BigEndian.Uint64(b[:]) % uint64(n))
}

func (a *Agent) certificate() *tls.Certificate {
	if self := a.self.Load(); self != nil {
		return &self.Cert
	}
	return nil
}

// client knows the Access Servers; self is nil before enrolment.
func (a *Agent) client(self *Self) *control.Client {
	c := &control.Client{Dialer: a.dialer, Hosts: a.Config.Access, Ports: a.Config.Ports, Clock: a.clock}
	if self != nil {
		c.Roots, c.UID, c.Reset = self.Roots, self.UID, a.resetFloor
	}
	return c
}

func (a *Agent) trace(t transport.Attempt) {
	if a.status.now() == StateDial { // else it is a session's, or a measurement's, and proves nothing
		a.Alive(time.Minute)
	}
	if t.Reason == "" {
		a.log.Debug("way out open", "host", t.Host, "addr", t.Addr, "rtt", t.RTT, "took", t.Took)
		return
	}
	a.log.Debug("way out closed", "host", t.Host, "addr", t.Addr, "reason", t.Reason, "issuer", t.Issuer, "err", t.Detail)
}

// Run runs the state machine until ctx ends; then it ends all sessions, waits
// for every goroutine it started and returns nil. It returns an error only when
// it could not begin.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop, err := a.serveStatus(ctx)
	if err != nil {
		return err
	}
	var tasks sync.WaitGroup
	a.sessions.ctx = ctx
	tasks.Go(func() { a.keepTime(ctx) })
	tasks.Go(func() { a.followClock(ctx) })
	dog := a.openWatchdog()
	tasks.Go(func() { a.feed(ctx, dog) })
	tasks.Go(func() { a.showSignal(ctx) })
	tasks.Go(func() { a.watchKey(ctx) })
	a.machine(ctx)
	cancel()
	a.sessions.wait()
	tasks.Wait()
	stop()
	a.stopWatchdog(dog)
	return nil
}

// machine is the only place that moves from one state to another.
func (a *Agent) machine(ctx context.Context) {
	a.log.Info("state", "state", StateBoot)
	for state, failures := StateBoot, 0; ; {
		a.enter(state)
		if state == StateStopped {
			a.hangUp()
			return
		}
		begin := time.Now()
		to, err := a.run(ctx, state)
		if ctx.Err() != nil {
			to, err = StateStopped, nil
		}
		if !allowed(state, to) {
			a.log.Error("impossible transition", "state", state, "to", to)
			to = state
		}
		if forgives(state, time.Since(begin)) {
			failures = 0
		}
		if err != nil {
			failures++
			a.fail(ctx, to, failures, err)
		}
		state = to
	}
}

// hangUp closes a control connection that no state serves any more.
func (a *Agent) hangUp() {
	if a.conn != nil {
		a.conn.NetConn().Close()
	}
}

func (a *Agent) run(ctx context.Context, s State) (State, error) {
	switch s {
	case StateBoot:
		return a.boot(ctx)
	case StateEnroll:
		return a.awaitIdentity(ctx)
	case StateDial:
		return a.dial(ctx)
	case StateAttached:
		return a.attached(ctx)
	case StateQuarantined:
		return a.quarantined(ctx)
	}
	return StateStopped, nil
}

func (a *Agent) enter(s State) {
	a.Alive(2 * time.Minute)
	if a.status.enter(s) {
		a.log.Info("state", "state", s)
	}
}

// fail reports a failure and rests before state s is entered.
func (a *Agent) fail(ctx context.Context, s State, failures int, err error) {
	wait := backoff(failures, retryAfter(err), random)
	a.status.failed(s, err)
	a.log.Warn("will try again", "state", s, "reason", transport.ReasonOf(err), "err", err, "after", wait.Round(time.Millisecond))
	timer, beat := time.NewTimer(wait), time.NewTicker(beatEvery)
	defer timer.Stop()
	defer beat.Stop()
	for {
		a.Alive(time.Minute)
		select {
		case <-beat.C:
			continue
		case <-timer.C:
		case <-a.LinkUp:
			a.resolver.Forget() // what failed without a network
		case <-ctx.Done():
		}
		return
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
