package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"hawser/transport"
)

// The codes of access §6 beside the reasons of wire §7. Both stand in the same place of a transport.Error.
const (
	BadRequest       transport.Reason = "bad-request"
	NotFound         transport.Reason = "not-found"
	MethodNotAllowed transport.Reason = "method-not-allowed"
	NameTaken        transport.Reason = "name-taken"
	NotLoggedIn      transport.Reason = "not-logged-in"
	TooLarge         transport.Reason = "too-large"
)

// The exit codes of cli.md.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotLoggedIn = 3
	exitRefused     = 4
	exitUnreachable = 5
)

// UsageError is a command line or a configuration that cannot work: exit code 2.
type UsageError struct{ Err error }

// Error is the cause's text.
func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *UsageError) Unwrap() error { return e.Err }

// usage and fail are short for the two kinds of error that this package makes.
func usage(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

func fail(reason transport.Reason, op string, err error) error {
	return &transport.Error{Reason: reason, Op: op, Err: err}
}

// problem is a problem document (RFC 9457) as the API answers it, checked and bounded.
type problem struct {
	code       transport.Reason
	text       string        // the server's word, filtered
	retryAfter time.Duration // zero: at once
}

func (p *problem) Error() string { return p.text }

// Why makes ReasonOf find the code.
func (p *problem) Why() transport.Reason { return p.code }

// retryAfter is how long the server wants to be left alone after err.
func retryAfter(err error) time.Duration {
	if p, ok := errors.AsType[*problem](err); ok {
		return p.retryAfter
	}
	return 0
}

// ExitCode is the exit code of a command that ended with err, as cli.md lists them.
func ExitCode(err error) int {
	if err == nil {
		return exitDone
	}
	if _, ok := errors.AsType[*UsageError](err); ok {
		return exitUsage
	}
	if _, ok := errors.AsType[*transport.DialError](err); ok && !errors.Is(err, context.Canceled) {
		return exitUnreachable // also when somebody else answers there: the server itself was not reached
	}
	if isOwnFault(err) {
		return exitNotLoggedIn
	}
	switch reason := transport.ReasonOf(err); reason {
	case transport.Policy, transport.Locked, transport.Revoked, transport.BadCode:
		return exitRefused
	default:
		if isUnreachable(reason) && !errors.Is(err, context.Canceled) {
			return exitUnreachable
		}
	}
	return exitFailed
}

// isOwnFault reports whether it is the own certificate that is not accepted. Some reasons say so only when the API gives
// them: from anybody else they are about a server.
func isOwnFault(err error) bool {
	switch transport.ReasonOf(err) {
	case NotLoggedIn, transport.NotEnrolled, transport.Expired, transport.WrongKey:
		return true
	case transport.WrongRoot, transport.WrongKind, transport.BadCertificate:
		_, ok := errors.AsType[*problem](err)
		return ok
	}
	return false
}

// isUnreachable lists the reasons that say that something on the way, or the device itself, cannot be reached now.
func isUnreachable(reason transport.Reason) bool {
	return slices.Contains([]transport.Reason{
		transport.Refused, transport.Timeout, transport.Unreachable, transport.Reset, transport.ResetAfterHello,
		transport.PlainHTTP, transport.CaptivePortal, transport.NotTLS, transport.TLSRefused, transport.TLSIntercepted,
		transport.WrongProtocol, transport.DNS, transport.Offline, transport.NoRelay, transport.NoPeer, transport.LinkLost,
	}, reason)
}

// isFinal reports whether asking again for a session is in vain: a person has to act first.
func isFinal(err error) bool {
	switch ExitCode(err) {
	case exitUsage, exitNotLoggedIn, exitRefused:
		return true
	}
	switch transport.ReasonOf(err) {
	case transport.NoDevice, NotFound, BadRequest, MethodNotAllowed, TooLarge, transport.Unsupported:
		return true
	}
	return false
}

// Explain is err as one line for a person: what failed, on what, why, and what to do. Nothing in it acts on a terminal.
func Explain(err error) string {
	text := err.Error()
	if errors.Is(err, context.Canceled) {
		return "interrupted"
	}
	if advice := advise(err); advice != "" {
		text += "; " + advice
	}
	return clean(text)
}

// advise says what to do about err, or nothing when there is nothing better than the error itself.
func advise(err error) string {
	if _, ok := errors.AsType[*UsageError](err); ok {
		return "see --help"
	}
	if ExitCode(err) == exitNotLoggedIn {
		return "log in again with a new code: hawser login HOST --code CODE --pin SHA256"
	}
	switch reason := transport.ReasonOf(err); reason {
	case transport.Expired:
		return "the server's certificate is over, or the clock of this computer is wrong"
	case transport.BadCode:
		return "codes work once and for a limited time: ask for a new one"
	case transport.Revoked:
		return "ask who administers the domain"
	case transport.Policy:
		return "the device's owner does not allow it"
	case transport.Locked:
		return "somebody at the device has to turn its key switch"
	case transport.NoDevice, NotFound:
		return "see hawser device list"
	case NameTaken:
		return "choose another name"
	case transport.Offline:
		return "check the device's power and network"
	case transport.NoRelay, transport.NoPeer:
		return "ask who runs the servers whether a relay is up, and try again"
	case transport.Busy:
		return "try again later"
	case transport.WrongRoot:
		return "check --pin or --root: the server belongs to another infrastructure"
	case transport.TLSIntercepted:
		return "a proxy opens TLS on the way: ask the network's IT to exempt the server"
	case transport.ClockWrong:
		return "set the clock of this computer"
	case transport.CaptivePortal:
		return "log in to the network first, in a browser"
	case transport.DNS:
		return "check the server's name, or give its address"
	default:
		if isUnreachable(reason) && ExitCode(err) == exitUnreachable {
			return "check the network and its firewall"
		}
	}
	return ""
}
