package probe

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"slices"
	"sync"
	"time"

	"hawser/transport"
)

// Limits of one check. Thirty seconds cover the names (10 s) and four rounds
// of connects that nobody answers (5 s each): 24 ways, two hosts with four
// addresses and three ports. A profile has 36 ways, with one address a host: six
// rounds of connect and handshake (9 s).
const (
	checkBudget   = 30 * time.Second
	profileBudget = 60 * time.Second
	checkedDials  = 6 // TCP connects in flight
	checkedNames  = 6 // searched at once
	checkedAddrs  = 4 // of a host
)

// Netcheck measures what a client needs from a site's network: time,
// resolvers, names, and every way to the servers (cli §2). It is for the person who
// commissions a gateway and for the site's IT. Fields are set before Run.
type Netcheck struct {
	Hosts       []string         // of the Access Servers, HOST or HOST:PORT
	Ports       []transport.Port // for hosts without one; empty means transport.DefaultPorts
	TimeSources []string         // HOST or HOST:PORT

	Resolver *Resolver         // a fresh one, that remembers no failure; nil: the system's resolvers
	SNTP     *SNTP             // nil: one that uses Resolver
	Dialer   *transport.Dialer // nil: the real network

	// Target says what a server must prove. Its Hosts and Ports are filled in.
	Target transport.Target
	// Profile, if not nil, is checked instead of Hosts, Ports and Target.
	Profile *Profile
	// Floor and Ceiling are the window for the time samples (time §1).
	Floor, Ceiling time.Time
	// Progress is given each row as it is finished, one at a time, in no
	// particular order. Nil means nobody.
	Progress func(Row)
}

// Run measures everything at once and blocks until all is known, for at most
// 30 s, or 60 s for a profile. When that time or ctx ends first, the report holds what is known and
// its verdict says that something is missing. Of each server it asks a TLS
// handshake, and closes the connection.
func (n *Netcheck) Run(ctx context.Context) Report {
	c := newCheck(n)
	ctx, cancel := context.WithTimeout(ctx, c.budget)
	defer cancel()
	go func() {
		defer close(c.results)
		c.measure(ctx)
	}()
	var all []finished
	for r := range c.results { // until measure has returned
		all = append(all, r)
		if r.row != nil && n.Progress != nil {
			n.Progress(r.row)
		}
	}
	r := c.newReport(all)
	r.Local = c.local(context.WithoutCancel(ctx), r) // at once, also when the time is up
	return r
}

// check is one run. Its goroutines share only the channels.
type check struct {
	Netcheck
	budget  time.Duration
	results chan finished
	dials   chan struct{} // a slot for each connect in flight
	names   chan struct{} // a slot for each name that is searched
}

// finished is one row, or nil where the end of the time came first, and its
// place: rows come in any order, a report has but one.
type finished struct {
	order int
	row   Row
}

func newCheck(n *Netcheck) *check {
	c := &check{Netcheck: *n, budget: checkBudget, results: make(chan finished),
		dials: make(chan struct{}, checkedDials), names: make(chan struct{}, checkedNames)}
	if p := c.Profile; p != nil {
		c.budget, c.Hosts, c.Ports = profileBudget, p.hosts(), p.Ports
	}
	if c.Resolver == nil {
		c.Resolver = new(Resolver)
	}
	if c.SNTP == nil {
		c.SNTP = &SNTP{Resolve: c.Resolver.Resolve}
	}
	if c.Dialer == nil {
		c.Dialer = new(transport.Dialer)
	}
	if len(c.Ports) == 0 {
		c.Ports = transport.DefaultPorts()
	}
	c.Target.Hosts, c.Target.Ports = c.Hosts, c.Ports
	return c
}

// measure sends the results of all parts, which run beside each other.
func (c *check) measure(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for i, source := range c.TimeSources {
		wg.Go(func() { c.time(ctx, i, source) })
	}
	if name := c.askedName(); name != "" {
		for i, server := range c.Resolver.servers() {
			wg.Go(func() { c.resolver(ctx, 2*i, server, name) })
		}
	}
	order := 0
	for _, s := range servers(c.Hosts, c.Ports) {
		first := order
		wg.Go(func() { c.server(ctx, first, s) })
		order += 1 + checkedAddrs*len(s.ports)
	}
}

// server is a host with the ports to try on it. Without ports it is no host.
type server struct {
	host  string
	ports []transport.Port
}

// servers reads the hosts as configured. One that is named twice, with
// several ports, becomes one. The ports come in the order of the search (wire §8).
func servers(hosts []string, ports []transport.Port) (all []server) {
	for _, h := range hosts {
		host, port, err := transport.SplitHost(h)
		s := server{host: host, ports: ports}
		switch {
		case err != nil:
			s = server{host: h}
		case port != 0:
			s.ports = []transport.Port{port}
		}
		i := slices.IndexFunc(all, func(o server) bool { return o.host == s.host })
		if i < 0 {
			i, all = len(all), append(all, server{host: s.host})
		}
		all[i].ports = searchOrder(appendNew(slices.Clone(all[i].ports), s.ports))
	}
	return all
}

// searchOrder sorts ports as transport.DefaultPorts has them, others behind.
func searchOrder(ports []transport.Port) []transport.Port {
	known := transport.DefaultPorts()
	rank := func(p transport.Port) int {
		if i := slices.Index(known, p); i >= 0 {
			return i
		}
		return len(known)
	}
	slices.SortStableFunc(ports, func(a, b transport.Port) int { return rank(a) - rank(b) })
	return ports
}

func (c *check) time(ctx context.Context, order int, source string) {
	s := c.SNTP.Query(ctx, source)
	if s.Err != nil && ctx.Err() != nil {
		c.results <- finished{order: order}
		return
	}
	c.results <- finished{order, timeRow(s, c.Floor, c.Ceiling)}
}

// server finds the addresses of a host and tries each way to them. The ways
// start in the order of their rows, so that the likeliest port comes first.
func (c *check) server(ctx context.Context, order int, s server) {
	row, known := c.name(ctx, s)
	if !known {
		c.results <- finished{order: order}
		return
	}
	c.results <- finished{order, row}

	tried := row.Addrs
	if c.Profile != nil { // else 60 s would not do where everything is dropped
		tried = tried[:min(len(tried), 1)]
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, port := range s.ports {
		for _, addr := range tried {
			order++
			place := order
			c.dials <- struct{}{} // soon free again, since every dial ends with ctx
			wg.Go(func() { c.way(ctx, place, s.host, netip.AddrPortFrom(addr, uint16(port))) })
		}
	}
}

// name finds the addresses of a host. It is not known when ctx ended first,
// which says nothing about the name.
func (c *check) name(ctx context.Context, s server) (row NameRow, known bool) {
	c.names <- struct{}{} // soon free again, since every search ends with ctx
	defer func() { <-c.names }()
	begin := time.Now()
	row = NameRow{Host: clean(s.host), Reason: ReasonBadName, Addrs: []netip.Addr{}, ports: s.ports}
	if len(s.ports) > 0 {
		addrs, err := c.Resolver.Resolve(ctx, s.host)
		nameErr, told := errors.AsType[*NameError](err)
		switch {
		case told:
			row.Reason, row.Attempts = nameErr.Reason, nameErr.Attempts
		case err != nil:
			return row, false
		default:
			row.OK, row.Reason, row.Addrs = true, "", addrs[:min(len(addrs), checkedAddrs)]
		}
	}
	row.RTT = millis(time.Since(begin))
	return row, true
}

// way tries one candidate. It frees its slot before anybody reads the row.
func (c *check) way(ctx context.Context, order int, host string, addr netip.AddrPort) {
	candidate := transport.Candidate{Host: host, Addr: addr}
	var a transport.Attempt
	if c.Profile != nil {
		a = c.Dialer.TryForeign(ctx, candidate)
	} else {
		var conn *transport.Conn
		if conn, a = c.Dialer.Try(ctx, c.Target, candidate); conn != nil {
			conn.NetConn().Close() // without a farewell: the handshake is all that is sent
		}
	}
	<-c.dials
	if a.Reason != "" && ctx.Err() != nil {
		c.results <- finished{order: order} // cut short, which says nothing about the way
		return
	}
	c.results <- finished{order, wayRow(a)}
}

// local returns the addresses from which this machine reaches the servers, or
// else the resolvers, one of a family: to the site's firewall, the source. A
// connected UDP socket knows it, and nothing is sent.
func (c *check) local(ctx context.Context, r Report) []netip.Addr {
	var far []netip.AddrPort
	for _, w := range r.Ways {
		far = append(far, netip.AddrPortFrom(w.Addr, uint16(w.Port)))
	}
	for _, s := range r.Resolvers {
		far = append(far, s.Server)
	}
	found := []netip.Addr{}
	for _, is4 := range []bool{true, false} {
		i := slices.IndexFunc(far, func(a netip.AddrPort) bool { return a.Addr().Is4() == is4 && !a.Addr().IsLoopback() })
		if i < 0 {
			continue
		}
		conn, err := c.Resolver.dial(ctx, "udp", far[i])
		if err != nil {
			continue // no route: there is no such address
		}
		if a, err := netip.ParseAddrPort(conn.LocalAddr().String()); err == nil {
			found = append(found, a.Addr().Unmap().WithZone(""))
		}
		conn.Close()
	}
	return found
}

// millis is d in milliseconds, to a tenth.
func millis(d time.Duration) float64 { return math.Round(d.Seconds()*1e4) / 10 }
