// Package manager is the technician's side: it logs in, manages devices, and opens sessions with local forwards.
//
// A Manager is settings alone. Login makes an account in the home directory, Open reads it, and the Account does the rest
// through the API of the Access Server (access §6):
//
//	m := &manager.Manager{Home: dir}
//	a, err := m.Open()
//	defer a.Close()
//	err = a.Connect(ctx, "press 4", forwards, os.Stdout, os.Stderr)
//
// Every string that comes from a server is printed through one filter, so that nothing a peer says can act on a terminal.
// Errors carry a transport.Reason or a code of access §6; ExitCode and Explain turn them into what cli.md promises. The
// package promises no compatibility to the outside.
package manager

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"hawser/probe"
)

// Manager is where an account lives and how the network is reached. The zero value but for Home uses the real network.
// Fields are set before the first use.
type Manager struct {
	// Home is the directory that holds the account. It belongs to one user; several processes may share it.
	Home string
	// Log is told what happens in detail. Nil: nobody.
	Log *slog.Logger
	// Progress is told what long work is at, in one line without a line end, and with nothing when that is done. It may be called
	// concurrently. Nil: nobody.
	Progress func(text string)

	Resolve     func(ctx context.Context, host string) ([]netip.Addr, error)             // nil: a probe.Resolver
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)     // nil: net.Dialer
	Listen      func(ctx context.Context, network, address string) (net.Listener, error) // nil: net.ListenConfig
	Now         func() time.Time                                                         // nil: time.Now
}

// now judges certificates; what waits uses the time package itself.
func (m *Manager) now() time.Time {
	if m.Now != nil {
		return m.Now()
	}
	return time.Now()
}

// log is never nil: a nil *slog.Logger panics.
func (m *Manager) log() *slog.Logger {
	if m.Log != nil {
		return m.Log
	}
	return slog.New(slog.DiscardHandler)
}

// progress passes text on. Device and relay names are in it, so it is cleaned here once.
func (m *Manager) progress(text string) {
	if m.Progress != nil {
		m.Progress(clean(text))
	}
}

// resolver is a new one for each command: what failed a minute ago is asked again.
func (m *Manager) resolver() func(context.Context, string) ([]netip.Addr, error) {
	if m.Resolve != nil {
		return m.Resolve
	}
	return (&probe.Resolver{Logger: m.log()}).Resolve
}

func (m *Manager) listen(ctx context.Context, address string) (net.Listener, error) {
	if m.Listen != nil {
		return m.Listen(ctx, "tcp", address)
	}
	return new(net.ListenConfig).Listen(ctx, "tcp", address)
}
