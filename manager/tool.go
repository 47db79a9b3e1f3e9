package manager

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"hawser/internal/wait"
	"hawser/transport"
	"hawser/transport/mux"
	"hawser/transport/session"
	"hawser/transport/wire"
)

const (
	// A failover is over by then (docs/tests.md, A2-failover).
	toolWait    = 15 * time.Second // how long a tool waits for a session
	toolEnd     = 2 * time.Second  // how long a tool may go on when Connect ends
	acceptPause = 1 * time.Second  // after a failed Accept, for example without free file descriptors
)

// accept serves each tool that connects until the listener is closed. Tools are accepted also during a loss: the stream
// waits up to toolWait for the next session, and the tool sees a slow connect and no refusal.
func (t *tunnel) accept(ctx context.Context, l net.Listener, target netip.AddrPort) {
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			t.tools.Go(func() { t.tool(ctx, c, target) })
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		default:
			if say, behind := t.hush.due("forward "+l.Addr().String(), time.Now()); say {
				t.notes.say("forward %s: %s%s", l.Addr(), err, behind)
			}
			wait.Sleep(ctx, acceptPause)
		}
	}
}

// tool forwards one tool's connection. If that is impossible it resets the connection and prints why: a tool reports a
// reset, but shows nothing after an orderly close. It is a goroutine of tools, for which Connect waits; Bridge closes
// both ends before it returns.
func (t *tunnel) tool(ctx context.Context, c net.Conn, target netip.AddrPort) {
	half, ok := c.(session.Half)
	if !ok {
		c.Close() // no listener of ours makes such a connection
		return
	}
	o := &opening{tool: half, heard: make(chan struct{})}
	go o.listen() // waited for below
	stream, err := t.stream(ctx, target, o)
	if err == nil {
		err = o.settle(stream)
	}
	if err != nil {
		reset(c)
		<-o.heard
		// A kind is a target and a reason: the gateway's own words may differ each time.
		if say, behind := t.hush.due(fmt.Sprint(target, transport.ReasonOf(err)), time.Now()); say && ctx.Err() == nil {
			t.notes.say("connection to %s refused: %s%s", target, why(err), behind)
		}
		return
	}
	// A session that ends when all of the machine's bytes have come is no failure of the stream, and a tool may never end
	// its own direction.
	stop := context.AfterFunc(ctx, func() { half.SetDeadline(time.Now().Add(toolEnd)) })
	defer stop()
	session.Bridge(half, stream)
}

// An opening is a tool that waits for its machine. What it says first goes along with the question for the stream, as early
// data (session §4.1): a tool that speaks first has its answer a round trip sooner.
type opening struct {
	tool  session.Half
	heard chan struct{} // closed when the rest is set
	said  []byte
	err   error // of the tool, which is gone
	sent  int   // bytes of said; of whoever has the opening, not of listen
}

// listen waits for the first words of the tool. It is a goroutine that ends when the tool speaks, ends or is closed.
func (o *opening) listen() {
	defer close(o.heard)
	b := make([]byte, mux.EarlyBytes)
	n, err := o.tool.Read(b)
	// The end of what it sends is read again, and so is a failure that this program made to wake the goroutine.
	if o.said = b[:n]; err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) {
		o.err = err
	}
}

// on asks a session for the stream, and sends what the tool says until there is an answer.
func (o *opening) on(ctx context.Context, s *live, target netip.AddrPort) (*mux.Stream, error) {
	stream, err := s.Ask(mux.Open{Service: wire.ServiceTCP, Target: target.String()})
	if err != nil {
		return nil, err
	}
	select {
	case <-o.heard:
		n, _ := stream.Write(o.said) // the stream's failure is its answer
		o.sent = n
	case <-stream.Answered():
	}
	return stream, stream.Await(ctx)
}

// settle ends the opening of a stream that was granted: what the tool has said is sent, and it can be read from again. The
// caller closes the tool after an error.
func (o *opening) settle(stream *mux.Stream) error {
	o.tool.SetReadDeadline(time.Unix(1, 0))
	<-o.heard
	o.tool.SetReadDeadline(time.Time{})
	err := o.err
	if err == nil && o.sent < len(o.said) {
		_, err = stream.Write(o.said[o.sent:])
	}
	if err != nil {
		stream.Reset(transport.Reset)
	}
	return err
}

// stream opens a stream to target on the live session, or on the next one if that comes in time. A session that ended
// between hand-over and the answer is none: the next one is waited for, unless a machine may have got what the tool said.
func (t *tunnel) stream(ctx context.Context, target netip.AddrPort, o *opening) (*mux.Stream, error) {
	t.waiting.Add(1)
	defer t.waiting.Add(-1)
	t.wanted.Ring()
	patience := time.NewTimer(toolWait)
	defer patience.Stop()
	for {
		select {
		case s := <-t.sessions:
			stream, err := o.on(ctx, s, target)
			if err == nil || !ended(s) || ctx.Err() != nil || o.sent > 0 {
				return stream, err
			}
		case <-patience.C:
			return nil, fail(transport.Timeout, "wait for the session", nil)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// why is one line about who refused a stream and for which reason. It names who refused, because a policy, a firewall
// behind the gateway and a PLC that is off are three people's matter.
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

// ended reports whether a session has ended, on either side.
func ended(s *live) bool {
	select {
	case <-s.Done():
		return true
	default:
		return false
	}
}

// reset closes with RST instead of FIN. An orderly close in the middle of a program upload would look like its end.
func reset(c net.Conn) error {
	if l, ok := c.(interface{ SetLinger(sec int) error }); ok {
		l.SetLinger(0)
	}
	return c.Close()
}
