package access

import (
	"crypto"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

// The codes of access §6 that are none of wire §7.
const (
	codeBadRequest       transport.Reason = "bad-request"
	codeNotFound         transport.Reason = "not-found"
	codeMethodNotAllowed transport.Reason = "method-not-allowed"
	codeNameTaken        transport.Reason = "name-taken"
	codeNotLoggedIn      transport.Reason = "not-logged-in"
	codeTooLarge         transport.Reason = "too-large"
)

// awayRetry is when a client asks again after the store was away.
const awayRetry = 5 * time.Second

// refuse returns the refusal that a client is told, in a frame or a problem document.
func refuse(reason transport.Reason, text string) error {
	return &wire.Refusal{Reason: reason, Text: text}
}

func busy(wait time.Duration) error {
	return &wire.Refusal{Reason: transport.Busy, Text: "too many attempts", RetryAfter: wait}
}

// refusalOf returns what a client is told of err. What went wrong inside is
// not for it: that is reason internal, without a text.
func refusalOf(err error) *wire.Refusal {
	if r, ok := errors.AsType[*wire.Refusal](err); ok {
		return r
	}
	if errors.Is(err, wire.ErrFrame) {
		return &wire.Refusal{Reason: transport.Protocol, Text: err.Error()}
	}
	if errors.Is(err, ErrAway) { // grants are signed by nobody who may be out of date
		return &wire.Refusal{Reason: transport.Busy, Text: "the server's store is away", RetryAfter: awayRetry}
	}
	return &wire.Refusal{Reason: transport.Internal}
}

// isOurs reports whether err is our fault and belongs in the log.
func isOurs(err error) bool {
	return errors.Is(err, ErrAway) || refusalOf(err).Reason == transport.Internal
}

// gone reports whether err only says that the peer went away or fell silent.
func gone(err error) bool {
	if errors.Is(err, ErrAway) {
		return false // its cause may be a network error too, but not the peer's
	}
	_, isNet := errors.AsType[net.Error](err)
	return err == nil || isNet || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded)
}

// parseCSR takes the key out of a CSR, and nothing else (access §2).
func parseCSR(der []byte) (crypto.PublicKey, identity.SPKI, error) {
	pub, err := identity.ParseCSR(der)
	if err != nil {
		return nil, identity.SPKI{}, refuse(transport.BadCSR, string(identity.FaultOf(err)))
	}
	spki, err := identity.SPKIOf(pub)
	return pub, spki, err
}

// unproven refuses a client whose certificate does not prove who it is.
func unproven(err error) error {
	return refuse(transport.ReasonOf(err), "client certificate")
}
