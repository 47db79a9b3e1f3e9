package control

import (
	"context"
	"crypto/x509"
	"errors"
	"net/netip"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

// maxAskedForReset bounds how many servers one Connect asks for a floor reset.
const maxAskedForReset = 8

// seekReset asks the servers that failed for nothing but their dates for a floor
// reset (wire §3.3): a floor in the future makes each good server look expired,
// so the reset could never come in an ordinary prelude. It reports whether one was
// taken, or why the last one that came was not.
func (c *Client) seekReset(ctx context.Context, failed error) (taken bool, refused error) {
	search, ok := errors.AsType[*transport.DialError](failed)
	if !ok || c.Reset == nil || c.UID.IsZero() {
		return false, nil
	}
	asked := map[netip.Addr]bool{} // once a server, not once a port
	for _, a := range search.Attempts {
		dated := a.Reason == transport.Expired || a.Reason == transport.ClockWrong
		if !dated || asked[a.Addr.Addr()] || len(asked) == maxAskedForReset {
			continue
		}
		asked[a.Addr.Addr()] = true
		f, err := c.askReset(ctx, a.Candidate)
		if err != nil {
			continue // it has none
		}
		if refused = c.takeReset(f); refused == nil {
			return true, nil
		}
	}
	return false, refused
}

// askReset sends a time-request to a server whose certificate may have expired,
// and wants nothing from it but a floor reset. Chain, name and usage are verified
// at the beginning of its leaf. Since the server may be somebody with a stolen key,
// it is shown no certificate and sent nothing else, and its time is not believed.
func (c *Client) askReset(ctx context.Context, from transport.Candidate) (wire.Frame, error) {
	t := c.target()
	t.At = func(leaf *x509.Certificate) time.Time { return leaf.NotBefore }
	t.Anonymous = true
	conn, a := c.Dialer.Try(ctx, t, from)
	if conn == nil {
		return wire.Frame{}, &transport.Error{Reason: a.Reason, Op: "ask for floor reset", Err: errors.New(a.Detail)}
	}
	defer closeOnDone(ctx, conn)()
	defer conn.NetConn().Close()
	conn.SetDeadline(time.Now().Add(maxTimeRTT))
	q := newQuestion(c.UID)
	if err := wire.Write(conn, wire.TypeTimeRequest, q.request[:]); err != nil {
		return wire.Frame{}, err
	}
	return wire.Expect(conn, wire.TypeFloorReset)
}

// takeReset verifies a reset and hands it over. The root's signature says all:
// which server has brought it does not matter.
func (c *Client) takeReset(f wire.Frame) error {
	if c.Reset == nil {
		return &transport.Error{Reason: transport.Unsupported, Op: "take floor reset", Err: errors.New("this client has no floor")}
	}
	r, err := identity.VerifyFloorReset(f.Payload, c.Roots, c.UID)
	if err != nil {
		return err
	}
	return c.Reset(r)
}
