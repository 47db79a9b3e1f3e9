package probe

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

const (
	budget      = 10 * time.Second        // one Resolve, names §3
	silence     = 1500 * time.Millisecond // unanswered this long: try another way as well, names §3
	secondGrace = 500 * time.Millisecond  // for the other address family, names §2
	maxServers  = 6                       // names §1
	maxAddrs    = 8                       // returned and cached per name, names §5
)

// Resolver turns host names into addresses by its own policy (names.md): Go's
// resolver gives up where a firewall drops UDP 53, this one goes on over TCP.
// The zero value asks the system's resolvers over the real network. Fields
// are set before the first use; methods are safe for concurrent use.
type Resolver struct {
	// Servers are asked in this order. Empty means the system's: ResolvConf,
	// or the network adapters on Windows.
	Servers []netip.AddrPort
	// HostsFile and ResolvConf are paths; empty means the system's own.
	HostsFile, ResolvConf string
	// Dial opens a connected "udp" or "tcp" socket to an IP literal with
	// port. Nil means net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Private says that the infrastructure lives on private addresses, so
	// that these are not put last (names §5).
	Private bool
	// Logger is told when a server is found to need special treatment. Nil
	// logs nothing.
	Logger *slog.Logger

	mu     sync.Mutex // guards what follows
	cache  nameCache
	quirks map[netip.AddrPort]quirk
}

// NameError says why a host has no address and what each server did.
type NameError struct {
	Host     string
	Reason   Reason
	Attempts []Attempt // none if nothing was asked; at most one per server, network and reason
}

// Attempt is what came of one question to one server.
type Attempt struct {
	Server  netip.AddrPort
	Network string // "udp" or "tcp"
	Reason  Reason // "" if it gave addresses
}

// String is server, network and what came of it, for people.
func (a Attempt) String() string {
	return fmt.Sprintf("%s %s %s", a.Server, a.Network, cmp.Or(a.Reason, "answered"))
}

// Error is one line: the host, the reason, then each attempt.
func (e *NameError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "resolve %.253q: %s", e.Host, e.Reason)
	for i, a := range e.Attempts {
		sep := ", "
		if i == 0 {
			sep = ": "
		}
		b.WriteString(sep + a.String())
	}
	return b.String()
}

// Resolve returns 1 to 8 addresses of host, best first (names §1, §5). It
// blocks for at most 10 s. The error is a *NameError, or wraps the context's
// error when ctx ended first. The slice is the caller's own.
func (r *Resolver) Resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr.Unmap()}, nil
	}
	name, ok := canonicalName(host)
	if !ok {
		return nil, &NameError{Host: host, Reason: ReasonBadName}
	}
	if addrs := lookupHosts(r.hostsFile(), name); len(addrs) > 0 {
		return addrs, nil
	}
	servers := r.servers()
	if len(servers) == 0 {
		return nil, &NameError{Host: host, Reason: ReasonNoResolver}
	}
	if addrs, err, hit := r.cached(name, servers); hit {
		return addrs, err
	}
	found := r.lookup(ctx, servers, name)
	if err := ctx.Err(); err != nil && len(found.addrs) == 0 {
		return nil, fmt.Errorf("resolve %s: %w", host, err) // says nothing about the name: not kept
	}
	return r.keep(name, servers, r.judgeAddrs(host, found))
}

// Forget drops all remembered failures, so that names are asked again at
// once: for the moment when a link comes up.
func (r *Resolver) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cache.forgetFailures()
}

// canonicalName lowers host and drops the final dot. It refuses what no host
// is called, so that later code needs no escaping.
func canonicalName(host string) (string, bool) {
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if name == "" || len(name) > 253 {
		return "", false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return "", false
		}
	}
	return name, true
}

// found is what asking for a name brought: addresses, or why there are none.
type found struct {
	addrs    []netip.Addr
	ttl      time.Duration
	reason   Reason // "" when addrs is not empty
	attempts []Attempt
}

// lookup asks for A and AAAA at once (names §2).
func (r *Resolver) lookup(ctx context.Context, servers []netip.AddrPort, name string) found {
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	types := [2]uint16{typeA, typeAAAA}
	var answers [2]found
	var wg sync.WaitGroup
	var grace *time.Timer
	var once sync.Once
	for i, qtype := range types {
		wg.Go(func() {
			answers[i] = r.ask(ctx, servers, name, qtype)
			if len(answers[i].addrs) > 0 {
				once.Do(func() { grace = time.AfterFunc(secondGrace, cancel) })
			}
		})
	}
	wg.Wait()
	if grace != nil {
		grace.Stop()
	}
	return merge(answers[0], answers[1])
}

// merge joins the answers of both families, taking turns, IPv4 first: a
// broken IPv6 is the likelier fault in a machine hall.
func merge(v4, v6 found) found {
	all := found{attempts: appendNew(v4.attempts, v6.attempts)}
	for i := range max(len(v4.addrs), len(v6.addrs)) {
		for _, f := range []found{v4, v6} {
			if i < len(f.addrs) {
				all.addrs = append(all.addrs, f.addrs[i])
			}
		}
	}
	if len(all.addrs) == 0 {
		all.reason = worse(v4.reason, v6.reason)
	}
	all.ttl = min(v4.keepFor(), v6.keepFor())
	return all
}

// keepFor is how long f may be remembered as one half of an answer. A family
// that failed has not said that it has no address: ask again soon.
func (f found) keepFor() time.Duration {
	switch {
	case len(f.addrs) > 0:
		return f.ttl
	case f.reason == ReasonNoAddress || f.reason == ReasonNXDomain:
		return maxTTL
	}
	return minTTL
}

// worse picks the reason that explains more: NXDOMAIN speaks for both
// families, "no address" only for its own.
func worse(a, b Reason) Reason {
	if b == ReasonNXDomain || a == ReasonNoAddress {
		return b
	}
	return a
}

func (r *Resolver) log() *slog.Logger {
	if r.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return r.Logger
}
