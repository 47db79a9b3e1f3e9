package manager

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"hawser/identity"
	"hawser/internal/wait"
	"hawser/probe"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

const (
	maxMeasured  = 32            // the Access Server takes so many from one end; of a longer pool, the first
	measureEvery = 6 * time.Hour // as a Runtime does (wire §4.8)
	measureCheck = 1 * time.Hour // how often a Connect checks whether it is due
)

// AddRelay makes a relay and its activation code. Hosts and ports are where it will be reached, whatever it says; no ports:
// the default ones. Reason name-taken when there is one of that name. A label and no display name: it becomes part of
// certificates and grants.
func (a *Account) AddRelay(ctx context.Context, name string, hosts []string, ports []transport.Port) (r api.NewRelay, err error) {
	if err := identity.CheckLabel(name); err != nil {
		return r, usage("name: %w", err)
	}
	if len(hosts) == 0 {
		return r, usage("add relay %s: no host is named: give --host HOST, where gateways and technicians reach it", name)
	}
	request := api.RelayRequest{Name: name, Ports: ports}
	for _, h := range hosts {
		host, err := transport.ParseHost(h)
		if _, port, _ := transport.SplitHost(host); err == nil && port != 0 {
			err = fmt.Errorf("%q: want a name or IP address, and its ports by --ports", h)
		}
		if err != nil {
			return r, usage("--host: %w", err)
		}
		request.Hosts = append(request.Hosts, host)
	}
	return r, a.do(ctx, "add relay "+name, http.MethodPost, "/relays", request, &r)
}

// Ports makes ports of numbers as a user gives them. The error is an *answer.UsageError.
func Ports(numbers []uint) (ports []transport.Port, err error) {
	for _, p := range numbers {
		if p == 0 || p > 65535 {
			return nil, usage("--ports: %d is not 1 to 65535", p)
		}
		ports = append(ports, transport.Port(p))
	}
	return ports, nil
}

// RegisteredRelays lists all relays, for who runs the infrastructure. It is never nil.
func (a *Account) RegisteredRelays(ctx context.Context) ([]api.RegisteredRelay, error) {
	var answer api.RegisteredRelays
	err := a.do(ctx, "list relays", http.MethodGet, "/relays/registered", nil, &answer)
	return list(answer.Relays), err
}

// RevokeRelay shuts a relay out for good: its key is refused everywhere, and what it carries goes on at another one. Its name
// is never used again.
func (a *Account) RevokeRelay(ctx context.Context, name string) (r api.RegisteredRelay, err error) {
	if err := identity.CheckLabel(name); err != nil {
		return r, usage("name: %w", err)
	}
	return r, a.do(ctx, "revoke relay "+name, http.MethodPost, "/relays/"+name+"/revoke", nil, &r)
}

// Relays measures every relay from here, has the device's Runtime do the same, and returns what the Access Server would
// choose now for a session between the two. Its own numbers are sent first: the decision that comes back is one of both
// ends, as it would be for a session.
func (a *Account) Relays(ctx context.Context, device string) (d api.Decision, err error) {
	path, err := devicePath(device)
	if err != nil {
		return d, err
	}
	pool, err := a.pool(ctx)
	if err != nil {
		return d, err
	}
	if err := a.measure(ctx, pool); err != nil {
		return d, err
	}
	a.m.progress("waiting for what " + device + " measures")
	err = a.do(ctx, "decide relay for "+device, http.MethodGet, path+"/relays?measure=1", nil, &d)
	a.m.progress("")
	d.Relays = list(d.Relays)
	return d, err
}

// pool asks for the relays that are online. The pool is asked for each time: a relay that joined since the login counts
// at once.
func (a *Account) pool(ctx context.Context) (all []wire.Relay, err error) {
	const op = "list relays"
	err = pages(op, "/relays", func(page string) (string, error) {
		var answer api.Relays
		err := a.do(ctx, op, http.MethodGet, page, nil, &answer)
		all = append(all, answer.Relays...)
		return answer.Next, err
	})
	return all[:min(len(all), maxMeasured)], err
}

// measure measures the relays from here, tells the Access Server, and remembers that it did. Remembered only after the
// server took it: what it did not get has to be measured again.
func (a *Account) measure(ctx context.Context, pool []wire.Relay) error {
	names := relayNames(pool)
	a.m.progress(fmt.Sprintf("measuring %d relays: %s", len(pool), strings.Join(names, ", ")))
	all := probe.MeasureRelays(ctx, a.dialer, a.state.roots, pool)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := a.do(ctx, "report measurements", http.MethodPost, "/measurements", api.Measurements{Relays: all}, nil); err != nil {
		return err
	}
	done := &measured{At: a.m.now().UTC(), Relays: names}
	if err := a.home.storeMeasured(a.state.config, done); err != nil { // the cost is one more measuring
		a.m.log().Warn("measuring was not remembered", "err", err)
	}
	a.state.config.Measured = done
	a.m.progress("")
	return nil
}

func relayNames(pool []wire.Relay) (names []string) {
	for _, r := range pool {
		names = append(names, r.Name)
	}
	return names
}

// keepMeasured measures the relays whenever that is due, until ctx ends. Failures are only logged; the next check tries
// again. It runs on an Account of its own (beside), since an Account is for one goroutine.
func (a *Account) keepMeasured(ctx context.Context) {
	for {
		pool, err := a.pool(ctx)
		if err == nil && a.state.config.Measured.due(pool, a.m.now()) {
			err = a.measure(ctx, pool)
		}
		if err != nil && ctx.Err() == nil {
			a.m.log().Warn("relays were not measured", "err", clean(err.Error()))
		}
		if !wait.Sleep(ctx, measureCheck) {
			return
		}
	}
}

// due reports whether the last measuring is too old, or lacks a relay of the pool. A clock that was set back makes it
// due: else the next measuring could be years away.
func (m *measured) due(pool []wire.Relay, now time.Time) bool {
	if m == nil || now.Sub(m.At) >= measureEvery || now.Before(m.At) {
		return len(pool) > 0
	}
	return slices.ContainsFunc(pool, func(r wire.Relay) bool { return !slices.Contains(m.Relays, r.Name) })
}
