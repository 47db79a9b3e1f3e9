package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"time"

	"hawser/identity"
)

// A Target is what to dial: any of some hosts, for one protocol, that proves one kind
// of identity. It is read only, and may be shared by searches that run at once.
type Target struct {
	Hosts []string      // names or IP literals; HOST:PORT means that port alone
	Ports []Port        // for the hosts without a port
	ALPN  string        // the protocol, wire §1.2
	Name  identity.Name // its Kind is wanted; with an ID, exactly this name
	Roots *identity.Roots
	Pin   identity.SPKI // of the root, when Roots is nil

	// Anyone, with neither Roots nor Pin, takes every server that shows a chain of ours, whatever its root: for a look at who
	// answers, by somebody who does not know yet whom to trust. Nothing is proven by it, and Conn.Roots is what was
	// shown. netcheck has it before enrollment, when there is no root yet. A program that goes on to talk must never
	// set it.
	Anyone bool
	// At returns the time at which the server's chain is verified, given its leaf,
	// for clients that do not know the time yet (wire §3.2). Nil means Dialer.Now.
	At func(leaf *x509.Certificate) time.Time
	// ClockUnsure says that our clock may be wrong. Dates that do not fit are then
	// reported as clock and not as expired.
	ClockUnsure bool
	// Anonymous: our certificate is not shown. For servers that may be impostors, such as those that are asked for a
	// floor reset (wire §3.3).
	Anonymous bool
}

// A Dialer searches for an open way to a server (wire §8). A way is open when
// authenticated TLS completes on it: firewalls and proxies accept TCP for servers
// that they do not let through. A Dialer remembers which candidates failed lately,
// so a program keeps one. The zero value works. It is safe for concurrent use. Now is the program's own clock, since
// the machine's may say 1970; time-outs do not use it, since it may be set while they run. LastGood is a function
// because another search of the program may have found something meanwhile. Good is called before Dial returns and must
// not block: the agent notes the candidate and writes it at its next save.
type Dialer struct {
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error) // nil: the system's resolver; must return when ctx ends
	Now     func() time.Time                                             // nil: time.Now
	// DialContext makes TCP connections; nil: SystemDial. One that does not end in
	// SystemDial has no small segments.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
	// Bounds are asked at each attempt. Nil: none, for a program that dials nothing but its own configuration.
	Bounds      func() Bounds
	Certificate func() *tls.Certificate       // ours; nil: none
	Proxies     func() Proxies                // asked at each search; nil: none
	LastGood    func(host string) []Candidate // newest first; nil: none
	OnlySmall   func() bool                   // only the small form passed lately, as far as the caller remembers; nil: not known
	Good        func(Candidate)               // called with each candidate that worked; nil: nobody
	Trace       func(Attempt)                 // called with each attempt, concurrently; nil: nobody

	memory memory
}

// Conn is an authenticated connection. Chain is what the server showed, and Roots
// are those that it was verified to: with Target.Pin, the root that has that pin.
type Conn struct {
	*tls.Conn
	// Peer was true at the time by which it was verified; the control client verifies Chain again at the signed time.
	Peer      identity.Peer
	Chain     []*x509.Certificate
	Roots     *identity.Roots
	Candidate Candidate
	RTT       time.Duration // of the TCP connect
}

// Dial returns the first connection that authenticates. It blocks until one
// does, all candidates have failed, or ctx ends; every goroutine that it
// started has returned by then. The error is a *DialError. The connection is
// the caller's to close.
func (d *Dialer) Dial(ctx context.Context, t Target) (*Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := d.newRace(t, cancel)
	// Read before the search, which may turn it on: only a search that began in full has found out that small is
	// needed.
	small := r.shrink.all
	conn := r.run(ctx)
	// A search that the caller gave up says nothing about the way, so it must not double the time-outs of the next one.
	if conn != nil || ctx.Err() == nil {
		d.memory.searched(conn, small, d.now())
	}
	if conn == nil {
		return nil, &DialError{Hosts: t.Hosts, Attempts: r.ended, Cause: context.Cause(ctx)}
	}
	if d.Good != nil {
		d.Good(conn.Candidate)
	}
	return conn, nil
}

// event is what a goroutine of a race reports: addresses of a host, a hello that
// was sent, or the end of an attempt.
type event struct {
	lookup  bool
	found   []Candidate
	hello   *hello
	attempt *Attempt
	conn    *Conn
	beside  bool // the attempt was outside the limits
}

// race is one search. Only its loop uses the fields; other goroutines send events. One loop and channels instead of a
// mutex around shared lists: each rule of wire §8 reads what others change, and with locks the order in which two
// events take effect would be chance. Events are unbuffered: the loop receives until nothing is in flight, so no
// goroutine is left behind with one.
type race struct {
	d          *Dialer
	t          Target
	cancel     context.CancelFunc
	patience   int
	events     chan event
	handshakes chan struct{} // a slot for each handshake in flight

	waiting   []Candidate
	tried     map[Candidate]bool // as they were tried, in full or small
	ended     []Attempt
	lookups   int       // in flight
	dials     int       // in flight
	headStart bool      // waiting[0] is the candidate that worked last, and is tried alone at first
	extra     int       // connects beyond maxTCP, for candidates that need no place among them
	earliest  time.Time // when the next attempt may start
	winner    *Conn

	ways   ways
	shrink shrink
}

func (d *Dialer) newRace(t Target, cancel context.CancelFunc) *race {
	r := &race{d: d, t: t, cancel: cancel, patience: d.memory.patience(),
		events: make(chan event), handshakes: make(chan struct{}, maxTLS), tried: map[Candidate]bool{}}
	if d.Proxies != nil {
		r.ways.proxies = d.Proxies()
	}
	r.shrink.all = d.memory.onlySmall(d.now()) || d.OnlySmall != nil && d.OnlySmall()
	return r
}

func (r *race) run(ctx context.Context) *Conn {
	// They live as long as the race: since Go 1.23 a timer that was stopped or reset delivers no stale tick.
	next, good, other, silence := time.NewTimer(0), time.NewTimer(goodJoins), time.NewTimer(otherWays), time.NewTimer(0)
	for _, t := range []*time.Timer{next, good, other, silence} {
		defer t.Stop()
	}
	r.lookup(ctx)
	r.beginWays()
	for r.unfinished(ctx) {
		if r.mayStart(ctx) {
			next.Reset(time.Until(r.earliest))
		} else {
			next.Stop() // until an event makes room
		}
		if due, ok := r.shrink.due(); ok {
			silence.Reset(time.Until(due))
		} else {
			silence.Stop()
		}
		select {
		case e := <-r.events:
			r.handle(ctx, e)
		case <-good.C:
			r.join()
		case <-other.C:
			r.joinWays()
		case <-silence.C:
			r.shrinkSilent(ctx)
		case <-next.C:
			r.start(ctx)
		}
	}
	return r.winner
}

// unfinished reports whether there is anything left to wait for. Addresses that
// worked before are tried in the end even if DNS has answered, since a captive
// portal answers for every name.
func (r *race) unfinished(ctx context.Context) bool {
	if r.lookups+r.dials+r.shrink.beside > 0 {
		if len(r.waiting)+r.dials+r.shrink.beside == 0 && r.ways.proxies.First {
			r.joinWays() // the proxies have failed, and names need not be waited for
		}
		return true
	}
	if r.winner != nil || ctx.Err() != nil {
		return false
	}
	if len(r.waiting) == 0 {
		r.joinWays()
		r.add(r.remembered())
	}
	return len(r.waiting) > 0
}

func (r *race) mayStart(ctx context.Context) bool {
	return len(r.waiting) > 0 && r.dials < maxTCP+r.extra && r.winner == nil && ctx.Err() == nil
}

// lookup asks for the addresses of every host at once.
func (r *race) lookup(ctx context.Context) {
	for _, h := range r.t.Hosts {
		host, ports, err := r.split(h)
		if err != nil {
			r.ended = append(r.ended, Attempt{Candidate: Candidate{Host: h}, Reason: DNS, Detail: err.Error()})
			continue
		}
		r.lookups++
		r.ways.hosts = append(r.ways.hosts, hostPorts{host, ports})
		// Ends by itself: resolve and try return when ctx ends, and run receives their events until nothing is in
		// flight.
		go func() {
			addrs, err := r.d.resolve(ctx, host)
			e := event{lookup: true, found: candidates(host, addrs, ports)}
			if len(e.found) == 0 {
				e.attempt = &Attempt{Candidate: Candidate{Host: host}, Reason: DNS, Detail: detail(err)}
			}
			r.events <- e
		}()
	}
}

// handle updates the search after an event.
func (r *race) handle(ctx context.Context, e event) {
	switch {
	case e.lookup:
		r.lookups--
	case e.hello != nil:
		r.shrink.sent(e.hello)
		return
	case e.beside:
		r.shrink.beside--
	default:
		r.dials--
	}
	switch {
	case r.winner != nil: // another one was faster
		if e.conn != nil {
			// Without close_notify, which could block: two handshakes may have ended in the same moment.
			e.conn.NetConn().Close()
		}
	case e.lookup:
		r.addDirect(e.found)
		if e.attempt != nil {
			r.record(ctx, *e.attempt)
		}
	default:
		r.record(ctx, *e.attempt)
		// A refusal frees its place at once: on a site that rejects, each closed port costs a round trip and not 250
		// ms.
		r.earliest = time.Time{}
		if r.winner = e.conn; e.conn != nil {
			r.cancel() // other attempts, and look-ups
			return
		}
		r.learn(ctx, *e.attempt)
	}
}

// learn draws conclusions for the rest of the search from an attempt that failed.
func (r *race) learn(ctx context.Context, a Attempt) {
	r.shrink.ended(a)
	if a.Reason == ResetAfterHello {
		r.startSmall(ctx, a.Candidate)
	}
	if a.proxyFailed {
		r.dropProxy(a.Proxy)
	}
}

// record keeps the result of an attempt. One that ended because the search did says
// nothing about its candidate, which is not remembered as failed.
func (r *race) record(ctx context.Context, a Attempt) {
	a.GivenUp = ctx.Err() != nil
	r.ended = append(r.ended, a)
	if !a.GivenUp {
		r.d.memory.attempted(a, r.d.now())
	}
	if r.d.Trace != nil {
		r.d.Trace(a)
	}
}

// start starts the next candidate, and sets when the one after it may start.
func (r *race) start(ctx context.Context) {
	if !r.mayStart(ctx) {
		return // the context ended meanwhile
	}
	c := r.form(r.waiting[0])
	r.waiting = r.waiting[1:]
	r.dials++
	r.launch(ctx, c, r.handshakes, false)
	// On a satellite link of 600 ms, 250 ms would start three connects before the first could have been answered.
	pause := max(minStagger, r.d.memory.roundTrip()*3/2)
	if r.headStart {
		r.headStart, pause = false, goodHeadStart
	}
	r.earliest = time.Now().Add(pause)
}

// form is a candidate as it would be tried now.
func (r *race) form(c Candidate) Candidate {
	if r.shrink.all {
		return c.small()
	}
	return c
}

// launch tries a candidate in a goroutine of its own, which reports to the loop.
func (r *race) launch(ctx context.Context, c Candidate, slots chan struct{}, beside bool) {
	// Set before the attempt ends, so that an address which DNS finds meanwhile is not started twice.
	r.tried[c] = true
	said := func(h *hello) { r.events <- event{hello: h} }
	go func() {
		conn, a := r.d.try(ctx, r.t, c, attempting{slots, r.patience, r.ways.proxies, said})
		r.events <- event{attempt: &a, conn: conn, beside: beside}
	}()
}

// wasTried reports whether a candidate was tried. Where the small form failed the full
// one does, too.
func (r *race) wasTried(c Candidate) bool { return r.tried[c] || r.tried[c.small()] }

// split separates a host of the target from the ports to try on it.
func (r *race) split(h string) (string, []Port, error) {
	host, port, err := SplitHost(h)
	if port != 0 {
		return host, []Port{port}, err
	}
	return host, r.t.Ports, err
}

func (d *Dialer) now() time.Time {
	if d.Now != nil {
		return d.Now()
	}
	return time.Now()
}

func (d *Dialer) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	// An IP literal must work with DNS dead: operators write one for exactly that.
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	if d.Resolve != nil {
		return d.Resolve(ctx, host)
	}
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

func detail(err error) string {
	if err == nil || errors.Is(err, context.Canceled) {
		return "no address"
	}
	return err.Error()
}
