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

// connectError is a failure before the TLS hello. The two types tell on which side of the hello a reset came: before
// it, a server or a firewall refuses the port; after it, something on the way reads TLS and refuses this hello, for
// which there is the small form (wire §8.1).
type connectError struct{ err error }

func (e *connectError) Error() string { return e.err.Error() }
func (e *connectError) Unwrap() error { return e.err }

// handshakeError is a failure after it, with what the server has sent. The chain is kept though it did not verify: it
// tells an interception from a server of another infrastructure.
type handshakeError struct {
	err     error
	heard   []byte // its first bytes
	timeout bool
	chain   []*x509.Certificate
}

func (e *handshakeError) Error() string { return e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

// ReasonOf returns the reason of an error of this package, its sub-packages or
// identity: "" for nil, and internal for an error that has no reason.
func ReasonOf(err error) Reason {
	if err == nil {
		return ""
	}
	reason, _, _ := classify(err, false)
	return reason
}

// classify names the reason of a failure, with a text and, for a foreign
// certificate, its issuer. It is pure. The order matters: an error that knows its reason comes first, since the same
// error may wrap an errno further down.
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

// Why returns the reason. ReasonOf finds it in the errors of other packages that have
// this method, too.
func (e *Error) Why() Reason { return e.Reason }

// handshakeReason looks at what came back before it looks at the error: crypto/tls reports a portal's HTTP answer and a
// stranger's banner by the same RecordHeaderError, and only the bytes tell them apart.
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

// netReason asks for errno values and never for texts: texts differ by system, language and Go release.
func netReason(err error) Reason {
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return DNS
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return TLSRefused // an alert: crypto/tls has no type for it
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

// isReset counts an end of stream as a reset: a middlebox that ends a connection sends FIN or RST as it likes, and to
// whoever searches for a way the two say the same.
func isReset(err error) bool {
	return anyOf(err, errnoReset) || anyOf(err, []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed})
}

func anyOf[E error](err error, targets []E) bool {
	return slices.ContainsFunc(targets, func(e E) bool { return errors.Is(err, e) })
}

// faultReason turns a fault of identity into a reason. A chain to an unknown root is
// either an interception, which the site's IT must end, or a server of another
// Hawser infrastructure, which the operator has mistyped.
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
	// With a clock that nobody has confirmed, the clock is the likelier culprit than every server at once.
	case identity.FaultExpired:
		if clockUnsure {
			return ClockWrong
		}
		return Expired
	case identity.FaultRefusedKey:
		return Expired // the date that its issuer wrote counts no more: whose it is renews it
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
	case identity.FaultNotStated, identity.FaultListFull, identity.FaultRevoked, identity.FaultStale,
		identity.FaultInviteUsedTwice, identity.FaultWrongDevice:
		return Reason(fault.Fault) // the same words
	}
	return BadCertificate
}

// ours reports whether a chain is made for a Hawser infrastructure, whichever it is.
func ours(chain []*x509.Certificate) bool {
	return len(chain) > 0 && slices.ContainsFunc(chain[0].URIs, func(u *url.URL) bool { return u.Scheme == "hawser" })
}

// A DialError is a search that found no way, with the result of every candidate. Attempts are in the order in which
// they ended; a host that was not resolved has one as well.
type DialError struct {
	Hosts    []string
	Attempts []Attempt
	Cause    error // of the context, when it ended the search
}

// Why returns the most telling reason: one that somebody can act upon rather than
// one that only says that nothing answered.
func (e *DialError) Why() Reason {
	if i := mostTelling(e.Attempts); i >= 0 {
		return e.Attempts[i].Reason
	}
	return Timeout
}

// AllRefused reports whether every candidate refused the connect: then it is likelier
// that nothing listens there than that a firewall is shut, which mostly drops.
func (e *DialError) AllRefused() bool {
	return len(e.Attempts) > 0 && !slices.ContainsFunc(e.Attempts, func(a Attempt) bool { return a.Reason != Refused })
}

// Unwrap returns the cause of the context that ended the search, or nil. The errors of the attempts are not among it: the
// deadline of one of them would look like the end of the whole search. They are in Attempts.
func (e *DialError) Unwrap() error { return e.Cause }

// Error names each candidate with its reason.
func (e *DialError) Error() string {
	s := fmt.Sprintf("no way to %s", strings.Join(e.Hosts, ", "))
	for _, a := range e.Attempts {
		s += fmt.Sprintf("; %s: %s%s", a.Where(), a.Reason, a.words())
	}
	if len(e.Attempts) == 0 {
		s += ": " + string(e.Why())
	}
	return s
}

// words is what a proxy wants or says, and why an address is not dialled: the reason alone does not tell whom to ask
// for what.
func (a Attempt) words() string {
	switch a.Reason {
	case ProxyAuth, ProxyRefused, BadAddress:
	default:
		return ""
	}
	_, words, _ := strings.Cut(a.Detail, string(a.Reason)+": ")
	return " (" + words + ")"
}

// mostTelling returns the index of the attempt with the most telling reason, or -1.
func mostTelling(attempts []Attempt) int {
	// First what proves that somebody answered and what he is, then what a proxy or portal wants, then what merely
	// failed. One port that shows an interceptor explains a site better than three that time out.
	order := []Reason{TLSIntercepted, WrongRoot, WrongKind, WrongName, BadCertificate, Expired, ClockWrong, WrongProtocol,
		TLSRefused, ProxyAuth, CaptivePortal, PlainHTTP, NotTLS, ResetAfterHello, ProxyRefused, Reset, Refused, Timeout, BadAddress, Unreachable, DNS}
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
