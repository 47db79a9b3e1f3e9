package probe

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"hawser/transport"
)

const (
	budget      = 10 * time.Second        // one Resolve, names §3
	silence     = 1500 * time.Millisecond // unanswered this long: try another way as well, names §3
	secondGrace = 500 * time.Millisecond  // for the other address family and for better addresses, names §2, §3
	denialGrace = 2 * silence             // for another server, after one said that there is no such name, names §3
	maxServers  = 6                       // names §1
	maxAddrs    = 8                       // returned and cached per name, names §5
)

// Resolver turns host names into addresses as names.md says. Go's resolver does not find names where a firewall drops
// UDP 53; this one goes on over TCP. The zero value asks the system's resolvers over the real network. Fields are set
// before the first use; methods are safe for concurrent use. It reads resolv.conf itself and needs no cgo, so that the
// same program runs on glibc, musl and without any.
type Resolver struct {
	// Servers are asked in this order. Empty means the system's: ResolvConf,
	// or the network adapters on Windows.
	Servers []netip.AddrPort
	// HostsFile and ResolvConf are paths; empty means the system's own.
	HostsFile, ResolvConf string
	// Dial opens a connected "udp" or "tcp" socket to an IP literal with
	// port. Nil means net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Private: the infrastructure has private addresses, which are then not
	// put last (names §5).
	Private bool
	// Logger logs when a server turns out to need special treatment. Nil logs
	// nothing.
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

// Attempt is the result of asking one server over one network.
type Attempt struct {
	Server  netip.AddrPort
	Network string // "udp" or "tcp"
	Reason  Reason // "" if it gave addresses
}

// String is the server, the network and the result, for people.
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

// Resolve returns 1 to 8 addresses of host, best first (names §1, §5). It blocks for at most 10 s. The error is a
// *NameError, or wraps the context's error when ctx ended first. The caller may change the slice. Files come before the
// cache: somebody who has just written a line into them expects it to count.
func (r *Resolver) Resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr.Unmap()}, nil
	}
	name, ok := transport.HostName(host)
	if !ok {
		return nil, &NameError{Host: host, Reason: ReasonBadName}
	}
	if addrs := lookupHosts(r.hostsFile(), name); len(addrs) > 0 {
		return addrs, nil
	}
	servers := r.ServersInUse()
	if len(servers) == 0 {
		return nil, &NameError{Host: host, Reason: ReasonNoResolver}
	}
	if addrs, err, hit := r.cached(name, servers); hit {
		return addrs, err
	}
	found := r.lookup(ctx, servers, name)
	if err := ctx.Err(); err != nil && len(found.addrs) == 0 {
		return nil, fmt.Errorf("resolve %s: %w", host, err) // not kept: it says nothing about the name
	}
	return r.keep(name, servers, r.judgeAddrs(host, found))
}

// Forget drops all failures from the cache. It is called when a link comes up, so that
// names are asked for again at once.
func (r *Resolver) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cache.forgetFailures()
}

// found is the result of asking for a name: addresses, or why there are none.
type found struct {
	addrs    []netip.Addr
	ttl      time.Duration
	reason   Reason // "" when addrs is not empty
	attempts []Attempt
}

// lookup asks for A and AAAA at once (names §2). The grace is for a family whose answer is on its way: without it every
// dial would begin with one family only, with a long one a filter that drops AAAA would cost its time at every name.
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

// merge alternates the addresses of both families, IPv4 first: in a machine hall, IPv6
// is more often broken.
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

// keepFor is how long f may be kept as one half of an answer. That a family failed
// does not mean that it has no address, so that is kept for a short time.
func (f found) keepFor() time.Duration {
	switch {
	case len(f.addrs) > 0:
		return f.ttl
	case f.reason == ReasonNoAddress || f.reason == ReasonNXDomain:
		return maxTTL
	}
	return minTTL
}

// worse returns the reason that explains more: NXDOMAIN is about both families, "no
// address" about one.
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

// judgeAddrs selects the addresses that may be dialled from those that DNS gave
// (names §5).
func (r *Resolver) judgeAddrs(host string, f found) result {
	if len(f.addrs) == 0 {
		return result{err: &NameError{Host: host, Reason: f.reason, Attempts: f.attempts}}
	}
	addrs := usable(f.addrs, r.Private)
	if len(addrs) == 0 {
		return result{err: &NameError{Host: host, Reason: ReasonBadAddress, Attempts: f.attempts}}
	}
	return result{addrs: addrs, ttl: f.ttl}
}

// usable drops addresses that no server can have, puts private ones last unless the
// infrastructure is private, and returns at most maxAddrs.
func usable(addrs []netip.Addr, private bool) []netip.Addr {
	var first, last []netip.Addr
	for _, a := range addrs {
		a = a.Unmap()
		switch {
		case !dialable(a) || slices.Contains(first, a) || slices.Contains(last, a):
		case a.IsPrivate() && !private:
			last = append(last, a)
		default:
			first = append(first, a)
		}
	}
	return limit(append(first, last...))
}

// dialable is false for loopback, multicast and the like. Filters and captive portals give such addresses, and with
// them the client would dial itself or its network. A resolver that answers 127.0.0.1 for what it blocks would
// otherwise let the gateway talk to a service of its own.
func dialable(a netip.Addr) bool {
	thisNetwork := a.Is4() && a.As4()[0] == 0 // RFC 1122 §3.2.1.3, with 0.0.0.0
	broadcast := a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
	return a.IsValid() && !thisNetwork && !broadcast && !a.IsUnspecified() && !a.IsLoopback() &&
		!a.IsLinkLocalUnicast() && !a.IsMulticast()
}

func limit(addrs []netip.Addr) []netip.Addr {
	return addrs[:min(len(addrs), maxAddrs)]
}

// appendNew appends the elements of more that are not in all yet.
func appendNew[T comparable](all, more []T) []T {
	for _, v := range more {
		if !slices.Contains(all, v) {
			all = append(all, v)
		}
	}
	return all
}
