package probe

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// outcome is the result of asking one server, or of asking it in one way.
type outcome struct {
	Attempt
	reply
	tried []Attempt // all attempts, failed ones included
}

// final is true when no other server needs to be asked (names §3). A resolver inside a site may deny a name that the
// world knows, or have an address of its own for it: then one outside is heard as well.
func (o outcome) final(private bool) bool {
	if o.reason != "" {
		return o.reason == ReasonNoAddress
	}
	return slices.ContainsFunc(o.addrs, func(a netip.Addr) bool {
		a = a.Unmap()
		return dialable(a) && (private || !a.IsPrivate())
	})
}

// patience is for how long other servers are heard after an outcome that is not final; 0 is for as long as they take. What
// has an address or a verdict should not wait for a server that is dead.
func (o outcome) patience() time.Duration {
	switch o.reason {
	case "":
		return secondGrace
	case ReasonNXDomain:
		return denialGrace
	}
	return 0
}

// spoke is true when the server itself has answered, so that it would say the same
// over another network.
func (o outcome) spoke() bool { return o.fit == answered || o.fit == formErr }

// ask sends one query to the servers in turn: to the next one when one has given nothing final, or was silent for 1.5 s
// (names §3).
func (r *Resolver) ask(ctx context.Context, servers []netip.AddrPort, name string, qtype uint16) found {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	final := func(o outcome) bool { return o.final(r.Private) }
	return sumUp(stagger(ctx, len(servers), final, func(ctx context.Context, i int) outcome {
		o := r.askServer(ctx, servers[i], name, qtype)
		if d := o.patience(); d > 0 && !final(o) {
			time.AfterFunc(d, cancel) // which does nothing when ask has returned
		}
		return o
	}))
}

// sumUp is what several servers know together; there is at least one. The last that failed says why there is nothing,
// unless one has said that there is no such name.
func sumUp(outcomes []outcome) (f found) {
	for _, o := range outcomes {
		if len(o.addrs) > 0 && (len(f.addrs) == 0 || o.ttl < f.ttl) {
			f.ttl = o.ttl
		}
		f.addrs = appendNew(f.addrs, o.addrs)
		f.attempts = appendNew(f.attempts, o.tried)
		if f.reason != ReasonNXDomain {
			f.reason = o.reason
		}
	}
	if len(f.addrs) > 0 {
		f.reason = ""
	}
	return f
}

// askServer sends one query to one server over UDP and TCP, the second when the first
// has failed or was silent for 1.5 s (names §3).
func (r *Resolver) askServer(ctx context.Context, server netip.AddrPort, name string, qtype uint16) outcome {
	ways := [2]string{"udp", "tcp"}
	tcpFirst := r.tcpFirst(server)
	if tcpFirst {
		ways = [2]string{"tcp", "udp"}
	}
	outcomes := stagger(ctx, len(ways), outcome.spoke, func(ctx context.Context, i int) outcome {
		o := outcome{reply: r.exchange(ctx, ways[i], server, name, qtype)}
		o.Attempt = Attempt{Server: server, Network: ways[i], Reason: o.reason}
		return o
	})
	last := outcomes[len(outcomes)-1]
	for _, o := range outcomes {
		last.tried = append(last.tried, o.Attempt)
	}
	if last.spoke() && (last.Network == "tcp") != tcpFirst && outcomes[0].fit != truncated {
		r.setTCPFirst(server, !tcpFirst) // the network that came second is the one that works
	}
	return last
}

// stagger runs try(0) … try(n-1) concurrently. It starts the next one when one has returned a result that is not
// settled, or none has returned for the time of silence. It returns the results in the order in which they came: the
// last one is settled, or none is. Calls that still run are cancelled and waited for. Waiting for one way to fail
// before the next is tried would cost its whole time-out each time, as glibc does: 5 s for each name behind a silent
// first resolver.
func stagger[T any](ctx context.Context, n int, settled func(T) bool, try func(context.Context, int) T) []T {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	ended := make(chan T, n) // with room for all, so that cancelled calls can return
	timer := time.NewTimer(silence)
	defer timer.Stop()
	started := 0
	start := func() {
		i := started
		started++
		wg.Go(func() { ended <- try(ctx, i) })
		timer.Reset(silence)
	}
	var all []T
	for start(); len(all) < started; {
		select {
		case <-timer.C:
		case v := <-ended:
			all = append(all, v)
			if settled(v) {
				return all
			}
		}
		if started < n && ctx.Err() == nil {
			start()
		}
	}
	return all
}
