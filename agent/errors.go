package agent

import (
	"errors"

	"hawser/identity"
	"hawser/transport"
)

// Refused reports whether err is somebody's decision: to try again would not
// change it.
func Refused(err error) bool {
	switch transport.ReasonOf(err) {
	case transport.BadCode, transport.BadCSR, transport.Revoked, transport.WrongKey, transport.NoDevice, transport.Policy:
		return true
	}
	return false
}

// Unreachable reports whether err says that no server could be reached, or none
// that proves to be ours.
func Unreachable(err error) bool {
	_, ok := errors.AsType[*transport.DialError](err)
	return ok || transport.ReasonOf(err) == transport.LinkLost || transport.ReasonOf(err) == transport.BadTime
}

// Advice says what to do about err, or nothing.
func Advice(err error) string {
	if identity.FaultOf(err) == identity.FaultBadCode {
		return "the code has a typing error: compare it with what hawser device add printed"
	}
	switch transport.ReasonOf(err) {
	case transport.BadCode:
		return "make a new code with hawser device add"
	case transport.Busy:
		return "wait a minute and try again"
	case transport.Revoked:
		return "ask the operator of the infrastructure"
	case transport.WrongRoot, transport.TLSIntercepted:
		return "compare --root or --pin with what hawser-server init printed, or ask the site's IT to exempt this host from TLS inspection"
	}
	if Unreachable(err) {
		return "see which way is open with hawser-agent netcheck"
	}
	return ""
}
