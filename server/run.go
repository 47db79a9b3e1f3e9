package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"hawser/identity"
	"hawser/internal/durable"
	"hawser/server/access"
	"hawser/server/relay"
	"hawser/server/store"
	"hawser/transport"
)

// Server is a server as its configuration says. All but Config may be left zero. It is not changed while Run runs.
type Server struct {
	Config  Config
	Version string       // of this build
	Logger  *slog.Logger // nil: no log

	// Ready is told once, when every listener answers, at which HOST:PORTs clients reach the server. Nil: nobody.
	Ready func(addrs []string)

	Listen func(network, address string) (net.Listener, error) // nil: net.Listen
	Dialer *transport.Dialer                                   // of the relay; nil: a new one
	Store  *store.Store                                        // nil: the configured one; another one is not closed
	Now    func() time.Time                                    // nil: time.Now
}

// A task is a part of a running server: it runs until its context is cancelled, and gives nil then.
type task func(ctx context.Context) error

// Run opens everything, serves until ctx is cancelled, and returns nil when every connection and goroutine has ended.
// Errors in its files and ports are found before Ready is called. Everything that can be wrong on this machine is tried
// before anything is served, so that a service manager shows it at the start and not a technician hours later.
func (s *Server) Run(ctx context.Context) (err error) {
	r := running{Server: *s, metrics: metrics.NewSet()}
	r.Now = orNow(s.Now)
	r.Logger = cmp.Or(s.Logger, slog.New(slog.DiscardHandler))
	if r.Listen == nil {
		r.Server.Listen = net.Listen
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.open(ctx); err != nil {
		return fmt.Errorf("run server: %w", err)
	}
	if err := r.run(ctx); err != nil {
		return fmt.Errorf("run server: %w", err)
	}
	return nil
}

// run opens the ports and serves. The relay registers when they are open. Before that its own Access Server, which waits
// for its lease, cannot answer it: the relay would be refused, and would come back after gateways and technicians, whose
// sessions need it.
func (r *running) run(ctx context.Context) (err error) {
	opened := make(chan struct{})
	open := func() ([]task, error) {
		serving, err := r.openPorts()
		if err == nil {
			close(opened)
		}
		return serving, err
	}
	serving := []task{func(ctx context.Context) error { return openWhen(ctx, r.leased, open) }}
	if r.leased == nil {
		if serving, err = open(); err != nil {
			return err
		}
	}
	serve := func(ctx context.Context) error { return runAll(ctx, append(serving, r.tasks...)...) }
	if r.relay != nil {
		serve = endFirst(after(opened, r.relay), serve)
	}
	return serve(ctx)
}

// after starts a task when something has happened.
func after(happened <-chan struct{}, run task) task {
	return func(ctx context.Context) error {
		select {
		case <-happened:
			return run(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// openPorts listens on every port, calls Ready, and returns the tasks that serve.
func (r *running) openPorts() (serving []task, err error) {
	listeners, err := r.listen()
	if err != nil {
		return nil, err
	}
	front := newFront(r.Logger, r.metrics, descriptors(), r.roles...)
	for _, ln := range listeners {
		serving = append(serving, func(ctx context.Context) error { front.serve(ctx, ln); return nil })
	}
	if r.Ready != nil {
		r.Ready(r.Config.Addrs())
	}
	return serving, nil
}

// openWhen opens the ports of one of several Access Servers when it has its lease. After a crash that takes up to
// 15 s, in which it could answer nobody: while its ports are closed, clients go to the next server at once.
func openWhen(ctx context.Context, leased <-chan struct{}, open func() ([]task, error)) error {
	return after(leased, func(ctx context.Context) error {
		serving, err := open()
		if err != nil {
			return err
		}
		return runAll(ctx, serving...)
	})(ctx)
}

// Addrs lists the HOST:PORTs at which clients reach the server.
func (c Config) Addrs() (addrs []string) {
	for _, h := range c.Hosts {
		for _, p := range c.Ports {
			addrs = append(addrs, net.JoinHostPort(h, strconv.Itoa(int(p))))
		}
	}
	return addrs
}

// running is a Server with its defaults filled in and its roles opened. It is a copy, so that Run changes nothing of
// its Server.
type running struct {
	Server
	roots   *identity.Roots
	metrics *metrics.Set    // of this run
	leased  <-chan struct{} // closed when the Access Server has its lease; nil: it needs none
	roles   []role
	tasks   []task
	relay   task         // nil: none
	own     *store.Store // to be closed
	scraped net.Listener // of the metrics; nil: none
}

func (r *running) open(ctx context.Context) (err error) {
	if r.roots, err = loadRoots(r.Config.Root); err != nil {
		return err
	}
	if r.Config.Access != nil {
		if err := r.openAccess(ctx, *r.Config.Access); err != nil {
			return fmt.Errorf("open access: %w", err)
		}
	}
	if r.Config.Relay != nil {
		if err := r.openRelay(*r.Config.Relay); err != nil {
			return fmt.Errorf("open relay: %w", err)
		}
	}
	if len(r.roles) > 0 {
		r.roles = append(r.roles, webRole(r.roles[0].certificate))
	}
	r.exportBuild()
	return r.openMetrics()
}

// openAccess checks the keys before it opens the store: that takes seconds, and makes a file where there was none.
func (r *running) openAccess(ctx context.Context, c AccessConfig) error {
	if err := durable.OpenDir(c.Dir); err != nil {
		return err
	}
	rotated, err := takeRotated(c.Dir)
	if err != nil {
		return fmt.Errorf("take rotated keys: %w", err)
	}
	keys, err := loadAccessKeys(c.Dir, c.Name, r.roots, r.Now())
	if err != nil {
		return err
	}
	if rotated {
		if err := r.enterRotated(ctx, c, keys.issuing.Chain[0]); err != nil {
			return err
		}
		r.Logger.Info("the keys that were rotated are in use", "state", identity.CertSPKI(keys.issuing.Chain[0]))
	}
	shared := false // of a store that was handed over, nobody else knows
	if r.Store == nil {
		shared = c.shared()
		o := c.storeOptions(shared, r.Logger)
		o.Metrics = r.metrics
		if r.own, err = openStoreAs(ctx, c, o); err != nil {
			return err
		}
		r.Store = r.own
		if err := checkNode(ctx, r.own, c.Name, identity.CertSPKI(keys.issuing.Chain[0])); err != nil {
			return err
		}
	}
	config := access.Config{
		Name: c.Name, Hosts: r.Config.Hosts, Ports: r.Config.Ports,
		Roots: r.roots, Issuing: authority(keys.issuing),
		TimeKey: keys.time.Key, TimeCert: keys.time.Chain[0],
		FloorResets: filepath.Join(c.Dir, resetsDir), DomainResets: filepath.Join(c.Dir, domainResetsDir),
		RefusedKeys: filepath.Join(c.Dir, refusedDir),
		ClockSet:    c.ClockSet, Heartbeat: c.Heartbeat, Descriptors: descriptors(), Store: r.Store, Shared: shared, Now: r.Now, Logger: r.Logger,
		Metrics: r.metrics,
	}
	config.Grant.Key, config.Grant.Cert = keys.grant.Key, keys.grant.Chain[0]
	a, err := access.New(config)
	if err != nil {
		return err
	}
	r.exportExpiry("issuing", func() time.Time { return soonest(keys.issuing.Chain) })
	r.exportExpiry("time", func() time.Time { return soonest(keys.time.Chain) })
	r.exportExpiry("grant", func() time.Time { return soonest(keys.grant.Chain) })
	r.exportExpiry("access", expiryOf(a.Certificate))
	if shared {
		r.leased = a.Ready()
	}
	r.tasks = append(r.tasks, a.Run)
	if r.own != nil {
		k := localAdmin{c, r.own, r.Now}
		r.tasks = append(r.tasks, func(ctx context.Context) error { serveAdmin(ctx, c.Dir, k, r.Logger); <-ctx.Done(); return nil })
	}
	r.roles = append(r.roles,
		role{transport.ALPNAccess, a.Certificate, a.ServeConn},
		role{transport.ALPNAPI, a.Certificate, a.ServeAPI})
	if shared {
		r.roles = append(r.roles, role{transport.ALPNNode, a.Certificate, a.ServeNode})
	}
	return nil
}

func (r *running) openRelay(c RelayConfig) error {
	s, err := relay.New(relay.Config{
		Name: c.Name, Dir: c.Dir, Code: c.Code, Version: r.Version, MaxPipes: c.MaxPipes, Limits: c.Limits, Descriptors: descriptors(),
		Access: c.Access, Ports: c.Ports, Roots: r.roots,
		Hosts: r.Config.Hosts, ServePorts: r.Config.Ports,
		Proxies: c.Proxy.Source(transport.ServiceProxies), Dialer: r.Dialer, Now: r.Now, Logger: r.Logger,
		Metrics: r.metrics,
	})
	if err != nil {
		return err
	}
	r.exportExpiry("relay", expiryOf(s.Certificate))
	r.relay = s.Run
	if r.Config.Access != nil {
		r.relay = r.isolate(s.Run)
	}
	r.roles = append(r.roles, role{transport.ALPNRelay, s.Certificate, s.ServeConn})
	return nil
}

// isolate returns a relay's task whose error does not end the Access Server in the same process: other relays still
// need that.
func (r *running) isolate(relay task) task {
	return func(ctx context.Context) error {
		if err := relay(ctx); err != nil {
			r.Logger.Error("the Access Server goes on without its relay", "err", err)
		}
		return nil
	}
}

// listen opens every address and port, or none. A server that listens on two of its three ports would look well, and be
// unreachable for those who can use only the third.
func (r *running) listen() (listeners []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, ln := range listeners {
				err = errors.Join(err, ln.Close())
			}
		}
	}()
	hosts := r.Config.Listen
	if len(hosts) == 0 {
		hosts = []netip.Addr{{}}
	}
	for _, h := range hosts {
		for _, p := range r.Config.Ports {
			ln, err := r.Listen("tcp", listenAddr(h, p))
			if err != nil {
				return listeners, err
			}
			listeners = append(listeners, ln)
		}
	}
	return listeners, nil
}

// listenAddr is ":PORT", all addresses of both families, for no address.
func listenAddr(a netip.Addr, p transport.Port) string {
	if !a.IsValid() {
		return net.JoinHostPort("", strconv.Itoa(int(p)))
	}
	return netip.AddrPortFrom(a, uint16(p)).String()
}

func (r *running) close() error {
	if r.scraped != nil {
		r.scraped.Close() // for the second time, unless something else could not be opened
	}
	if r.own == nil {
		return nil
	}
	return r.own.Close()
}

// runAll runs tasks until all have returned. The first error cancels the others and is the result. It owns every
// goroutine of a running server: when it has returned none is left.
func runAll(ctx context.Context, tasks ...task) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, run := range tasks {
		wg.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// endFirst runs first and rest together. When ctx ends, first is stopped and waited for before rest is cancelled: a
// relay says goodbye to its Access Servers, and one of them may be in rest. If one fails, the other is ended.
func endFirst(first, rest task) task {
	return func(ctx context.Context) error {
		later, stop := context.WithCancel(context.WithoutCancel(ctx))
		defer stop()
		return runAll(ctx, func(ctx context.Context) error {
			defer stop()
			err := first(ctx)
			if err == nil {
				<-ctx.Done() // it may have had nothing to do
			}
			return err
		}, func(context.Context) error { return rest(later) })
	}
}

func orNow(now func() time.Time) func() time.Time {
	if now == nil {
		return time.Now
	}
	return now
}
