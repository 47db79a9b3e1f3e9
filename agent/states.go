package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"hawser/identity"
	"hawser/internal/credential"
	"hawser/internal/wait"
	"hawser/transport"
	"hawser/transport/control"
	"hawser/transport/wire"
)

// boot loads the stored identity. A damaged identity is an error that is tried again: a file system may be mounted
// late.
func (a *Agent) boot(context.Context) (State, error) {
	if err := a.store.finishAccepted(); err != nil {
		return StateBoot, err
	}
	self, err := a.store.self()
	if errors.Is(err, ErrNotEnrolled) {
		a.self.Store(nil)
		a.reports.keep(identity.SPKI{})
		a.sessions.judgeAgain() // who has removed the identity wants nobody in
		return StateEnroll, nil
	}
	if err != nil {
		return StateBoot, err
	}
	a.self.Store(self)
	a.reports.keep(self.SPKI)
	a.owners.forget() // it may have been enrolled again
	a.ownerOf(self)
	if err := a.store.dropClaim(); err != nil { // one that a power cut has left
		return StateBoot, err
	}
	a.sessions.judgeAgain() // those of an identity that was replaced
	return StateDial, nil
}

// Polled and not watched: enroll is another process, inotify is Linux only, and a look at a missing file costs nothing.
const identityPoll = 5 * time.Second

// awaitIdentity waits until somebody has claimed the gateway, or hawser-agent enroll has stored an identity.
func (a *Agent) awaitIdentity(ctx context.Context) (State, error) {
	a.log.Info("waiting for an identity: claim the gateway, or run hawser-agent enroll", "state", StateEnroll)
	var asking sync.WaitGroup
	defer asking.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	asking.Go(func() { a.keepAsking(ctx) })
	for ctx.Err() == nil {
		_, err := a.store.self()
		if err == nil {
			return StateBoot, nil
		}
		if !errors.Is(err, ErrNotEnrolled) {
			return StateEnroll, err
		}
		a.alive(time.Minute)
		wait.Sleep(ctx, identityPoll)
	}
	return StateStopped, nil
}

// quarantined waits 15 to 30 min: the infrastructure does not accept this identity
// now. It may again, after a store was restored or an operator changed his mind,
// and nobody can walk up to the gateway, so it is tried again, rarely. When
// another identity was stored, or the identity was removed, the wait ends at once.
func (a *Agent) quarantined(ctx context.Context) (State, error) {
	until := time.Now().Add(quarantine + wait.Random(quarantine))
	for ctx.Err() == nil && time.Now().Before(until) {
		self, err := a.store.self()
		if err == nil && self.SPKI != a.self.Load().SPKI || errors.Is(err, ErrNotEnrolled) {
			return StateBoot, nil
		}
		a.alive(time.Minute)
		wait.Sleep(ctx, min(identityPoll, time.Until(until)))
	}
	return StateDial, nil
}

// dial connects to an Access Server, whose signed time sets the clock, renews the
// identity if its dates do not fit, and says hello. The order is fixed: without the time no certificate can be judged,
// and with a certificate that is over no hello is accepted.
func (a *Agent) dial(ctx context.Context, up *attachment) (State, error) {
	if a.release.said.Load() {
		return a.forgetOwner()
	}
	if a.store.isAccepted() {
		return StateBoot, nil // which finishes that
	}
	ctx, stop := a.untilLinkUp(ctx)
	defer stop()
	client := a.client(a.self.Load())
	conn, err := client.Connect(ctx)
	if context.Cause(ctx) == errLinkUp && err != nil {
		return StateDial, nil // at once
	}
	if err != nil {
		return StateDial, err
	}
	a.saveState()
	if self := a.self.Load(); outdated(self.Cert.Leaf, a.clock.Now()) || self.Roots.Refuses(self.chain) {
		if err := a.renew(ctx, conn); err != nil {
			return next(StateDial, serverReason(err)), fmt.Errorf("renew identity: %w", err)
		}
		// Anew, because the server closes the connection after renew (wire §4), and knows the old certificate on it.
		if conn, err = client.Connect(ctx); err != nil {
			return StateDial, err
		}
	}
	link, err := conn.Control(ctx, a.hello())
	if err != nil {
		conn.NetConn().Close()
		return next(StateDial, serverReason(err)), &transport.Error{Reason: transport.ReasonOf(err),
			Op: "say hello to " + conn.Candidate.Where(), Err: err}
	}
	*up = attachment{conn, link}
	return StateAttached, nil
}

// hello is what the gateway says of itself, and of what it knows of its owner.
func (a *Agent) hello() wire.Hello {
	h := wire.Hello{Version: a.version, Hints: a.board.Hints(), Instance: a.instance, SessionVersion: wire.SessionVersion}
	if known, err := a.ownerOf(a.self.Load()); err == nil {
		h.DomainKey = known.Pinned().Key.SPKI()
		h.List, h.Device = known.Serials()
		if chain := known.Chain(); len(chain) > 1 {
			h.Key = chain[1]
		}
	}
	h.JoinState = a.store.joinState(a.self.Load().SPKI)
	return h
}

// expiryMargin is how far the server's clock may be ahead of ours when it checks
// our dates. Every other renewal is done by keepIdentity, while attached.
const expiryMargin = time.Minute

// outdated reports whether a server would refuse leaf for its dates. A certificate
// that is not valid yet was issued while the server's clock was ahead.
func outdated(leaf *x509.Certificate, now time.Time) bool {
	return now.Before(leaf.NotBefore) || !now.Before(leaf.NotAfter.Add(-expiryMargin))
}

// saveState stores the newest signed time and the addresses that worked last. A
// full or broken flash must not keep a gateway offline, so errors are only logged.
func (a *Agent) saveState() {
	if err := a.store.save(a.clock.Anchor()); a.status.trouble("save state", err) {
		a.log.Error("save state", "err", err)
	}
}

// attached serves the control connection that StateDial made, until it is lost or
// ctx ends. The helpers end with caring, before the state is left: none of them may send on the next link.
func (a *Agent) attached(ctx context.Context, up attachment) (State, error) {
	conn, link := up.conn, up.link
	self, c := a.self.Load(), conn.Candidate
	a.status.online(c)
	a.counts.online()
	a.log.Info("online", "uid", self.UID, "host", c.Host, "addr", c.Where(), "small", c.Small, "rtt", conn.RTT)
	through := ""
	if c.Proxy != "" {
		through = " through " + c.Proxy
	}
	fmt.Fprintf(a.out, "online %s via %s%s\n", self.UID, net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port()))), through)
	a.sessions.attach(link)
	defer a.sessions.attach(nil)
	addr := addrPort(conn.RemoteAddr()) // of what ends TCP: that may be a proxy
	survived := a.paceIdle(link, addr, addrPort(conn.LocalAddr()).Addr())

	var care sync.WaitGroup
	defer care.Wait()
	ctx, stop := a.untilReleased(ctx) // it goes on in StateDial, when nothing renews the identity any more
	defer stop()
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	caring, cancel := context.WithCancel(ctx)
	defer cancel()
	handler := a.handler(survived)
	a.careForKey(caring, &care, link, &handler, leave)
	care.Go(func() { a.keepIdentity(caring) })
	care.Go(func() { a.keepMeasuring(caring, link) })
	care.Go(func() { a.keepReporting(caring, link) })
	care.Go(func() { a.eachLinkUp(caring, link.Probe) })
	err := link.Run(ctx, handler)
	// Kept only; it counts when the next search finds a way soon (idleLinks.found).
	if cutOff(err) {
		a.idle.lost(addr, link.Lost())
	}
	if a.release.said.Load() {
		return StateDial, nil
	}
	if serverReason(err) == transport.Cloned {
		a.sessions.endAll(&wire.Refusal{Reason: transport.Cloned, Text: byInfra + "two machines use the identity of this gateway"})
	}
	return next(StateAttached, serverReason(err)), err
}

const newInterval = "idle link has another interval"

// paceIdle sets how often an idle link pings, by what former links have taught and what
// this one survives (wire §4.6.1).
func (a *Agent) paceIdle(link *control.Link, addr netip.AddrPort, own netip.Addr) (survived func(time.Duration)) {
	if at, changed := a.idle.found(own, a.clock.Now()); changed {
		a.log.Info(newInterval, "addr", at, "interval", a.idle.of(at).Interval)
	}
	heartbeat := link.Heartbeat()
	want := planIdle(heartbeat, 0, a.config.Budget).interval
	set := func(k idleLink) {
		if a.idle.set(addr, k) {
			a.log.Info(newInterval, "addr", addr, "interval", k.interval(want))
		}
		link.Pace(k.interval(want))
		a.status.paced(pace{heartbeat, k.Interval, k.interval(want)})
	}
	set(a.idle.of(addr).attached(own, a.clock.Now()))
	return func(idle time.Duration) { set(a.idle.of(addr).survived(idle, want, a.clock.Now())) }
}

// addrPort unmaps the address, so that one server has one entry whichever kind of socket the system chose.
func addrPort(a net.Addr) netip.AddrPort {
	addr, _ := netip.ParseAddrPort(a.String()) // that of a TCP connection is one
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
}

func (a *Agent) handler(survived func(time.Duration)) control.Handler {
	return control.Handler{
		Survived:   survived,
		Offer:      a.sessions.offer,
		EndSession: a.sessions.end,
		Revoked:    a.sessions.revoked,
		Statements: a.heard,
		Pool:       a.relays.pool,
		Reported:   a.reported,
		Measure:    a.relays.wantAll,
		Beat:       func() { a.alive(time.Minute) },
	}
}

const (
	anchorEvery = 24 * time.Hour
	renewRetry  = time.Hour
)

// keepIdentity renews the certificate at half its life, and lets the store save what has
// changed and, once a day, the anchor, until ctx ends. A connection of its own: on the control connection only hello
// and what follows it are allowed (wire §4).
func (a *Agent) keepIdentity(ctx context.Context) {
	for ctx.Err() == nil {
		self := a.self.Load()
		due := credential.RenewAt(self.Cert.Leaf).Sub(a.clock.Now())
		if due > 0 && !self.Roots.Refuses(self.chain) {
			// An hour at most, though the renewal is days away: the clock may be set meanwhile, and the store saves by
			// this loop.
			wait.Sleep(ctx, min(due, saveRest))
			if ctx.Err() == nil {
				a.saveState()
			}
			continue
		}
		conn, err := a.client(a.self.Load()).Connect(ctx)
		if err == nil {
			err = a.renew(ctx, conn)
		}
		if err != nil && ctx.Err() == nil {
			a.log.Warn("renew identity", "reason", transport.ReasonOf(err), "err", err)
		}
		// After a success as well: an issuing CA that is about to expire gives
		// certificates that are past half their life when they are new.
		wait.Sleep(ctx, renewRetry+wait.Random(renewRetry))
	}
}

// errLinkUp cancels a search that began before a network came up: its connects wait
// for time-outs in a network that was not there.
var errLinkUp = errors.New("a network has come up")

// untilLinkUp returns a context that is cancelled, with errLinkUp as its cause,
// when a network comes up. Stop releases it and waits for its goroutine.
func (a *Agent) untilLinkUp(ctx context.Context) (watched context.Context, stop func()) {
	watched, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-a.linkUp:
			a.networkUp()
			cancel(errLinkUp)
		case <-watched.Done():
		}
	}()
	return watched, func() { cancel(nil); <-done }
}

// networkUp notes what has come with a network: uplinks, which stay uplinks. Names that failed for want of it are asked
// again.
func (a *Agent) networkUp() {
	a.surroundings(0)
	a.resolver.Forget()
}

// eachLinkUp calls f each time that a network comes up, until ctx ends. Only the state that is current reads linkUp, so
// that a ring is not taken by one that has no use for it.
func (a *Agent) eachLinkUp(ctx context.Context, f func()) {
	for {
		select {
		case <-a.linkUp:
			a.networkUp()
			f()
		case <-ctx.Done():
			return
		}
	}
}
