package transport

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"

	"hawser/identity"
)

// connectError is a failure before the TLS hello.
type connectError struct{ err error }

func (e *connectError) Error() string { return e.err.Error() }
func (e *connectError) Unwrap() error { return e.err }

// handshakeError is a failure after it, with what was heard from the server.
type handshakeError struct {
	err     error
	heard   []byte // the first bytes
	timeout bool
	chain   []*x509.Certificate
}

func (e *handshakeError) Error() string { return e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

// ReasonOf returns the reason of an error of this package, its sub-packages or
// identity; the empty one for nil, and internal when there is none to be found.
func ReasonOf(err error) Reason {
	if err == nil {
		return ""
	}
	reason, _, _ := classify(err, false)
	return reason
}

// classify names the reason of a failure, with a text and, for a foreign
// certificate, its issuer. It is pure.
func classify(err error, clockUnsure bool) (reason Reason, text, issuer string) {
	text = err.Error()
	if why, ok := errors.AsType[interface {
		error
		Why() Reason
	}](err); ok {
		return why.Why(), text, ""
	}
	if fault, ok := errors.AsType[*identity.Error](err); ok {
		return faultReason(fault, err, clockUnsure), text, fault.Issuer
	}
	if e, ok := errors.AsType[*handshakeError](err); ok {
		return handshakeReason(e), text, ""
	}
	return netReason(err), text, ""
}

// Why returns the reason; with it an error of another package takes part in
// ReasonOf.
func (e *Error) Why() Reason { return e.Reason }

func handshakeReason(e *handshakeError) Reason {
	_, notTLS := errors.AsType[tls.RecordHeaderError](e.err)
	switch {
	case notTLS && bytes.HasPrefix(e.heard, []byte("HTTP/")):
		// A redirect, or 511 (RFC 6585 §6), is a portal that wants a login.
		if status := bytes.TrimPrefix(e.heard[min(len(e.heard), 8):], []byte(" ")); bytes.HasPrefix(status, []byte("3")) || bytes.HasPrefix(status, []byte("511")) {
			return CaptivePortal
		}
		return PlainHTTP
	case notTLS:
		return NotTLS
	case e.timeout:
		return Timeout
	case isReset(e.err):
		return ResetAfterHello
	}
	if r := netReason(e.err); r != Internal {
		return r
	}
	return TLSRefused
}

func netReason(err error) Reason {
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return DNS
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return TLSRefused // crypto/tls's word for an alert
	}
	switch {
	case anyOf(err, errnoRefused):
		return Refused
	case anyOf(err, []error{context.DeadlineExceeded, context.Canceled, os.ErrDeadlineExceeded}), isTimeout(err):
		return Timeout
	case anyOf(err, errnoUnreachable):
		return Unreachable
	case isReset(err):
		return Reset
	}
	return Internal
}

func isTimeout(err error) bool {
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout()
}

func isReset(err error) bool {
	return anyOf(err, errnoReset) || anyOf(err, []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed})
}

func anyOf[E error](err error, targets []E) bool {
	return slices.ContainsFunc(targets, func(e E) bool { return errors.Is(err, e) })
}

// faultReason turns what identity found into a reason. Interception and a
// server of another infrastructure differ in what the site's IT must do.
func faultReason(fault *identity.Error, err error, clockUnsure bool) Reason {
	switch fault.Fault {
	case identity.FaultWrongRoot, identity.FaultBadChain, identity.FaultBadSignature:
		if e, ok := errors.AsType[*handshakeError](err); ok && !ours(e.chain) {
			return TLSIntercepted
		}
		if fault.Fault != identity.FaultWrongRoot {
			return BadCertificate
		}
		return WrongRoot
	case identity.FaultExpired:
		if clockUnsure {
			return ClockWrong
		}
		return Expired
	case identity.FaultNotYetValid:
		return ClockWrong
	case identity.FaultWrongKind:
		return WrongKind
	case identity.FaultCSRName:
		return BadCSR
	case identity.FaultBadCode:
		return BadCode
	case identity.FaultWrongNonce, identity.FaultWrongServer, identity.FaultWrongUID:
		return BadTime
	case identity.FaultWrongKey:
		return WrongKey
	}
	return BadCertificate
}

// ours reports whether a chain claims to be of some Hawser infrastructure.
func ours(chain []*x509.Certificate) bool {
	return len(chain) > 0 && slices.ContainsFunc(chain[0].URIs, func(u *url.URL) bool { return u.Scheme == "hawser" })
}

// A DialError says what became of every candidate.
type DialError struct {
	Hosts    []string
	Attempts []Attempt
	Cause    error // of the context, when it ended the search
}

// Why is the most telling reason: one that somebody can act upon before one
// that only says that nothing was there.
func (e *DialError) Why() Reason {
	if i := telling(e.Attempts); i >= 0 {
		return e.Attempts[i].Reason
	}
	return Timeout
}

// Unwrap returns what ended the search before its time, or nil.
func (e *DialError) Unwrap() error { return e.Cause }

// Error names each candidate with its reason.
func (e *DialError) Error() string {
	s := fmt.Sprintf("no way to %s", strings.Join(e.Hosts, ", "))
	for _, a := range e.Attempts {
		where := a.Host
		if a.Addr.IsValid() {
			where = a.Addr.String()
		}
		s += fmt.Sprintf("; %s: %s", where, a.Reason)
	}
	if len(e.Attempts) == 0 {
		s += ": " + string(e.Why())
	}
	return s
}

// telling returns the index of the attempt with the most telling reason, or -1.
func telling(attempts []Attempt) int {
	order := []Reason{TLSIntercepted, WrongRoot, WrongKind, WrongName, BadCertificate, Expired, ClockWrong, WrongProtocol,
		TLSRefused, CaptivePortal, PlainHTTP, NotTLS, ResetAfterHello, Reset, Refused, Timeout, Unreachable, DNS}
	best, rank := -1, len(order)+1
	for i, a := range attempts {
		r := slices.Index(order, a.Reason)
		if r < 0 {
			r = len(order)
		}
		if r < rank {
			best, rank = i, r
		}
	}
	return best
}
