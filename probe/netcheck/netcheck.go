// Package netcheck tries every way to the servers, and says in a [Report] what the site's IT has to change (cli §2).
//
// A [Check] measures time, resolvers, names and ways beside each other and puts the rows into the order of a plan; what
// they mean together, the [Finding], is judged by pure functions. A [Sheet] is the same for the site's IT, as text or
// HTML. It shows people what package probe finds; no program acts on it.
package netcheck

import (
	"context"
	"errors"
	"math"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"hawser/identity"
	"hawser/probe"
	"hawser/transport"
)

// Limits of one check. Thirty seconds cover the names (10 s) and four rounds
// of connects that nobody answers (5 s each): 24 ways, two hosts with four
// addresses and three ports. With relays there are as many again. A profile has
// 36 ways, with one address a host: six rounds of connect and handshake (9 s). Six connects are in flight, as in a
// search (wire §8): with more, netcheck could find a site worse than it is.
const (
	checkBudget  = 30 * time.Second
	longBudget   = 60 * time.Second // of a profile, or with relays
	checkedDials = 6                // TCP connects in flight
	checkedNames = 6                // searched at once
	checkedAddrs = 4                // of a host
	relayAddrs   = 2                // of a relay: one of each family
)

// Check measures what a client needs from a site's network: time, resolvers, names, and every way to the servers (cli §2).
// It is for the person who commissions a gateway and for the site's IT. Fields are set before Run.
type Check struct {
	Hosts       []string         // of the Access Servers, HOST or HOST:PORT
	Relays      []string         // of the Relay Servers, likewise
	Remembered  bool             // Relays are those of former sessions: one may be gone, so they do not decide
	Ports       []transport.Port // for hosts without one; empty means transport.DefaultPorts
	TimeSources []string         // HOST or HOST:PORT

	Resolver *probe.Resolver   // a fresh one, that remembers no failure; nil: the system's resolvers
	SNTP     *probe.SNTP       // nil: one that uses Resolver
	Dialer   *transport.Dialer // nil: the real network

	Bounds transport.Bounds // of the Dialer that Known.Check makes
	// Target says what an Access Server must prove. Its Hosts and Ports are filled in. A relay must prove to be one to the
	// same root. With Anyone, all servers need to prove nothing, and the report says to which root they lead.
	Target transport.Target
	// Uplinks are the machine's ways out, if they are known.
	Uplinks []Uplink
	// Profile, if not nil, is checked instead of Hosts, Ports and Target.
	Profile *Profile
	// Floor and Ceiling are the window for the time samples (time §1). Without a ceiling it is 15 years after the floor.
	Floor, Ceiling time.Time
	// Progress is given each row as it is finished, one at a time, in no particular order. Nil means nobody.
	Progress func(Row)
}

// Run measures everything at once and blocks until all is known, for at most 30 s, or 60 s for a profile or with relays.
// When that time or ctx ends first, the report holds what is known and its verdict says that something is missing. Of
// each server it asks a TLS handshake, and closes the connection.
func (c *Check) Run(ctx context.Context) Report {
	r := newRun(c)
	p := r.plan()
	ctx, cancel := context.WithTimeout(ctx, r.budget)
	defer cancel()
	go func() {
		defer close(r.results)
		r.measure(ctx, p)
	}()
	found := map[place]Row{}
	for f := range r.results { // until measure has returned
		found[f.at] = f.row
		if f.row != nil && c.Progress != nil {
			c.Progress(f.row)
		}
	}
	report := r.report(p.rows(), found, p.proxies.Notes...)
	report.Local = r.local(context.WithoutCancel(ctx), report) // at once, also when the time is up
	report.Verdict = report.judge(english())
	return report
}

// run is one run of a Check. Its goroutines share only the channels. A copy of the Check, so that what is filled in for
// one run does not stay in the caller's.
type run struct {
	Check
	budget  time.Duration
	results chan finished
	dials   chan struct{} // a slot for each connect in flight
	names   chan struct{} // a slot for each name that is searched
	paths   paths
}

// finished is one row, or nil where the end of the time came first.
type finished struct {
	at  place
	row Row
}

func newRun(c *Check) *run {
	r := &run{Check: *c, budget: checkBudget, results: make(chan finished),
		dials: make(chan struct{}, checkedDials), names: make(chan struct{}, checkedNames),
		paths: paths{measured: map[netip.Addr]bool{}, hopeless: map[netip.Addr]bool{}}}
	switch p := r.Profile; {
	case p != nil:
		r.budget, r.Hosts, r.Relays, r.Ports = longBudget, nil, nil, p.Ports
	case len(r.Relays) > 0:
		r.budget = longBudget
	}
	if r.Ceiling.IsZero() {
		r.Ceiling = r.Floor.AddDate(15, 0, 0)
	}
	if r.Resolver == nil {
		r.Resolver = new(probe.Resolver)
	}
	if r.SNTP == nil {
		r.SNTP = &probe.SNTP{Resolve: r.Resolver.Resolve}
	}
	if r.Dialer == nil {
		r.Dialer = new(transport.Dialer)
	}
	if len(r.Ports) == 0 {
		r.Ports = transport.DefaultPorts()
	}
	r.Target.Hosts, r.Target.Ports = r.Hosts, r.Ports
	return r
}

// plan is what one run measures.
type plan struct {
	sources   []string         // of the time
	name      string           // for which resolvers are asked; empty: nothing here has one
	resolvers []netip.AddrPort // each over UDP and TCP
	servers   []server
	proxies   transport.Proxies
}

// A place is where a row stands in the report. It is comparable and the key of what was found: goroutines finish in any
// order and need no index into a list.
type place struct {
	kind    kind
	name    string         // the time source, the name asked for, or the host
	role    Role           // of a way's server
	proxy   string         // of a way through one
	server  netip.AddrPort // a resolver
	network string         // to it
	port    transport.Port // of a way
	nth     int            // time source, or address of the host, from 0
}

type kind string

const (
	timePlace     kind = "time"
	resolverPlace kind = "resolver"
	namePlace     kind = "name"
	wayPlace      kind = "way"
)

// plan is made before anything is sent: how many rows there will be, and in which order, depends on the configuration
// alone and not on what answers first.
func (r *run) plan() plan {
	p := plan{sources: r.TimeSources, servers: slices.Concat(servers(RoleAccess, r.Hosts, r.Ports), servers(RoleRelay, r.Relays, r.Ports))}
	if r.Profile != nil {
		p.servers = r.Profile.servers()
	}
	if r.Dialer.Proxies != nil {
		p.proxies = r.Dialer.Proxies()
	}
	if p.name = p.askedName(); p.name != "" {
		p.resolvers = r.Resolver.ServersInUse()
	}
	return p
}

// rows lists every row that there can be, in the order of the report: rows are finished in any order. How many addresses
// a host has turns out later, so some of the ways may stay empty.
func (p plan) rows() (all []place) {
	for i, source := range p.sources {
		all = append(all, place{kind: timePlace, name: source, nth: i})
	}
	for _, server := range p.resolvers {
		for _, network := range networks() {
			all = append(all, place{kind: resolverPlace, name: p.name, server: server, network: network})
		}
	}
	for _, s := range p.servers {
		all = union(all, []place{{kind: namePlace, name: s.host}}) // one host may be both
		for _, port := range s.ports {
			for i := range s.addrs {
				all = append(all, s.way(port, i))
			}
		}
		all = append(all, p.through(s)...)
	}
	return all
}

func networks() [2]string { return [2]string{"udp", "tcp"} }

// measure sends the results of all parts, which run beside each other.
func (r *run) measure(ctx context.Context, p plan) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for i, source := range p.sources {
		wg.Go(func() { r.time(ctx, place{kind: timePlace, name: source, nth: i}) })
	}
	for _, server := range p.resolvers {
		wg.Go(func() { r.resolver(ctx, server, p.name) })
	}
	for i, s := range p.servers {
		if !slices.ContainsFunc(p.servers[:i], func(o server) bool { return o.host == s.host }) {
			wg.Go(func() { r.host(ctx, p.named(s.host)) })
		}
		for _, at := range p.through(s) { // which need no address: the proxy finds it
			wg.Go(func() {
				r.dials <- struct{}{} // soon free again, since every dial ends with ctx
				r.way(ctx, at, netip.AddrPortFrom(netip.Addr{}, uint16(at.port)))
			})
		}
	}
}

// server is a host in a role, with the ports to try on it. Without ports it is no host.
type server struct {
	role  Role
	host  string
	ports []transport.Port
	addrs int // that are tried, at most
}

// way is the place of one of its ways.
func (s server) way(port transport.Port, nth int) place {
	return place{kind: wayPlace, name: s.host, role: s.role, port: port, nth: nth}
}

// named returns the servers of one host.
func (p plan) named(host string) (some []server) {
	for _, s := range p.servers {
		if s.host == host {
			some = append(some, s)
		}
	}
	return some
}

// servers reads the hosts as configured. One that is named twice, with several ports, becomes one. The ports come in the
// order of the search (wire §8). A host that is none stays without ports, so that the report has a row that says so.
func servers(role Role, hosts []string, ports []transport.Port) (all []server) {
	addrs := checkedAddrs
	if role == RoleRelay {
		addrs = relayAddrs
	}
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
			i, all = len(all), append(all, server{role: role, host: s.host, addrs: addrs})
		}
		all[i].ports = transport.SearchOrder(union(slices.Clone(all[i].ports), s.ports))
	}
	return all
}

// askedName is the first name that a client here has to resolve, or "". Each resolver is asked for one name of ours: what
// matters is whether it knows that, and not whether it knows others.
func (p plan) askedName() string {
	for _, s := range p.servers {
		if name, ok := transport.HostName(s.host); ok {
			return name
		}
	}
	for _, s := range p.sources {
		if host, _, ok := probe.SplitSource(s); ok {
			if name, ok := transport.HostName(host); ok {
				return name
			}
		}
	}
	return ""
}

func (r *run) time(ctx context.Context, at place) {
	s := r.SNTP.Query(ctx, at.name)
	if s.Err != nil && ctx.Err() != nil {
		r.results <- finished{at, nil}
		return
	}
	r.results <- finished{at, timeRow(s, r.Floor, r.Ceiling)}
}

// resolver asks one server over both networks at once.
func (r *run) resolver(ctx context.Context, server netip.AddrPort, name string) {
	var found [2]probe.Inspection
	var both sync.WaitGroup
	for i, network := range networks() {
		both.Go(func() {
			if network == "tcp" {
				r.dials <- struct{}{} // soon free again, since every dial ends with ctx
				defer func() { <-r.dials }()
			}
			found[i] = r.Resolver.Inspect(ctx, server, network, name)
		})
	}
	// Each network says something about the other: a server that answers over one is there, so a firewall stops the
	// other.
	both.Wait()
	switch udp, tcp := found[0].Answered(), found[1].Answered(); {
	case tcp && !udp:
		found[0].Findings = append(found[0].Findings, probe.UDPBlocked)
	case udp && !tcp:
		found[1].Findings = append(found[1].Findings, probe.TCPBlocked)
	}
	for _, f := range found {
		at := place{kind: resolverPlace, name: name, server: server, network: f.Network}
		if ctx.Err() != nil && !f.Answered() {
			r.results <- finished{at, nil} // cut short, which says nothing
			continue
		}
		r.results <- finished{at, resolverRow(f)}
	}
}

// host finds the addresses of the servers that have one name, and tries each way to them. The ways start in the order of
// their rows, so that the likeliest port comes first.
func (r *run) host(ctx context.Context, of []server) {
	at := place{kind: namePlace, name: of[0].host}
	row, known := r.name(ctx, of)
	if !known {
		r.results <- finished{at, nil}
		return
	}
	r.results <- finished{at, row}

	var wg sync.WaitGroup
	defer wg.Wait()
	for _, s := range of {
		for _, port := range s.ports {
			for i, addr := range row.Addrs[:min(len(row.Addrs), s.addrs)] {
				at := s.way(port, i)
				r.dials <- struct{}{} // soon free again, since every dial ends with ctx
				wg.Go(func() { r.way(ctx, at, netip.AddrPortFrom(addr, uint16(port))) })
			}
		}
	}
}

// name finds the addresses of a host. Known is false when ctx ended first: then nothing is known about the name.
func (r *run) name(ctx context.Context, of []server) (row NameRow, known bool) {
	host := of[0].host
	r.names <- struct{}{} // soon free again, since every search ends with ctx
	defer func() { <-r.names }()
	begin := time.Now()
	row = NameRow{Host: clean(host), Reason: probe.ReasonBadName, Addrs: []netip.Addr{}, servers: of}
	if len(of[0].ports) > 0 {
		addrs, err := r.Resolver.Resolve(ctx, host)
		nameErr, told := errors.AsType[*probe.NameError](err)
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

// way tries one candidate. It frees its slot before the row is received, or a slow receiver would delay other dials.
func (r *run) way(ctx context.Context, at place, addr netip.AddrPort) {
	candidate := transport.Candidate{Host: at.name, Addr: addr, Proxy: at.proxy}
	var a transport.Attempt
	var root identity.SPKI
	var full transport.Reason // of the full form, where the small one was needed
	if r.Profile != nil {
		a = r.Dialer.TryForeign(ctx, candidate)
	} else {
		var conn *transport.Conn
		if conn, a, full = r.try(ctx, r.target(at.role), candidate); conn != nil {
			conn.NetConn().Close() // without close_notify: nothing is sent after the handshake
			if r.Target.Anyone {
				root = identity.CertSPKI(conn.Roots.Certificates()[0])
			}
		}
	}
	<-r.dials
	if a.Reason != "" && ctx.Err() != nil {
		r.results <- finished{at, nil} // cut short, which says nothing about the way
		return
	}
	// Only a way that needed the small form is measured further: the sizes cost three more handshakes.
	row := wayRow(a, at.role, root)
	if row.Small {
		row.fullReason, row.Packet = full, r.packet(ctx, at.role, candidate)
	}
	r.results <- finished{at, row}
}

// target is what a server must prove in its role.
func (r *run) target(role Role) transport.Target {
	t := r.Target
	if role == RoleRelay {
		t.ALPN, t.Name = transport.ALPNRelay, identity.Name{Kind: identity.KindRelay}
	}
	return t
}

// local returns the addresses from which this machine reaches the servers, or else the resolvers, one of each family:
// they are the sources in the rules of a firewall. A connected UDP socket tells them without sending anything.
func (r *run) local(ctx context.Context, report Report) []netip.Addr {
	dial := r.Resolver.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	var far []netip.AddrPort
	for _, w := range report.Ways {
		if w.Addr.IsValid() {
			far = append(far, netip.AddrPortFrom(w.Addr, uint16(w.Port)))
		}
	}
	for _, s := range report.Resolvers {
		far = append(far, s.Server)
	}
	found := []netip.Addr{}
	for _, is4 := range []bool{true, false} {
		i := slices.IndexFunc(far, func(a netip.AddrPort) bool { return a.Addr().Is4() == is4 && !a.Addr().IsLoopback() })
		if i < 0 {
			continue
		}
		conn, err := dial(ctx, "udp", far[i].String())
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

// union appends those of more that are not in all yet.
func union[T comparable](all, more []T) []T {
	for _, v := range more {
		if !slices.Contains(all, v) {
			all = append(all, v)
		}
	}
	return all
}

// Profile is an infrastructure of somebody else whose ways can be checked
// before there is anything of ours: without enrollment, root or configuration.
type Profile struct {
	Name                string
	Access, Relays, Web []string // host names
	Ports               []transport.Port
}

// ProfileNamed returns a built-in profile. There is one, combivis: the names
// that the documentation of COMBIVIS connect asks a firewall to let through.
func ProfileNamed(name string) (Profile, bool) {
	return Profile{
		Name:   "combivis",
		Access: []string{"ccas1.keb.de", "ccas2.keb.de"},
		Relays: []string{"ubiquityrs1.asem.it", "ubiquityrs2.asem.it", "ubiquityrs3.asem.it", "ubiquityrs4.asem.it",
			"ubiquityrs5.asem.it", "ubiquityrs6.asem.it", "ubiquityrs7.asem.it"},
		Web:   []string{"combivisconnect.com", "webapi.combivisconnect.com", "help.combivisconnect.com"},
		Ports: transport.DefaultPorts(),
	}, name == "combivis"
}

func (p *Profile) hosts() []string { return slices.Concat(p.Access, p.Relays, p.Web) }

// servers are all of them, with one address each: else 60 s would not do where everything is dropped.
func (p *Profile) servers() []server {
	all := slices.Concat(servers(RoleAccess, p.Access, p.Ports), servers(RoleRelay, p.Relays, p.Ports), servers(RoleWeb, p.Web, p.Ports))
	for i := range all {
		all[i].addrs = 1
	}
	return all
}
