package manager

import (
	"errors"
	"time"

	"hawser/internal/answer"
	"hawser/transport"
	"hawser/transport/api"
)

// usage and fail make the two kinds of error of this package.
func usage(format string, args ...any) error { return answer.Usage(format, args...) }

func fail(reason transport.Reason, op string, err error) error {
	return &transport.Error{Reason: reason, Op: op, Err: err}
}

// problem is a problem document (RFC 9457) from the API, checked and bounded.
type problem struct {
	code       transport.Reason
	text       string        // of the server, cleaned
	retryAfter time.Duration // zero: at once
}

func (p *problem) Error() string { return p.text }

// Why makes ReasonOf find the code.
func (p *problem) Why() transport.Reason { return p.code }

// retryAfter is how long the server asks us to wait after err. It is bounded already; the random time comes on top
// (internal/wait), or all that were sent away would come back in one instant.
func retryAfter(err error) time.Duration {
	if p, ok := errors.AsType[*problem](err); ok {
		return p.retryAfter
	}
	return 0
}

// ExitCode is answer.Code of an error of this package. A failed search is not one of the user's own faults even if a
// server said "expired": it was about that server's certificate.
func ExitCode(err error) int {
	code := answer.Code(err)
	if _, dialled := errors.AsType[*transport.DialError](err); code != answer.ExitUsage && !dialled && isOwnFault(err) {
		return answer.ExitNotEnrolled
	}
	return code
}

// isOwnFault reports whether it is this user's certificate that is not accepted. Some reasons say so only when the API
// gives them: from anybody else they are about a server.
func isOwnFault(err error) bool {
	switch transport.ReasonOf(err) {
	case api.NotLoggedIn, transport.Expired:
		return true
	case transport.WrongRoot, transport.WrongKind, transport.BadCertificate:
		_, ok := errors.AsType[*problem](err)
		return ok
	}
	return false
}

// isFinal reports whether asking again for a session is useless until a person has acted. Everything else heals by
// itself, or may: a gateway that is offline comes back, a clock is set, a relay is started.
func isFinal(err error) bool {
	// What answers on the way to a server may be another one tomorrow, also one under another root.
	if _, dialled := errors.AsType[*transport.DialError](err); dialled {
		return false
	}
	switch ExitCode(err) {
	case answer.ExitUsage, answer.ExitNotEnrolled, answer.ExitRefused:
		return true
	}
	switch transport.ReasonOf(err) {
	// These are not in a class that means refusal, but the same request gets the same answer.
	case transport.NoDevice, api.NotFound, api.BadRequest, api.MethodNotAllowed, api.TooLarge, transport.Unsupported:
		return true
	}
	return false
}

// IsNotFound reports whether the server has no such thing.
func IsNotFound(err error) bool { return transport.ReasonOf(err) == api.NotFound }

// Explain is err as one line for a person: what failed, on what, why, and what to do.
func Explain(err error) string { return answer.Line(err, Advice(err)) }

// Advice says what to do about err at a technician's PC: what this user can do, or what is best for everybody.
func Advice(err error) string {
	switch ExitCode(err) {
	case answer.ExitUsage:
		return "see --help"
	case answer.ExitNotEnrolled:
		return "log in with a new code: hawser login HOST --code CODE --pin SHA256"
	}
	switch transport.ReasonOf(err) {
	case transport.BadCode:
		return "codes work once and for a limited time: ask for a new one"
	case transport.Revoked:
		return "ask who administers the domain"
	case api.NotFound:
		return "see hawser device list, or hawser user list"
	case transport.Policy:
		if _, ok := errors.AsType[*problem](err); ok {
			return "your role does not allow it: an admin of the domain can"
		}
	case api.NameTaken:
		return "choose another name"
	case transport.Ended:
		return "ask who has ended it, then connect again"
	case transport.NotStated:
		return "who gets in is stated by an admin of the domain: see hawser user list, hawser user renew"
	case transport.Stale:
		return "somebody knows of a newer list or statement: try again; it comes with the next technician who has it"
	case transport.DomainTaken:
		return "" // the error says it
	case transport.InviteUsedTwice:
		return "two keys came with one code: somebody has copied it; an admin makes a new one, and revokes what is not known"
	case transport.ListFull:
		return "the lists do not fit any more: whoever has the domain key signs a new one"
	case transport.WrongRoot:
		return "check --pin or --root: the server belongs to another infrastructure"
	}
	advice := answer.Advice(err)
	_, dialled := errors.AsType[*transport.DialError](err)
	if dialled && advice != "" && transport.ReasonOf(err).Class() == transport.ClassUnreachable {
		advice += "; see which way is open with hawser netcheck"
	}
	return advice
}
