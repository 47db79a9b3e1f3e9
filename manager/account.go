package manager

import (
	"context"
	"crypto/tls"
	"path/filepath"
	"sync/atomic"
	"time"

	"hawser/identity"
	"hawser/transport"
)

// Account is a logged-in user: the API of the Access Server, and sessions. Its methods are for one goroutine at a time.
// They block until done or until ctx ends, and renew the user's certificate first when that is due.
type Account struct {
	m      *Manager
	home   home
	state  state
	dialer *transport.Dialer
	cert   atomic.Pointer[tls.Certificate] // what the dialer shows; of state
	memory *memory
}

// Info says whose account it is, and where.
type Info struct {
	Domain   string        `json:"domain"`
	User     string        `json:"user"`
	SPKI     identity.SPKI `json:"spki_sha256"`
	NotAfter time.Time     `json:"not_after"` // of the certificate, which renews itself
	Home     string        `json:"home"`      // absolute
}

// Open reads the account in Home. Errors: reason not-logged-in when there is none, *UsageError when the directory or a
// file is exposed or damaged. It uses no network.
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

// account puts an Account together; nothing is read or dialled.
func (m *Manager) account(h home, s state) *Account {
	return m.accountWith(h, s, &memory{list: s.config.Good})
}

func (m *Manager) accountWith(h home, s state, memory *memory) *Account {
	a := &Account{m: m, home: h, state: s, memory: memory}
	a.cert.Store(s.certificate())
	a.dialer = m.dialer(a.memory)
	a.dialer.Certificate = a.cert.Load
	return a
}

// beside returns an Account of the same user for a goroutine beside the one that owns a. It shows no progress, and what it
// fails to reach makes nothing slower for a; the addresses that worked they share.
func (a *Account) beside() *Account {
	m := *a.m
	m.Progress = nil
	return m.accountWith(a.home, a.state, a.memory)
}

// dialer is the one for everything that a command dials: Access Server and relays share what it learns about the network.
func (m *Manager) dialer(memory *memory) *transport.Dialer {
	return &transport.Dialer{
		Resolve: m.resolver(), Now: m.Now, DialContext: m.DialContext,
		LastGood: memory.of, Good: memory.add, Trace: m.trace,
	}
}

// trace tells people and the log about one ended attempt to reach a server.
func (m *Manager) trace(a transport.Attempt) {
	where := a.Host
	if a.Addr.IsValid() {
		where += " " + a.Addr.String()
	}
	if a.Reason != "" {
		m.progress("trying " + where + ": " + string(a.Reason))
	}
	m.log().Debug("attempt ended", "host", clean(a.Host), "addr", a.Addr.String(), "reason", string(a.Reason),
		"rtt", a.RTT, "took", a.Took, "err", clean(a.Detail))
}

// Info describes the account.
func (a *Account) Info() Info {
	leaf := a.state.chain[0]
	return Info{a.state.config.Domain, a.state.config.User, identity.CertSPKI(leaf), leaf.NotAfter.UTC(), string(a.home)}
}

// Close keeps what was learnt about the way to the servers. What cannot be kept is only logged: it costs a search.
func (a *Account) Close() {
	list, changed := a.memory.take()
	if !changed {
		return
	}
	if err := a.home.storeGood(a.state.config, list); err != nil {
		a.m.log().Warn("addresses that worked were not kept", "err", err)
	}
}

// dial searches a way to any Access Server of the account. Which of them answers does not matter: they are one.
func (a *Account) dial(ctx context.Context) (*transport.Conn, error) {
	return a.dialer.Dial(ctx, transport.Target{
		Hosts: a.state.config.Hosts, Ports: a.state.config.Ports, ALPN: transport.ALPNAPI,
		Name: identity.Name{Kind: identity.KindAccess}, Roots: a.state.roots,
	})
}

// do makes one request as the user, whose certificate it keeps fresh.
func (a *Account) do(ctx context.Context, op, method, path string, in, out any) error {
	if err := a.refresh(ctx); err != nil {
		return err
	}
	return call(ctx, a.dial, op, method, path, in, out)
}

// rootPin is the hash by which a gateway can know the root: that of the first pinned one.
func (a *Account) rootPin() identity.SPKI {
	return identity.CertSPKI(a.state.roots.Certificates()[0])
}
