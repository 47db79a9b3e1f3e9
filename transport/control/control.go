// Package control is the client of an Access Server, for Runtimes and relays:
// the prelude that brings signed time, enrollment, renewal, and the control
// connection with its heartbeat (wire §3, §4).
package control

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

const (
	// The signed time is off by half the round trip at most, so 10 s bound the error that a slow or malicious path adds
	// to 5 s.
	maxTimeRTT    = 10 * time.Second // wire §3.2
	answerTimeout = 20 * time.Second // for an answer that the server has to compute and store
	maxHint       = time.Minute      // of a retry_after_s from a server that has not proven itself (wire §2.3)
)

// Clock is the clock of the program, as far as the prelude needs it (wire §3.2). The
// methods may be called concurrently. An interface, because the agent has a clock of its own, which may begin in 1970,
// and a relay has its machine's.
type Clock interface {
	// Floor returns a time that is certainly not after the present one. If authentic
	// is true it is the present time, proven by signed time since the start.
	Floor() (at time.Time, authentic bool)
	// Signed takes a verified signed time that is at most rtt old. An error refuses
	// it, and ends the connection.
	Signed(t identity.SignedTime, rtt time.Duration) error
}

// WallClock is the Clock of a machine whose clock other programs keep right.
type WallClock struct{ Now func() time.Time }

// Floor returns the wall clock's time as authentic.
func (c WallClock) Floor() (time.Time, bool) { return c.Now(), true }

// Signed does nothing. The prelude has verified it by then; one server's word must not move a clock that other programs
// keep.
func (WallClock) Signed(identity.SignedTime, time.Duration) error { return nil }

// Client knows how to reach one infrastructure's Access Servers. Its fields
// are set once; it is safe for concurrent use. Client has no connection of its own: each Connect searches anew, and the
// Dialer remembers what the search before found.
type Client struct {
	Dialer *transport.Dialer
	Hosts  []string
	Ports  []transport.Port
	Roots  *identity.Roots
	Pin    identity.SPKI // of the root, when Roots is nil
	UID    identity.UID  // zero: none yet
	Clock  Clock
	// Reset takes a floor reset that a pinned root has signed for UID (time §6.4).
	// An error refuses it. Nil: resets are neither taken nor asked for.
	Reset func(identity.FloorReset) error
	// Refused stores a list of refused keys (identity §18) that counts already, for these roots and whoever shares them. Nil:
	// it is forgotten with them.
	Refused func(raw []byte, list identity.RefusedKeys, roots *identity.Roots)
}

// Conn is a connection to an Access Server whose certificate was verified at the time
// that it signed. Before that, it is sent nothing but the time-request.
type Conn struct {
	*transport.Conn
	client *Client
}

// Connect dials and does the prelude. It blocks until a server has proven
// itself, every way has failed, or ctx ends. Errors carry a transport.Reason:
// those of the search (*transport.DialError), bad-time, clock and the reason of a
// refusal. When only the dates of servers were wrong, they are asked for a floor
// reset, and dialled once more if one has it. The caller closes the connection. Once: a reset that did not help the
// second time is no cure, and a loop over servers that answer would not end.
func (c *Client) Connect(ctx context.Context) (*Conn, error) {
	conn, err := c.connect(ctx)
	if err == nil {
		return conn, nil
	}
	taken, refused := c.seekReset(ctx, err)
	switch {
	case taken:
		if conn, err = c.connect(ctx); err == nil {
			return conn, nil
		}
	case refused != nil:
		err = fmt.Errorf("%w; take floor reset: %w", err, refused)
	}
	return nil, unproven{err}
}

// unproven marks an error from before a server had proven itself: a refusal in it is
// only a hint (wire §2.3).
type unproven struct{ error }

func (u unproven) Unwrap() error { return u.error }

// RetryAfter returns how long the server wants to be left alone after err, an
// error of this package; zero when it did not say. Somebody who has only an
// expired key of a server must not silence a gateway for an hour, so what was
// said before the server had proven itself counts for a minute at most.
func RetryAfter(err error) time.Duration {
	r, ok := errors.AsType[*wire.Refusal](err)
	if !ok {
		return 0
	}
	if _, ok := errors.AsType[unproven](err); ok {
		return min(r.RetryAfter, maxHint)
	}
	return r.RetryAfter
}

func (c *Client) connect(ctx context.Context) (*Conn, error) {
	conn, err := c.Dialer.Dial(ctx, c.target())
	if err != nil {
		return nil, err
	}
	// The prelude reads and writes with deadlines, which know nothing of ctx; only a closed socket wakes them at its
	// end.
	done := closeOnDone(ctx, conn)
	t, rtt, err := c.prelude(conn)
	if err == nil {
		err = c.Clock.Signed(t, rtt)
	}
	if !done() {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, &transport.Error{Reason: timeReason(err), Op: "get signed time from " + conn.Candidate.Where(), Err: err}
	}
	return &Conn{conn, c}, nil
}

// target is any Access Server, verified at the time that the clock knows.
func (c *Client) target() transport.Target {
	_, authentic := c.Clock.Floor()
	return transport.Target{
		Hosts: c.Hosts, Ports: c.Ports, ALPN: transport.ALPNAccess,
		Name:  identity.Name{Kind: identity.KindAccess},
		Roots: c.Roots, Pin: c.Pin,
		At: c.verifyAt, ClockUnsure: !authentic,
	}
}

// verifyAt returns max(F, leaf's notBefore) until the clock is authentic: the dates
// must not stop a gateway that wakes in 1970, but it never goes back before its
// floor, so an old certificate does not become valid again.
func (c *Client) verifyAt(leaf *x509.Certificate) time.Time {
	at, authentic := c.Clock.Floor()
	if !authentic && leaf.NotBefore.After(at) {
		return leaf.NotBefore
	}
	return at
}

// prelude asks for signed time and checks the connection again at that time. Until it has succeeded nothing else is
// sent, no code, CSR or hello: a server whose certificate is over could otherwise collect activation codes from
// gateways that do not know the time yet (wire §3.2).
func (c *Client) prelude(conn *transport.Conn) (identity.SignedTime, time.Duration, error) {
	q := newTimeRequest(c.UID)
	conn.SetDeadline(q.asked.Add(maxTimeRTT))
	defer conn.SetDeadline(time.Time{})
	if err := wire.Write(conn, wire.TypeTimeRequest, q.request[:]); err != nil {
		return identity.SignedTime{}, 0, err
	}
	before := []wire.Type{wire.TypeFloorReset, wire.TypeRefusedKeys} // each at most once
	for {
		f, err := wire.Expect(conn, append(before, wire.TypeTime)...)
		if err != nil {
			return identity.SignedTime{}, 0, err
		}
		switch f.Type {
		case wire.TypeTime:
			return q.judge(conn, f) // by what was refused until now
		case wire.TypeFloorReset:
			_ = c.takeReset(f) // one that is not taken changes nothing
		case wire.TypeRefusedKeys:
			c.takeRefused(conn, f)
		}
		before = slices.DeleteFunc(before, func(t wire.Type) bool { return t == f.Type })
	}
}

// takeRefused lets a list of refused keys count at once. One that no pinned root has signed, or that is not newer, changes
// nothing: whoever sends it could as well have sent none.
func (c *Client) takeRefused(conn *transport.Conn, f wire.Frame) {
	list, err := identity.VerifyRefusedKeys(f.Payload, conn.Roots)
	if err == nil && conn.Roots.Refuse(list) && c.Refused != nil {
		c.Refused(f.Payload, list, conn.Roots)
	}
}

// timeRequest is a time-request that waits for its answer. It keeps when it was sent, by the monotonic clock: the wall
// clock may be set while the answer is under way.
type timeRequest struct {
	request wire.TimeRequest
	asked   time.Time
}

func newTimeRequest(uid identity.UID) timeRequest {
	var nonce [32]byte
	// Since Go 1.24 it never fails; it ends the program instead.
	rand.Read(nonce[:])
	return timeRequest{wire.NewTimeRequest(nonce, uid), time.Now()}
}

// judge does the checks of wire §3.2 on the answer f.
func (q timeRequest) judge(conn *transport.Conn, f wire.Frame) (identity.SignedTime, time.Duration, error) {
	rtt := time.Since(q.asked)
	if rtt > maxTimeRTT {
		return identity.SignedTime{}, 0, fmt.Errorf("signed time is %v old", rtt)
	}
	t, err := identity.VerifySignedTime(f.Payload, conn.Roots, q.request.Nonce(), conn.Peer, q.request.UID())
	if err != nil {
		return identity.SignedTime{}, 0, err
	}
	// The handshake judged the dates by a clock that may have been wrong. This is the check that counts: with the
	// server's own signed time, a certificate that was stolen and is over no longer passes.
	_, err = transport.VerifyPeer(conn.Chain, conn.Roots, t.Time.Add(rtt/2), conn.Peer.Name)
	return t, rtt, err
}

// timeReason returns the reason of a failed prelude, or bad-time where that says no
// more than that something failed.
func timeReason(err error) transport.Reason {
	r := transport.ReasonOf(err)
	if r == transport.Internal || r == transport.BadCertificate || errors.Is(err, wire.ErrFrame) {
		return transport.BadTime
	}
	return r
}

// Enroll asks for the first identity (wire §4.1) and blocks for its answer, at
// most 20 s. A refusal is a *wire.Refusal. The answer is not yet verified.
func (c *Conn) Enroll(ctx context.Context, m wire.Enroll) (wire.Identity, error) {
	return c.ask(ctx, wire.TypeEnroll, m)
}

// Renew asks for a new certificate (wire §4.2), as Enroll does.
func (c *Conn) Renew(ctx context.Context, m wire.Renew) (wire.Identity, error) {
	return c.ask(ctx, wire.TypeRenew, m)
}

// ask gives back the error of ctx when that ended it: that of the closed socket would read like a network's fault, and
// its caller would try again.
func (c *Conn) ask(ctx context.Context, t wire.Type, m any) (id wire.Identity, err error) {
	done := closeOnDone(ctx, c.Conn)
	defer func() {
		if !done() && err != nil {
			err = ctx.Err()
		}
	}()
	c.SetDeadline(time.Now().Add(answerTimeout))
	defer c.SetDeadline(time.Time{})
	if err = wire.WriteJSON(c, t, m); err != nil {
		return id, err
	}
	f, err := wire.Expect(c, wire.TypeIdentity)
	if err == nil {
		err = f.Decode(&id)
	}
	return id, err
}

// closeOnDone closes conn if ctx ends before done is called. Done returns false if it
// was closed.
func closeOnDone(ctx context.Context, conn *transport.Conn) (done func() bool) {
	return context.AfterFunc(ctx, func() { conn.NetConn().Close() })
}
