package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"sync"
	"time"

	"hawser/board/local"
	"hawser/transport"
)

// Status is the answer of the status socket (cli §2).
type Status struct {
	State    State           `json:"state"`
	UID      string          `json:"uid"`
	Domain   string          `json:"domain"`
	Access   *AccessStatus   `json:"access"` // null unless attached
	Relay    string          `json:"relay"`  // of the newest session
	Clock    ClockStatus     `json:"clock"`
	Sessions []SessionStatus `json:"sessions"`
	Since    time.Time       `json:"since"` // in this state
	Error    string          `json:"error"` // of the last failure; empty once attached
	Signal   Signal          `json:"signal"`
	Key      string          `json:"key_switch,omitempty"` // locked or unlocked; empty: there is none
}

// AccessStatus is the way that the control connection takes.
type AccessStatus struct {
	Host string         `json:"host"`
	Addr string         `json:"addr"`
	Port transport.Port `json:"port"`
	Way  string         `json:"way"`
}

// statusBoard is what the state machine notes for status to read.
type statusBoard struct {
	told bell // there may be another signal to show

	mu     sync.Mutex // guards all below
	state  State
	since  time.Time // monotonic
	access *AccessStatus
	err    string
}

// enter notes a state; it reports whether that is a change.
func (b *statusBoard) enter(s State) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == s {
		return false
	}
	b.state, b.since = s, time.Now()
	if s != StateAttached {
		b.access = nil
	}
	b.told.ring()
	return true
}

func (b *statusBoard) now() State {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state
}

func (b *statusBoard) online(c transport.Candidate) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.access = &AccessStatus{c.Host, c.Addr.Addr().String(), transport.Port(c.Addr.Port()), "direct"}
	b.err = ""
}

func (b *statusBoard) failed(s State, err error) {
	b.enter(s)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err.Error()
}

// Status returns a snapshot.
func (a *Agent) Status() Status {
	st := Status{Clock: a.clock.Status(), Sessions: a.sessions.list()}
	st.Signal, _ = a.signal()
	if a.Config.KeySwitch != nil {
		_, locked := a.sessions.load()
		st.Key = keyWord(locked)
	}
	if self := a.self.Load(); self != nil {
		st.UID, st.Domain = self.UID.String(), self.Name.Domain
	}
	if n := len(st.Sessions); n > 0 {
		st.Relay = st.Sessions[n-1].Relay
	}
	b := &a.status
	b.mu.Lock()
	defer b.mu.Unlock()
	st.State, st.Access, st.Error = b.state, b.access, b.err
	st.Since = a.clock.Now().Add(-time.Since(b.since)).UTC().Truncate(time.Second)
	return st
}

const statusTimeout = 5 * time.Second

// serveStatus answers on the status socket until ctx ends: it writes one JSON
// object to whoever connects, and reads nothing. Stop waits for it.
func (a *Agent) serveStatus(ctx context.Context) (stop func(), err error) {
	if a.Socket == "" {
		return func() {}, nil
	}
	l, err := local.Listen(a.Socket)
	if err != nil {
		return nil, fmt.Errorf("open status socket %s: %w", a.Socket, err)
	}
	var tasks sync.WaitGroup
	closed := context.AfterFunc(ctx, func() { l.Close() })
	tasks.Go(func() {
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				sleep(ctx, time.Second) // out of descriptors
				continue
			}
			conn.SetDeadline(time.Now().Add(statusTimeout))
			json.NewEncoder(conn).Encode(a.Status())
			conn.Close()
		}
	})
	return func() { closed(); l.Close(); tasks.Wait() }, nil
}

// ErrNotRunning: nothing answers on the status socket.
var ErrNotRunning = errors.New("no hawser-agent is running")

// ReadStatus asks the agent behind a status socket, for at most 5 s. The error is
// ErrNotRunning when nobody answers there.
func ReadStatus(ctx context.Context, socket string) (Status, error) {
	conn, err := local.Dial(ctx, socket)
	if errors.Is(err, fs.ErrPermission) {
		return Status{}, fmt.Errorf("ask %s: %w: run it as the agent's user, on Windows as administrator", socket, err)
	}
	if errors.Is(err, local.ErrStranger) {
		return Status{}, fmt.Errorf("ask %s: %w", socket, err)
	}
	if err != nil {
		return Status{}, fmt.Errorf("ask %s: %w", socket, ErrNotRunning)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(statusTimeout))
	b, err := io.ReadAll(io.LimitReader(conn, 1<<20))
	var st Status
	if err == nil {
		err = json.Unmarshal(b, &st)
	}
	if err != nil {
		return Status{}, fmt.Errorf("read status from %s: %w", socket, err)
	}
	return st, nil
}
