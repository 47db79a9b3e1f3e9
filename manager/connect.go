package manager

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"hawser/internal/wait"
	"hawser/transport"
)

const (
	// A failover has 5 s (docs/tests.md, A2-failover). A relay that died within seconds after the last loss was mended
	// cost up to 4 of them in back-off; so the first three are mended at once, and from the fourth on something else is
	// wrong.
	settled = 15 * time.Second // a session that lived this long is replaced without a wait
	spared  = 3                // this many losses in quick succession are repaired without a wait
)

// backoff is short: a person is waiting at the screen.
func backoff() wait.Backoff { return wait.Backoff{First: time.Second, Longest: 15 * time.Second} }

// Connect opens a session with a device, by UID or name, and forwards local ports to addresses behind it, until ctx ends.
// Then it returns nil. On out it writes one line for each forward when the session is up for the first time, and what
// happens to the session on notes; both are written a line at a time.
//
// If there is no first session, its error is returned. One that is lost later is moved to another relay (access §5.2),
// or replaced: at once, then with full jitter, for as long as it takes. The listeners stay open, and a tool that
// connects during a loss waits up to 15 s. Only a refusal that takes a person to resolve ends Connect. While the
// session is up, the relays are measured whenever that is due, for later decisions. What waits for what: run owns the
// session, each accept loop and each tool has a goroutine in tools, and Connect returns when all have ended. Out has
// only the forwards, because scripts wait for these lines.
func (a *Account) Connect(ctx context.Context, device string, forwards []Forward, out, notes io.Writer) error {
	if len(forwards) == 0 {
		return usage("connect: want at least one -L [BIND:]PORT:HOST:PORT")
	}
	ctx, cancel := context.WithCancel(ctx)
	t := &tunnel{account: a, sessions: make(chan *live), wanted: wait.NewBell(), notes: &lines{w: notes, before: func() { a.m.progress("") }}}
	t.opener = opener{account: a, device: device, tell: t.tell}
	listeners, err := t.listen(ctx, forwards)
	defer func() {
		cancel()
		for _, l := range listeners {
			l.Close()
		}
		t.tools.Wait()
	}()
	if err != nil {
		return err
	}
	return t.run(ctx, func() { t.forward(ctx, listeners, forwards, &lines{w: out}) })
}

// tunnel is one Connect. While a session is up, run sends it to every receiver on sessions; otherwise receivers block.
// Tools receive the session and never ask for one: so a hundred connections after a loss make one move and not a
// hundred.
type tunnel struct {
	account *Account
	// Without a buffer: a session is handed over while it is known to be up, and never lies about for a tool that comes
	// after its loss.
	sessions chan *live
	waiting  atomic.Int32 // tools that wait for a session
	wanted   wait.Bell    // rings when there is one more
	notes    *lines
	hush     hush           // of notes about tools
	tools    sync.WaitGroup // accept loops, tools being served, and measuring

	// Only run uses the rest.
	opener opener
	loss   string // why the last session ended, until it has been printed
}

// listen opens all listeners before a session is requested, so that a port in use is an early error.
func (t *tunnel) listen(ctx context.Context, forwards []Forward) (listeners []net.Listener, err error) {
	for _, f := range forwards {
		l, err := t.account.m.listen(ctx, f.Local.String())
		if err != nil {
			return listeners, fmt.Errorf("forward %s: %w", f, localPort(f.Local, err))
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// localPort says what is wrong with a port of this computer: no network and no firewall has to do with it.
func localPort(at netip.AddrPort, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("this user may not open port %d on this computer: take one above 1023, or 0 for a free one (%w)", at.Port(), err)
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("port %d is in use on this computer: take another one, or 0 for a free one (%w)", at.Port(), err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s is no address of this computer (%w)", at.Addr(), err)
	}
	return err
}

// forward prints the forwards, accepts tools and starts to measure: not before the first session is up, which would share
// the network with the measurements.
func (t *tunnel) forward(ctx context.Context, listeners []net.Listener, forwards []Forward, out *lines) {
	for i, l := range listeners {
		t.tools.Go(func() { t.accept(ctx, l, forwards[i].Target) })
		out.say("forward %s -> %s", l.Addr(), forwards[i].Target)
	}
	beside := t.account.beside()
	t.tools.Go(func() { beside.keepMeasured(ctx) })
}

// run keeps a session up until ctx ends; ready is called when the first one is. The same reason is said once in a row:
// a technician who left the terminal open over night finds a few lines and not ten thousand.
func (t *tunnel) run(ctx context.Context, ready func()) error {
	failures, losses, said := 0, 0, transport.Reason("")
	for {
		s, err := t.opener.next(ctx)
		switch {
		case ctx.Err() != nil:
			if s != nil {
				t.account.end(ctx, s)
			}
			return nil
		// Before the first session every error ends it: a person is watching and can act, and no tool is connected yet.
		case err != nil && (ready != nil || isFinal(err)):
			return err
		case err != nil:
			t.tellLoss()
			if reason := transport.ReasonOf(err); reason != said {
				t.notes.say("no session: %s; reconnecting", Explain(err))
				said = reason
			}
		default:
			t.notes.say("session up via relay %s", s.offer.Relay.Name)
			if ready != nil {
				ready()
				ready = nil
			}
			said = ""
			lived := t.serve(ctx, s)
			if ctx.Err() != nil {
				return nil
			}
			again, end := t.heed(ctx, s.Err())
			if end != nil {
				return end
			}
			if lived >= settled {
				failures, losses = 0, 0
			}
			if losses++; again && losses <= spared {
				continue
			}
			t.tellLoss()
		}
		failures++
		if !wait.Sleep(ctx, backoff().After(failures, retryAfter(err))) {
			return nil
		}
	}
}

// serve gives s to the receivers on sessions until it is lost, or ends it when ctx ends. It returns how long s lived.
func (t *tunnel) serve(ctx context.Context, s *live) time.Duration {
	begin := time.Now()
	for {
		select {
		case t.sessions <- s:
		case <-s.Done():
			t.opener.lost(s)
			t.loss = fmt.Sprintf("session lost: %s via relay %s", transport.ReasonOf(s.Err()), s.offer.Relay.Name)
			if remedyOf(transport.ReasonOf(s.Err())) != move {
				t.loss = "session ended: " + whyEnded(s.Err())
			}
			// Closed before the next is asked for: its streams must end now, or a tool would write into a session that
			// is gone.
			s.Close()
			return time.Since(begin)
		case <-ctx.Done():
			t.account.end(ctx, s)
			return time.Since(begin)
		}
	}
}

// tell prints what is done to get a session again, in one line with the loss if that has not been printed yet.
func (t *tunnel) tell(what string) {
	if t.loss != "" {
		what, t.loss = t.loss+"; "+what, ""
	}
	t.notes.say("%s", what)
}

// tellLoss prints a loss that has not been printed yet: reconnecting takes longer than usual.
func (t *tunnel) tellLoss() {
	if t.loss != "" {
		t.tell("reconnecting")
	}
}

// lines writes whole, clean lines from several goroutines.
type lines struct {
	before func() // called before each line, to remove the progress line; may be nil

	mu sync.Mutex // guards w
	w  io.Writer
}

// say writes one line in one Write. It ignores errors: the forwards can go on without a terminal.
func (l *lines) say(format string, args ...any) {
	if l.before != nil {
		l.before()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	io.WriteString(l.w, clean(fmt.Sprintf(format, args...))+"\n")
}
