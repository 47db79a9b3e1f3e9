package agent

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"hawser/agent/clock"
	"hawser/board"
	"hawser/identity"
	"hawser/internal/credential"
	"hawser/internal/wait"
	"hawser/probe"
	"hawser/transport"
	"hawser/transport/control"
	"hawser/transport/mux"
	"hawser/transport/wire"
)

// Options is what an Agent is made of. Config and Board are needed; the rest has defaults. They are fields and not
// globals, so that a test has ten agents in one process.
type Options struct {
	Config  Config
	Board   *board.Board
	Build   time.Time // of this program: the clock is never before it
	Version string
	Log     *slog.Logger // nil: discard
	Out     io.Writer    // gets a line each time the agent becomes attached; nil: discard
	// Console gets the code with which a gateway without an identity can be claimed, each time that it asks whether somebody
	// has: what is written there is kept nowhere. Nil: nobody looks at one.
	Console io.Writer
	// Socket is the path of the status socket; empty: none.
	Socket string
	// Alive is called each time the state machine moves, with the time, at most
	// 2 min, within which it will do so again. The watchdogs are fed from the same
	// calls. It is called from several goroutines and must not block. Nil: nobody.
	Alive func(time.Duration)
	// Service is the service manager's watchdog; nil: none. That of the hardware
	// is in Config.
	Service Feeder
	// LinkUp tells that a network has come up: waiting and dialling states try
	// again at once; an attached one asks the server for a sign of life. Nil: never.
	LinkUp <-chan struct{}
	// Unsaid lists what the caller could not say, such as lost lines of the log, for status; nil: nothing.
	Unsaid func() []string
	// DialContext is how everything leaves the machine; nil: transport.SystemDial.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
}

// Agent is one Runtime. Run may be called once. It holds what never changes after New and a few parts that lock
// themselves; there is no lock of the whole, because the state machine alone decides and all others only report to it.
type Agent struct {
	config  Config
	version string
	board   *board.Board
	log     *slog.Logger
	out     io.Writer
	console io.Writer // nil: none
	socket  string
	service Feeder
	unsaid  func() []string
	linkUp  <-chan struct{}
	dialOut dialFunc
	idleOut dialFunc // dialOut, counted unless it is for a session: what it costs to be reachable

	store    *store
	owners   owners
	release  release
	joins    joinRate             // used by one link at a time
	news     chan wire.Statements // statements of the server that are to be taken
	clock    *clock.Clock
	resolver *probe.Resolver
	// One for servers and sessions: which way out is open is learnt once for both.
	dialer   *transport.Dialer
	idle     idleLinks
	meter    *meter
	sessions *sessions
	reports  *reports
	relays   *relays
	instance string               // of this process, in the hello
	self     atomic.Pointer[Self] // nil until enrolled
	status   statusBoard
	counts   *counts
	liveness liveness
	around   lookout
	refused  refused
	alive    func(time.Duration) // the state machine promises liveness, and Options.Alive, to move again within this time
}

// New opens the state directory and makes an Agent. It starts nothing and
// touches no network. An error is that of the state directory. A damaged identity is none: Run finds it, tries again,
// and status shows it.
func New(o Options) (*Agent, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.DialContext == nil {
		o.DialContext = transport.SystemDial
	}
	s, err := openStore(o.Config.Data, o.Config.Access)
	if err != nil {
		return nil, err
	}
	a := &Agent{config: o.Config, version: o.Version, board: o.Board, log: o.Log, out: o.Out, console: o.Console, socket: o.Socket, service: o.Service,
		owners: owners{dir: s.dir}, release: newRelease(), news: make(chan wire.Statements, maxNews), unsaid: o.Unsaid, linkUp: o.LinkUp, dialOut: o.DialContext, store: s, liveness: liveness{begin: time.Now()}, status: statusBoard{told: wait.NewBell()}}
	// The resolver, SNTP and the dialer all go through the meter: an idle month once cost 36 MB, most of it unseen
	// keepalives, and status can only show what is counted here.
	a.idle = idleLinks{store: s, links: map[netip.AddrPort]idleLink{}}
	a.meter = new(meter)
	a.counts = newCounts()
	a.reports = &reports{bell: wait.NewBell()}
	a.idleOut = a.meter.counting(o.DialContext)
	a.alive = a.liveness.tell(o.Alive)
	a.instance = identity.NewUID().String() // random, and 16 bytes in hex
	a.status.enter(StateBoot)
	a.resolver = &probe.Resolver{Servers: o.Config.DNS, Dial: a.idleOut, Private: o.Config.Private, Logger: o.Log}
	a.clock = clock.New(clock.Options{Build: o.Build, Board: o.Board, Store: s, Policy: o.Config.SystemClock, Sources: o.timeSources,
		Resolve: a.resolver.Resolve, Dial: a.idleOut, Log: o.Log, Changed: a.status.told.Ring})
	a.dialer = a.newDialer()
	a.relays = newRelays()
	if a.config.Limits.Streams == 0 {
		a.config.Limits = DefaultLimits()
	}
	if a.config.Session.Max == 0 {
		a.config.Session = DefaultLifetime()
	}
	a.sessions = &sessions{agent: a, memory: mux.NewBudget(streamMemory), most: a.config.Limits.Streams, life: a.config.Session,
		running: map[string]*running{}, begun: map[string]time.Time{}, locked: o.Config.KeySwitch != nil,
		closing: closing{bell: wait.NewBell()}}
	return a, nil
}

// fitDescriptors lets sessions have as many connections as the system lets the agent have. Before the first session.
func (a *Agent) fitDescriptors() {
	var err error
	if a.sessions.most, err = a.config.Limits.streams(a.board.Descriptors()); a.status.trouble("file descriptors", err) {
		a.log.Warn("few file descriptors", "err", err)
	}
}

// timeSources are the SNTP sources of this gateway, as far as they are known now.
func (o Options) timeSources() []string {
	return clock.Sources(o.Config.Access, o.Config.Time, o.Board.TimeServers())
}

// newDialer makes a Dialer. It remembers candidates that failed, so measuring uses
// another one: a dead relay must not slow down the search for a server. Both share the store: which addresses worked,
// and that only small hellos pass, is true for either.
func (a *Agent) newDialer() *transport.Dialer {
	return &transport.Dialer{Resolve: a.resolver.Resolve, Now: a.clock.Now, DialContext: a.idleOut,
		Bounds: a.bounds, Certificate: a.certificate, Proxies: a.config.Proxy.Source(transport.ServiceProxies),
		LastGood:  func(host string) []transport.Candidate { return a.store.lastGood(host, a.clock.Now()) },
		OnlySmall: func() bool { return a.store.onlySmall(a.clock.Now()) },
		Good:      func(c transport.Candidate) { a.store.good(c, a.clock.Now()) }, Trace: a.trace}
}

func (a *Agent) certificate() *tls.Certificate {
	if self := a.self.Load(); self != nil {
		return &self.Cert
	}
	return nil
}

// client returns a client of the Access Servers; self is nil before enrollment. A new one each time: it is a handful of
// fields, and the identity may have been renewed or replaced since. Without an identity there is no UID that a floor
// reset could be for.
func (a *Agent) client(self *Self) *control.Client {
	c := &control.Client{Dialer: a.dialer, Hosts: a.config.Access, Ports: a.config.Ports, Clock: a.clock, Refused: a.keepRefused}
	if self != nil {
		c.Roots, c.UID, c.Reset = self.Roots, self.UID, a.clock.Reset
	}
	return c
}

// keepRefused stores what counts already (identity §18). A full flash must not keep a gateway offline: the next connection
// brings the list again.
func (a *Agent) keepRefused(raw []byte, list identity.RefusedKeys, roots *identity.Roots) {
	err := credential.KeepRefused(a.store.dir, raw, list, roots)
	a.log.Warn("the root has refused keys", "sequence", list.Sequence, "keys", len(list.Keys))
	if a.status.trouble("store refused keys", err) {
		a.log.Error("store refused keys", "err", err)
	}
}

func (a *Agent) trace(t transport.Attempt) {
	if a.status.now() == StateDial { // an attempt of a session or a measurement does not show that the state machine moves
		a.alive(time.Minute)
	}
	a.counts.attempt(t)
	a.judged(t)
	if t.Reason == "" {
		a.log.Debug("way out open", "host", t.Host, "addr", t.Where(), "small", t.Small, "rtt", t.RTT, "took", t.Took)
		return
	}
	a.log.Debug("way out closed", "host", t.Host, "addr", t.Where(), "small", t.Small, "reason", t.Reason, "issuer", t.Issuer, "err", t.Detail)
}

// Run runs the state machine until ctx ends; then it ends all sessions, waits for every goroutine that it started and
// returns nil. The only error is that another agent has the state directory or the status socket, before anything else
// was started. The order of the end: the state machine says goodbye first, then the sessions end, then what only serves
// them; the watchdog is disarmed last, so that an end that hangs resets the machine.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// First, because what is taken means that another agent runs here.
	lock, err := lockState(ctx, a.config.Data)
	switch {
	case ctx.Err() != nil && lock == nil:
		return nil
	case err != nil:
		return err
	}
	defer lock.Close()
	stop, err := a.serveStatus(ctx)
	if err != nil {
		return err
	}
	var tasks sync.WaitGroup
	a.sessions.ctx = ctx
	a.surroundings(0) // the uplinks of the start are remembered
	a.fitDescriptors()
	dog := a.openWatchdog()
	if w := a.config.Warning(); w != "" {
		a.log.Warn("configuration should be changed", "why", w)
	}
	for _, why := range a.dialer.Proxies().Notes {
		a.log.Warn("proxy setting cannot be used", "why", why)
	}
	for _, run := range []func(context.Context){
		a.clock.Run,
		func(ctx context.Context) { a.feed(ctx, dog) },
		a.showSignal,
		a.watchKey,
		a.keepHours,
		a.takeNews,
	} {
		tasks.Go(func() { run(ctx) })
	}
	a.machine(ctx, &attachment{})
	cancel()
	a.sessions.wait()
	tasks.Wait()
	stop()
	a.stopWatchdog(dog)
	return nil
}
