package agent

import (
	"errors"
	"io/fs"

	"hawser/identity"
	"hawser/internal/answer"
	"hawser/transport"
)

// ExitCode is answer.Code of an error of this package. Provisioning scripts branch on it: not enrolled is a normal
// state of a new gateway and no failure.
func ExitCode(err error) int {
	if errors.Is(err, ErrNotEnrolled) {
		return answer.ExitNotEnrolled
	}
	return answer.Code(err)
}

// Advice says what to do about err at a gateway: what a person there can do, or what is best for everybody. Faults of
// the code come before reasons: they were found without asking anybody.
func Advice(err error) string {
	if errors.Is(err, fs.ErrPermission) {
		return "run it as root (Windows: as an administrator)"
	}
	if _, ok := errors.AsType[serversCode](err); ok {
		return "make a code for this device with hawser device add: it begins with U"
	}
	if identity.FaultOf(err) == identity.FaultBadCode {
		return "the code has a typing error: compare it with what hawser device add printed"
	}
	switch transport.ReasonOf(err) {
	case transport.BadCode, transport.NotStated:
		return "make a new code with hawser device add"
	case transport.WrongRoot, transport.TLSIntercepted, transport.CaptivePortal: // which say what to do better than netcheck
		return answer.Advice(err)
	}
	if answer.Code(err) == answer.ExitUnreachable {
		return "see which way is open with hawser-agent netcheck"
	}
	return answer.Advice(err)
}
