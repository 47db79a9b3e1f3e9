package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"slices"
	"sync"
	"time"

	"hawser/agent/clock"
	"hawser/board/local"
	"hawser/internal/wait"
	"hawser/transport"
)

// Status is the answer of the status socket (cli §2). Its members are only added to: scripts of operators read them.
type Status struct {
	State    State           `json:"state"`
	UID      string          `json:"uid"`
	Domain   string          `json:"domain"`
	Access   *AccessStatus   `json:"access"` // null unless attached
	Relay    string          `json:"relay"`  // of the newest session
	Clock    clock.Status    `json:"clock"`
	Sessions []SessionStatus `json:"sessions"`
	Since    time.Time       `json:"since"` // in this state
	Error    string          `json:"error"` // of the last failure; empty once attached
	Signal   Signal          `json:"signal"`
	Data     DataStatus      `json:"data"`
	Counts   Counts          `json:"counts"`
	Key      string          `json:"key_switch,omitempty"` // locked or unlocked; empty: there is none
	Reach    Reach           `json:"reach"`                // what sessions may reach now
	Claim    string          `json:"claim_code,omitempty"` // by which somebody can claim the gateway; empty: nobody can
	Owner    *OwnerStatus    `json:"owner"`                // null: none is known, and nobody is let in
	Fresh    *FreshKey       `json:"fresh_key,omitempty"`  // another machine uses this identity, and nobody is let in
	Troubles []string        `json:"troubles"`             // what does not work, and stops nothing
}

// AccessStatus is the way that the control connection takes.
type AccessStatus struct {
	Host string         `json:"host"`
	Addr string         `json:"addr"`
	Port transport.Port `json:"port"`
	Way  string         `json:"way"`
	// Proxy is the URL of the proxy on the way, without name and password; empty: none.
	Proxy string `json:"proxy"`
	// Small: only packets of less than full size pass (wire §8.1).
	Small bool `json:"small"`
}

// statusBoard holds what the state machine reports to status. It calls nothing under its lock, so a status
// that is asked for cannot hold the machine up.
type statusBoard struct {
	told wait.Bell // rings when another signal may have to be shown

	mu     sync.Mutex // guards all below
	state  State
	since  time.Time // monotonic
	access *AccessStatus
	err    string
	pace   pace
	code   string    // by which the gateway can be claimed
	fresh  *FreshKey // nil: no other machine uses this identity, as far as the server has said
	// What explains or protects and does not work: the socket, the LEDs, a watchdog. It is told and never stops what
	// connects.
	troubles map[string]string
}

// trouble notes that something does not work, or works again (nil). It reports whether that is news and should be logged.
func (b *statusBoard) trouble(what string, err error) (news bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, known := b.troubles[what]
	if err == nil {
		delete(b.troubles, what)
		return false
	}
	if b.troubles == nil {
		b.troubles = map[string]string{}
	}
	b.troubles[what] = err.Error()
	return !known
}

// claim notes the code by which the gateway can be claimed; empty: nobody can claim it.
func (b *statusBoard) claim(code string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.code = code; code == "" {
		delete(b.troubles, "claim")
	}
}

// cloned notes that another machine uses the identity of this gateway, which has made a fresh key, or does not (nil).
func (b *statusBoard) cloned(fresh *FreshKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fresh = fresh
	b.told.Ring()
}

func (b *statusBoard) freshKey() *FreshKey {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fresh
}

// pace is how an idle link pings: of the newest one.
type pace struct {
	heartbeat time.Duration // of its welcome; 0: there was none yet
	limit     time.Duration // learnt; 0: nothing was
	interval  time.Duration // now
}

func (b *statusBoard) paced(p pace) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pace = p
}

// plan is what the newest link costs, with a budget or without (0).
func (b *statusBoard) plan(budget int64) idlePlan {
	b.mu.Lock()
	defer b.mu.Unlock()
	return planIdle(cmp.Or(b.pace.heartbeat, usualHeartbeat), b.pace.limit, budget)
}

// enter sets the state. It reports whether that is a change.
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
	b.told.Ring()
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
	b.access = &AccessStatus{Host: c.Host, Port: c.Port(), Way: c.Way(), Proxy: c.Proxy, Small: c.Small}
	if c.Addr.IsValid() {
		b.access.Addr = c.Addr.Addr().String()
	}
	b.err = ""
}

// The error stays until the agent is attached: somebody who comes later sees what the last failure was.
func (b *statusBoard) failed(s State, err error) {
	b.enter(s)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err.Error()
}

// Status returns a snapshot. The board's lock is taken last: nothing else is called while it is held.
func (a *Agent) Status() Status {
	st := Status{Clock: a.clock.Status(), Sessions: a.sessions.list()}
	st.Signal, _ = a.signal()
	if a.config.KeySwitch != nil {
		_, locked := a.sessions.load()
		st.Key = keyWord(locked)
	}
	if self := a.self.Load(); self != nil {
		st.UID, st.Domain = self.UID.String(), self.Name.Domain
		if known, err := a.owners.of(self); err == nil {
			now, theirs := a.clock.Statements()
			if st.Owner = ownerStatus(known, self, now); theirs {
				st.Owner.TimeServers = now.UTC().Truncate(time.Second)
			}
		}
	}
	if n := len(st.Sessions); n > 0 {
		st.Relay = st.Sessions[n-1].Relay
	}
	st.Data, st.Counts = a.data(), a.counts.now()
	st.Reach = a.policy().asks("", a.ruleTime()).Reach()
	st.Troubles = a.troubles()
	b := &a.status
	b.mu.Lock()
	defer b.mu.Unlock()
	st.State, st.Access, st.Error, st.Claim, st.Fresh = b.state, b.access, b.err, b.code, b.fresh
	st.Since = a.clock.Now().Add(-time.Since(b.since)).UTC().Truncate(time.Second)
	return st
}

// data is what being reachable costs.
func (a *Agent) data() DataStatus {
	counted, span := a.meter.day()
	p := a.status.plan(a.config.Budget)
	a.status.mu.Lock()
	defer a.status.mu.Unlock()
	return DataStatus{DayBytes: counted, MonthBytes: month(counted, span, p), BudgetBytes: a.config.Budget, OverBytes: p.over,
		IntervalS: int(cmp.Or(a.status.pace.interval, p.interval) / time.Second)}
}

// The socket serves one after the other: a client that does not read must not shut the others out for longer.
const statusTimeout = 5 * time.Second

const socketRetry = time.Minute

// serveStatus answers on the status socket until ctx ends: each connection gets one
// JSON object, and nothing is read from it. Stop closes the socket and waits. So nothing has to be parsed: the
// socket can be asked and not told. Without a socket the agent serves all the same, and tries again: a full disk may have
// room later. The only error is that another agent runs here.
func (a *Agent) serveStatus(ctx context.Context) (stop func(), err error) {
	if a.socket == "" {
		return func() {}, nil
	}
	l, err := a.listen()
	if errors.Is(err, local.ErrTaken) {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for l == nil && wait.Sleep(ctx, socketRetry) {
			l, _ = a.listen()
		}
		if l != nil {
			a.answer(ctx, l)
		}
	})
	return func() { cancel(); tasks.Wait() }, nil
}

func (a *Agent) listen() (net.Listener, error) {
	l, err := local.Listen(a.socket)
	if err != nil {
		err = fmt.Errorf("open status socket %s: %w", a.socket, err)
	}
	if a.status.trouble("status socket", err) && !errors.Is(err, local.ErrTaken) {
		a.log.Warn("no status socket", "err", err)
	}
	return l, err
}

// answer serves a listener until ctx ends, and closes it.
func (a *Agent) answer(ctx context.Context, l net.Listener) {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			wait.Sleep(ctx, time.Second) // out of descriptors
			continue
		}
		conn.SetDeadline(time.Now().Add(statusTimeout))
		json.NewEncoder(conn).Encode(a.Status())
		conn.Close()
	}
}

// troubles lists what does not work, sorted.
func (a *Agent) troubles() []string {
	list := []string{} // not null: scripts go through it
	if a.unsaid != nil {
		list = append(list, a.unsaid()...)
	}
	b := &a.status
	b.mu.Lock()
	defer b.mu.Unlock()
	for what, err := range b.troubles {
		list = append(list, what+": "+err)
	}
	slices.Sort(list)
	return list
}

// ErrNotRunning: nothing answers on the status socket.
var ErrNotRunning = errors.New("no hawser-agent is running")

// ReadStatus asks the agent behind a status socket, for at most 5 s. The error is
// ErrNotRunning when nobody answers there. A socket that this user may not open, or that a stranger serves, is another
// error: there it is not known whether one runs.
func ReadStatus(ctx context.Context, socket string) (Status, error) {
	conn, err := local.Dial(ctx, socket)
	if errors.Is(err, fs.ErrPermission) {
		return Status{}, fmt.Errorf("ask %s: %w: run it as the agent's user, on Windows as administrator", socket, err)
	}
	if errors.Is(err, local.ErrStranger) || errors.Is(err, local.ErrTooLong) {
		return Status{}, fmt.Errorf("ask %s: %w", socket, err)
	}
	if err != nil {
		return Status{}, fmt.Errorf("ask %s: %w", socket, ErrNotRunning)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(statusTimeout))
	// Also what answers on our own socket is bounded: another program may have its path.
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
