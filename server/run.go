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

	"hawser/identity"
	"hawser/internal/durable"
	"hawser/server/access"
	"hawser/server/relay"
	"hawser/transport"
)

// Server is a server as its configuration says. All but Config may be left
// zero. It is not changed while Run runs.
type Server struct {
	Config  Config
	Version string       // of this build
	Logger  *slog.Logger // nil: no log

	// Ready is told once, when every listener answers, at which HOST:PORTs
	// clients reach the server. Nil: nobody.
	Ready func(addrs []string)

	Listen func(network, address string) (net.Listener, error) // nil: net.Listen
	Dialer *transport.Dialer                                   // of the relay; nil: a new one
	Store  access.Store                                        // nil: the one in the configured directory; another one is not closed
	Bus    access.Bus                                          // that comes with Store; nil: nobody else has that
	Now    func() time.Time                                    // nil: time.Now
}

// A task is a part of a running server: it runs until its context is
// cancelled, and gives nil then.
type task func(ctx context.Context) error

// Run opens everything, serves until ctx is cancelled, and returns nil when
// every connection and goroutine is over. What can be wrong with the own files
// and ports is found before Ready is told; after that only they can end it.
func (s *Server) Run(ctx context.Context) (err error) {
	r := running{Server: *s}
	r.Now = orNow(s.Now)
	r.Logger = cmp.Or(s.Logger, slog.New(slog.DiscardHandler))
	if r.Listen == nil {
		r.Server.Listen = net.Listen
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.open(); err != nil {
		return fmt.Errorf("run server: %w", err)
	}
	serving := []task{r.openLate}
	if r.leased == nil {
		if serving, err = r.doors(); err != nil {
			return fmt.Errorf("run server: %w", err)
		}
	}
	serve := func(ctx context.Context) error { return together(ctx, append(serving, r.tasks...)...) }
	if r.relay != nil {
		serve = before(r.relay, serve)
	}
	if err := serve(ctx); err != nil {
		return fmt.Errorf("run server: %w", err)
	}
	return nil
}

// doors listens, tells Ready, and returns what serves.
func (r *running) doors() (serving []task, err error) {
	listeners, err := r.listen()
	if err != nil {
		return nil, err
	}
	front := newFront(r.Logger, r.roles...)
	for _, ln := range listeners {
		serving = append(serving, func(ctx context.Context) error { front.serve(ctx, ln); return nil })
	}
	if r.Ready != nil {
		r.Ready(r.Config.Addrs())
	}
	return serving, nil
}

// openLate is for one of several Access Servers: until its lease is free, 15 s
// after it died, it could answer nobody, and a port that is refused sends clients
// to the next server at once.
func (r *running) openLate(ctx context.Context) error {
	select {
	case <-r.leased:
	case <-ctx.Done():
		return nil
	}
	serving, err := r.doors()
	if err != nil {
		return err
	}
	return together(ctx, serving...)
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

// running is a Server with its defaults filled in and its roles opened.
type running struct {
	Server
	roots  *identity.Roots
	leased <-chan struct{} // closed when the Access Server has its lease; nil: it needs none
	roles  []role
	tasks  []task
	relay  task         // nil: none
	own    access.Store // to be closed
}

func (r *running) open() (err error) {
	if r.roots, err = loadRoots(r.Config.Root); err != nil {
		return err
	}
	if r.Config.Access != nil {
		if err := r.openAccess(*r.Config.Access); err != nil {
			return fmt.Errorf("open access: %w", err)
		}
	}
	if r.Config.Relay != nil {
		if err := r.openRelay(*r.Config.Relay); err != nil {
			return fmt.Errorf("open relay: %w", err)
		}
	}
	return nil
}

func (r *running) openAccess(c AccessConfig) error {
	if err := durable.OpenDir(c.Dir); err != nil {
		return err
	}
	keys, err := loadAccessKeys(c.Dir, c.Name, r.roots, r.Now())
	if err != nil {
		return err
	}
	if r.Store == nil {
		if r.own, r.Bus, err = openStore(c); err != nil {
			return err
		}
		r.Store = r.own
	}
	config := access.Config{
		Name: c.Name, Node: c.Name.ID, Hosts: r.Config.Hosts, Ports: r.Config.Ports,
		Roots: r.roots, Issuing: authority(keys.issuing),
		TimeKey: keys.time.key, TimeCert: keys.time.chain[0],
		FloorResets: filepath.Join(c.Dir, resetsDir), ClockSet: c.ClockSet, Heartbeat: c.Heartbeat, Store: r.Store, Bus: r.Bus, Now: r.Now, Logger: r.Logger,
	}
	config.Grant.Key, config.Grant.Cert = keys.grant.key, keys.grant.chain[0]
	a, err := access.New(config)
	if err != nil {
		return err
	}
	if r.Bus != nil {
		r.leased = a.Ready()
	}
	r.tasks = append(r.tasks, a.Run)
	r.roles = append(r.roles,
		role{transport.ALPNAccess, a.Certificate, a.ServeConn},
		role{transport.ALPNAPI, a.Certificate, a.ServeAPI})
	return nil
}

func (r *running) openRelay(c RelayConfig) error {
	s, err := relay.New(relay.Config{
		Name: c.Name, Dir: c.Dir, Code: c.Code, Version: r.Version, MaxPipes: c.MaxPipes,
		Access: c.Access, Ports: c.Ports, Roots: r.roots,
		Hosts: r.Config.Hosts, ServePorts: r.Config.Ports,
		Dialer: r.Dialer, Now: r.Now, Logger: r.Logger,
	})
	if err != nil {
		return err
	}
	r.relay = s.Run
	if r.Config.Access != nil {
		r.relay = r.beside(s.Run)
	}
	r.roles = append(r.roles, role{transport.ALPNRelay, s.Certificate, s.ServeConn})
	return nil
}

// beside makes a relay's task one that cannot take the Access Server of the
// same process down: other relays still have need of that.
func (r *running) beside(relay task) task {
	return func(ctx context.Context) error {
		if err := relay(ctx); err != nil {
			r.Logger.Error("the Access Server goes on without its relay", "err", err)
		}
		return nil
	}
}

// listen opens every address and port, or none.
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
	if r.own == nil {
		return nil
	}
	return r.own.Close()
}

// together runs tasks until all have returned. The first that fails ends the
// others; its error is the result.
func together(ctx context.Context, tasks ...task) error {
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

// before runs first beside rest. When ctx ends, first ends before rest is told:
// a relay takes its leave of Access Servers, of which one may be in rest. One
// that fails ends the other.
func before(first, rest task) task {
	return func(ctx context.Context) error {
		later, stop := context.WithCancel(context.WithoutCancel(ctx))
		defer stop()
		return together(ctx, func(ctx context.Context) error {
			defer stop()
			err := first(ctx)
			if err == nil {
				<-ctx.Done() // it may have nothing to do
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
