package manager

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"math/big"
	"net"
	"sync"
	"time"

	"hawser/transport"
)

const (
	firstWait   = 1 * time.Second  // the most that the first reconnect waits
	longestWait = 15 * time.Second // the most that any waits
	settled     = 15 * time.Second // a session that lived so long is replaced without a wait
	spared      = 3                // losses in quick succession that are mended without a wait
)

// Connect opens a session with a device, by UID or name, and forwards local ports to addresses behind it, until ctx ends.
// Then it returns nil. On out it writes one line for each forward when the session is up for the first time, and what
// happens to the session on notes; both are written a line at a time.
//
// If there is no first session, its error is returned. One that is lost later is moved to another relay (access §5.2), or
// replaced: at once, then with full jitter, for as long as it takes. The listeners stay, and a Tool that comes meanwhile
// waits up to 15 s. Only a refusal that a person must cure ends it. Beside the session the relays are measured when that is
// due, for the decisions to come.
func (a *Account) Connect(ctx context.Context, device string, forwards []Forward, out, notes io.Writer) error {
	if len(forwards) == 0 {
		return usage("connect: want at least one -L [BIND:]PORT:HOST:PORT")
	}
	ctx, cancel := context.WithCancel(ctx)
	t := &tunnel{account: a, sessions: make(chan *live), notes: &lines{w: notes, before: func() { a.m.progress("") }}}
	t.path = path{account: a, device: device, tell: t.tell}
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

// tunnel is one Connect. Its run hands the live session to whoever asks on sessions: nobody receives while there is none.
type tunnel struct {
	account  *Account
	sessions chan *live
	notes    *lines
	tools    sync.WaitGroup // accept loops, Tools being served, and measuring

	// What follows is run's own.
	path path
	loss string // of the last session, when the notes do not have it yet
}

// listen opens all listeners, so that a port that is taken is known before a session is asked for.
func (t *tunnel) listen(ctx context.Context, forwards []Forward) (listeners []net.Listener, err error) {
	for _, f := range forwards {
		l, err := t.account.m.listen(ctx, f.Local.String())
		if err != nil {
			return listeners, fmt.Errorf("forward %s: %w", f, err)
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// forward starts to accept Tools, and says that it does, and to measure: the session has had the network for itself.
func (t *tunnel) forward(ctx context.Context, listeners []net.Listener, forwards []Forward, out *lines) {
	for i, l := range listeners {
		t.tools.Go(func() { t.accept(ctx, l, forwards[i].Target) })
		out.say("forward %s -> %s", l.Addr(), forwards[i].Target)
	}
	beside := t.account.beside()
	t.tools.Go(func() { beside.keepMeasured(ctx) })
}

// run keeps a session up until ctx ends; ready is called when the first one is.
func (t *tunnel) run(ctx context.Context, ready func()) error {
	failures, losses, said := 0, 0, transport.Reason("")
	for {
		s, err := t.path.next(ctx)
		switch {
		case ctx.Err() != nil:
			if s != nil {
				t.account.end(ctx, s)
			}
			return nil
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
			if lived >= settled {
				failures, losses = 0, 0
			}
			if losses++; losses <= spared {
				continue
			}
			t.tellLoss()
		}
		if !pause(ctx, max(jitter(failures), retryAfter(err))) {
			return nil
		}
		failures++
	}
}

// serve hands out s until it ends, or until ctx does: then it ends s. It returns how long s lived.
func (t *tunnel) serve(ctx context.Context, s *live) time.Duration {
	begin := time.Now()
	for {
		select {
		case t.sessions <- s:
		case <-s.Done():
			t.path.lost(s)
			t.loss = fmt.Sprintf("session lost: %s via relay %s", transport.ReasonOf(s.Err()), s.offer.Relay.Name)
			s.Close()
			return time.Since(begin)
		case <-ctx.Done():
			t.account.end(ctx, s)
			return time.Since(begin)
		}
	}
}

// tell says what is done to have a session again. The loss that made it necessary is in the same line, if it is news.
func (t *tunnel) tell(what string) {
	if t.loss != "" {
		what, t.loss = t.loss+"; "+what, ""
	}
	t.notes.say("%s", what)
}

// tellLoss says a loss that is news when it takes longer to have a session again.
func (t *tunnel) tellLoss() {
	if t.loss != "" {
		t.tell("reconnecting")
	}
}

// jitter is a random time from zero to a bound that doubles with each failure, so that all who lost a relay together do
// not come back together.
func jitter(failures int) time.Duration {
	bound := min(firstWait<<min(failures, 10), longestWait)
	n, err := rand.Int(rand.Reader, big.NewInt(int64(bound)))
	if err != nil {
		return bound // it never fails; if it did, waiting longest would be right
	}
	return time.Duration(n.Int64())
}

// pause waits for d, or reports false when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// lines writes whole, clean lines from several goroutines.
type lines struct {
	before func() // takes away what stands where the line goes; nil: nothing does

	mu sync.Mutex // guards w
	w  io.Writer
}

// say writes one line in one Write. That it may fail is left: the terminal is gone, the forwards need not be.
func (l *lines) say(format string, args ...any) {
	if l.before != nil {
		l.before()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	io.WriteString(l.w, clean(fmt.Sprintf(format, args...))+"\n")
}
