package manager

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"hawser/transport"
	"hawser/transport/session"
	"hawser/transport/wire"
)

const (
	toolWait    = 15 * time.Second // how long a Tool waits for a session
	acceptPause = 1 * time.Second  // after an Accept that failed, say for want of file descriptors
)

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
