package probe

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// outcome is what one server, or one way of asking it, brought.
type outcome struct {
	Attempt
	reply
	tried []Attempt // with what failed on the way
}

// final is true when no other server needs to be asked.
func (o outcome) final() bool {
	return o.reason == "" || o.reason == ReasonNXDomain || o.reason == ReasonNoAddress
}

// spoke is true when the server itself said something that another way of
// asking it would not change.
func (o outcome) spoke() bool { return o.verdict == answered || o.verdict == formErr }

// ask puts one question to the servers in turn: the next one as soon as one
// fails, or is silent for long (names §3).
func (r *Resolver) ask(ctx context.Context, servers []netip.AddrPort, name string, qtype uint16) found {
	outcomes := stagger(ctx, len(servers), outcome.final, func(ctx context.Context, i int) outcome {
		return r.askServer(ctx, servers[i], name, qtype)
	})
	last := outcomes[len(outcomes)-1]
	f := found{addrs: last.addrs, ttl: last.ttl, reason: last.reason}
	for _, o := range outcomes {
		f.attempts = appendNew(f.attempts, o.tried)
	}
	return f
}

// askServer puts one question to one server over UDP and TCP, the second as
// soon as the first fails, or is silent for long (names §3).
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
	if last.spoke() && (last.Network == "tcp") != tcpFirst && outcomes[0].verdict != truncated {
		r.setTCPFirst(server, !tcpFirst) // the other way was the one that works
	}
	return last
}

// stagger runs try(0) … try(n-1) beside each other, starting the next one
// when one has ended unsettled or nothing has come for the time of silence.
// It returns what ended, in that order: the last one is settled, or all have
// ended without. Those still running are cancelled and waited for.
func stagger[T any](ctx context.Context, n int, settled func(T) bool, try func(context.Context, int) T) []T {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	ended := make(chan T, n) // nobody blocks on leaving
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
