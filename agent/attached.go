package agent

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"hawser/transport"
	"hawser/transport/control"
	"hawser/transport/wire"
)

// attached serves the control connection that StateDial made until it is lost.
func (a *Agent) attached(ctx context.Context) (State, error) {
	conn, link := a.conn, a.link
	self, c := a.self.Load(), conn.Candidate
	a.status.online(c)
	a.log.Info("online", "uid", self.UID, "host", c.Host, "addr", c.Addr, "rtt", conn.RTT)
	fmt.Fprintf(a.Out, "online %s via %s\n", self.UID, net.JoinHostPort(c.Host, strconv.Itoa(int(c.Addr.Port()))))
	a.sessions.attach(link)
	defer a.sessions.attach(nil)

	var care sync.WaitGroup
	defer care.Wait()
	caring, cancel := context.WithCancel(ctx)
	defer cancel()
	care.Go(func() { a.keepIdentity(caring) })
	care.Go(func() { a.keepMeasuring(caring, link) })
	care.Go(func() { a.eachLinkUp(caring, link.Probe) })
	err := link.Run(ctx, a.handler())
	return next(StateAttached, verdict(err)), err
}

func (a *Agent) handler() control.Handler {
	return control.Handler{
		Offer:      a.sessions.offer,
		EndSession: func(m wire.EndSession) { a.sessions.end(m.Session, m.Reason) },
		Revoked:    a.sessions.revoked,
		Pool:       a.relays.pool,
		Measure:    a.relays.wantAll,
		Beat:       func() { a.Alive(time.Minute) },
	}
}

const (
	anchorEvery = 24 * time.Hour
	renewRetry  = time.Hour
)

// keepIdentity renews the certificate at half its life, and stores the anchor
// once a day, until ctx ends.
func (a *Agent) keepIdentity(ctx context.Context) {
	fraction := float64(random(1<<20)) / (1 << 20)
	for ctx.Err() == nil {
		leaf := a.self.Load().Cert.Leaf
		wait := renewAt(leaf.NotBefore, leaf.NotAfter, fraction).Sub(a.clock.Now())
		if wait > 0 {
			sleep(ctx, min(wait, anchorEvery))
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
		// After a success as well: an issuer near its own end gives certificates
		// that are past their half when they are new.
		sleep(ctx, renewRetry+random(renewRetry))
	}
}
