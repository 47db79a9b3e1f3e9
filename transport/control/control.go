// Package control is the client of an Access Server, for Runtimes and relays:
// the prelude that brings signed time, enrolment, renewal, and the control
// connection with its heartbeat (wire §3, §4).
package control

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

const (
	maxTimeRTT    = 10 * time.Second // wire §3.2
	answerTimeout = 20 * time.Second // for an answer that the server has to compute and store
)

// Clock is what the prelude needs of its owner's clock (wire §3.2). The methods
// may be called concurrently.
type Clock interface {
	// Floor returns the time before which it cannot be and, with authentic,
	// the present time, proven by signed time since the start.
	Floor() (at time.Time, authentic bool)
	// Signed takes a verified signed time that is now rtt old at most. An error
	// refuses it, and with it the connection.
	Signed(t identity.SignedTime, rtt time.Duration) error
}

// WallClock is the Clock of a machine whose own clock is kept by others.
type WallClock struct{ Now func() time.Time }

// Floor returns the wall clock's time as authentic.
func (c WallClock) Floor() (time.Time, bool) { return c.Now(), true }

// Signed does nothing: the clock is others' to keep.
func (WallClock) Signed(identity.SignedTime, time.Duration) error { return nil }

// Client knows how to reach one infrastructure's Access Servers. Its fields
// are set once; it is safe for concurrent use.
type Client struct {
	Dialer *transport.Dialer
	Hosts  []string
	Ports  []transport.Port
	Roots  *identity.Roots
	Pin    identity.SPKI // of the root, when Roots is nil
	UID    identity.UID  // zero: none yet
	Clock  Clock
	// Reset takes a floor reset that a pinned root has signed for UID (time §6.4).
	// An error refuses it. Nil: none is taken, and none is looked for.
	Reset func(identity.FloorReset) error
}

// Conn is a connection to an Access Server that has proven itself at the time
// that it signed. Only now may anything be told to it.
type Conn struct {
	*transport.Conn
	client *Client
}

// Connect dials and does the prelude. It blocks until a server has proven
// itself, every way has failed, or ctx ends. Errors carry a transport.Reason:
// those of the search (*transport.DialError), bad-time, clock and the server's
// own refusal. Servers that are ours but for the date are asked for a floor reset,
// and dialled once more when there is one. The caller closes the connection.
func (c *Client) Connect(ctx context.Context) (*Conn, error) {
	conn, err := c.connect(ctx)
	if err == nil {
		return conn, nil
	}
	taken, refused := c.seekReset(ctx, err)
	switch {
	case taken:
		return c.connect(ctx)
	case refused != nil:
		err = fmt.Errorf("%w; take floor reset: %w", err, refused)
	}
	return nil, err
}

func (c *Client) connect(ctx context.Context) (*Conn, error) {
	conn, err := c.Dialer.Dial(ctx, c.target())
	if err != nil {
		return nil, err
	}
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
		return nil, &transport.Error{Reason: timeReason(err), Op: "get signed time from " + conn.Candidate.Addr.String(), Err: err}
	}
	return &Conn{conn, c}, nil
}

// target is any Access Server, verified at the time that is known.
func (c *Client) target() transport.Target {
	_, authentic := c.Clock.Floor()
	return transport.Target{
		Hosts: c.Hosts, Ports: c.Ports, ALPN: transport.ALPNAccess,
		Name:  identity.Name{Kind: identity.KindAccess},
		Roots: c.Roots, Pin: c.Pin,
		At: c.verifyAt, ClockUnsure: !authentic,
	}
}

// verifyAt is max(F, leaf's notBefore) until the clock is authentic: a gateway
// that wakes in 1970 must get past the dates, but never back before its floor.
func (c *Client) verifyAt(leaf *x509.Certificate) time.Time {
	at, authentic := c.Clock.Floor()
	if !authentic && leaf.NotBefore.After(at) {
		return leaf.NotBefore
	}
	return at
}

// prelude asks for signed time and checks the connection again at that time.
func (c *Client) prelude(conn *transport.Conn) (identity.SignedTime, time.Duration, error) {
	q := newQuestion(c.UID)
	conn.SetDeadline(q.asked.Add(maxTimeRTT))
	defer conn.SetDeadline(time.Time{})
	if err := wire.Write(conn, wire.TypeTimeRequest, q.request[:]); err != nil {
		return identity.SignedTime{}, 0, err
	}
	f, err := wire.Expect(conn, wire.TypeTime, wire.TypeFloorReset)
	if err == nil && f.Type == wire.TypeFloorReset {
		_ = c.takeReset(f) // one that is not taken changes nothing
		f, err = wire.Expect(conn, wire.TypeTime)
	}
	if err != nil {
		return identity.SignedTime{}, 0, err
	}
	return q.judge(conn, f)
}

// question is a time-request that waits for its answer.
type question struct {
	request wire.TimeRequest
	asked   time.Time
}

func newQuestion(uid identity.UID) question {
	var nonce [32]byte
	rand.Read(nonce[:])
	return question{wire.NewTimeRequest(nonce, uid), time.Now()}
}

// judge does the checks of wire §3.2 on the answer f.
func (q question) judge(conn *transport.Conn, f wire.Frame) (identity.SignedTime, time.Duration, error) {
	rtt := time.Since(q.asked)
	if rtt > maxTimeRTT {
		return identity.SignedTime{}, 0, fmt.Errorf("signed time is %v old", rtt)
	}
	t, err := identity.VerifySignedTime(f.Payload, conn.Roots, q.request.Nonce(), conn.Peer, q.request.UID())
	if err != nil {
		return identity.SignedTime{}, 0, err
	}
	_, err = transport.VerifyPeer(conn.Chain, conn.Roots, t.Time.Add(rtt/2), conn.Peer.Name)
	return t, rtt, err
}

// timeReason keeps the reason of a failed prelude when it says more than that
// the time is bad.
func timeReason(err error) transport.Reason {
	r := transport.ReasonOf(err)
	if r == transport.Internal || r == transport.BadCertificate || errors.Is(err, wire.ErrFrame) {
		return transport.BadTime
	}
	return r
}

// Enrol asks for the first identity (wire §4.1) and blocks for its answer, at
// most 20 s. A refusal is a *wire.Refusal. The answer is not yet verified.
func (c *Conn) Enrol(ctx context.Context, m wire.Enrol) (wire.Identity, error) {
	return c.ask(ctx, wire.TypeEnrol, m)
}

// Renew asks for a new certificate (wire §4.2), as Enrol does.
func (c *Conn) Renew(ctx context.Context, m wire.Renew) (wire.Identity, error) {
	return c.ask(ctx, wire.TypeRenew, m)
}

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

// closeOnDone closes conn when ctx ends before done is called; done reports
// whether it did not.
func closeOnDone(ctx context.Context, conn *transport.Conn) (done func() bool) {
	return context.AfterFunc(ctx, func() { conn.NetConn().Close() })
}
