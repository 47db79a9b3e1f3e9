package manager

import (
	"context"
	"crypto/tls"
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hawser/identity"
	"hawser/transport"
)

// Account is a logged-in user: the API of the Access Server, and sessions. Its methods are for one goroutine at a time.
// They block until done or until ctx ends, and renew the user's certificate first when that is due. One goroutine,
// because a command does one thing after the other; what has to run beside it gets an Account of its own (beside).
type Account struct {
	m      *Manager
	home   home
	state  state
	dialer *transport.Dialer
	cert   atomic.Pointer[tls.Certificate] // of state; the dialer shows it
	asked  map[identity.SPKI]bool          // keys about which a person was asked or told
	// clockAsked is when the clock was last found right, by the monotonic clock; zero: not yet.
	clockAsked time.Time
	// Shared with those that beside made: an address that worked for one helps all.
	good *goodAddrs
}

// Info says whose account it is, and where. It is a copy: a renewal that follows changes the account and not what was
// returned.
type Info struct {
	Domain   string        `json:"domain"`
	User     string        `json:"user"`
	SPKI     identity.SPKI `json:"spki_sha256"`
	NotAfter time.Time     `json:"not_after"` // of the certificate, which renews itself
	Home     string        `json:"home"`      // absolute
}

// Open reads the account in Home. Errors: reason not-logged-in when there is none, *answer.UsageError when the directory
// or a file is exposed or damaged. It uses no network.
func (m *Manager) Open() (*Account, error) {
	h, err := m.home()
	if err != nil {
		return nil, err
	}
	s, err := h.load()
	if err != nil {
		return nil, err
	}
	return m.account(h, s), nil
}

// home makes the directory absolute, because printed paths are (cli.md).
func (m *Manager) home() (home, error) {
	if m.Home == "" {
		return "", usage("find home: no directory is named")
	}
	dir, err := filepath.Abs(m.Home)
	if err != nil {
		return "", usage("find home: %w", err)
	}
	return home(dir), nil
}

// account makes an Account without reading or dialling anything.
func (m *Manager) account(h home, s state) *Account {
	return m.accountWith(h, s, &goodAddrs{list: s.config.Good})
}

func (m *Manager) accountWith(h home, s state, good *goodAddrs) *Account {
	a := &Account{m: m, home: h, state: s, good: good}
	a.cert.Store(s.certificate())
	proxy, _ := s.config.proxy() // checked when it was read
	a.dialer = m.dialer(a.good, proxy, s.config.bounds())
	// A function: the certificate is renewed while the dialer lives.
	a.dialer.Certificate = a.cert.Load
	return a
}

// beside returns an Account of the same user for another goroutine. It shows no progress and has a dialer of its own, so
// that its failures do not slow a down; the two share the addresses that worked.
func (a *Account) beside() *Account {
	m := *a.m
	m.Progress = nil
	return m.accountWith(a.home, a.state, a.good)
}

// dialer serves everything that a command dials, so what it learns at the Access Server helps with the relays.
func (m *Manager) dialer(good *goodAddrs, proxy transport.ProxySetting, bounds transport.Bounds) *transport.Dialer {
	return &transport.Dialer{
		Bounds: func() transport.Bounds { return bounds }, Resolve: m.resolver(bounds.Private), Now: m.Now, DialContext: m.DialContext, Proxies: proxy.Source(transport.UserProxies),
		LastGood:  func(host string) []transport.Candidate { return good.of(host, m.now()) },
		OnlySmall: func() bool { return good.onlySmall(m.now()) },
		Good:      func(c transport.Candidate) { good.add(c, m.now()) },
		Trace:     m.trace,
	}
}

// trace tells people and the log about one ended attempt to reach a server.
func (m *Manager) trace(a transport.Attempt) {
	where := a.Where()
	if a.Proxy == "" && a.Addr.IsValid() {
		where = a.Host + " " + where
	}
	if a.Reason != "" {
		m.progress("trying " + where + ": " + string(a.Reason))
	}
	m.log().Debug("attempt ended", "host", clean(a.Host), "addr", clean(a.Where()), "small", a.Small, "reason", string(a.Reason),
		"rtt", a.RTT, "took", a.Took, "err", clean(a.Detail))
}

// Info describes the account.
func (a *Account) Info() Info {
	leaf := a.state.Chain[0]
	return Info{a.state.config.Domain, a.state.config.User, identity.CertSPKI(leaf), leaf.NotAfter.UTC(), string(a.home)}
}

// Close stores the addresses that worked. A failure is only logged: it costs a search the next time. Once at the end
// and not at each success: a command that measures finds many.
func (a *Account) Close() {
	list, changed := a.good.take()
	if !changed {
		return
	}
	if err := a.home.storeGood(a.state.config, list); err != nil {
		a.m.log().Warn("addresses that worked were not kept", "err", err)
	}
}

// dial connects to any Access Server of the account: they all give the same answers.
func (a *Account) dial(ctx context.Context) (*transport.Conn, error) {
	return a.dialer.Dial(ctx, transport.Target{
		Hosts: a.state.config.Hosts, Ports: a.state.config.Ports, ALPN: transport.ALPNAPI,
		Name: identity.Name{Kind: identity.KindAccess}, Roots: a.state.roots,
	})
}

// do makes one request as the user, and renews the user's certificate first when that is due.
func (a *Account) do(ctx context.Context, op, method, path string, in, out any) error {
	err := a.once(ctx, op, method, path, in, out)
	a.meetWhenNotStated(ctx, err)
	return err
}

// once is do without a look at why this user may not be stated.
func (a *Account) once(ctx context.Context, op, method, path string, in, out any) error {
	if err := a.refresh(ctx); err != nil {
		return err
	}
	err := call(ctx, a.dial, op, method, path, in, out)
	// By this account's own clock it is not over: the root has refused the key that issued it, and this account has not heard
	// of it. Renewing tells, and is the cure.
	if p, ok := errors.AsType[*problem](err); ok && p.code == transport.Expired {
		if renewed := a.renew(ctx); renewed != nil {
			return renewed
		}
		err = call(ctx, a.dial, op, method, path, in, out)
	}
	return err
}

// rootPin is the hash of the first pinned root, by which a gateway recognises the infrastructure. A pin fits into a
// command that is pasted or read over the telephone, and a certificate does not.
func (a *Account) rootPin() identity.SPKI {
	return identity.CertSPKI(a.state.roots.Certificates()[0])
}

// maxGood bounds config.json: an Access Server and the relays that are measured, with the addresses of a few networks.
const maxGood = 64

// goodAddrs is the list of addresses that worked, newest first (wire §8). It is safe for concurrent use.
type goodAddrs struct {
	mu      sync.Mutex // guards all below
	list    []good
	changed bool
}

// of lists the candidates of a host that worked.
func (g *goodAddrs) of(host string, now time.Time) (list []transport.Candidate) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, one := range g.list {
		if one.Host == host {
			list = append(list, one.Candidate(host, now))
		}
	}
	return list
}

// onlySmall reports whether only the small form passed lately, to whatever server.
func (g *goodAddrs) onlySmall(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.ContainsFunc(g.list, func(one good) bool { return transport.SmallCounts(one.Small, now) })
}

// add records a success. What is already the first of its host changes nothing, so homes are rarely written. An address
// that worked again moves to the front, so that the oldest ones are cut off at the bound.
func (g *goodAddrs) add(c transport.Candidate, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.IndexFunc(g.list, func(o good) bool { return o.Host == c.Host }); i >= 0 && g.list[i].Says(c, now) {
		return
	}
	found := transport.Found(func(yield func(*transport.Known) bool) {
		for i := range g.list {
			if !yield(&g.list[i].Known) {
				return
			}
		}
	}, now)
	g.list = slices.DeleteFunc(g.list, func(o good) bool { return o.Host == c.Host && o.Is(c) })
	g.list = slices.Insert(g.list, 0, good{c.Host, transport.NewKnown(c, found)})
	g.list = g.list[:min(len(g.list), maxGood)]
	g.changed = true
}

// take returns the list if it has changed since it was loaded or taken last.
func (g *goodAddrs) take() (list []good, changed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	changed, g.changed = g.changed, false
	return slices.Clone(g.list), changed
}
