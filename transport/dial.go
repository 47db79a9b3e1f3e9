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

// A Target is what to reach: any of some hosts, in one role, proving one kind
// of identity.
type Target struct {
	Hosts []string      // names or IP literals; HOST:PORT means that port alone
	Ports []Port        // for the hosts without a port
	ALPN  string        // the role, wire §1.2
	Name  identity.Name // the Kind wanted; with an ID, that very name
	Roots *identity.Roots
	Pin   identity.SPKI // of the root, when Roots is nil

	// At says at which time the server's chain is verified, given its leaf.
	// Nil means Dialer.Now. The prelude needs it (wire §3.2).
	At func(leaf *x509.Certificate) time.Time
	// ClockUnsure says that the own clock may be wrong, so that dates which do
	// not fit are reported as clock and not as expired.
	ClockUnsure bool
	// Anonymous keeps the own certificate back.
	Anonymous bool
}

// A Dialer searches for an open way to a server (wire §8). A port is open when
// authenticated TLS completes on it, and not before. The zero value works. A
// Dialer remembers which candidates failed lately, so one is kept for the life
// of a program. It is safe for concurrent use.
type Dialer struct {
	Resolve     func(ctx context.Context, host string) ([]netip.Addr, error)         // nil: the system's resolver; must return when ctx ends
	Now         func() time.Time                                                     // nil: time.Now
	DialContext func(ctx context.Context, network, address string) (net.Conn, error) // nil: net.Dialer
	Certificate func() *tls.Certificate                                              // the own one; nil: none
	LastGood    func(host string) []netip.AddrPort                                   // newest first; nil: none
	Good        func(Candidate)                                                      // told of each success; nil: nobody
	Trace       func(Attempt)                                                        // told of each ended attempt, concurrently; nil: nobody

	memory memory
}

// Conn is an authenticated connection. Chain is what the server showed, and
// Roots what it was verified to: with Target.Pin, the root that was found.
type Conn struct {
	*tls.Conn
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
	r := &race{d: d, t: t, cancel: cancel, patience: d.memory.patience(),
		events: make(chan event), shook: make(chan struct{}, maxTLS), tried: map[Candidate]bool{}}
	conn := r.run(ctx)
	if conn != nil || ctx.Err() == nil {
		d.memory.searched(conn != nil)
	}
	if conn == nil {
		return nil, &DialError{Hosts: t.Hosts, Attempts: r.ended, Cause: context.Cause(ctx)}
	}
	if d.Good != nil {
		d.Good(conn.Candidate)
	}
	return conn, nil
}

// event is what a goroutine of a race reports: addresses of a host, or the end
// of an attempt.
type event struct {
	lookup  bool
	found   []Candidate
	attempt *Attempt
	conn    *Conn
}

// race is one search. Its loop owns every field; the goroutines only send events.
type race struct {
	d        *Dialer
	t        Target
	cancel   context.CancelFunc
	patience int
	events   chan event
	shook    chan struct{} // a slot for each handshake in flight

	waiting  []Candidate
	tried    map[Candidate]bool
	ended    []Attempt
	lookups  int       // in flight
	dials    int       // in flight
	alone    bool      // the first of waiting is the last good one
	extra    int       // connects beyond maxTCP, for the last good one
	earliest time.Time // when the next attempt may start
	winner   *Conn
}

func (r *race) run(ctx context.Context) *Conn {
	r.lookup(ctx)
	next, good := time.NewTimer(0), time.NewTimer(goodJoins)
	defer next.Stop()
	defer good.Stop()
	for r.unfinished(ctx) {
		if r.mayStart(ctx) {
			next.Reset(time.Until(r.earliest))
		} else {
			next.Stop() // until an event makes room
		}
		select {
		case e := <-r.events:
			r.take(ctx, e)
		case <-good.C:
			r.join()
		case <-next.C:
			r.start(ctx)
		}
	}
	return r.winner
}

// unfinished reports whether there is anything left to wait for. What worked
// before is tried in any case, also when DNS has answered: it may have lied.
func (r *race) unfinished(ctx context.Context) bool {
	if r.lookups+r.dials > 0 {
		return true
	}
	if r.winner != nil || ctx.Err() != nil {
		return false
	}
	if len(r.waiting) == 0 {
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

// take books an event.
func (r *race) take(ctx context.Context, e event) {
	if e.lookup {
		r.lookups--
	} else {
		r.dials--
	}
	switch {
	case r.winner != nil: // too late
		if e.conn != nil {
			e.conn.NetConn().Close()
		}
	case e.lookup:
		r.add(e.found)
		if e.attempt != nil {
			r.note(ctx, *e.attempt)
		}
	default:
		r.note(ctx, *e.attempt)
		r.earliest = time.Time{}
		if r.winner = e.conn; e.conn != nil {
			r.cancel() // the losers, and lookups that are still out
		}
	}
}

// note books an attempt. What ended with the whole search proves nothing about
// the candidate, which shall not rest for it.
func (r *race) note(ctx context.Context, a Attempt) {
	r.ended = append(r.ended, a)
	if ctx.Err() == nil {
		r.d.memory.ended(a, r.d.now())
	}
	if r.d.Trace != nil {
		r.d.Trace(a)
	}
}

// start starts the next candidate and says when the one after it may.
func (r *race) start(ctx context.Context) {
	if !r.mayStart(ctx) {
		return // the context ended meanwhile
	}
	c := r.waiting[0]
	r.waiting = r.waiting[1:]
	r.tried[c] = true
	r.dials++
	go func() {
		conn, a := r.d.try(ctx, r.t, c, r.shook, r.patience)
		r.events <- event{attempt: &a, conn: conn}
	}()
	pause := max(minStagger, r.d.memory.roundTrip()*3/2)
	if r.alone {
		r.alone, pause = false, goodAlone
	}
	r.earliest = time.Now().Add(pause)
}

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
