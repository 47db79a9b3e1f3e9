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

// maxAskedForReset bounds how many servers one Connect asks for a floor reset. Each may take 10 s and more, and all
// this time the gateway does not try an ordinary dial.
const maxAskedForReset = 8

// seekReset asks the servers whose dates alone were wrong for a floor reset
// (wire §3.3): with a floor in the future every good server looks expired, so a
// reset could never arrive in an ordinary prelude. It reports whether one was taken,
// or why the last one that arrived was refused.
func (c *Client) seekReset(ctx context.Context, failed error) (taken bool, refused error) {
	search, ok := errors.AsType[*transport.DialError](failed)
	if !ok || c.Reset == nil || c.UID.IsZero() {
		return false, nil
	}
	asked := map[server]bool{} // one request for each server, whatever the number of its ports
	for _, a := range search.Attempts {
		onlyDates := a.Reason == transport.Expired || a.Reason == transport.ClockWrong
		from := server{a.Addr.Addr(), a.Host}
		if from.addr.IsValid() {
			from.host = "" // two names of one address are one server
		}
		// A server that failed by anything else is a stranger, or will fail again before it can send a frame.
		if !onlyDates || asked[from] || len(asked) == maxAskedForReset {
			continue
		}
		asked[from] = true
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

// server is whom a search met: an address, or a host behind a proxy.
type server struct {
	addr netip.Addr
	host string
}

// askReset sends a time-request to a server whose certificate may have expired, and
// reads a floor reset, nothing else. Chain, name and usage are verified at the
// leaf's notBefore. Somebody with an old, stolen key can be that server, so it sees
// no certificate of ours, is sent nothing more, and its time is not used.
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
	q := newTimeRequest(c.UID)
	if err := wire.Write(conn, wire.TypeTimeRequest, q.request[:]); err != nil {
		return wire.Frame{}, err
	}
	return wire.Expect(conn, wire.TypeFloorReset)
}

// takeReset verifies a reset and passes it to Client.Reset. It is signed by the root,
// so it does not matter which server sent it.
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
