package manager

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/api"
)

const (
	// maxClockOff is by how much the clock of a PC that signs may be wrong (identity §16.4). Statements are dated by it: a list
	// from the future ends all that ends, and an entry from the past strikes nothing.
	maxClockOff = 5 * time.Minute
	// clockKept is how long one answer is good for: a command that waits for a gateway signs more than once.
	clockKept = 10 * time.Minute
)

// clockError says that the clock of this PC is not that of the servers.
type clockError struct{ off time.Duration } // positive: it is ahead

func (e *clockError) Error() string {
	side := "ahead of"
	if e.off < 0 {
		side = "behind"
	}
	return fmt.Sprintf("the clock of this computer is %v %s the signed time of the servers, and what it dates would not be believed, "+
		"or end too late; nothing was signed", e.off.Abs().Round(time.Second), side)
}

// Why makes ReasonOf find the reason.
func (e *clockError) Why() transport.Reason { return transport.ClockWrong }

// clockOff tells by how much a clock is wrong that showed sent when signed time was asked for and got when it came; 0 when
// that may be within the bound. It is pure.
func clockOff(sent, got, signed time.Time) time.Duration {
	switch {
	case signed.Before(sent.Add(-maxClockOff)):
		return sent.Sub(signed)
	case signed.After(got.Add(maxClockOff)):
		return got.Sub(signed)
	}
	return 0
}

// askTime asks a server for signed time, and returns a *clockError when the clock of this PC is too far from it. Another
// error says that there is no signed time. op is what needs it.
func (m *Manager) askTime(ctx context.Context, op string, dial func(context.Context) (*transport.Conn, error)) error {
	var nonce [32]byte
	rand.Read(nonce[:])
	var conn *transport.Conn
	var answer api.TimeAnswer
	sent := m.now()
	err := call(ctx, func(ctx context.Context) (c *transport.Conn, err error) {
		c, err = dial(ctx)
		conn, sent = c, m.now()
		return c, err
	}, op, http.MethodPost, "/time", api.TimeRequest{Nonce: nonce[:]}, &answer)
	if err != nil {
		return err
	}
	got := m.now()
	t, err := identity.VerifySignedTime(answer.Time, conn.Roots, nonce, conn.Peer, identity.UID{})
	if err != nil {
		return fail(transport.BadTime, op, err)
	}
	if off := clockOff(sent, got, t.Time); off != 0 {
		return fail(transport.ClockWrong, op, &clockError{off})
	}
	return nil
}

// clockRight refuses to sign anything while the clock of this PC is wrong, or no server says what time it is.
func (a *Account) clockRight(ctx context.Context) error {
	if !a.clockAsked.IsZero() && time.Since(a.clockAsked) < clockKept {
		return nil
	}
	err := a.m.askTime(ctx, "sign", a.dial)
	if _, off := errors.AsType[*clockError](err); off && a.m.TrustClock {
		a.m.notice(err.Error() + ", until --trust-clock said that it is right")
		err = nil
	}
	if err == nil {
		a.clockAsked = time.Now()
	}
	return err
}

// isClock reports whether an error is about the clock of this PC, and not about a server's.
func isClock(err error) bool {
	_, ok := errors.AsType[*clockError](err)
	return ok
}
