// Package manager is the technician's side: it logs in, manages devices, and opens sessions with local forwards.
//
// A Manager holds settings only. Login makes an account in the home directory, Open reads it, and the Account does the rest
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

// Manager says where the account is stored and how to reach the network. Only Home is required; without the functions it
// uses the real network. Set the fields before the first use.
type Manager struct {
	// Home is the directory that holds the account. It belongs to one user; several processes may share it.
	Home string
	// Log receives details. Nil: they are dropped.
	Log *slog.Logger
	// Progress is called with a one-line progress text, and with "" when done. It may be called concurrently. Nil: nothing
	// is shown.
	Progress func(text string)
	// Notice is called with a line that a person has to read, whatever the command does, perhaps more than once, and
	// concurrently. Nil: it is logged.
	Notice func(text string)
	// Passphrase asks for that of a domain key. Nil: there is nobody to ask. NoPassphrase: a new domain key is kept without.
	Passphrase   Passphrase
	NoPassphrase bool
	// Confirm asks a person whether a key that a user has invited himself is to last (identity §15.8). Nil: there is nobody
	// to ask, and it stays as it is.
	Confirm func(InvitedKey) bool
	// Approve shows a person what is signed again, or falls, beside what a command was asked for. An error ends the command,
	// which has signed nothing then. Nil: it is not shown.
	Approve func(Change) error
	// TrustClock: a person has compared the clock of this PC with another one, and signs whatever the servers say of the time.
	TrustClock bool
	// work is the logarithm of the rounds of a passphrase. 0: as many as age takes, about a second.
	work int

	Resolve     func(ctx context.Context, host string) ([]netip.Addr, error)             // nil: a probe.Resolver
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)     // nil: net.Dialer
	Listen      func(ctx context.Context, network, address string) (net.Listener, error) // nil: net.ListenConfig
	Now         func() time.Time                                                         // nil: time.Now
}

// now is the time at which certificates are verified. Timeouts use the time package directly.
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

func (m *Manager) notice(text string) {
	if m.Notice != nil {
		m.Notice(clean(text))
	} else {
		m.log().Warn(clean(text))
	}
}

// progress cleans the text, which may hold names of devices and relays, and passes it on.
func (m *Manager) progress(text string) {
	if m.Progress != nil {
		m.Progress(clean(text))
	}
}

// resolver makes a new one for each command, so that no old failure is remembered. A technician who has just plugged
// the cable in tries again at once.
func (m *Manager) resolver(private bool) func(context.Context, string) ([]netip.Addr, error) {
	if m.Resolve != nil {
		return m.Resolve
	}
	return (&probe.Resolver{Logger: m.log(), Private: private}).Resolve
}

func (m *Manager) listen(ctx context.Context, address string) (net.Listener, error) {
	if m.Listen != nil {
		return m.Listen(ctx, "tcp", address)
	}
	return new(net.ListenConfig).Listen(ctx, "tcp", address)
}
