package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"hawser/identity"
	"hawser/probe"
	"hawser/transport"
)

// Netcheck looks from this machine at all that the agent needs: time, names,
// and each host × port. It uses neither the identity nor the state directory, so
// it works beside an agent that runs, and before enrolment. It blocks for 30 s
// at most; progress gets each row as it comes.
func Netcheck(ctx context.Context, o Options, progress func(fmt.Stringer)) (probe.Report, error) {
	if len(o.Config.Access) == 0 {
		return probe.Report{}, errors.New("netcheck: no Access Server is named in the configuration: give --access HOST")
	}
	if o.Config.Roots == nil {
		return probe.Report{}, errors.New("netcheck: no root to verify servers with: give --root FILE")
	}
	clock := newClock(o.Build, time.Time{}, o.Board.Now(), o.Board.Uptime)
	floor, ceiling := clock.window()
	resolver := &probe.Resolver{Servers: o.Config.DNS, Dial: o.DialContext, Private: o.Config.Private}
	n := probe.Netcheck{
		Hosts: o.Config.Access, Ports: o.Config.Ports, TimeSources: o.Config.timeSources(),
		Resolver: resolver,
		SNTP:     &probe.SNTP{Resolve: resolver.Resolve, Dial: o.DialContext, Now: o.Board.Now},
		Dialer:   &transport.Dialer{Resolve: resolver.Resolve, Now: clock.Now, DialContext: o.DialContext},
		Target: transport.Target{ALPN: transport.ALPNAccess, Name: identity.Name{Kind: identity.KindAccess}, Roots: o.Config.Roots,
			// As in the prelude: a clock that is wrong must not hide an open port.
			At:          func(leaf *x509.Certificate) time.Time { return later(floor, leaf.NotBefore) },
			ClockUnsure: true},
		Floor: floor, Ceiling: ceiling, Progress: func(row probe.Row) { progress(row) },
	}
	return n.Run(ctx), nil
}
