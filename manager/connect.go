package manager

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"sync"
	"time"

	"hawser/transport"
	"hawser/transport/session"
	"hawser/transport/wire"
)

const (
	firstWait   = 1 * time.Second  // the most that the first reconnect waits
	longestWait = 15 * time.Second // the most that any waits
	settled     = 15 * time.Second // a session that lived so long makes the next wait a first one
	toolWait    = 15 * time.Second // how long a Tool waits for a session
	acceptPause = 1 * time.Second  // after an Accept that failed, say for want of file descriptors
)

// Connect opens a session with a device, by UID or name, and forwards local ports to addresses behind it, until ctx ends.
// Then it returns nil. On out it writes one line for each forward when the session is up for the first time, and what
// happens to the session on notes; both are written a line at a time.
//
// If there is no first session, its error is returned. A session that is lost later is replaced, with full jitter, for as
// long as it takes: the listeners stay, and a Tool that comes meanwhile waits up to 15 s. Only a refusal that a person must
// cure ends it.
func (a *Account) Connect(ctx context.Context, device string, forwards []Forward, out, notes io.Writer) error {
	if len(forwards) == 0 {
		return usage("connect: want at least one -L [BIND:]PORT:HOST:PORT")
	}
	ctx, cancel := context.WithCancel(ctx)
	t := &tunnel{account: a, device: device, sessions: make(chan *live), notes: &lines{w: notes}}
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
	device   string
	sessions chan *live
	notes    *lines
	tools    sync.WaitGroup // accept loops, and Tools being served
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

// forward starts to accept Tools and says that it does.
func (t *tunnel) forward(ctx context.Context, listeners []net.Listener, forwards []Forward, out *lines) {
	for i, l := range listeners {
		t.tools.Go(func() { t.accept(ctx, l, forwards[i].Target) })
		out.say("forward %s -> %s", l.Addr(), forwards[i].Target)
	}
}

// run keeps a session up until ctx ends; ready is called when the first one is.
func (t *tunnel) run(ctx context.Context, ready func()) error {
	failures, said := 0, transport.Reason("")
	for {
		s, err := t.account.open(ctx, t.device)
		switch {
		case ctx.Err() != nil:
			if s != nil {
				t.account.end(ctx, s)
			}
			return nil
		case err != nil && (ready != nil || isFinal(err)):
			return err
		case err != nil:
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
			if t.serve(ctx, s) >= settled {
				failures = 0
			}
			if ctx.Err() != nil {
				return nil
			}
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
			t.notes.say("session lost: %s; reconnecting", transport.ReasonOf(s.Err()))
			s.Close()
			return time.Since(begin)
		case <-ctx.Done():
			t.account.end(ctx, s)
			return time.Since(begin)
		}
	}
}

// accept serves each Tool that connects until the listener is closed.
func (t *tunnel) accept(ctx context.Context, l net.Listener, target netip.AddrPort) {
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			t.tools.Go(func() { t.tool(ctx, c, target) })
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		default:
			t.notes.say("forward %s: %s", l.Addr(), err)
			pause(ctx, acceptPause)
		}
	}
}

// tool carries one Tool's connection. One that cannot be carried is reset at once, with a line that says why: a Tool
// shows "connection reset" where it would show nothing at all after a plain close.
func (t *tunnel) tool(ctx context.Context, c net.Conn, target netip.AddrPort) {
	s, stream, err := t.stream(ctx, target)
	if err != nil {
		reset(c)
		if ctx.Err() == nil {
			t.notes.say("connection to %s refused: %s", target, why(err))
		}
		return
	}
	session.Bridge(&tool{c, s}, stream)
}

// stream opens a stream to target on the live session, or on the next one if that comes in time.
func (t *tunnel) stream(ctx context.Context, target netip.AddrPort) (*live, *session.Stream, error) {
	patience := time.NewTimer(toolWait)
	defer patience.Stop()
	for {
		select {
		case s := <-t.sessions:
			stream, err := s.Open(ctx, wire.Open{Service: wire.ServiceTCP, Target: target.String()})
			if err == nil || !ended(s) || ctx.Err() != nil {
				return s, stream, err
			}
		case <-patience.C:
			return nil, nil, fail(transport.Timeout, "wait for the session", nil)
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

// why says in a line who refused a stream and for which reason.
func why(err error) string {
	if refusal, ok := errors.AsType[*wire.Refusal](err); ok {
		who := "the gateway"
		switch refusal.Reason {
		case transport.Refused:
			who = "the address behind it"
		case transport.Timeout, transport.Unreachable:
			who = "the network behind it"
		case transport.Policy:
			who = "the device's owner"
		}
		text := string(refusal.Reason) + ", says " + who
		if refusal.Text != "" {
			text += " (" + refusal.Text + ")"
		}
		return text
	}
	return err.Error()
}

// tool is a Tool's connection over a session. When the session ends under it the Tool sees a reset and never an end in
// order: a file that was cut off must not look whole.
type tool struct {
	net.Conn
	session *live
}

// CloseWrite says that the other end will send nothing more.
func (c *tool) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok || ended(c.session) {
		return fail(transport.LinkLost, "end stream", nil)
	}
	return half.CloseWrite()
}

// Close resets when the session is gone, else it ends in order.
func (c *tool) Close() error {
	if ended(c.session) {
		return reset(c.Conn)
	}
	return c.Conn.Close()
}

// ended reports whether a session is over, from whichever side.
func ended(s *live) bool {
	select {
	case <-s.Done():
		return true
	default:
		return false
	}
}

// reset closes with RST instead of FIN.
func reset(c net.Conn) error {
	if l, ok := c.(interface{ SetLinger(sec int) error }); ok {
		l.SetLinger(0)
	}
	return c.Close()
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
	mu sync.Mutex // guards w
	w  io.Writer
}

// say writes one line in one Write. That it may fail is left: the terminal is gone, the forwards need not be.
func (l *lines) say(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	io.WriteString(l.w, clean(fmt.Sprintf(format, args...))+"\n")
}
